/* config.h — the resolved configuration: what the schema table fills and the worker reads.
 *
 * The vocabulary is torchtune's. A member exists once; its default, range, unit and sentence stand in its row of
 * schema.c, nowhere else. Strings are owned by the config; NULL = null. Integers: -1 = null where null is legal.
 * Doubles: NAN = null. */
/* clang-format off */
#ifndef TRIMPOT_CONFIG_H
#define TRIMPOT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum recipe { RECIPE_FULL, RECIPE_LORA };
enum adapt { ADAPT_NONE, ADAPT_LORA, ADAPT_QLORA }; /* from recipe, model._component_ and quantize_base */
enum device_kind { DEVICE_CUDA, DEVICE_EMU, DEVICE_CPU, DEVICE_AUTO }; /* AUTO: not written; device_set is false */
enum config_dtype { CONFIG_BF16, CONFIG_FP32 };
enum reduce_kind { REDUCE_TREE, REDUCE_FAST };
enum tri { TRI_AUTO, TRI_BF16, TRI_FP32 };
enum data_kind { DATA_AUTO, DATA_INSTRUCT, DATA_ALPACA, DATA_QA, DATA_CHAT, DATA_COMPLETION };
enum masking { MASK_DEFAULT, MASK_TRAIN_ON_ALL, MASK_TRAIN_ON_ASSISTANT, MASK_TRAIN_ON_LAST };
enum conversation { CONVERSATION_AUTO, CONVERSATION_OPENAI, CONVERSATION_SHAREGPT };
enum too_long { TOO_LONG_TRUNCATE, TOO_LONG_DROP, TOO_LONG_SPLIT, TOO_LONG_ERROR };
enum bad_row { BAD_ROW_STOP, BAD_ROW_SKIP };
enum ac_mode { AC_AUTO, AC_NONE, AC_FULL, AC_SELECTIVE };
enum recompute { RECOMPUTE_AUTO, RECOMPUTE_NONE, RECOMPUTE_PRODUCTS, RECOMPUTE_FFN, RECOMPUTE_ATTENTION, RECOMPUTE_BLOCK };
enum config_optim { CONFIG_ADAMW, CONFIG_ADAM, CONFIG_SGD, CONFIG_ADAMW_8BIT, CONFIG_ADAM_8BIT, CONFIG_SGD_8BIT };
enum config_schedule { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };
enum model_init { INIT_PRETRAINED, INIT_RANDOM };
enum { BUDGET_NONE = -1, BUDGET_AUTO = -2 }; /* memory_budget: null, auto */
enum lora_start { START_UNIFORM, START_GAUSSIAN, START_ORTHOGONAL, START_PISSA, START_OLORA,
                  START_ROUNDS = 8, START_KINDS = (1 << START_ROUNDS) - 1 }; /* pissa_niter_N: START_PISSA | N << START_ROUNDS */
enum attn_module { MODULE_Q = 1, MODULE_K = 2, MODULE_V = 4, MODULE_O = 8 };

struct config_pair { char *key, *value; };

struct config_dataset {
    char *component;          /* as written, NULL = by shape */
    enum data_kind kind;
    char *source;             /* json | csv | text | hub id */
    char **data_files; int n_data_files;
    char *split;              /* "train", "train[:95%]", … */
    bool packed; int split_across_pack; /* -1 default by kind */
    int train_on_input;       /* -1 unset, 0, 1 */
    enum masking masking;
    struct config_pair *column_map; int n_column_map;
    char *column;             /* completion: which column */
    char *conversation_column; enum conversation conversation_style;
    char *new_system_prompt;
    bool add_eos;
    enum bad_row on_bad_row;
    char *prompt_template;    /* a dataset may carry its own (grammar, samsum); else the tokenizer's */
};

struct config_lora {
    unsigned attn_modules;    /* MODULE_* bits */
    bool mlp, output;
    int64_t rank; double alpha, dropout, plus_ratio; /* NAN: A and B learn alike */
    bool use_rslora, use_dora;
    int start;                /* enum lora_start, and rounds */
    char **modules_to_save; int n_modules_to_save;
    struct config_pair *rank_pattern, *alpha_pattern; int n_rank_pattern, n_alpha_pattern; /* module or regular expression: number */
};

/* Is the start a part of the weight that the adapter sits on, which the weight then loses? */
static inline bool start_is_of_weights(int start) { return (start & START_KINDS) >= START_PISSA; }

struct config_profiler {
    bool enabled, cpu, cuda, record_shapes, with_flops, memory, stack;
    char *output_dir; /* NULL = output_dir/profiling_outputs */
    int64_t wait_steps, warmup_steps, active_steps, num_cycles;
};

struct config {
    enum recipe recipe; bool single_device; /* torchtune's _single_device names: refuse more than one rank */
    char *recipe_name;        /* as given: "lora_finetune_single_device" */
    char *source;             /* path of the YAML, NULL when there is none */
    bool *written;            /* per row of the schema: by the file or on the command line; config_wrote asks */
    char *output_dir;
    bool seed_set; int64_t seed;
    bool deterministic; int64_t attn_workspace; /* on a GPU too; bytes that its attention may then keep scores in */
    bool cuda_graphs;
    enum device_kind device; bool device_set; enum config_dtype dtype;
    int64_t epochs, max_steps_per_epoch, batch_size, gradient_accumulation_steps;
    bool shuffle; double clip_grad_norm; bool optimizer_in_bwd;

    struct { char *component, *path, *merges_file, *special_tokens_path, *prompt_template;
             struct config_pair *template_roles; int n_template_roles; /* {role: [prefix, suffix]}: key role, value "prefix\0suffix" */
             int64_t max_seq_len; bool truncate_left;
             const char *family; /* "llama3", from the component; NULL = from the directory. Not owned */ } tokenizer;
    struct config_dataset dataset[8]; int n_dataset;
    struct config_dataset dataset_val; bool has_val;
    double val_fraction;      /* (t) dataset_val_fraction: last rows of the training set; NAN = none */
    int64_t batch_size_val, run_val_every_n_steps;
    enum too_long on_too_long; bool torchtune_templates, allow_special_in_text;
    char *chat_template;      /* "model", a name of render_named.c, or a file; NULL = by rules (render.h) */
    struct config_pair *template_variables; int n_template_variables; /* chat_template_kwargs: values as YAML scalars */

    struct { char *component; enum adapt adapt; bool quantize_base; struct config_lora lora; enum model_init init;
             const char *family; char size[24]; /* "llama3_2", "1b", from the component; NULL, "" = from config.json */
           } model;
    struct { char *component, *checkpoint_dir, *model_type, *output_dir, *adapter_checkpoint;
             int64_t keep_last_n; } checkpointer;
    bool resume; bool save_adapter_weights_only; char *merge_base; int64_t save_every_n_steps;

    struct { char *component; enum config_optim kind; double lr, weight_decay, beta1, beta2, eps, momentum, dampening;
             bool nesterov; int64_t min_8bit_size; bool quantize_embeddings;
             bool is_paged; int64_t paged_resident /* bytes, -1 = what is free */, paged_window, min_paged_size;
             bool on_host; enum config_optim optimizer_class; int64_t host_window; } optimizer;
    struct { char *component; enum config_schedule kind; int64_t num_warmup_steps; double num_cycles; } schedule;

    enum ac_mode ac_mode; int64_t ac_option; /* resolved: enable_activation_checkpointing = AC_FULL */
    bool enable_activation_checkpointing;    /* resolved: ac_mode == AC_FULL */
    enum recompute recompute;                /* AUTO: as the three above say */
    int64_t mlp_tile_tokens;
    bool enable_activation_offloading, activation_offloading_use_streams;
    bool stochastic_rounding; enum tri master_weights, state_dtype; /* master: TRI_AUTO = none */
    enum reduce_kind reduce; int64_t reduce_bucket /* bytes */, virtual_ranks; int64_t memory_budget; /* bytes; -1 = what the machine has, nothing chosen */
    int64_t max_skipped_steps; bool warmup_start_one;
    int64_t peer_timeout; /* seconds, 0 = never */
    int64_t head_chunk_rows; bool dequantize_ahead;

    bool log_stdout_metrics; int64_t log_every_n_steps;
    struct config_profiler profiler;
};

/* A key that an option sets: the option's bytes are the value. YAML, ${…} and ~/ mean nothing in them, and null is a
 * name like any other. */
struct config_setting {
    const char *key, *value; /* value NULL: the option was not given */
    const char *said;        /* the option, for messages: "--adapter" */
};

/* Everything a command line can say to a verb that takes a configuration. What stands earlier here gives way. */
struct config_args {
    const char *recipe;       /* positional, NULL for `validate` */
    const char *config;       /* --config: a shipped name or a path; NULL = none */
    const char *model, *data, *output; /* the short form: literal settings of every such verb */
    const struct config_setting *settings; int n_settings; /* those of one verb */
    const char *const *overrides; int n_overrides; /* key=value, ~key, in order: the values are YAML */
    const int *override_at;   /* for messages: the number of each on the command line (VERB = 1); NULL: 1, 2, … */
    bool no_rows;             /* the verb reads none: data files may be missing */
    const char *shipped_dir;  /* where shipped recipes live (shipped.h) */
};

/* Parses, checks and resolves. On failure ST_USAGE and one message that lists every error of the file and of the
 * command line, each as FILE:LINE:COL: or "argument N ('key=value'):", with the value and the remedy. Notes (keys
 * accepted without effect) go to log_note. `require_paths`: also check that the named files exist. */
status config_load(const struct config_args *args, bool require_paths, struct config **out);
void config_free(struct config *c);

/* The same from memory: `text` stands for the file args->config would name, `name` for its path in messages. args may
 * be NULL (no overrides, recipe from the text). */
status config_parse_text(const char *name, const char *text, size_t bytes, const struct config_args *args,
                         struct config **out);

/* Whether a person wrote this key (of a data set: in the first one), and not null, instead of leaving it to its default. */
bool config_wrote(const struct config *c, const char *path);

/* The value of a key outside of data sets, as text that config_with takes; caller frees. NULL: there is no such key. */
char *config_value(const struct config *c, const char *path);

/* c with some keys changed: "key=value key=value …", applied as overrides are and judged by the same rules, so that ST_USAGE says why
 * not. What counts as written is what is written in c. */
status config_with(const struct config *c, const char *settings, struct config **out);

/* The effective configuration as YAML that config_load reads back to the same values; caller frees. */
char *config_text(const struct config *c);

/* "old_key: 8 -> 16" lines for keys whose values differ and matter on resume; NULL if none. Caller frees.
 * *changes_maths: one of them means another training (batch_size, accumulation, data files and model directory are
 * listed but do not count: compare total batch and hashes). An unreadable old_yaml counts, with the reason as the line. */
char *config_diff(const char *old_yaml, const struct config *now, bool *changes_maths);

/* For `trimpot run --help` and the reference page: all keys with default, type, sentence. Caller frees. */
char *config_reference(void);

#endif
