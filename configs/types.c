/* types.c — one row per type of value: how it is read from a node, written as YAML and released. */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "configs/scalar.h"
#include "configs/schema.h"

enum { LIST_MAX = 256, CHOICES_MAX = 32 };

static void *member(const struct row *row, const void *base) { return (char *)(uintptr_t)base + row->at; }
static int *count(const struct row *row, const void *base) { return (int *)((char *)(uintptr_t)base + row->count_at); }

static struct config_pair **pairs_of(const struct row *row, const void *base)
{
    return (struct config_pair **)((char *)(uintptr_t)base + (row->type == T_TEMPLATE ? row->at2 : row->at));
}

/* ---- complaints ---- */

static void range_expects(const struct row *row, struct buf *out)
{
    if (row->ranged && isfinite(row->max))
        buf_printf(out, " from %s%.10g to %s%.10g", row->above_min ? "above " : "", row->min, row->below_max ? "below " : "", row->max);
    else if (row->ranged && row->type != T_BYTES)
        buf_printf(out, " %s %.10g", row->above_min ? "above" : "of at least", row->min);
}

static bool wrong(const struct row *row, const struct ynode *n, struct problems *p)
{
    struct buf expects = {0};
    value_expects(row, &expects);
    if (row->def) buf_printf(&expects, " (default %s", row->def);
    if (row->def_lora) buf_printf(&expects, ", for LoRA %s", row->def_lora);
    problem_add(p, &n->at, "%s is %s: expected %s%s", row->path, ynode_shown(n), expects.data, row->def ? ")" : "");
    buf_release(&expects);
    return false;
}

static const struct choice *named_choice(const struct row *row, const char *name)
{
    for (int i = 0; i < row->n_choices; i++)
        if (!strcmp(row->choices[i].name, name)) return &row->choices[i];
    return NULL;
}

/* A choice that is true or false may be spelt as one, True and no too. */
static const struct choice *find_choice(const struct row *row, const char *text)
{
    bool value;
    const struct choice *c = named_choice(row, text);
    return !c && scalar_bool(text, &value) ? named_choice(row, value ? "true" : "false") : c;
}

/* *good: the value may stand. NULL if the text is no choice at all, which only some types mind. */
static const struct choice *pick(const struct row *row, const struct ynode *n, bool *good, struct problems *p)
{
    const struct choice *c = find_choice(row, ynode_is_null(n) ? "null" : n->text);
    *good = c && !c->refused;
    if (c && c->refused) problem_add(p, &n->at, "%s: %s is refused: %s", row->path, n->text, c->refused);
    return c;
}

static bool not_a_choice(const struct row *row, const struct ynode *n, struct problems *p)
{
    const char *names[CHOICES_MAX];
    int k = 0;
    for (int i = 0; i < row->n_choices && k < CHOICES_MAX; i++) names[k++] = row->choices[i].name;
    const char *near = n->kind == YNODE_SCALAR ? text_nearest(n->text, names, k) : NULL;
    if (!near) return wrong(row, n, p);
    problem_add(p, &n->at, "%s is %s; did you mean %s?", row->path, ynode_shown(n), near);
    return false;
}

/* ---- numbers ---- */

static bool in_range(const struct row *row, double x)
{
    if (!row->ranged) return true;
    return (row->above_min ? x > row->min : x >= row->min) && (row->below_max ? x < row->max : x <= row->max);
}

/* ---- read, write, release of each type ---- */

static bool read_bool(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    bool value = false;
    bool null = row->nullable && ynode_is_null(n);
    if (!null && (n->kind != YNODE_SCALAR || !scalar_bool(n->text, &value))) return wrong(row, n, p);
    if (row->type == T_TRI)
        *(int *)member(row, base) = null ? -1 : value;
    else if (row->size)
        *(bool *)member(row, base) = value;
    return true;
}

static void write_bool(const struct row *row, const void *base, struct buf *out)
{
    buf_text(out, *(bool *)member(row, base) ? "true" : "false");
}

static void write_tri(const struct row *row, const void *base, struct buf *out)
{
    int value = *(int *)member(row, base);
    buf_text(out, value < 0 ? "null" : value ? "true" : "false");
}

static bool read_int(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    int64_t value = -1;
    bool null = row->nullable && ynode_is_null(n), good;
    if (!null) {
        if (n->kind != YNODE_SCALAR) return wrong(row, n, p);
        const struct choice *choice = row->n_choices ? pick(row, n, &good, p) : NULL;
        if (choice && good && row->size) *(int64_t *)member(row, base) = choice->value;
        if (choice) return good;
        bool read = row->type == T_BYTES ? scalar_bytes(n->text, &value) : scalar_int(n->text, &value);
        if (!read || !in_range(row, (double)value)) return wrong(row, n, p);
    }
    if (row->size) *(int64_t *)member(row, base) = value;
    return true;
}

static void write_int(const struct row *row, const void *base, struct buf *out)
{
    int64_t value = *(int64_t *)member(row, base);
    for (int i = 0; i < row->n_choices; i++)
        if (!row->choices[i].refused && row->choices[i].value == value) {
            buf_text(out, row->choices[i].name);
            return;
        }
    if (value == -1 && row->nullable)
        buf_text(out, "null");
    else
        buf_printf(out, "%lld", (long long)value);
}

static bool read_float(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    double value = NAN;
    if (!(row->nullable && ynode_is_null(n)) &&
        (n->kind != YNODE_SCALAR || !scalar_float(n->text, row->infinite, &value) || !in_range(row, value)))
        return wrong(row, n, p);
    if (row->size) *(double *)member(row, base) = value;
    return true;
}

static void write_float(const struct row *row, const void *base, struct buf *out)
{
    scalar_write_double(*(double *)member(row, base), out);
}

static char *text_value(const struct row *row, const struct ynode *n)
{
    const char *text = n->text, *home = row->home && !n->literal && !strncmp(text, "~/", 2) ? getenv("HOME") : NULL;
    size_t bad;
    return home && text_is_utf8(home, strlen(home), &bad) ? mem_printf("%s%s", home, text + 1) : mem_strdup(text);
}

/* So that it reads back: a folder that is called ~ is not $HOME. */
static void quote_value(const struct row *row, const char *text, struct buf *out)
{
    char *here = row->home && !strncmp(text, "~/", 2) ? mem_printf("./%s", text) : NULL;
    scalar_quote(here ? here : text, out);
    free(here);
}

static void free_text(const struct row *row, void *base)
{
    free(*(char **)member(row, base));
    *(char **)member(row, base) = NULL;
}

static bool read_text(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    bool null = row->nullable && ynode_is_null(n);
    if (!null) {
        bool good;
        if (n->kind != YNODE_SCALAR || !n->text[0] || ynode_is_null(n)) return wrong(row, n, p);
        if (row->n_choices && !pick(row, n, &good, p)) return not_a_choice(row, n, p);
        if (row->n_choices && !good) return false;
    }
    if (row->size) {
        free_text(row, base);
        *(char **)member(row, base) = null ? NULL : text_value(row, n);
    }
    return true;
}

/* Nothing, N or N%; NULL if neither. */
static const char *skip_bound(const char *s)
{
    size_t digits = strspn(s, "0123456789");
    if (digits > 18) return NULL;
    return s + digits + (digits && s[digits] == '%');
}

static bool split_is_good(const char *s)
{
    if (!strcmp(s, "train")) return true;
    if (strncmp(s, "train[", 6) || !(s = skip_bound(s + 6)) || *s != ':') return false;
    return (s = skip_bound(s + 1)) && !strcmp(s, "]");
}

static bool read_split(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    if (n->kind != YNODE_SCALAR || !split_is_good(n->text)) return wrong(row, n, p);
    return read_text(row, n, base, p);
}

static void write_text(const struct row *row, const void *base, struct buf *out)
{
    const char *text = *(char **)member(row, base);
    if (text)
        quote_value(row, text, out);
    else
        buf_text(out, "null");
}

static bool read_choice(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    bool good = false;
    const struct choice *c = n->kind == YNODE_SCALAR ? pick(row, n, &good, p) : NULL;
    if (!c) return not_a_choice(row, n, p);
    if (!good) return false;
    if (row->size == sizeof(bool))
        *(bool *)member(row, base) = c->value;
    else
        memcpy(member(row, base), &c->value, sizeof(int));
    return true;
}

static void write_choice(const struct row *row, const void *base, struct buf *out)
{
    int value;
    if (row->size == sizeof(bool))
        value = *(bool *)member(row, base);
    else
        memcpy(&value, member(row, base), sizeof value);
    for (int i = 0; i < row->n_choices; i++)
        if (row->choices[i].value == value && !row->choices[i].refused) {
            buf_text(out, row->choices[i].name);
            return;
        }
}

static bool read_flags(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    unsigned bits = 0;
    bool all = true;
    if (n->kind != YNODE_LIST) return wrong(row, n, p);
    for (int i = 0; i < n->n_child; i++) {
        bool good = false;
        const struct choice *c = n->child[i]->kind == YNODE_SCALAR ? pick(row, n->child[i], &good, p) : NULL;
        if (!c)
            not_a_choice(row, n->child[i], p);
        else
            bits |= (unsigned)c->value;
        all = all && good;
    }
    if (all) *(unsigned *)member(row, base) = bits;
    return all;
}

static void write_flags(const struct row *row, const void *base, struct buf *out)
{
    unsigned bits = *(unsigned *)member(row, base);
    const char *before = "[";
    for (int i = 0; i < row->n_choices; i++)
        if (bits & (unsigned)row->choices[i].value) {
            buf_printf(out, "%s%s", before, row->choices[i].name);
            before = ", ";
        }
    buf_text(out, bits ? "]" : "[]");
}

static void free_texts(const struct row *row, void *base)
{
    char ***list = member(row, base);
    for (int i = 0; i < *count(row, base); i++) free((*list)[i]);
    free(*list);
    *list = NULL;
    *count(row, base) = 0;
}

static bool all_texts(const struct ynode *n)
{
    for (int i = 0; i < n->n_child; i++)
        if (n->child[i]->kind != YNODE_SCALAR || !n->child[i]->text[0]) return false;
    return n->n_child <= LIST_MAX;
}

static bool read_texts(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    bool null = row->nullable && ynode_is_null(n);
    bool one = n->kind == YNODE_SCALAR && n->text[0];
    if (!null && !one && (n->kind != YNODE_LIST || !n->n_child || !all_texts(n))) return wrong(row, n, p);
    if (!row->size) return true;
    free_texts(row, base);
    if (null) return true;
    int k = one ? 1 : n->n_child;
    char **list = mem_alloc((size_t)k * sizeof *list);
    for (int i = 0; i < k; i++) list[i] = text_value(row, one ? n : n->child[i]);
    *(char ***)member(row, base) = list;
    *count(row, base) = k;
    return true;
}

static void write_texts(const struct row *row, const void *base, struct buf *out)
{
    char **list = *(char ***)member(row, base);
    int n = *count(row, base);
    if (!n) buf_text(out, "null");
    for (int i = 0; i < n; i++) {
        buf_text(out, i ? ", " : "[");
        quote_value(row, list[i], out);
    }
    if (n) buf_text(out, "]");
}

static void free_pairs(const struct row *row, void *base)
{
    struct config_pair **list = pairs_of(row, base);
    for (int i = 0; i < *count(row, base); i++) {
        free((*list)[i].key);
        free((*list)[i].value);
    }
    free(*list);
    *list = NULL;
    *count(row, base) = 0;
}

/* Numbers where the row has a range; each that is none is named. */
static bool values_fit(const struct row *row, const struct ynode *n, struct problems *p)
{
    bool fit = true;
    for (int i = 0; i < n->n_child && row->ranged; i++) {
        const struct ynode *v = n->child[i];
        double value;
        if (scalar_float(v->text, false, &value) && in_range(row, value) && (!row->whole || value == floor(value))) continue;
        struct buf expects = {0};
        range_expects(row, &expects);
        problem_add(p, &v->at, "%s.%.80s is %s: expected a %s%s", row->path, v->key, ynode_shown(v), row->whole ? "whole number" : "number",
                    expects.data);
        buf_release(&expects);
        fit = false;
    }
    return fit;
}

static bool read_pairs(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    bool null = row->nullable && ynode_is_null(n);
    if (!null && (n->kind != YNODE_MAP || !all_texts(n))) return wrong(row, n, p);
    if (!null && !values_fit(row, n, p)) return false;
    free_pairs(row, base);
    if (null || !n->n_child) return true;
    struct config_pair *list = mem_alloc((size_t)n->n_child * sizeof *list);
    for (int i = 0; i < n->n_child; i++) list[i] = (struct config_pair){mem_strdup(n->child[i]->key), mem_strdup(n->child[i]->text)};
    *pairs_of(row, base) = list;
    *count(row, base) = n->n_child;
    return true;
}

static void write_pairs(const struct row *row, const void *base, struct buf *out)
{
    const struct config_pair *list = *pairs_of(row, base);
    int n = *count(row, base);
    if (!n) buf_text(out, "null");
    for (int i = 0; i < n; i++) {
        buf_text(out, i ? ", " : "{");
        scalar_quote(list[i].key, out);
        buf_text(out, ": ");
        scalar_quote(list[i].value, out);
    }
    if (n) buf_text(out, "}");
}

static void free_template(const struct row *row, void *base)
{
    free_text(row, base);
    free_pairs(row, base);
}

static bool roles_are_good(const struct ynode *n)
{
    for (int i = 0; i < n->n_child; i++) {
        const struct ynode *v = n->child[i];
        if (v->kind != YNODE_LIST || v->n_child != 2) return false;
        if (v->child[0]->kind != YNODE_SCALAR || v->child[1]->kind != YNODE_SCALAR) return false;
    }
    return n->n_child > 0 && n->n_child <= LIST_MAX;
}

static bool read_template(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    if (n->kind == YNODE_LIST || (n->kind == YNODE_MAP && !roles_are_good(n))) return wrong(row, n, p);
    if (n->kind == YNODE_SCALAR) {
        free_pairs(row, base);
        return read_text(row, n, base, p);
    }
    free_template(row, base);
    struct config_pair *list = mem_alloc((size_t)n->n_child * sizeof *list);
    for (int i = 0; i < n->n_child; i++) {
        const struct ynode *role = n->child[i];
        const char *prefix = ynode_is_null(role->child[0]) ? "" : role->child[0]->text;
        const char *suffix = ynode_is_null(role->child[1]) ? "" : role->child[1]->text;
        char *value = mem_alloc(strlen(prefix) + strlen(suffix) + 2);
        strcpy(value, prefix);
        strcpy(value + strlen(prefix) + 1, suffix);
        list[i] = (struct config_pair){mem_strdup(role->key), value};
    }
    *pairs_of(row, base) = list;
    *count(row, base) = n->n_child;
    return true;
}

static void write_template(const struct row *row, const void *base, struct buf *out)
{
    const struct config_pair *list = *pairs_of(row, base);
    int n = *count(row, base);
    if (!n) write_text(row, base, out);
    for (int i = 0; i < n; i++) {
        buf_text(out, i ? ", " : "{");
        scalar_quote(list[i].key, out);
        buf_text(out, ": [");
        scalar_quote(list[i].value, out);
        buf_text(out, ", ");
        scalar_quote(list[i].value + strlen(list[i].value) + 1, out);
        buf_text(out, "]");
    }
    if (n) buf_text(out, "}");
}

static bool read_betas(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    double value[2];
    if (n->kind != YNODE_LIST || n->n_child != 2) return wrong(row, n, p);
    for (int i = 0; i < 2; i++)
        if (n->child[i]->kind != YNODE_SCALAR || !scalar_float(n->child[i]->text, false, &value[i]) || !in_range(row, value[i]))
            return wrong(row, n, p);
    memcpy(member(row, base), value, sizeof value);
    return true;
}

static void write_betas(const struct row *row, const void *base, struct buf *out)
{
    const double *beta = member(row, base);
    buf_text(out, "[");
    scalar_write_double(beta[0], out);
    buf_text(out, ", ");
    scalar_write_double(beta[1], out);
    buf_text(out, "]");
}

static bool read_files(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    (void)base;
    bool good = true;
    if (n->kind == YNODE_SCALAR) return wrong(row, n, p);
    for (int i = 0; i < n->n_child; i++) {
        const char *key = n->child[i]->key;
        if (n->kind == YNODE_MAP && strcmp(key, "filename_format") && strcmp(key, "max_filename")) {
            problem_add(p, &n->child[i]->key_at, "unknown key %s.%s: a group here has filename_format and max_filename", row->path,
                        text_shown(key));
            good = false;
        }
        good = (n->child[i]->kind == YNODE_SCALAR || wrong(row, n->child[i], p)) && good;
    }
    return good;
}

static bool read_switch(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    static const char *const parts[] = {"model", "loss", "optimizer_step", "scale_grads"};
    bool value, good = true;
    (void)base;
    if (n->kind == YNODE_SCALAR) return scalar_bool(n->text, &value) || wrong(row, n, p);
    if (n->kind == YNODE_LIST) return wrong(row, n, p);
    for (int i = 0; i < n->n_child; i++) {
        const struct ynode *part = n->child[i];
        bool known = false;
        for (int k = 0; k < 4; k++) known = known || !strcmp(part->key, parts[k]);
        if (!known) {
            problem_add(p, &part->key_at, "unknown key %s.%.80s: a group here has model, loss, optimizer_step and scale_grads", row->path,
                        part->key);
            good = false;
        } else if (part->kind != YNODE_SCALAR || !scalar_bool(part->text, &value)) {
            good = wrong(row, part, p);
        }
    }
    return good;
}

static void free_nothing(const struct row *row, void *base) { (void)row, (void)base; }

static const struct type {
    const char *expects;
    bool (*read)(const struct row *, const struct ynode *, void *, struct problems *);
    void (*write)(const struct row *, const void *, struct buf *);
    void (*release)(const struct row *, void *);
} types[T_COUNT] = {
    [T_BOOL] = {"true or false", read_bool, write_bool, free_nothing},
    [T_TRI] = {"true, false", read_bool, write_tri, free_nothing},
    [T_INT] = {"a whole number", read_int, write_int, free_nothing},
    [T_FLOAT] = {"a number", read_float, write_float, free_nothing},
    [T_BYTES] = {"bytes as 8GB or 512MiB", read_int, write_int, free_nothing},
    [T_TEXT] = {"a text", read_text, write_text, free_text},
    [T_SPLIT] = {"rows of the files, as train, train[:95%] or train[100:200]", read_split, write_text, free_text},
    [T_CHOICE] = {"one word", read_choice, write_choice, free_nothing},
    [T_FLAGS] = {"a list", read_flags, write_flags, free_nothing},
    [T_TEXTS] = {"a text or a list of texts", read_texts, write_texts, free_texts},
    [T_PAIRS] = {"a group {name: text}", read_pairs, write_pairs, free_pairs},
    [T_TEMPLATE] = {"a template", read_template, write_template, free_template},
    [T_BETAS] = {"a list of two numbers", read_betas, write_betas, free_nothing},
    [T_FILES] = {"a list of file names, or {filename_format, max_filename}", read_files, NULL, free_nothing},
    [T_SWITCH] = {"true, false, or {model, loss, optimizer_step, scale_grads}", read_switch, NULL, free_nothing},
};

bool value_read(const struct row *row, const struct ynode *n, void *base, struct problems *p)
{
    return types[row->type].read(row, n, base, p);
}

bool value_read_text(const struct row *row, const char *text, void *base)
{
    struct problems p = {0};
    struct place nowhere = {.name = "default", .argument = 1};
    bool bare = row->type != T_FLAGS && row->type != T_BETAS && row->type != T_PAIRS;
    struct ynode *n = bare ? ynode_scalar(text, true, nowhere) : ynode_read(text, strlen(text), nowhere, &p);
    bool good = n && value_read(row, n, base, &p);
    assert(good && "a default of schema.c does not fit its own row");
    ynode_free(n);
    problems_release(&p);
    return good;
}

void value_write(const struct row *row, const void *base, struct buf *out) { types[row->type].write(row, base, out); }
void value_free(const struct row *row, void *base) { types[row->type].release(row, base); }

void value_expects(const struct row *row, struct buf *out)
{
    bool of_choices = row->n_choices && row->type != T_INT && row->type != T_BYTES;
    if (of_choices) {
        int shown = 0;
        buf_text(out, row->type == T_FLAGS ? "a list of " : "");
        for (int i = 0; i < row->n_choices; i++)
            if (!row->choices[i].refused) buf_printf(out, "%s%s", shown++ ? ", " : "", row->choices[i].name);
    } else if (row->type == T_PAIRS && row->ranged) {
        buf_printf(out, "a group {name: %s}", row->whole ? "whole number" : "number");
    } else {
        buf_text(out, types[row->type].expects);
    }
    range_expects(row, out);
    if (row->type == T_TEMPLATE) buf_text(out, ", or {role: [prefix, suffix]}");
    if (row->unit && row->type != T_BYTES) buf_printf(out, ", in %s", row->unit);
    if (row->nullable && !(of_choices && find_choice(row, "null"))) buf_text(out, ", or null");
    for (int i = 0; row->type == T_BYTES && i < row->n_choices; i++) buf_printf(out, ", or %s", row->choices[i].name);
    if (row->infinite) buf_text(out, ", or inf");
}

/* Compares without a member to hold the values: a row of the same type over two scratch slots. */
bool value_is(const struct row *row, const struct ynode *n, const char *text)
{
    union {
        char bytes[64];
        double aligned;
        void *pointer;
    } a = {.bytes = {0}}, b = {.bytes = {0}};
    if (!types[row->type].write) return n->kind == YNODE_SCALAR && text && !strcasecmp(n->text, text);
    if (!text) return false;
    struct row scratch = *row;
    struct problems ignored = {0};
    struct buf left = {0}, right = {0};
    scratch.at = 0, scratch.count_at = 32, scratch.at2 = 16;
    scratch.size = row->size ? row->size : 8;
    scratch.ranged = false;
    bool same = value_read(&scratch, n, &a, &ignored);
    if (same) {
        value_read_text(&scratch, text, &b);
        value_write(&scratch, &a, &left);
        value_write(&scratch, &b, &right);
        same = !strcmp(left.data, right.data);
    }
    value_free(&scratch, &a);
    value_free(&scratch, &b);
    buf_release(&left);
    buf_release(&right);
    problems_release(&ignored);
    return same;
}
