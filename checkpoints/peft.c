/* PEFT's adapter_config.json. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "checkpoints/peft_rules.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { ADAPTER_CONFIG_BYTES = 16 << 20 };

/* Fields that change the mathematics in a way trimpot lacks; legal only when absent, null, false, empty, or the text.
 */
static const struct {
    const char *key, *neutral;
} refused[] = {
    {"fan_in_fan_out"},
    {"trainable_token_indices"},
    {"ensure_weight_tying"},
    {"target_parameters"},
    {"layer_replication"},
    {"use_qalora"},
    {"alora_invocation_tokens"},
    {"arrow_config"},
    {"use_bdlora"},
    {"velora_config"},
    {"monteclora_config"},
    {"kasa_config"},
    {"megatron_config"},
    {"bias", "none"},
    {"lora_bias"},
};

/* Read here, or without effect on a trained adapter. */
static const char *const known[] = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "inference_mode",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "merge_weights",
};

/* What PEFT does with the base when it loads an adapter that was initialised this way: its constructor runs the
 * initialisation again, before the saved A and B replace what that made. */
enum init_effect { INIT_NONE, INIT_UNTRUE, INIT_FROZEN_B, INIT_REDONE, INIT_QUANTISED };
static const struct init_way {
    const char *name;
    bool prefix, any_case;
    enum init_effect effect;
} inits[] = {
    {"gaussian", .any_case = true},
    {"eva"},
    {"orthogonal"},
    {"mica", .any_case = true, .effect = INIT_FROZEN_B},
    {"lora_ga", .effect = INIT_UNTRUE},
    {"pissa", .prefix = true, .effect = INIT_REDONE},
    {"corda", .prefix = true, .effect = INIT_REDONE},
    {"olora", .any_case = true, .effect = INIT_REDONE},
    {"loftq", .effect = INIT_QUANTISED},
};

static bool is_neutral(const json_t *v, const char *text)
{
    if (!v || json_is_null(v) || json_is_false(v)) return true;
    if (json_is_string(v)) return json_string_length(v) == 0 || (text && strcmp(json_string_value(v), text) == 0);
    return (json_is_object(v) && json_object_size(v) == 0) || (json_is_array(v) && json_array_size(v) == 0);
}

static bool is_known(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(key, known[i]) == 0) return true;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(key, refused[i].key) == 0) return true;
    return false;
}

#define MERGE_WITH_PEFT "merge the adapter with PEFT's merge_and_unload and use the merged model"

static status check_fields(const struct jdoc *d)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *v = jdoc_get(d, refused[i].key);
        if (!is_neutral(v, refused[i].neutral))
            FAIL(ST_NOT_BUILT,
                 "%s: %s is %s, which changes the adapter's mathematics and is not built; if PEFT can merge it "
                 "(merge_and_unload), use the merged model",
                 d->path, refused[i].key, jdoc_show(v));
    }
    struct buf unknown = {0};
    const char *key;
    json_t *v;
    json_object_foreach(d->o, key, v) if (!is_known(key) && !is_neutral(v, NULL))
        buf_printf(&unknown, "%s%s (%s)", unknown.len ? ", " : "", key, jdoc_show(v));
    if (!unknown.len) return ST_OK;
    status st = status_fail(ST_NOT_BUILT,
                            "%s: unknown fields, which may change the adapter's mathematics: %s; remove them if "
                            "they do not, else " MERGE_WITH_PEFT,
                            d->path, unknown.data);
    buf_release(&unknown);
    return st;
}

static const struct init_way *find_init(const char *name)
{
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        const struct init_way *w = &inits[i];
        size_t n = strlen(w->name) + (w->prefix ? 0 : 1);
        if (w->any_case ? strcasecmp(name, w->name) == 0 : strncmp(name, w->name, n) == 0) return w;
    }
    return NULL;
}

static status check_init(const struct jdoc *d, struct peft_config *p)
{
    const json_t *v = jdoc_get(d, "init_lora_weights");
    if (!v || json_is_boolean(v)) return ST_OK;
    const struct init_way *w = json_is_string(v) ? find_init(json_string_value(v)) : NULL;
    if (!w) FAIL(ST_CORRUPT, "%s: init_lora_weights is %s, which PEFT does not know either", d->path, jdoc_show(v));
    if (w->effect == INIT_REDONE)
        FAIL(ST_NOT_BUILT,
             "%s: init_lora_weights is %s: PEFT takes the initial A and B out of the base weights whenever it loads "
             "this adapter, which is not built; convert it to a plain adapter with PEFT's save_pretrained(DIR, "
             "path_initial_model_for_weight_conversion=INITIAL_ADAPTER), or " MERGE_WITH_PEFT,
             d->path, jdoc_show(v));
    if (w->effect == INIT_QUANTISED)
        FAIL(ST_NOT_BUILT,
             "%s: init_lora_weights is %s: PEFT replaces the base weights by quantised ones whenever it loads this "
             "adapter, which is not built; " MERGE_WITH_PEFT,
             d->path, jdoc_show(v));
    if (w->effect == INIT_UNTRUE)
        log_warn("%s: init_lora_weights is %s: its training changed the base weights, and loading does not; the adapter is used "
                 "on the base as it is, as PEFT does",
                 d->path, jdoc_show(v));
    p->frozen_b = w->effect == INIT_FROZEN_B;
    return ST_OK;
}

static status check_kind(const struct jdoc *d)
{
    char peft_type[32] = "", task[32] = "CAUSAL_LM";
    TRY(jdoc_need(d, "peft_type"));
    TRY(jdoc_string(d, "peft_type", peft_type, sizeof peft_type));
    TRY(jdoc_string(d, "task_type", task, sizeof task));
    if (strcmp(peft_type, "LORA") != 0)
        FAIL(ST_NOT_BUILT, "%s: peft_type is %s; only LORA is built", d->path, jdoc_show(jdoc_get(d, "peft_type")));
    if (strcmp(task, "CAUSAL_LM") != 0)
        FAIL(ST_NOT_BUILT, "%s: task_type is %s; only CAUSAL_LM is built", d->path, jdoc_show(jdoc_get(d, "task_type")));
    return ST_OK;
}

static status read_adapter(const struct jdoc *d, struct peft_config *p)
{
    char base[4096] = "";
    TRY(check_kind(d));
    TRY(check_fields(d));
    TRY(check_init(d, p));
    TRY(jdoc_i64(d, "r", 1, 1 << 20, &p->r));
    TRY(jdoc_real(d, "lora_alpha", -1e6, 1e6, &p->lora_alpha));
    TRY(jdoc_real(d, "lora_dropout", 0, 1, &p->lora_dropout));
    TRY(jdoc_flag(d, "use_rslora", &p->use_rslora));
    TRY(jdoc_flag(d, "use_dora", &p->use_dora));
    TRY(jdoc_string(d, "base_model_name_or_path", base, sizeof base));
    if (base[0]) p->base_model = mem_strdup(base);
    return peft_rules_read(d, p);
}

status peft_config_parse(const char *path, const char *json, size_t n, struct peft_config *out)
{
    json_t *root;
    *out = (struct peft_config){.r = 8, .lora_alpha = 8};
    TRY(jdoc_parse(path, json, n, &root, NULL));
    struct jdoc d = {path, "", root};
    status st = read_adapter(&d, out);
    json_decref(root);
    if (st) peft_config_free(out);
    return st;
}

/* The directory above is an easy slip: a run puts its adapter into adapter/ or export/. */
static status check_is_adapter(const char *dir, const char *config)
{
    static const char *const below[] = {"adapter", "export"};
    if (file_exists(config)) return ST_OK;
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        char *path = mem_printf("%s/%s/adapter_config.json", dir, below[i]);
        bool there = file_exists(path);
        free(path);
        if (there) FAIL(ST_IO, "%s: no such file; %s is the output of a run, and its adapter is %s/%s", config, dir, dir, below[i]);
    }
    return ST_OK;
}

status peft_config_read(const char *dir, struct peft_config *out)
{
    char *path = mem_printf("%s/adapter_config.json", dir), *text = NULL;
    size_t n;
    status st;
    if (!file_is_dir(dir))
        FAIL_DONE(ST_IO, "%s: no such directory; an adapter is a directory with adapter_config.json and adapter_model.safetensors", dir);
    TRY_DONE(check_is_adapter(dir, path));
    TRY_DONE(file_read(path, ADAPTER_CONFIG_BYTES, &text, &n));
    TRY_DONE(peft_config_parse(path, text, n, out));
done:
    free(path);
    free(text);
    return st;
}

void peft_config_free(struct peft_config *p)
{
    peft_rules_free(p);
    free(p->base_model);
    *p = (struct peft_config){0};
}

/* Digits that read all reals back exactly, and no more. */
static size_t digits_for(double x, size_t least)
{
    char text[40];
    for (size_t digits = least; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", (int)digits, x);
        if (strtod(text, NULL) == x) return digits;
    }
    return 17;
}

static size_t digits_of(const struct peft_config *p)
{
    size_t digits = digits_for(p->lora_dropout, digits_for(p->lora_alpha, 1));
    for (int i = 0; i < p->alpha_pattern.n; i++) digits = digits_for(p->alpha_pattern.rule[i].value, digits);
    return digits;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Keys in order, those of nested objects as they are: the first matching pattern is the one that counts. */
static json_t *with_sorted_keys(json_t *o)
{
    json_t *sorted = json_object(), *v;
    const char **keys = mem_alloc(json_object_size(o) * sizeof *keys), *key;
    size_t n = 0;
    json_object_foreach(o, key, v) keys[n++] = key;
    qsort(keys, n, sizeof *keys, by_name);
    for (size_t i = 0; i < n; i++) json_object_set(sorted, keys[i], json_object_get(o, keys[i]));
    free(keys);
    json_decref(o);
    return sorted;
}

static json_t *config_json(const struct peft_config *p)
{
    json_t *o = json_pack("{s:n, s:s?, s:s, s:b, s:b, s:b, s:s, s:s, s:i, s:s, s:n, s:b, s:b}", "auto_mapping", "base_model_name_or_path",
                          p->base_model, "bias", "none", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "megatron_core",
                          "megatron.core", "peft_type", "LORA", "r", (int)p->r, "task_type", "CAUSAL_LM", "revision", "use_dora",
                          p->use_dora, "use_rslora", p->use_rslora);
    json_object_set_new(o, "lora_alpha", peft_number_json(p->lora_alpha));
    json_object_set_new(o, "lora_dropout", json_real(p->lora_dropout));
    json_object_set_new(o, "target_modules", p->target_all_linear ? json_string("all-linear") : peft_names_json(&p->target));
    json_object_set_new(o, "modules_to_save", peft_names_json(&p->saved));
    json_object_set_new(o, "exclude_modules", peft_names_json(&p->exclude));
    json_object_set_new(o, "layers_to_transform", peft_layers_json(&p->layers));
    json_object_set_new(o, "layers_pattern", peft_names_json(&p->layers_pattern));
    json_object_set_new(o, "rank_pattern", peft_patterns_json(&p->rank_pattern));
    json_object_set_new(o, "alpha_pattern", peft_patterns_json(&p->alpha_pattern));
    return with_sorted_keys(o);
}

status peft_config_write(const char *dir, const struct peft_config *p)
{
    json_t *o = config_json(p);
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(digits_of(p)));
    json_decref(o);
    if (!text) FAIL(ST_FAIL, "%s: adapter_config.json cannot be formed (a name that is not UTF-8?)", dir);
    char *path = mem_printf("%s/adapter_config.json", dir);
    status st = file_mkdirs(dir);
    if (!st) st = file_replace(path, text, strlen(text));
    free(path);
    free(text);
    return st;
}
