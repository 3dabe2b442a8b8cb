#include "checkpoints/jdoc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static status check_depth(const char *path, const char *text, size_t n)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JDOC_MAX_DEPTH) FAIL(ST_CORRUPT, "%s: JSON nested deeper than %d at byte %zu", path, JDOC_MAX_DEPTH, i);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return ST_OK;
}

static void printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = ' ';
}

static bool is_whole(const json_t *v)
{
    double x = json_real_value(v);
    return json_is_real(v) && x == floor(x) && fabs(x) < 0x1p53;
}

/* Whole numbers that were read as reals. No deeper than check_depth allows. */
static void whole_again(json_t *o)
{
    const char *key;
    size_t i;
    json_t *v;
    json_object_foreach(o, key, v)
    {
        if (is_whole(v))
            json_object_set_new(o, key, json_integer((json_int_t)json_real_value(v)));
        else
            whole_again(v);
    }
    json_array_foreach(o, i, v)
    {
        if (is_whole(v))
            json_array_set_new(o, i, json_integer((json_int_t)json_real_value(v)));
        else
            whole_again(v);
    }
}

static status parse(const char *path, const char *text, size_t n, bool any_number, json_t **root, size_t *used)
{
    *root = NULL;
    TRY(check_depth(path, text, n));
    json_error_t e;
    size_t flags = JSON_REJECT_DUPLICATES | (used ? (size_t)JSON_DISABLE_EOF_CHECK : 0);
    json_t *o = json_loadb(text, n, flags, &e);
    if (!o && any_number && json_error_code(&e) == json_error_numeric_overflow) {
        o = json_loadb(text, n, flags | JSON_DECODE_INT_AS_REAL, &e);
        whole_again(o);
    }
    if (!o) {
        printable(e.text);
        FAIL(ST_CORRUPT, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    }
    if (!json_is_object(o)) {
        json_decref(o);
        FAIL(ST_CORRUPT, "%s: the file must hold one JSON object", path);
    }
    if (used) *used = (size_t)e.position;
    *root = o;
    return ST_OK;
}

status jdoc_parse(const char *path, const char *text, size_t n, json_t **root, size_t *used)
{
    return parse(path, text, n, false, root, used);
}

status jdoc_parse_any_number(const char *path, const char *text, size_t n, json_t **root) { return parse(path, text, n, true, root, NULL); }

json_t *jdoc_get(const struct jdoc *d, const char *key)
{
    json_t *v = json_object_get(d->o, key);
    return json_is_null(v) ? NULL : v;
}

static status wrong(const struct jdoc *d, const char *key, const json_t *v, const char *want)
{
    FAIL(ST_CORRUPT, "%s: %s%s is %s, but must be %s", d->path, d->in, key, jdoc_show(v), want);
}

status jdoc_i64(const struct jdoc *d, const char *key, int64_t lo, int64_t hi, int64_t *out)
{
    json_t *v = jdoc_get(d, key);
    if (!v) return ST_OK;
    int64_t x = json_integer_value(v);
    if (!json_is_integer(v) || x < lo || x > hi) {
        char want[80];
        snprintf(want, sizeof want, "an integer from %lld to %lld", (long long)lo, (long long)hi);
        return wrong(d, key, v, want);
    }
    *out = x;
    return ST_OK;
}

status jdoc_real(const struct jdoc *d, const char *key, double lo, double hi, double *out)
{
    json_t *v = jdoc_get(d, key);
    if (!v) return ST_OK;
    double x = json_number_value(v);
    if (!json_is_number(v) || !isfinite(x) || x < lo || x > hi) {
        char want[80];
        snprintf(want, sizeof want, "a number from %g to %g", lo, hi);
        return wrong(d, key, v, want);
    }
    *out = x;
    return ST_OK;
}

status jdoc_flag(const struct jdoc *d, const char *key, bool *out)
{
    json_t *v = jdoc_get(d, key);
    if (!v) return ST_OK;
    if (!json_is_boolean(v)) return wrong(d, key, v, "true or false");
    *out = json_is_true(v);
    return ST_OK;
}

status jdoc_string(const struct jdoc *d, const char *key, char *out, size_t cap)
{
    json_t *v = jdoc_get(d, key);
    if (!v) return ST_OK;
    if (!json_is_string(v) || json_string_length(v) >= cap) {
        char want[64];
        snprintf(want, sizeof want, "a string of at most %zu bytes", cap - 1);
        return wrong(d, key, v, want);
    }
    snprintf(out, cap, "%s", json_string_value(v));
    return ST_OK;
}

status jdoc_object(const struct jdoc *d, const char *key, json_t **out)
{
    *out = jdoc_get(d, key);
    if (*out && !json_is_object(*out)) return wrong(d, key, *out, "an object");
    return ST_OK;
}

status jdoc_need(const struct jdoc *d, const char *key)
{
    if (!jdoc_get(d, key)) FAIL(ST_CORRUPT, "%s: %s%s is missing", d->path, d->in, key);
    return ST_OK;
}

const char *jdoc_show(const json_t *v)
{
    static _Thread_local char ring[4][80];
    static _Thread_local int next;
    char *out = ring[next++ & 3];
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6));
    const char *full = text ? text : "?";
    bool cut = strlen(full) >= 72;
    snprintf(out, 80, "%.*s%s", cut ? 68 : 72, full, cut ? "…" : "");
    free(text);
    return out;
}

void jdoc_quote(struct buf *b, const char *s)
{
    json_t *v = json_string(s);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    buf_text(b, text ? text : "\"\"");
    free(text);
    json_decref(v);
}
