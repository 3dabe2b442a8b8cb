/* Which modules an adapter sits on, and with which rank: the selecting members of adapter_config.json.
 *
 * Python's re is what PEFT matches with; PCRE2 reads the same syntax. `fullmatch` is anchored at both ends, `match` at the
 * start only. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

#include "checkpoints/peft_rules.h"
#include "kernels/base/log.h"

enum { MAX_RULES = 4096, MAX_RANK = 1 << 20, MATCH_LIMIT = 200000 };
static const double MAX_ALPHA = 1e6;

static struct peft_rule *add_rule(struct peft_rules *r, const char *text)
{
    r->rule = mem_grow(r->rule, (size_t)(r->n + 1) * sizeof *r->rule);
    r->rule[r->n] = (struct peft_rule){.text = text ? mem_strdup(text) : NULL};
    return &r->rule[r->n++];
}

void peft_target_add(struct peft_config *p, const char *name) { add_rule(&p->target, name); }
void peft_saved_add(struct peft_config *p, const char *name) { add_rule(&p->saved, name); }

static void free_rules(struct peft_rules *r)
{
    for (int i = 0; i < r->n; i++) {
        free(r->rule[i].text);
        pcre2_code_free(r->rule[i].regex);
    }
    free(r->rule);
    *r = (struct peft_rules){0};
}

void peft_rules_free(struct peft_config *p)
{
    struct peft_rules *all[] = {&p->target, &p->exclude, &p->layers, &p->layers_pattern, &p->rank_pattern, &p->alpha_pattern, &p->saved};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_rules(all[i]);
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* The pattern stands between `before` and `after`, as in PEFT's own f-string. */
static status compile(const struct jdoc *d, const char *key, struct peft_rule *rule, const char *before, const char *after,
                      uint32_t anchors)
{
    const char *text = rule->text ? rule->text : "";
    char *whole = mem_printf("%s%s%s", before, text, after);
    int code;
    PCRE2_SIZE at;
    rule->regex = pcre2_compile((PCRE2_SPTR)whole, strlen(whole), PCRE2_UTF | anchors, &code, &at, NULL);
    free(whole);
    if (rule->regex) return ST_OK;
    char why[128];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    at = at < strlen(before) ? 0 : at - strlen(before);
    json_t *shown = json_string(text);
    status st = status_fail(ST_CORRUPT, "%s: %s has the regular expression %s, which is wrong at byte %zu: %s", d->path, key,
                            jdoc_show(shown), at < strlen(text) ? (size_t)at : strlen(text), why);
    json_decref(shown);
    return st;
}

static status check_list(const struct jdoc *d, const char *key, const json_t *v, const char *what)
{
    if (!json_is_array(v) || json_array_size(v) > MAX_RULES)
        FAIL(ST_CORRUPT, "%s: %s is %s; it must be %s, or a list of at most %d of them", d->path, key, jdoc_show(v), what, MAX_RULES);
    return ST_OK;
}

static status read_name(const struct jdoc *d, const char *key, size_t i, const json_t *v, struct peft_rules *r)
{
    const char *name = json_string_value(v);
    if (!name || !*name) FAIL(ST_CORRUPT, "%s: %s[%zu] is %s, not a module name", d->path, key, i, jdoc_show(v));
    add_rule(r, name);
    return ST_OK;
}

/* One regex, or names. */
static status read_names(const struct jdoc *d, const char *key, const json_t *v, struct peft_rules *r)
{
    if (json_is_string(v)) {
        r->is_regex = true;
        return compile(d, key, add_rule(r, json_string_value(v)), "", "", PCRE2_ANCHORED | PCRE2_ENDANCHORED);
    }
    TRY(check_list(d, key, v, "a regular expression or a module name"));
    for (size_t i = 0; i < json_array_size(v); i++) TRY(read_name(d, key, i, json_array_get(v, i), r));
    return ST_OK;
}

static status read_targets(const struct jdoc *d, struct peft_config *p)
{
    const json_t *v = jdoc_get(d, "target_modules");
    if (!v) {
        peft_target_add(p, "q_proj"); /* of every family, by PEFT's table */
        peft_target_add(p, "v_proj");
        return ST_OK;
    }
    p->target_all_linear = json_is_string(v) && strcasecmp(json_string_value(v), "all-linear") == 0;
    if (p->target_all_linear) return ST_OK;
    TRY(read_names(d, "target_modules", v, &p->target));
    if (!p->target.n) FAIL(ST_CORRUPT, "%s: target_modules is [], so that the adapter sits on no module", d->path);
    return ST_OK;
}

static status read_excluded(const struct jdoc *d, struct peft_config *p)
{
    const json_t *v = jdoc_get(d, "exclude_modules");
    if (!v || (json_is_string(v) && !json_string_length(v))) return ST_OK;
    return read_names(d, "exclude_modules", v, &p->exclude);
}

static status read_layer_numbers(const struct jdoc *d, const json_t *v, struct peft_rules *r)
{
    const char *key = "layers_to_transform";
    bool one = json_is_integer(v);
    if (!one) TRY(check_list(d, key, v, "a layer number"));
    for (size_t i = 0; i < (one ? 1 : json_array_size(v)); i++) {
        const json_t *x = one ? v : json_array_get(v, i);
        if (!json_is_integer(x)) FAIL(ST_CORRUPT, "%s: %s[%zu] is %s, not a layer number", d->path, key, i, jdoc_show(x));
        add_rule(r, NULL)->value = (double)json_integer_value(x);
    }
    return ST_OK;
}

static status read_layers_pattern(const struct jdoc *d, const json_t *v, struct peft_rules *r)
{
    const char *key = "layers_pattern";
    if (json_is_string(v)) {
        if (json_string_length(v)) add_rule(r, json_string_value(v));
    } else if (v) {
        TRY(check_list(d, key, v, "a pattern"));
        for (size_t i = 0; i < json_array_size(v); i++) TRY(read_name(d, key, i, json_array_get(v, i), r));
    }
    for (int i = 0; i < r->n; i++) TRY(compile(d, key, &r->rule[i], "(?:^|.*?\\.)", "\\.(?P<idx>\\d+)\\.", PCRE2_ANCHORED));
    return ST_OK;
}

static status read_layers(const struct jdoc *d, struct peft_config *p)
{
    const json_t *numbers = jdoc_get(d, "layers_to_transform"), *pattern = jdoc_get(d, "layers_pattern");
    if ((numbers || pattern) && json_is_string(jdoc_get(d, "target_modules")))
        FAIL(ST_CORRUPT, "%s: %s goes only with a list of target_modules, and here it is %s; PEFT refuses this too", d->path,
             numbers ? "layers_to_transform" : "layers_pattern", jdoc_show(jdoc_get(d, "target_modules")));
    if (numbers) TRY(read_layer_numbers(d, numbers, &p->layers));
    TRY(read_layers_pattern(d, pattern, &p->layers_pattern));
    if (p->layers_pattern.n && !numbers)
        FAIL(ST_CORRUPT, "%s: layers_pattern is %s, but layers_to_transform names no layers; PEFT refuses this too", d->path,
             jdoc_show(pattern));
    if (!p->layers.n || p->layers_pattern.n) return ST_OK;
    return compile(d, "layers_pattern", add_rule(&p->layers_pattern, NULL), ".*?\\.[^.]*\\.(?P<idx>\\d+)\\.", "", PCRE2_ANCHORED);
}

static status compile_pattern(const struct jdoc *d, const char *key, struct peft_rule *rule)
{
    return compile(d, key, rule, "(.*\\.)?(", ")$", PCRE2_ANCHORED);
}

status peft_pattern_add(struct peft_config *p, bool of_ranks, const char *where, const char *pattern, double value)
{
    struct jdoc d = {where, "", NULL};
    struct peft_rule *rule = add_rule(of_ranks ? &p->rank_pattern : &p->alpha_pattern, pattern);
    rule->value = value;
    return compile_pattern(&d, of_ranks ? "rank_pattern" : "alpha_pattern", rule);
}

static status read_patterns(const struct jdoc *d, const char *key, bool is_rank, struct peft_rules *r)
{
    json_t *o, *v;
    const char *text;
    TRY(jdoc_object(d, key, &o));
    if (json_object_size(o) > MAX_RULES)
        FAIL(ST_CORRUPT, "%s: %s has %zu patterns; at most %d are read", d->path, key, json_object_size(o), MAX_RULES);
    struct jdoc in = {d->path, is_rank ? "rank_pattern." : "alpha_pattern.", o};
    json_object_foreach(o, text, v)
    {
        struct peft_rule *rule = add_rule(r, text);
        int64_t rank = 0;
        TRY(jdoc_need(&in, text));
        TRY(is_rank ? jdoc_i64(&in, text, 1, MAX_RANK, &rank) : jdoc_real(&in, text, -MAX_ALPHA, MAX_ALPHA, &rule->value));
        if (is_rank) rule->value = (double)rank;
        TRY(compile_pattern(d, key, rule));
    }
    return ST_OK;
}

static status read_saved(const struct jdoc *d, struct peft_rules *r)
{
    const json_t *v = jdoc_get(d, "modules_to_save");
    if (!v) return ST_OK;
    TRY(check_list(d, "modules_to_save", v, "a list of module names"));
    for (size_t i = 0; i < json_array_size(v); i++) TRY(read_name(d, "modules_to_save", i, json_array_get(v, i), r));
    return ST_OK;
}

status peft_rules_read(const struct jdoc *d, struct peft_config *p)
{
    TRY(read_saved(d, &p->saved));
    TRY(read_targets(d, p));
    TRY(read_excluded(d, p));
    TRY(read_layers(d, p));
    TRY(read_patterns(d, "rank_pattern", true, &p->rank_pattern));
    return read_patterns(d, "alpha_pattern", false, &p->alpha_pattern);
}

/* ---- asking --------------------------------------------------------------------------------------------------------- */

/* idx (may be NULL): the group of that name as a number, -1 when it took no part. */
static bool matches(const struct peft_rule *rule, const char *path, int64_t *idx)
{
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(rule->regex, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(limits, MATCH_LIMIT);
    int rc = pcre2_match(rule->regex, (PCRE2_SPTR)path, strlen(path), 0, 0, m, limits);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        log_warn("adapter_config.json: the regular expression '%s' gave up on '%s' (PCRE2 error %d); taken as no match", rule->text, path,
                 rc);
    if (idx) {
        PCRE2_UCHAR digits[24];
        PCRE2_SIZE n = sizeof digits;
        bool there = rc >= 0 && !pcre2_substring_copy_byname(m, (PCRE2_SPTR) "idx", digits, &n);
        *idx = there ? strtoll((const char *)digits, NULL, 10) : -1;
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(m);
    return rc >= 0;
}

static bool is_or_ends_with(const char *path, const char *name)
{
    size_t n = strlen(path), k = strlen(name);
    return k <= n && strcmp(path + n - k, name) == 0 && (k == n || path[n - k - 1] == '.');
}

static bool names_module(const struct peft_rules *r, const char *path)
{
    if (r->is_regex) return matches(&r->rule[0], path, NULL);
    for (int i = 0; i < r->n; i++)
        if (is_or_ends_with(path, r->rule[i].text)) return true;
    return false;
}

static bool names_exactly(const struct peft_rules *r, const char *path)
{
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->rule[i].text, path) == 0) return true;
    return false;
}

/* The first pattern that matches says the layer. */
static bool in_layers(const struct peft_config *p, const char *path)
{
    int64_t layer = -1;
    for (int i = 0; i < p->layers_pattern.n; i++)
        if (matches(&p->layers_pattern.rule[i], path, &layer)) break;
    for (int i = 0; i < p->layers.n && layer >= 0; i++)
        if (p->layers.rule[i].value == (double)layer) return true;
    return false;
}

bool peft_targets(const struct peft_config *p, const char *module_path)
{
    if (p->exclude.n && names_module(&p->exclude, module_path)) return false;
    if (p->target_all_linear) return !is_or_ends_with(module_path, "lm_head") && !is_or_ends_with(module_path, "embed_tokens");
    if (!names_module(&p->target, module_path)) return false;
    /* A module named in full is selected whatever its layer. */
    return !p->layers.n || names_exactly(&p->target, module_path) || in_layers(p, module_path);
}

bool peft_saves(const struct peft_config *p, const char *module_path)
{
    size_t n = strlen(module_path);
    for (int i = 0; i < p->saved.n; i++) {
        size_t k = strlen(p->saved.rule[i].text);
        if (k <= n && !strcmp(module_path + n - k, p->saved.rule[i].text)) return true;
    }
    return false;
}

bool peft_pattern_matches(const struct peft_rule *pattern, const char *module_path) { return matches(pattern, module_path, NULL); }

static double assigned(const struct peft_rules *r, const char *module_path, double otherwise)
{
    for (int i = 0; i < r->n; i++)
        if (matches(&r->rule[i], module_path, NULL)) return r->rule[i].value;
    return otherwise;
}

int64_t peft_rank(const struct peft_config *p, const char *module_path)
{
    return (int64_t)assigned(&p->rank_pattern, module_path, (double)p->r);
}

double peft_alpha(const struct peft_config *p, const char *module_path) { return assigned(&p->alpha_pattern, module_path, p->lora_alpha); }

/* ---- writing -------------------------------------------------------------------------------------------------------- */

json_t *peft_number_json(double x) { return x == (double)(int64_t)x ? json_integer((json_int_t)x) : json_real(x); }

json_t *peft_names_json(const struct peft_rules *r)
{
    if (r->is_regex) return json_string(r->rule[0].text);
    json_t *list = NULL;
    for (int i = 0; i < r->n; i++) {
        if (!r->rule[i].text) continue; /* PEFT's own pattern of an absent layers_pattern */
        if (!list) list = json_array();
        json_array_append_new(list, json_string(r->rule[i].text));
    }
    return list ? list : json_null();
}

json_t *peft_layers_json(const struct peft_rules *r)
{
    if (!r->n) return json_null();
    json_t *list = json_array();
    for (int i = 0; i < r->n; i++) json_array_append_new(list, peft_number_json(r->rule[i].value));
    return list;
}

json_t *peft_patterns_json(const struct peft_rules *r)
{
    json_t *o = json_object();
    for (int i = 0; i < r->n; i++) json_object_set_new(o, r->rule[i].text, peft_number_json(r->rule[i].value));
    return o;
}
