/* rules.c — combinations that cannot work: one row each, with the reason a person reads. */
/* clang-format off */
#include <fnmatch.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/families.h"
#include "configs/schema.h"
#include "kernels/base/file.h"

/* ---- predicates: true = broken ---- */

static bool wrote(const struct bound *b, const char *path) { return bound_written(b, path) != NULL; }
static bool lora(const struct bound *b) { return b->c->recipe == RECIPE_LORA; }
static bool full_bf16(const struct bound *b) { return !lora(b) && b->c->dtype == CONFIG_BF16; }

static bool in_bwd_clips(const struct bound *b) { return b->c->optimizer_in_bwd && !isnan(b->c->clip_grad_norm); }
static bool in_bwd_accumulates(const struct bound *b)
{
    return b->c->optimizer_in_bwd && b->c->gradient_accumulation_steps > 1;
}
static bool ac_contradicts(const struct bound *b)
{
    return b->c->enable_activation_checkpointing && (b->c->ac_mode == AC_NONE || b->c->ac_mode == AC_SELECTIVE);
}
static bool selective_without_n(const struct bound *b)
{
    const struct ynode *n = bound_written(b, "ac_option"); /* one that is no number is complained about already */
    return b->c->ac_mode == AC_SELECTIVE && b->c->ac_option < 0 && (!n || ynode_is_null(n));
}
static bool n_without_selective(const struct bound *b)
{
    return b->c->ac_mode != AC_SELECTIVE && b->c->ac_option >= 0;
}
static bool recompute_contradicts(const struct bound *b)
{
    const struct config *c = b->c;
    bool blocks = c->enable_activation_checkpointing || c->ac_mode == AC_FULL;
    return c->recompute != RECOMPUTE_AUTO && (c->ac_mode == AC_SELECTIVE || (blocks && c->recompute != RECOMPUTE_BLOCK));
}
static bool tiles_are_kept(const struct bound *b)
{
    const struct config *c = b->c;
    return c->mlp_tile_tokens > 0 && (c->recompute == RECOMPUTE_NONE || c->recompute == RECOMPUTE_PRODUCTS);
}
static bool streams_twice(const struct bound *b)
{
    return wrote(b, "offload_with_streams") && wrote(b, "activation_offloading_use_streams");
}
static bool packed_without_length(const struct bound *b)
{
    bool packed = b->c->has_val && b->c->dataset_val.packed;
    for (int i = 0; i < b->c->n_dataset; i++) packed = packed || b->c->dataset[i].packed;
    return packed && b->c->tokenizer.max_seq_len < 0;
}
static bool packed_is_mixed(const struct bound *b)
{
    for (int i = 1; i < b->c->n_dataset; i++)
        if (b->c->dataset[i].packed != b->c->dataset[0].packed) return true;
    return false;
}
static bool no_validation(const struct bound *b)
{
    return b->c->run_val_every_n_steps > 0 && !b->c->has_val && isnan(b->c->val_fraction);
}
static bool two_validations(const struct bound *b) { return b->c->has_val && !isnan(b->c->val_fraction); }
static bool lora_keys_in_full(const struct bound *b, const char **which)
{
    for (int i = 0; i < schema_n; i++)
        if (row_in_section(&schema[i], "model") && b->written[i] && strcmp(row_key(&schema[i]), "init")) {
            *which = schema[i].path;
            return true;
        }
    return false;
}
static bool nothing_adapted(const struct bound *b)
{
    const struct config_lora *l = &b->c->model.lora;
    return lora(b) && !l->attn_modules && !l->mlp && !l->output;
}
static bool full_component_in_lora(const struct bound *b)
{
    return lora(b) && b->model.path && b->model.kind == ADAPT_NONE;
}
static bool lora_component_in_full(const struct bound *b)
{
    return !lora(b) && b->model.path && b->model.kind != ADAPT_NONE;
}
/* What the class is by its name is not taken from it by a key: a file that says the key would else turn it off unseen. */
static bool class_is_denied(const struct bound *b, const char *key, bool value)
{
    char text[8];
    return !value && component_default(&b->optimizer, key, text, sizeof text) && !strcmp(text, "true");
}
static bool unpaged_paged(const struct bound *b) { return class_is_denied(b, "is_paged", b->c->optimizer.is_paged); }
static bool host_elsewhere(const struct bound *b) { return class_is_denied(b, "on_host", b->c->optimizer.on_host); }
static bool paged_on_host(const struct bound *b) { return b->c->optimizer.on_host && b->c->optimizer.is_paged; }
static bool masters_on_host(const struct bound *b) { return b->c->optimizer.on_host && b->c->master_weights == TRI_FP32; }
static bool starts_twice(const struct bound *b)
{
    return b->c->checkpointer.adapter_checkpoint && b->c->model.lora.start != START_UNIFORM;
}
static bool patterns_twice(const struct bound *b)
{
    const struct config_lora *l = &b->c->model.lora;
    return b->c->checkpointer.adapter_checkpoint && (l->n_rank_pattern || l->n_alpha_pattern || l->n_modules_to_save);
}
static bool start_of_quantised(const struct bound *b)
{
    return start_is_of_weights(b->c->model.lora.start) && b->c->model.adapt == ADAPT_QLORA;
}
static bool nesterov_is_wrong(const struct bound *b)
{
    return b->c->optimizer.nesterov && (b->c->optimizer.momentum <= 0 || b->c->optimizer.dampening != 0);
}
static bool states_of_8_bits(const struct bound *b) { return b->c->optimizer.kind >= CONFIG_ADAMW_8BIT; }
static bool momentum_is_missing(const struct bound *b)
{
    return b->c->optimizer.kind == CONFIG_SGD_8BIT && b->c->optimizer.momentum <= 0;
}
static bool state_dtype_of_codes(const struct bound *b) { return states_of_8_bits(b) && b->c->state_dtype != TRI_AUTO; }
static bool merge_in_full(const struct bound *b) { return !lora(b) && b->c->merge_base; }
static bool merge_of_nothing(const struct bound *b) { return b->c->merge_base && b->c->save_adapter_weights_only; }
static bool adapter_only_in_full(const struct bound *b) { return !lora(b) && b->c->save_adapter_weights_only; }
static bool adapter_in_full(const struct bound *b) { return !lora(b) && b->c->checkpointer.adapter_checkpoint; }
static bool master_in_lora(const struct bound *b) { return lora(b) && b->c->master_weights == TRI_FP32; }
static bool state_bf16_elsewhere(const struct bound *b)
{
    return !full_bf16(b) && b->c->state_dtype == TRI_BF16 && !states_of_8_bits(b);
}
static bool merges_without_vocab(const struct bound *b) { return b->c->tokenizer.merges_file && !b->c->tokenizer.path; }
static bool nothing_is_traced(const struct bound *b)
{
    return b->c->profiler.enabled && !b->c->profiler.cpu && !b->c->profiler.cuda;
}
static bool vocab_twice(const struct bound *b) { return wrote(b, "tokenizer.path") && wrote(b, "tokenizer.vocab_path"); }
static bool merges_twice(const struct bound *b) { return wrote(b, "tokenizer.merges_file") && wrote(b, "tokenizer.merges_path"); }
static bool epochs_of_random_adapter(const struct bound *b)
{
    return b->c->model.init == INIT_RANDOM && b->c->checkpointer.adapter_checkpoint;
}

/* Releases that are spoken to alike share a tokenizer. */
static bool tokenizer_of_other_family(const struct bound *b)
{
    const struct family_module *m = family_module(b->c->model.family), *t = family_module(b->c->tokenizer.family);
    return m && t && m->speech && t->speech && m->speech->style != t->speech->style;
}
static bool model_type_of_other_family(const struct bound *b)
{
    const char *type = b->c->checkpointer.model_type;
    const struct family_module *m = family_module(b->c->model.family);
    return type && m && m->checkpointer && !family_module_loads(m, type);
}

static bool validates_on_training_rows(const struct bound *b)
{
    const struct config_dataset *t = &b->c->dataset[0], *v = &b->c->dataset_val;
    if (!b->c->has_val || b->c->n_dataset != 1 || t->n_data_files != v->n_data_files || !t->n_data_files) return false;
    for (int i = 0; i < t->n_data_files; i++)
        if (strcmp(t->data_files[i], v->data_files[i])) return false;
    return !strcmp(t->split, v->split);
}

/* Absolute, links of the existing part followed; caller frees. */
static char *canonical(const char *path)
{
    char *copy = mem_strdup(path), *tail = mem_strdup("");
    char real[PATH_MAX];
    while (!realpath(*copy ? copy : ".", real)) {
        char *slash = strrchr(copy, '/');
        char *longer = mem_printf("/%s%s", slash ? slash + 1 : copy, tail);
        free(tail);
        tail = longer;
        if (slash == copy) slash[1] = 0;
        else if (slash) *slash = 0;
        else *copy = 0;
        if (!strcmp(copy, "/") || !*copy) {
            if (!realpath(*copy ? copy : ".", real)) strcpy(real, "/");
            break;
        }
    }
    char *whole = mem_printf("%s%s", real, tail);
    free(copy);
    free(tail);
    return whole;
}

static bool lies_in(const char *inner, const char *outer)
{
    if (!inner || !outer || !*inner || !*outer) return false;
    char *in = canonical(inner), *out = canonical(outer);
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    bool inside = !strncmp(in, out, n) && (!in[n] || in[n] == '/');
    free(in);
    free(out);
    return inside;
}

static bool torchtune_and_template(const struct bound *b)
{
    return b->c->chat_template && b->c->torchtune_templates && wrote(b, "torchtune_templates");
}
static bool two_templates(const struct bound *b)
{
    const struct config *c = b->c;
    bool prompts = c->tokenizer.prompt_template || c->tokenizer.n_template_roles || (c->has_val && c->dataset_val.prompt_template);
    for (int i = 0; i < c->n_dataset; i++) prompts = prompts || c->dataset[i].prompt_template;
    return c->chat_template && prompts;
}

static bool output_in_model(const struct bound *b)
{
    return lies_in(b->c->output_dir, b->c->checkpointer.checkpoint_dir);
}
static bool output_in_merge_base(const struct bound *b) { return lies_in(b->c->output_dir, b->c->merge_base); }
static bool checkpoints_in_model(const struct bound *b)
{
    return b->c->checkpointer.output_dir && wrote(b, "checkpointer.output_dir") &&
           lies_in(b->c->checkpointer.output_dir, b->c->checkpointer.checkpoint_dir);
}

/* ---- the table ---- */

static const struct rule {
    const char *key; /* whose place and value the message shows */
    bool (*broken)(const struct bound *);
    const char *reason;
} rules[] = {
    {"optimizer_in_bwd", in_bwd_clips,
     "a parameter steps before the norm of all gradients is known; set clip_grad_norm to null or optimizer_in_bwd "
     "to false"},
    {"optimizer_in_bwd", in_bwd_accumulates,
     "every micro-batch would step; set gradient_accumulation_steps to 1 or optimizer_in_bwd to false"},
    {"ac_mode", ac_contradicts,
     "enable_activation_checkpointing: true recomputes every block; keep one of the two keys"},
    {"ac_mode", selective_without_n, "which blocks? ac_option: N recomputes every N-th"},
    {"ac_option", n_without_selective, "it chooses blocks for ac_mode: selective only; set that, or delete ac_option"},
    {"recompute", recompute_contradicts,
     "enable_activation_checkpointing or ac_mode asks for other blocks to be recomputed; leave recompute at auto, or delete that key"},
    {"recompute", tiles_are_kept,
     "gate and up live for one tile of mlp_tile_tokens, so that they are computed again; set recompute to auto, ffn or more"},
    {"offload_with_streams", streams_twice,
     "it is the older name of activation_offloading_use_streams, which is given too; keep one of the two keys"},
    {"dataset.packed", packed_without_length, "a pack needs a size: set tokenizer.max_seq_len"},
    {"dataset.packed", packed_is_mixed, "data sets of a list are joined; pack all of them or none"},
    {"run_val_every_n_steps", no_validation,
     "there is nothing to validate on: set dataset_val or dataset_val_fraction"},
    {"dataset_val_fraction", two_validations, "dataset_val is given too; keep one"},
    {"dataset_val_fraction", validates_on_training_rows,
     "dataset_val reads the rows that dataset trains on; give each its split, as train[:95%] and train[95%:]"},
    {"model.lora_attn_modules", nothing_adapted,
     "no linear would get an adapter: name modules, or set apply_lora_to_mlp or apply_lora_to_output"},
    {"model._component_", full_component_in_lora,
     "the recipe trains adapters: write the lora_ or qlora_ form, or leave it out"},
    {"model._component_", lora_component_in_full,
     "the recipe trains all weights: write the form without lora_, or run lora_finetune"},
    {"optimizer.is_paged", unpaged_paged, "the class pages, as its name says: delete the key, or take the class without Paged"},
    {"optimizer.on_host", host_elsewhere, "the class steps on the host: delete the key, or take its optimizer_class itself"},
    {"optimizer.on_host", paged_on_host,
     "states that the host steps never come to the device: set optimizer.is_paged to false, or optimizer.on_host"},
    {"master_weights", masters_on_host,
     "the optimizer on the host takes the device's weights, which bf16 with stochastic_rounding keeps alone; set master_weights to none, or "
     "dtype to fp32"},
    {"model.init_lora_weights", starts_twice, "checkpointer.adapter_checkpoint says what the adapter starts as; keep one of the two keys"},
    {"checkpointer.adapter_checkpoint", patterns_twice,
     "the adapter says its ranks, its alphas and what is saved whole itself; delete model.rank_pattern, alpha_pattern and modules_to_save"},
    {"model.init_lora_weights", start_of_quantised,
     "the base loses what its adapter starts as, and rounding what is left to 4 bits again would make another base than the one that the "
     "exported adapter is for; set model.quantize_base=false, or start with true, gaussian or orthogonal"},
    {"optimizer.nesterov", nesterov_is_wrong, "it needs momentum above 0 and dampening 0"},
    {"save_adapter_weights_only", adapter_only_in_full, "the recipe trains all weights: there is no adapter"},
    {"merge_base", merge_in_full, "the recipe trains all weights: there is no adapter to merge"},
    {"merge_base", merge_of_nothing, "save_adapter_weights_only: true merges nothing; keep one of the two keys"},
    {"checkpointer.adapter_checkpoint", adapter_in_full,
     "the recipe trains all weights: merge the adapter first, or run lora_finetune"},
    {"checkpointer.adapter_checkpoint", epochs_of_random_adapter,
     "an adapter fits the weights it was trained on, and model.init: random makes new ones"},
    {"master_weights", master_in_lora, "adapters are 32-bit already and the base does not change"},
    {"optimizer._component_", momentum_is_missing,
     "without momentum there is no state to hold in 8 bits: set optimizer.momentum, or take torch.optim.SGD"},
    {"state_dtype", state_dtype_of_codes,
     "the optimizer holds 8-bit states, and 32-bit ones of small tensors; delete the key, or take torch.optim.AdamW"},
    {"state_dtype", state_bf16_elsewhere, "only full fine-tuning in bf16 can hold optimizer states in bf16"},
    {"tokenizer.merges_file", merges_without_vocab, "it belongs to the vocab.json of tokenizer.path"},
    {"profiler.enabled", nothing_is_traced, "profiler.cpu and profiler.cuda are false: nothing would be traced"},
    {"tokenizer.vocab_path", vocab_twice, "it is Phi-4's name of tokenizer.path, which is given too; keep one of the two keys"},
    {"tokenizer.merges_path", merges_twice, "it is Phi-4's name of tokenizer.merges_file, which is given too; keep one of the two keys"},
    {"tokenizer._component_", tokenizer_of_other_family, "it is not the tokenizer of model._component_"},
    {"checkpointer.model_type", model_type_of_other_family, "model._component_ is of another family"},
    {"chat_template", torchtune_and_template, "torchtune_templates: true renders chats another way; keep one of the two keys"},
    {"chat_template", two_templates,
     "prompt_template is part of torchtune's rendering; keep one of the two keys"},
    {"output_dir", output_in_model, "it lies in checkpointer.checkpoint_dir: the base model is never written to"},
    {"output_dir", output_in_merge_base, "it lies in merge_base: that model is never written to"},
    {"checkpointer.output_dir", checkpoints_in_model,
     "it lies in checkpointer.checkpoint_dir: the base model is never written to"},
};

/* ---- keys that say nothing where others are as they are ---- */

static bool states_of_32_bits(const struct bound *b) { return !states_of_8_bits(b); }
static bool unpaged(const struct bound *b) { return !b->c->optimizer.is_paged; }
static bool on_device(const struct bound *b) { return !b->c->optimizer.on_host; }
static bool nothing_moves(const struct bound *b) { return !b->c->enable_activation_offloading; }
static bool nothing_rounds(const struct bound *b) { return lora(b) || b->c->dtype == CONFIG_FP32; }
static bool masters_are_weights(const struct bound *b) { return b->c->dtype == CONFIG_FP32; }
static bool no_warmup(const struct bound *b) { return !b->c->schedule.num_warmup_steps; }
static bool never_validates(const struct bound *b) { return b->c->run_val_every_n_steps < 0; }
static bool no_longest(const struct bound *b) { return b->c->tokenizer.max_seq_len < 0; }

#define NO_LONGEST "tokenizer.max_seq_len is null: no row is too long"
static const struct rule idle[] = {
    {"optimizer.min_8bit_size", states_of_32_bits, "its states have 32 bits"},
    {"optimizer.quantize_embeddings", states_of_32_bits, "its states have 32 bits"},
    {"optimizer.paged_resident", unpaged, "optimizer.is_paged is false"},
    {"optimizer.paged_window", unpaged, "optimizer.is_paged is false"},
    {"optimizer.min_paged_size", unpaged, "optimizer.is_paged is false"},
    {"optimizer.host_window", on_device, "optimizer.on_host is false"},
    {"activation_offloading_use_streams", nothing_moves, "enable_activation_offloading is false"},
    {"offload_with_streams", nothing_moves, "enable_activation_offloading is false"},
    {"stochastic_rounding", nothing_rounds, "no trained weight is in bf16"},
    {"master_weights", masters_are_weights, "weights in fp32 are their own"},
    {"warmup_start", no_warmup, "lr_scheduler.num_warmup_steps is 0"},
    {"dataset_val", never_validates, "run_val_every_n_steps is null: nothing is measured"},
    {"dataset_val_fraction", never_validates, "run_val_every_n_steps is null: its rows are left out of training and never measured"},
    {"tokenizer.truncation_type", no_longest, NO_LONGEST},
    {"on_too_long", no_longest, NO_LONGEST},
};

static void note_idle(struct bound *b)
{
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        const struct ynode *n;
        const struct row *row = schema;
        bound_place(b, idle[i].key, &n);
        while (row < schema + schema_n && strcmp(row->path, idle[i].key)) row++; /* a whole group has none */
        if (!n || ynode_is_null(n) || (row < schema + schema_n && value_is(row, n, row->def)) || !idle[i].broken(b)) continue;
        buf_printf(&b->notes, "%s%s (%s)", b->notes.len ? ", " : "", idle[i].key, idle[i].reason);
    }
}

static void report(const struct bound *b, const char *key, const char *reason)
{
    const struct ynode *n;
    struct place at = bound_place(b, key, &n);
    if (n) problem_add(b->problems, &at, "%s: %s: %s", key, ynode_shown(n), reason);
    else problem_add(b->problems, &at, "%s: %s", key, reason);
}

/* ---- what must be there ---- */

static void check_required(const struct bound *b)
{
    for (int i = 0; i < schema_n && !b->problems->unknown_key; i++)
        if (schema[i].required && schema[i].size && !*(char **)((char *)b->c + schema[i].at))
            report(b, schema[i].path, "it is missing: the directory of the base model; or pass --model DIR");
}

/* ---- listed files ---- */

static bool is_pickle(const char *file)
{
    const char *dot = strrchr(file, '.');
    return dot && (!strcmp(dot, ".bin") || !strcmp(dot, ".pt") || !strcmp(dot, ".pth"));
}

/* The directory decides what is read, never the list: a file that is in it and is not what is read would be another model than the
 * list says. Pickles that are not there are what the model's safetensors were called in older configurations. */
static void check_file(struct bound *b, const struct ynode *n, const char *name)
{
    const char *dir = b->c->checkpointer.checkpoint_dir, *shards = "model-[0-9]*-of-[0-9]*.safetensors";
    if (!dir || !strcmp(name, "model.safetensors") || !fnmatch(shards, name, 0)) return;
    char *path = mem_printf("%s/%s", dir, name);
    if (file_exists(path) && !file_is_dir(path))
        problem_add(b->problems, &n->at,
                    "checkpointer.checkpoint_files names %s, which is in %s and is not what is read: that is model.safetensors there, or the "
                    "files of model.safetensors.index.json%s; delete the key if they are the same model",
                    text_shown(name), text_shown(dir), is_pickle(name) ? ", never a Python pickle" : "");
    free(path);
}

/* {filename_format, max_filename}: its first file. */
static char *first_file(const struct ynode *files)
{
    const struct ynode *format = ynode_find(files, "filename_format"), *last = ynode_find(files, "max_filename");
    if (!format || !last || format->kind != YNODE_SCALAR || last->kind != YNODE_SCALAR) return NULL;
    const char *one = strstr(format->text, "{}"), *two = one ? strstr(one + 2, "{}") : NULL;
    if (!two) return NULL;
    return mem_printf("%.*s%0*d%.*s%s%s", (int)(one - format->text), format->text, (int)strlen(last->text), 1, (int)(two - one - 2), one + 2,
                      last->text, two + 2);
}

static void check_files(struct bound *b)
{
    const struct ynode *n;
    bool pickles = false;
    bound_place(b, "checkpointer.checkpoint_files", &n);
    for (int i = 0; n && n->kind == YNODE_LIST && i < n->n_child; i++) {
        if (n->child[i]->kind != YNODE_SCALAR) continue;
        check_file(b, n->child[i], n->child[i]->text);
        pickles = pickles || is_pickle(n->child[i]->text);
    }
    char *first = n && n->kind == YNODE_MAP ? first_file(n) : NULL;
    if (first) {
        check_file(b, n, first);
        pickles = is_pickle(first);
    }
    free(first);
    if (pickles)
        buf_printf(&b->notes, "%scheckpointer.checkpoint_files (Python pickles are not read, the safetensors of checkpoint_dir are)",
                   b->notes.len ? ", " : "");
}

void rules_check(struct bound *b)
{
    const char *which;
    check_required(b);
    sources_settle(b);
    check_files(b);
    if (b->c->recipe == RECIPE_FULL && lora_keys_in_full(b, &which))
        report(b, which, "the recipe trains all weights; run lora_finetune for adapters");
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].broken(b)) report(b, rules[i].key, rules[i].reason);
    note_idle(b);
}

static void need_file(const struct bound *b, const char *key, const char *path, bool directory)
{
    const struct ynode *n;
    struct place at = bound_place(b, key, &n);
    if (path && !file_exists(path)) problem_add(b->problems, &at, "%s: %s does not exist", key, text_shown(path));
    else if (path && directory && !file_is_dir(path))
        problem_add(b->problems, &at, "%s: %s is not a directory", key, text_shown(path));
}

void rules_check_paths(const struct bound *b)
{
    for (int i = 0; i < schema_n; i++) {
        const struct row *row = &schema[i];
        bool directory = !strcmp(row_key(row), "checkpoint_dir") || !strcmp(row_key(row), "adapter_checkpoint");
        if (!row->path_value || row_is_dataset(row)) continue;
        need_file(b, row->path, *(char **)((char *)b->c + row->at), directory);
    }
    for (int k = 0; k < b->c->n_dataset; k++)
        for (int i = 0; i < b->c->dataset[k].n_data_files; i++)
            need_file(b, "dataset.data_files", b->c->dataset[k].data_files[i], false);
    for (int i = 0; i < b->c->dataset_val.n_data_files && ynode_find_path(b->root, "dataset_val.data_files"); i++)
        need_file(b, "dataset_val.data_files", b->c->dataset_val.data_files[i], false);
}
