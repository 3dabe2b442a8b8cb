/* hf.h — Hugging Face and PEFT directories, in and out: safetensors, config.json, adapter_config.json.
 *
 * Input is hostile until checked: every length, offset, product is verified before use. */
#ifndef TRIMPOT_HF_H
#define TRIMPOT_HF_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/file.h"
#include "kernels/base/status.h"
#include "kernels/base/tensor.h"

/* ---- safetensors ------------------------------------------------------------------------------------------------ */

struct st_entry {
    char *name;
    dtype dt;   /* only when `known` */
    bool known; /* F32, F16, BF16, F64, I32, I64, U8; others only pass through */
    char dtype_text[16];
    int rank;
    int64_t dim[8];
    const void *data; /* in the map; no alignment is promised */
    size_t bytes;
    const char *file; /* for messages */
};

/* All tensors of a directory (single file or index + shards) or of one file, memory-mapped, sorted by name. */
struct st_set {
    struct st_entry *entries;
    int n;
    struct file_map *maps;
    int n_maps;
    size_t bytes; /* tensor bytes together */
};

/* dir_or_file: a directory with model.safetensors or else model.safetensors.index.json (stem chooses others, e.g.
 * "adapter_model"), or one .safetensors file. Of an index's shards all tensors are taken; where two shards hold one of
 * the same name, the index decides. A directory with only .bin/.pth files is refused with a pointer to the safetensors
 * variant. */
status st_open(const char *dir_or_file, const char *stem, struct st_set *out);
bool st_exists(const char *dir, const char *stem); /* there is something that st_open would open */
void st_close(struct st_set *s);
const struct st_entry *st_find(const struct st_set *s, const char *name); /* NULL if absent */

/* Checks one in-memory image: the fuzzer's entry and st_open's core. `path` for messages. */
status st_parse(const char *path, const unsigned char *data, size_t bytes, struct st_entry **entries, int *n);
void st_entries_free(struct st_entry *entries, int n);

/* Streaming writer: declare all tensors, then write their bytes in the order st_writer_next tells. Writes into
 * temporary files and commits (fsync, rename) in st_writer_close; an aborted one leaves nothing. Shards of
 * shard_bytes (0: one file) named STEM-%05d-of-%05d.safetensors with an index. Tensors sorted by widest dtype, then
 * name. */
struct st_writer;
struct st_declare {
    const char *name;
    dtype dt;
    int rank;
    int64_t dim[4];
};
status st_writer_open(const char *dir, const char *stem, const struct st_declare *tensors, int n, size_t shard_bytes,
                      struct st_writer **out);
int st_writer_next(const struct st_writer *w);                             /* index into `tensors`, -1 when all are written */
status st_writer_add(struct st_writer *w, const void *data, size_t bytes); /* the next bytes of tensor st_writer_next() */
status st_writer_put(struct st_writer *w, const void *data);               /* all of its bytes at once */
status st_writer_close(struct st_writer *w, bool commit);

/* ---- config.json ------------------------------------------------------------------------------------------------ */

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONGROPE };
enum { ROPE_STRETCHES = 256 }; /* longrope: pairs at most */
struct hf_rope {
    enum rope_type type;
    double theta, factor, partial;
    int64_t original;          /* llama3, yarn, longrope: positions before they were stretched */
    double low, high;          /* llama3: factors; yarn: rotations (beta_slow, beta_fast) */
    double attention;          /* what cos and sin are multiplied by: 1 but for yarn and longrope */
    double mscale, mscale_all; /* yarn: what `attention` is made of, if given */
    bool truncate;             /* yarn: the ramp begins and ends at whole dimensions */
    int n_stretch;             /* longrope: what each pair's frequency is divided by, up to `original` tokens and beyond them */
    float stretch[2][ROPE_STRETCHES];
};

enum { HF_MAX_LAYERS = 1024, HF_ABSENT = -1 };
enum hf_ropes { HF_ROPE_UNSAID, HF_ROPE_SCALING, HF_ROPE_PARAMETERS, HF_ROPE_BY_TYPE };

/* What config.json says, with 4.x and 5.x spellings folded. What it leaves out is absent: HF_ABSENT, or 0 where that could not
 * be said; only the family knows what that means. Flags: HF_ABSENT, 0, 1. */
struct hf_config {
    char model_type[32], architecture[64], hidden_act[32], hidden_activation[32], torch_dtype[16]; /* "" = absent */
    int64_t vocab_size, hidden_size, intermediate_size, layers, heads;
    int64_t kv_heads, head_dim, max_positions; /* 0 = absent */
    double rms_norm_eps;
    int tie_word_embeddings, attention_bias, mlp_bias, use_sliding_window;
    int64_t sliding_window, max_window_layers; /* window 0 = none, said so */
    int64_t sliding_window_pattern;            /* 0 = absent */
    double query_pre_attn_scalar;              /* 0 = absent */
    double attn_cap, head_cap;                 /* 0 = none, said so */
    bool has_layer_types;
    uint8_t slides[HF_MAX_LAYERS]; /* layer_types: 1 = sliding_attention */
    enum hf_ropes ropes;
    struct hf_rope rope[2]; /* of all layers; BY_TYPE: of global ones, of sliding ones. Unsettled: 0 = absent */
    double local_theta;     /* rope_local_base_freq; 0 = absent */
    int32_t bos, pad, eos[32];
    int n_eos;                  /* -1 none; generation_config.json overrides */
    char dropouts[256];         /* keys with their values, that training does not apply; "" = none */
    char generation_fault[512]; /* why generation_config.json cannot be used; "" = it can, or is not there */
};

/* Only model_type (or text_config.model_type), so that a foreign family is named before its sizes are judged. */
status hf_config_model_type(const char *dir, char *out, size_t cap);

/* ST_IO missing, ST_CORRUPT not JSON or a wrong type (file:line or key, value, remedy), ST_NOT_BUILT for fields whose
 * mathematics trimpot lacks (unknown rope type, experts, weights quantised otherwise than bnb.h says…). The family is not judged here. A
 * generation_config.json that cannot be read is a `generation_fault`: who needs it fails with it. */
status hf_config_read(const char *dir, struct hf_config *out);
status hf_config_parse(const char *path, const char *json, size_t n, struct hf_config *out); /* fuzz entry */
/* Once nothing is absent: hidden % heads, heads % kv_heads, an even head size, products that fit. path: for messages. */
status hf_config_check(const char *path, const struct hf_config *c);
/* A rope's own absent numbers, once theta is not and the positions are known: what follows from the others. */
status hf_rope_settle(const char *path, struct hf_rope *r, int64_t max_positions);
void hf_config_warn(const char *dir, const struct hf_config *c); /* of what a training leaves out: dropouts, the fault */

/* What an export says differently from its base. */
struct hf_export {
    const char *dtype;         /* of the weights, into config.json: "float32", "bfloat16"; NULL: as it is */
    bool unquantised;          /* the weights are no longer what config.json's quantization_config says */
    bool untied;               /* the head is a tensor of its own, whatever config.json said */
    const char *tokenizer;     /* the directory or file that was used; NULL or in the base: the base's files */
    const char *merges_file;   /* beside a vocab.json that is named as a file; NULL: merges.txt beside it */
    const char *chat_template; /* what chats were rendered with; NULL: the base's, untouched; "": no template says it */
    const int32_t *end_ids;
    int n_end; /* what was trained to end an answer: joins eos_token_id */
};

/* Copies config.json, generation_config.json, tokenizer files and chat templates; what `e` does not change stays as it is,
 * byte for byte. Absent files are skipped, but generation_config.json is made where there are end_ids, and
 * chat_template.jinja where there is a template: no other file then says another one. */
status hf_copy_side_files(const char *from_dir, const char *to_dir, const struct hf_export *e);
/* The same beside an adapter: without config.json, and generation_config.json only with end_ids. */
status hf_copy_adapter_files(const char *from_dir, const char *to_dir, const struct hf_export *e);

/* eos_token_id of DIR/generation_config.json, a number or a list; *n = 0 without file or key. The caller frees. */
status hf_generation_ends(const char *dir, int32_t **ids, int *n);

/* ---- PEFT ------------------------------------------------------------------------------------------------------- */

/* Module names, layer numbers or patterns, as written and in their order; a pattern's `value` is what it assigns. */
struct peft_rule {
    char *text;
    void *regex;
    double value;
};
struct peft_rules {
    struct peft_rule *rule;
    int n;
    bool is_regex; /* one regex instead of a list of names */
};

struct peft_config {
    int64_t r;
    double lora_alpha, lora_dropout;
    bool target_all_linear;
    struct peft_rules target, exclude; /* target_modules, exclude_modules */
    struct peft_rules layers, layers_pattern, rank_pattern, alpha_pattern;
    struct peft_rules saved; /* modules_to_save: trained and saved whole */
    bool use_rslora, use_dora;
    bool frozen_b; /* MiCA: training moves A only */
    char *base_model;
};

/* adapter_config.json: what PEFT's own load would do, or refused by key: fields that change the mathematics and are not
 * built, initialisations that change the base when the adapter is loaded, keys nobody knows with values that mean
 * something. An absent target_modules means q_proj and v_proj. */
status peft_config_read(const char *dir, struct peft_config *out);
status peft_config_parse(const char *path, const char *json, size_t n, struct peft_config *out);
void peft_config_free(struct peft_config *p);
void peft_target_add(struct peft_config *p, const char *name);
/* One more pattern of ranks or of alphas, behind those that are there. ST_CORRUPT: not a regular expression; `where` is for the message. */
status peft_pattern_add(struct peft_config *p, bool of_ranks, const char *where, const char *pattern, double value);
/* One more name of modules_to_save. */
void peft_saved_add(struct peft_config *p, const char *name);
/* Is this module, e.g. "lm_head", trained and saved whole? As PEFT: its path ends with one of the names, at a dot or not. */
bool peft_saves(const struct peft_config *p, const char *module_path);
bool peft_pattern_matches(const struct peft_rule *pattern, const char *module_path);
/* Does the adapter select this linear or embedding, e.g. "model.layers.0.self_attn.q_proj"? By target_modules,
 * exclude_modules and layers_to_transform, as PEFT. */
bool peft_targets(const struct peft_config *p, const char *module_path);
/* Of a selected module: r and lora_alpha, or what the first matching pattern says. */
int64_t peft_rank(const struct peft_config *p, const char *module_path);
double peft_alpha(const struct peft_config *p, const char *module_path);
status peft_config_write(const char *dir, const struct peft_config *p); /* sorted keys, indent 2, inference_mode */

#endif
