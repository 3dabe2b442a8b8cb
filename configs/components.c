/* components.c — every `_component_` path this program knows: what it selects, what it takes, why it is refused. */
/* clang-format off */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/families.h"
#include "configs/schema.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- arguments; "name=value" gives the default that holds under this component ---- */

#define TORCH_SWITCHES " amsgrad maximize differentiable capturable fused foreach"
#define ADAM_ARGS      "lr betas eps on_host host_window"
#define BNB_ARGS       " amsgrad optim_bits min_8bit_size percentile_clipping block_wise quantize_embeddings is_paged paged_resident " \
                       "paged_window min_paged_size"
#define PAGED_ARGS     BNB_ARGS " is_paged=true"
#define AO_8BIT  ADAM_ARGS " amsgrad block_size bf16_stochastic_round min_8bit_size quantize_embeddings"
#define HOST_ARGS "lr betas eps weight_decay=0.01 momentum dampening nesterov amsgrad fused foreach maximize capturable differentiable block_size " \
                  "bf16_stochastic_round min_8bit_size quantize_embeddings optimizer_class offload_gradients minimal_size host_window " \
                  "on_host=true"
#define SGD_ARGS       "lr momentum dampening weight_decay=0 nesterov on_host host_window"
#define OPTIMIZER_ANY  "lr weight_decay betas eps momentum dampening nesterov" TORCH_SWITCHES BNB_ARGS
#define CHECKPOINT_ARGS                                                                         \
    "checkpoint_dir checkpoint_files model_type output_dir adapter_checkpoint recipe_checkpoint " \
    "keep_last_n_checkpoints safe_serialization enable_dcp"
#define HUB_ARGS     "source data_files split packed filter_fn prompt_template name subset revision cache_dir on_bad_row " \
                     "max_seq_len "
#define INSTRUCT     HUB_ARGS "column_map train_on_input masking_strategy new_system_prompt"
#define CHAT         INSTRUCT " conversation_column conversation_style"
#define COMPLETION   HUB_ARGS "column add_eos split_across_pack"
#define DATASET_ANY  CHAT " column add_eos split_across_pack"
#define LORA_ARGS    "lora_attn_modules apply_lora_to_output lora_rank lora_alpha lora_dropout use_dora use_rslora " \
                     "lora_plus_ratio init_lora_weights rank_pattern alpha_pattern modules_to_save init"
#define LOSS_ARGS    "num_output_chunks ignore_index mask_ignored_tokens"
#define LOG_ARGS     "log_dir"
#define PROFILE_ARGS "enabled output_dir cpu cuda xpu profile_memory with_stack record_shapes with_flops wait_steps " \
                     "warmup_steps active_steps num_cycles"
#define TOKENIZER    "path max_seq_len prompt_template truncation_type special_tokens_path"

#define NO_4BIT  "4-bit optimizer states are not built yet; torchao.optim.AdamW8bit has 8-bit ones"
#define NO_FP8   "FP8 optimizer states are not built yet; torchao.optim.AdamW8bit has 8-bit ones"
#define NO_LION  "Lion is not built yet; torch.optim.AdamW, Adam and SGD are"
#define NO_OTHER "this optimizer is not supported; torch.optim.AdamW, Adam and SGD are"
#define NO_PREF  "preference data is not supported yet"
#define NO_IMAGE "this program trains on text"
#define NO_PICKLE "it reads Python pickles; take the model's safetensors with torchtune.training.FullModelHFCheckpointer"
#define NO_NET   "nothing is sent over the network: the log is output_dir/metrics.jsonl"
#define BNB_DECAY "weight decay is decoupled, as in bitsandbytes"

static const struct component table[] = {
    {"optimizer", "torch.optim.AdamW", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0.01" TORCH_SWITCHES},
    {"optimizer", "torch.optim.Adam", CONFIG_ADAM, ADAM_ARGS " weight_decay=0" TORCH_SWITCHES},
    {"optimizer", "torch.optim.SGD", CONFIG_SGD, SGD_ARGS " maximize differentiable fused foreach"},
    {"optimizer", "bitsandbytes.optim.AdamW", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0.01" BNB_ARGS,
     .note = "32-bit states"},
    {"optimizer", "bitsandbytes.optim.AdamW32bit", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0.01" BNB_ARGS},
    {"optimizer", "bitsandbytes.optim.PagedAdamW", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0.01" PAGED_ARGS},
    {"optimizer", "bitsandbytes.optim.PagedAdamW32bit", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0.01" PAGED_ARGS},
    {"optimizer", "bitsandbytes.optim.Adam", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0" BNB_ARGS, .note = BNB_DECAY},
    {"optimizer", "bitsandbytes.optim.Adam32bit", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0" BNB_ARGS,
     .note = BNB_DECAY},
    {"optimizer", "bitsandbytes.optim.PagedAdam", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0" PAGED_ARGS,
     .note = BNB_DECAY},
    {"optimizer", "bitsandbytes.optim.PagedAdam32bit", CONFIG_ADAMW, ADAM_ARGS " weight_decay=0" PAGED_ARGS,
     .note = BNB_DECAY},
    {"optimizer", "bitsandbytes.optim.SGD", CONFIG_SGD, "lr momentum weight_decay=0 nesterov on_host host_window" BNB_ARGS},
    {"optimizer", "bitsandbytes.optim.SGD32bit", CONFIG_SGD, "lr momentum weight_decay=0 nesterov on_host host_window" BNB_ARGS},
    {"optimizer", "bitsandbytes.optim.AdamW8bit", CONFIG_ADAMW_8BIT, ADAM_ARGS " weight_decay=0.01" BNB_ARGS},
    {"optimizer", "bitsandbytes.optim.PagedAdamW8bit", CONFIG_ADAMW_8BIT, ADAM_ARGS " weight_decay=0.01" PAGED_ARGS},
    {"optimizer", "bitsandbytes.optim.Adam8bit", CONFIG_ADAMW_8BIT, ADAM_ARGS " weight_decay=0" BNB_ARGS,
     .note = BNB_DECAY},
    {"optimizer", "bitsandbytes.optim.PagedAdam8bit", CONFIG_ADAMW_8BIT, ADAM_ARGS " weight_decay=0" PAGED_ARGS,
     .note = BNB_DECAY},
    {"optimizer", "bitsandbytes.optim.SGD8bit", CONFIG_SGD_8BIT, "lr momentum weight_decay=0 nesterov on_host host_window" BNB_ARGS},
    {"optimizer", "bitsandbytes.optim.Lion", 0, OPTIMIZER_ANY, NO_LION},
    {"optimizer", "bitsandbytes.optim.Lion32bit", 0, OPTIMIZER_ANY, NO_LION},
    {"optimizer", "bitsandbytes.optim.Lion8bit", 0, OPTIMIZER_ANY, NO_LION},
    {"optimizer", "bitsandbytes.optim.PagedLion", 0, OPTIMIZER_ANY, NO_LION},
    {"optimizer", "bitsandbytes.optim.PagedLion8bit", 0, OPTIMIZER_ANY, NO_LION},
    {"optimizer", "bitsandbytes.optim.AdEMAMix", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "bitsandbytes.optim.LAMB", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "bitsandbytes.optim.LARS", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "bitsandbytes.optim.RMSprop", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "bitsandbytes.optim.Adagrad", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "torch.optim.RMSprop", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "torch.optim.Adagrad", 0, OPTIMIZER_ANY, NO_OTHER},
    {"optimizer", "torchao.optim.AdamW8bit", CONFIG_ADAMW_8BIT, AO_8BIT " weight_decay=0.01"},
    {"optimizer", "torchao.optim.Adam8bit", CONFIG_ADAM_8BIT, AO_8BIT " weight_decay=0"},
    {"optimizer", "torchao.optim.AdamW4bit", 0, OPTIMIZER_ANY, NO_4BIT},
    {"optimizer", "torchao.optim.Adam4bit", 0, OPTIMIZER_ANY, NO_4BIT},
    {"optimizer", "torchao.optim.AdamWFp8", 0, OPTIMIZER_ANY, NO_FP8},
    {"optimizer", "torchao.optim.AdamFp8", 0, OPTIMIZER_ANY, NO_FP8},
    {"optimizer", "torchao.optim.CPUOffloadOptimizer", CONFIG_ADAMW, HOST_ARGS},
    {"optimizer", "torchao.prototype.low_bit_optim.AdamW8bit", CONFIG_ADAMW_8BIT, AO_8BIT " weight_decay=0.01"},
    {"optimizer", "torchao.prototype.low_bit_optim.Adam8bit", CONFIG_ADAM_8BIT, AO_8BIT " weight_decay=0"},
    {"optimizer", "torchao.prototype.low_bit_optim.AdamW4bit", 0, OPTIMIZER_ANY, NO_4BIT},
    {"optimizer", "torchao.prototype.low_bit_optim.AdamWFp8", 0, OPTIMIZER_ANY, NO_FP8},
    {"optimizer", "torchao.prototype.low_bit_optim.CPUOffloadOptimizer", CONFIG_ADAMW, HOST_ARGS},

    {"lr_scheduler", "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup", SCHEDULE_COSINE,
     "num_warmup_steps num_cycles"},
    {"lr_scheduler", "torchtune.training.get_cosine_schedule_with_warmup", SCHEDULE_COSINE,
     "num_warmup_steps num_cycles"},
    {"lr_scheduler", "torchtune.modules.get_cosine_schedule_with_warmup", SCHEDULE_COSINE,
     "num_warmup_steps num_cycles"},
    {"lr_scheduler", "torchtune.modules.lr_schedulers.get_cosine_schedule_with_warmup", SCHEDULE_COSINE,
     "num_warmup_steps num_cycles"},
    {"lr_scheduler", "cosine", SCHEDULE_COSINE, "num_warmup_steps num_cycles"},
    {"lr_scheduler", "linear", SCHEDULE_LINEAR, "num_warmup_steps"},
    {"lr_scheduler", "constant", SCHEDULE_CONSTANT, "num_warmup_steps"},

    {"loss", "torchtune.modules.loss.LinearCrossEntropyLoss", 0, LOSS_ARGS},
    {"loss", "torchtune.modules.loss.CEWithChunkedOutputLoss", 0, LOSS_ARGS},
    {"loss", "torch.nn.CrossEntropyLoss", 0, "ignore_index"},
    {"loss", "torchtune.rlhf.loss.DPOLoss", 0, LOSS_ARGS, "preference training is not built yet"},
    {"loss", "torchtune.modules.loss.ForwardKLLoss", 0, LOSS_ARGS, "distillation is recognised, not supported"},

    {"checkpointer", "torchtune.training.FullModelHFCheckpointer", 0, CHECKPOINT_ARGS},
    {"checkpointer", "torchtune.utils.FullModelHFCheckpointer", 0, CHECKPOINT_ARGS},
    {"checkpointer", "torchtune.training.FullModelMetaCheckpointer", 0, CHECKPOINT_ARGS, NO_PICKLE},
    {"checkpointer", "torchtune.utils.FullModelMetaCheckpointer", 0, CHECKPOINT_ARGS, NO_PICKLE},
    {"checkpointer", "torchtune.training.FullModelTorchTuneCheckpointer", 0, CHECKPOINT_ARGS, NO_PICKLE},
    {"checkpointer", "torchtune.utils.FullModelTorchTuneCheckpointer", 0, CHECKPOINT_ARGS, NO_PICKLE},

    {"metric_logger", "torchtune.training.metric_logging.DiskLogger", false, LOG_ARGS " output_fmt filename"},
    {"metric_logger", "torchtune.training.metric_logging.StdoutLogger", true, LOG_ARGS},
    {"metric_logger", "torchtune.training.metric_logging.TensorBoardLogger", false, LOG_ARGS " organize_logs",
     .note = "event files are not written yet; output_dir/metrics.jsonl is"},
    {"metric_logger", "torchtune.training.metric_logging.WandBLogger", false, LOG_ARGS " project entity group name",
     .note = NO_NET},
    {"metric_logger", "torchtune.training.metric_logging.CometLogger", false,
     LOG_ARGS " project workspace experiment_name",
     .note = NO_NET},
    {"metric_logger", "torchtune.training.metric_logging.MLFlowLogger", false, LOG_ARGS " experiment_name tracking_uri",
     .note = NO_NET},
    {"metric_logger", "torchtune.utils.metric_logging.DiskLogger", false, LOG_ARGS " output_fmt filename"},
    {"metric_logger", "torchtune.utils.metric_logging.StdoutLogger", true, LOG_ARGS},
    {"metric_logger", "torchtune.utils.metric_logging.TensorBoardLogger", false, LOG_ARGS " organize_logs",
     .note = "event files are not written yet; output_dir/metrics.jsonl is"},
    {"metric_logger", "torchtune.utils.metric_logging.WandBLogger", false, LOG_ARGS " project entity group name",
     .note = NO_NET},

    {"profiler", "torchtune.training.setup_torch_profiler", 0, PROFILE_ARGS},
    {"profiler", "torchtune.utils.setup_torch_profiler", 0, PROFILE_ARGS},
    {"tensor_parallel_plan", "torchtune.models.llama3.base_llama_tp_plan", 0, "", .note = "tensor_parallel_dim is 1"},

    {"dataset", "torchtune.datasets.alpaca_dataset", DATA_ALPACA, INSTRUCT " source=tatsu-lab/alpaca"},
    {"dataset", "torchtune.datasets.alpaca_cleaned_dataset", DATA_ALPACA, INSTRUCT " source=yahma/alpaca-cleaned"},
    {"dataset", "torchtune.datasets.instruct_dataset", DATA_INSTRUCT, INSTRUCT},
    {"dataset", "torchtune.datasets.grammar_dataset", DATA_INSTRUCT, INSTRUCT " source=liweili/c4_200m"},
    {"dataset", "torchtune.datasets.samsum_dataset", DATA_INSTRUCT,
     INSTRUCT " source=Samsung/samsum column_map={\"input\":dialogue,\"output\":summary}"},
    {"dataset", "torchtune.datasets.chat_dataset", DATA_CHAT, CHAT},
    {"dataset", "torchtune.datasets.slimorca_dataset", DATA_CHAT,
     CHAT " source=Open-Orca/SlimOrca-Dedup conversation_column=conversations conversation_style=sharegpt"},
    {"dataset", "torchtune.datasets.text_completion_dataset", DATA_COMPLETION, COMPLETION},
    {"dataset", "torchtune.datasets.cnn_dailymail_articles_dataset", DATA_COMPLETION,
     COMPLETION " source=ccdv/cnn_dailymail column=article"},
    {"dataset", "torchtune.datasets.wikitext_dataset", DATA_COMPLETION,
     COMPLETION " source=EleutherAI/wikitext_document_level column=page"},
    {"dataset", "torchtune.datasets.preference_dataset", 0, DATASET_ANY, NO_PREF},
    {"dataset", "torchtune.datasets.hh_rlhf_helpful_dataset", 0, DATASET_ANY, NO_PREF},
    {"dataset", "torchtune.datasets.stack_exchange_paired_dataset", 0, DATASET_ANY, NO_PREF},
    {"dataset", "torchtune.datasets.multimodal.llava_instruct_dataset", 0, DATASET_ANY, NO_IMAGE},
    {"dataset", "torchtune.datasets.multimodal.the_cauldron_dataset", 0, DATASET_ANY, NO_IMAGE},
    {"dataset", "torchtune.datasets.multimodal.multimodal_chat_dataset", 0, DATASET_ANY, NO_IMAGE},
    {"dataset", "torchtune.datasets.multimodal.vqa_dataset", 0, DATASET_ANY, NO_IMAGE},
};

enum { MODEL_FULL, MODEL_LORA, MODEL_QLORA, MODEL_KINDS };
static const struct {
    const char *prefix;
    enum adapt adapt;
    const char *args;
} model_kinds[MODEL_KINDS] = {
    [MODEL_FULL] = {"", ADAPT_NONE, "init"},
    [MODEL_LORA] = {"lora_", ADAPT_LORA, LORA_ARGS " apply_lora_to_mlp=false quantize_base"},
    [MODEL_QLORA] = {"qlora_", ADAPT_QLORA, LORA_ARGS " apply_lora_to_mlp=false quantize_base=true"},
};
static const char models[] = "torchtune.models.";

/* The next word of a list into text; NULL at its end. */
static const char *next_word(const char *list, char *text, size_t cap)
{
    list += strspn(list, " ");
    size_t n = strcspn(list, " ");
    if (!n || n >= cap) return NULL;
    memcpy(text, list, n);
    text[n] = 0;
    return list + n;
}

static bool each_model(const struct family_module *f, struct component c, component_see *see, void *arg)
{
    char path[160], size[32];
    for (const char *at = f->sizes, *end; (end = next_word(at, size, sizeof size)); at = end) {
        c.size = end - strlen(size); /* static, up to the next space */
        for (int kind = 0; kind < MODEL_KINDS; kind++) {
            c.kind = (int)model_kinds[kind].adapt;
            c.args = model_kinds[kind].args;
            snprintf(path, sizeof path, "%s%s.%s%s_%s", models, f->name, model_kinds[kind].prefix, f->name, size);
            if (see(path, &c, arg)) return true;
        }
    }
    return false;
}

bool component_each(const char *section, component_see *see, void *arg)
{
    bool model = !strcmp(section, "model"), tokenizer = !strcmp(section, "tokenizer");
    const struct family_module *f = NULL;
    char path[160];
    for (int i = 0; i < COUNT(table); i++)
        if (!strcmp(table[i].section, section) && see(table[i].path, &table[i], arg)) return true;
    while ((model || tokenizer) && (f = family_module_next(f))) {
        struct component c = {.section = section, .args = f->tokenizer_args, .family = f->name, .refused = f->refused};
        if (model && each_model(f, c, see, arg)) return true;
        if (!tokenizer || !f->tokenizer) continue;
        snprintf(path, sizeof path, "%s%s.%s", models, f->name, f->tokenizer);
        if (see(path, &c, arg)) return true;
    }
    return false;
}

struct search {
    const char *path;
    struct component *out;
};

static bool match(const char *path, const struct component *c, void *arg)
{
    struct search *s = arg;
    if (strcmp(path, s->path)) return false;
    *s->out = *c;
    s->out->path = s->path;
    return true;
}

bool component_find(const char *section, const char *path, struct component *out)
{
    if (!strcmp(section, "dataset_val")) section = "dataset";
    struct search s = {path, out};
    if (component_each(section, match, &s)) return true;
    if (strcmp(section, "model") && strcmp(section, "tokenizer")) return false;
    /* Any other function of a refused module is refused with it. */
    size_t n = strlen(models);
    const struct family_module *f = NULL;
    while (!strncmp(path, models, n) && (f = family_module_next(f))) {
        size_t k = strlen(f->name);
        if (f->refused && !strncmp(path + n, f->name, k) && path[n + k] == '.') {
            *out = (struct component){section, path, 0, "", f->refused, NULL, f->name, NULL};
            return true;
        }
    }
    return false;
}

void component_absent(const char *section, enum recipe recipe, struct component *out)
{
    static const struct component absent[] = {
        {"tokenizer", .args = TOKENIZER " merges_file vocab_path merges_path"},
        {"dataset", .kind = DATA_AUTO, .args = DATASET_ANY},
        {"checkpointer", .args = CHECKPOINT_ARGS},
        {"optimizer", .kind = CONFIG_ADAMW, .args = ADAM_ARGS " weight_decay=0.01" TORCH_SWITCHES},
        {"lr_scheduler", .kind = SCHEDULE_CONSTANT, .args = "num_warmup_steps num_cycles"},
        {"loss", .args = LOSS_ARGS},
        {"metric_logger", .args = LOG_ARGS},
        {"profiler", .args = PROFILE_ARGS},
        {"tensor_parallel_plan", .args = ""},
        {"fsdp", .args = "cpu_offload"},
    };
    if (!strcmp(section, "dataset_val")) section = "dataset";
    *out = (struct component){.section = section, .args = ""};
    if (!strcmp(section, "model"))
        *out = (struct component){.section = section,
                                  .kind = recipe == RECIPE_LORA ? ADAPT_LORA : ADAPT_NONE,
                                  .args = LORA_ARGS " apply_lora_to_mlp quantize_base"};
    for (int i = 0; i < COUNT(absent); i++)
        if (!strcmp(absent[i].section, section)) *out = absent[i];
}

static const char *find_arg(const struct component *c, const char *key)
{
    size_t n = strlen(key);
    for (const char *at = c->args; at && (at = strstr(at, key)); at += n)
        if ((at == c->args || at[-1] == ' ') && (!at[n] || at[n] == ' ' || at[n] == '=')) return at;
    return NULL;
}

bool component_takes(const struct component *c, const char *key) { return !c->args || find_arg(c, key); }

bool component_default(const struct component *c, const char *key, char *text, size_t cap)
{
    /* A later mention wins: a shared list may be followed by "name=value". */
    const char *value = NULL;
    struct component rest = *c;
    for (const char *at; (at = find_arg(&rest, key)); rest.args = at + strcspn(at, " ")) {
        rest.args = at;
        if (at[strlen(key)] == '=') value = at + strlen(key) + 1;
    }
    if (!value) return false;
    snprintf(text, cap, "%.*s", (int)strcspn(value, " "), value);
    return true;
}

struct nearest {
    const char *word, *best;
    char text[8][160];
    int n;
};

/* text_nearest ranks whole lists; here the winner plays on, against one path at a time. */
static bool rank(const char *path, const struct component *c, void *arg)
{
    struct nearest *near = arg;
    (void)c;
    const char *pair[2] = {near->best ? near->best : path, path};
    if (text_nearest(near->word, pair, 2) == path) {
        char *slot = near->text[near->n++ % 8];
        snprintf(slot, sizeof near->text[0], "%s", path);
        near->best = slot;
    }
    return false;
}

const char *component_nearest(const char *section, const char *path)
{
    static _Thread_local struct nearest near;
    near.word = path;
    near.best = NULL;
    component_each(strcmp(section, "dataset_val") ? section : "dataset", rank, &near);
    return near.best;
}

static void add_line(struct buf *out, const char *remark)
{
    buf_printf(out, remark ? "  (%s)\n" : "\n", remark);
}

/* Families in one line each: torchtune.models.llama3_2.[lora_|qlora_]llama3_2_{1b,3b} */
void component_list(const char *section, struct buf *out)
{
    bool model = !strcmp(section, "model"), tokenizer = !strcmp(section, "tokenizer");
    char size[32];
    for (int i = 0; i < COUNT(table); i++) {
        if (strcmp(table[i].section, section)) continue;
        buf_printf(out, "      %s", table[i].path);
        add_line(out, table[i].refused ? table[i].refused : table[i].note);
    }
    const struct family_module *f = NULL;
    while ((model || tokenizer) && (f = family_module_next(f))) {
        if (tokenizer && !f->tokenizer) continue;
        if (tokenizer) buf_printf(out, "      %s%s.%s", models, f->name, f->tokenizer);
        else buf_printf(out, "      %s%s.[lora_|qlora_]%s_", models, f->name, f->name);
        for (const char *at = f->sizes, *end; model && (end = next_word(at, size, sizeof size)); at = end)
            buf_printf(out, "%s%s", at == f->sizes ? "{" : ",", size);
        if (model) buf_text(out, "}");
        add_line(out, f->refused);
    }
}
