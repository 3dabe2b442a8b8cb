/* PEFT's adapter_config.json. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { ADAPTER_CONFIG_BYTES = 16 << 20, MAX_TARGETS = 4096, MATCH_LIMIT = 200000 };

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
    {"exclude_modules"},
    {"rank_pattern"},
    {"alpha_pattern"},
    {"bias", "none"},
    {"lora_bias"},
    {"modules_to_save"},
    {"layers_to_transform"},
    {"layers_pattern"},
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

static status check_fields(const struct jdoc *d)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const json_t *v = jdoc_get(d, refused[i].key);
        if (!is_neutral(v, refused[i].neutral))
            FAIL(ST_NOT_BUILT, "%s: %s is %s, which changes the adapter's mathematics and is not built", d->path,
                 refused[i].key, jdoc_show(v));
    }
    struct buf unknown = {0};
    const char *key;
    json_t *v;
    json_object_foreach(d->o, key, v) if (!is_known(key) && !is_neutral(v, NULL))
        buf_printf(&unknown, "%s%s", unknown.len ? ", " : "", key);
    if (unknown.len) log_warn("%s: these fields are not known and are ignored: %s", d->path, unknown.data);
    buf_release(&unknown);
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
        FAIL(ST_NOT_BUILT, "%s: task_type is %s; only CAUSAL_LM is built", d->path,
             jdoc_show(jdoc_get(d, "task_type")));
    return ST_OK;
}

static status compile_regex(const char *path, struct peft_config *p)
{
    int code;
    PCRE2_SIZE at;
    const char *text = p->target_modules[0];
    p->regex =
        pcre2_compile((PCRE2_SPTR)text, strlen(text), PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    if (p->regex) return ST_OK;
    char why[128];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    json_t *shown = json_string(text);
    status st =
        status_fail(ST_CORRUPT, "%s: target_modules is the regular expression %s, which is wrong at byte %zu: %s", path,
                    jdoc_show(shown), (size_t)at, why);
    json_decref(shown);
    return st;
}

static void add_target(struct peft_config *p, const char *name)
{
    p->target_modules = mem_grow(p->target_modules, (size_t)(p->n_targets + 1) * sizeof *p->target_modules);
    p->target_modules[p->n_targets++] = mem_strdup(name);
}

static status read_targets(const struct jdoc *d, struct peft_config *p)
{
    const json_t *v = jdoc_get(d, "target_modules");
    if (!v) {
        add_target(p, "q_proj");
        add_target(p, "v_proj");
        return ST_OK;
    }
    if (json_is_string(v)) {
        p->target_all_linear = strcasecmp(json_string_value(v), "all-linear") == 0;
        if (p->target_all_linear) return ST_OK;
        p->target_regex = true;
        add_target(p, json_string_value(v));
        return compile_regex(d->path, p);
    }
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n == 0 || n > MAX_TARGETS)
        FAIL(ST_CORRUPT, "%s: target_modules is %s; it must be a regular expression or a list of 1 to %d names",
             d->path, jdoc_show(v), MAX_TARGETS);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(v, i));
        if (!name || !*name)
            FAIL(ST_CORRUPT, "%s: target_modules[%zu] is %s, not a module name", d->path, i,
                 jdoc_show(json_array_get(v, i)));
        add_target(p, name);
    }
    return ST_OK;
}

static status read_adapter(const struct jdoc *d, struct peft_config *p)
{
    char base[4096] = "";
    TRY(check_kind(d));
    TRY(check_fields(d));
    TRY(jdoc_i64(d, "r", 1, 1 << 20, &p->r));
    TRY(jdoc_real(d, "lora_alpha", -1e6, 1e6, &p->lora_alpha));
    TRY(jdoc_real(d, "lora_dropout", 0, 1, &p->lora_dropout));
    TRY(jdoc_flag(d, "use_rslora", &p->use_rslora));
    TRY(jdoc_flag(d, "use_dora", &p->use_dora));
    TRY(jdoc_string(d, "base_model_name_or_path", base, sizeof base));
    if (base[0]) p->base_model = mem_strdup(base);
    return read_targets(d, p);
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

status peft_config_read(const char *dir, struct peft_config *out)
{
    char *path = mem_printf("%s/adapter_config.json", dir), *text = NULL;
    size_t n;
    status st;
    if (!file_is_dir(dir))
        FAIL_DONE(
            ST_IO,
            "%s: no such directory; an adapter is a directory with adapter_config.json and adapter_model.safetensors",
            dir);
    TRY_DONE(file_read(path, ADAPTER_CONFIG_BYTES, &text, &n));
    TRY_DONE(peft_config_parse(path, text, n, out));
done:
    free(path);
    free(text);
    return st;
}

void peft_config_free(struct peft_config *p)
{
    for (int i = 0; i < p->n_targets; i++) free(p->target_modules[i]);
    free(p->target_modules);
    free(p->base_model);
    pcre2_code_free(p->regex);
    *p = (struct peft_config){0};
}

static bool regex_matches(const struct peft_config *p, const char *module_path)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(limits, MATCH_LIMIT);
    int rc = pcre2_match(p->regex, (PCRE2_SPTR)module_path, strlen(module_path), 0, 0, m, limits);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        log_warn("target_modules: the regular expression gave up on '%s' (PCRE2 error %d); taken as no match",
                 module_path, rc);
    pcre2_match_context_free(limits);
    pcre2_match_data_free(m);
    return rc >= 0;
}

bool peft_targets(const struct peft_config *p, const char *module_path)
{
    const char *dot = strrchr(module_path, '.');
    if (p->target_all_linear) return strcmp(dot ? dot + 1 : module_path, "lm_head") != 0;
    if (p->target_regex) return regex_matches(p, module_path);
    size_t n = strlen(module_path);
    for (int i = 0; i < p->n_targets; i++) {
        size_t k = strlen(p->target_modules[i]);
        if (k > n || strcmp(module_path + n - k, p->target_modules[i]) != 0) continue;
        if (k == n || module_path[n - k - 1] == '.') return true;
    }
    return false;
}

static json_t *targets_json(const struct peft_config *p)
{
    if (p->target_all_linear) return json_string("all-linear");
    if (p->target_regex) return json_string(p->target_modules[0]);
    json_t *list = json_array();
    for (int i = 0; i < p->n_targets; i++) json_array_append_new(list, json_string(p->target_modules[i]));
    return list;
}

/* An integer where the value is one, as PEFT writes it. */
static json_t *number(double x) { return x == (double)(int64_t)x ? json_integer((json_int_t)x) : json_real(x); }

/* Digits that read both reals back exactly, and no more. */
static size_t digits_for(double a, double b)
{
    size_t digits = 1;
    for (char text[40]; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", (int)digits, a);
        bool same = strtod(text, NULL) == a;
        snprintf(text, sizeof text, "%.*g", (int)digits, b);
        if (same && strtod(text, NULL) == b) break;
    }
    return digits;
}

status peft_config_write(const char *dir, const struct peft_config *p)
{
    json_t *o = json_pack(
        "{s:n, s:s?, s:s, s:n, s:b, s:b, s:b, s:n, s:n, s:s, s:n, s:s, s:i, s:s, s:n, s:b, s:b, s:{}, s:{}}",
        "auto_mapping", "base_model_name_or_path", p->base_model, "bias", "none", "exclude_modules", "fan_in_fan_out",
        0, "inference_mode", 1, "init_lora_weights", 1, "layers_pattern", "layers_to_transform", "megatron_core",
        "megatron.core", "modules_to_save", "peft_type", "LORA", "r", (int)p->r, "task_type", "CAUSAL_LM", "revision",
        "use_dora", p->use_dora, "use_rslora", p->use_rslora, "rank_pattern", "alpha_pattern");
    json_object_set_new(o, "lora_alpha", number(p->lora_alpha));
    json_object_set_new(o, "lora_dropout", json_real(p->lora_dropout));
    json_object_set_new(o, "target_modules", targets_json(p));
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_SORT_KEYS |
                                   JSON_REAL_PRECISION(digits_for(p->lora_alpha, p->lora_dropout)));
    json_decref(o);
    if (!text) FAIL(ST_FAIL, "%s: adapter_config.json cannot be formed (a name that is not UTF-8?)", dir);
    char *path = mem_printf("%s/adapter_config.json", dir);
    status st = file_mkdirs(dir);
    if (!st) st = file_replace(path, text, strlen(text));
    free(path);
    free(text);
    return st;
}
