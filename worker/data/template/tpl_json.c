/* tojson as transformers defines it: json.dumps with ensure_ascii off, without escapes for HTML. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/data/template/tpl_value.h"

struct json_style {
    bool ascii, sort;
    struct value indent; /* V_ABSENT: one line */
    struct value item_sep, key_sep;
};

static status put_value(struct build *b, const struct json_style *s, struct value v, int depth);

static status put_escape(struct build *b, int32_t c, template_origin o)
{
    static const char named[] = "\"\"\\\\\nn\rr\tt\ff\bb";
    char text[16];
    for (const char *e = named; *e; e += 2)
        if (*e == c) return build_add(b, (char[2]){'\\', e[1]}, 2, o);
    if (c < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((c - 0x10000) >> 10)),
                 (unsigned)(0xDC00 + ((c - 0x10000) & 0x3FF)));
    return build_text(b, text, o);
}

static status put_string(struct build *b, const struct json_style *s, struct value v)
{
    size_t plain = 0, len, n = v.s->n;
    TRY(build_add(b, "\"", 1, v.origin));
    for (size_t at = 0; at < n; at += len) {
        unsigned char byte = (unsigned char)v.s->p[at];
        len = 1;
        if (byte >= 0x20 && byte != '"' && byte != '\\' && (byte < 0x80 || !s->ascii)) continue;
        int32_t c = char_at(v.s->p + at, n - at, &len);
        TRY(build_cut(b, v, plain, at));
        TRY(put_escape(b, c, str_origin(v, at)));
        plain = at + len;
    }
    TRY(build_cut(b, v, plain, n));
    return build_add(b, "\"", 1, n ? str_origin(v, n - 1) : v.origin);
}

static status put_scalar(struct build *b, struct value v, bool *done)
{
    char text[40];
    *done = true;
    switch (v.kind) {
    case V_NONE:
        return build_text(b, "null", v.origin);
    case V_BOOL:
        return build_text(b, v.b ? "true" : "false", v.origin);
    case V_INT:
        snprintf(text, sizeof text, "%" PRId64, v.i);
        return build_text(b, text, v.origin);
    case V_FLOAT:
        TRY(tpl_spend(b->r, TPL_FLOAT_WORK));
        print_float(v.f, text);
        if (!strcmp(text, "nan")) strcpy(text, "NaN");
        if (strstr(text, "inf")) strcpy(text, v.f < 0 ? "-Infinity" : "Infinity");
        return build_text(b, text, v.origin);
    default:
        *done = false;
        return ST_OK;
    }
}

static status put_newline(struct build *b, const struct json_style *s, int depth, template_origin o)
{
    if (s->indent.kind == V_ABSENT) return ST_OK;
    TRY(build_add(b, "\n", 1, o));
    struct value indent = s->indent;
    indent.origin = o;
    for (int i = 0; i < depth; i++) TRY(build_str(b, indent));
    return ST_OK;
}

static status put_sep(struct build *b, struct value sep, template_origin o)
{
    sep.origin = o;
    return build_str(b, sep);
}

static status put_list(struct build *b, const struct json_style *s, struct value v, int depth)
{
    if (!v.l->n) return build_text(b, "[]", v.origin);
    TRY(build_add(b, "[", 1, v.origin));
    for (size_t i = 0; i < v.l->n; i++) {
        if (i) TRY(put_sep(b, s->item_sep, v.origin));
        TRY(put_newline(b, s, depth + 1, v.origin));
        TRY(put_value(b, s, v.l->v[i], depth + 1));
    }
    TRY(put_newline(b, s, depth, v.origin));
    return build_add(b, "]", 1, v.origin);
}

static status put_key(struct build *b, const struct json_style *s, struct value key)
{
    bool done;
    if (is_string(key)) return put_string(b, s, key);
    TRY(build_add(b, "\"", 1, key.origin));
    TRY(put_scalar(b, key, &done));
    if (!done) return tpl_fail(b->r, "tojson: the keys of a dict must be strings or numbers, not '%s'", kind_names[key.kind]);
    return build_add(b, "\"", 1, key.origin);
}

/* The pairs in the order of their keys. */
static status sorted_pairs(struct render *r, const struct dict *d, struct value *keys, struct value *values)
{
    for (size_t i = 0; i < d->n; i++) {
        keys[i] = d->v[i].key;
        values[i] = d->v[i].value;
    }
    struct value *by = pool_take(&r->pool, d->n * sizeof *by);
    memcpy(by, keys, d->n * sizeof *by);
    TRY(value_sort(r, values, by, d->n, false));
    memcpy(keys, by, d->n * sizeof *by);
    return ST_OK;
}

static status put_dict(struct build *b, const struct json_style *s, struct value v, int depth)
{
    size_t n = v.d->n;
    struct value *keys = NULL, *values = NULL;
    if (!n) return build_text(b, "{}", v.origin);
    if (s->sort) {
        TRY(tpl_spend(b->r, 3 * n * sizeof *keys));
        keys = pool_take(&b->r->pool, n * sizeof *keys);
        values = pool_take(&b->r->pool, n * sizeof *values);
        TRY(sorted_pairs(b->r, v.d, keys, values));
    }
    TRY(build_add(b, "{", 1, v.origin));
    for (size_t i = 0; i < n; i++) {
        if (i) TRY(put_sep(b, s->item_sep, v.origin));
        TRY(put_newline(b, s, depth + 1, v.origin));
        TRY(put_key(b, s, keys ? keys[i] : v.d->v[i].key));
        TRY(put_sep(b, s->key_sep, v.origin));
        TRY(put_value(b, s, values ? values[i] : v.d->v[i].value, depth + 1));
    }
    TRY(put_newline(b, s, depth, v.origin));
    return build_add(b, "}", 1, v.origin);
}

static status put_value(struct build *b, const struct json_style *s, struct value v, int depth)
{
    bool done;
    TRY(tpl_spend(b->r, TPL_NODE_WORK));
    if (is_string(v)) return put_string(b, s, v);
    TRY(put_scalar(b, v, &done));
    if (done) return ST_OK;
    if (v.kind == V_UNDEFINED) return tpl_fail_undefined(b->r, v);
    if (v.kind != V_DICT && !is_sequence(v)) return tpl_fail(b->r, "tojson: an object of type %s is not JSON", kind_names[v.kind]);
    TRY(tpl_enter(b->r));
    TRY(v.kind == V_DICT ? put_dict(b, s, v, depth) : put_list(b, s, v, depth));
    tpl_leave(b->r);
    return ST_OK;
}

static struct value plain_text(struct render *r, const char *text) { return value_text(&r->pool, text, strlen(text), TEMPLATE_ITSELF); }

static status read_indent(struct call *c, struct json_style *s)
{
    struct build b = {.r = c->r};
    int64_t n;
    if (!arg_given(c, 1)) return ST_OK;
    if (is_string(c->arg[1])) {
        s->indent = c->arg[1];
        return ST_OK;
    }
    TRY(arg_int(c, 1, 0, &n));
    if (n > 1000) return tpl_fail(c->r, "tojson: an indent of %" PRId64, n);
    TRY(build_repeat(&b, plain_text(c->r, " "), n));
    s->indent = build_done(&b);
    ((struct str *)s->indent.s)->origins = NULL; /* of whatever it stands in */
    return ST_OK;
}

/* ensure_ascii, indent, separators, sort_keys */
status tpl_tojson(struct call *c, struct value *out)
{
    struct json_style s = {.ascii = arg_true(c, 0), .sort = arg_true(c, 3)};
    struct build b = {.r = c->r};
    TRY(read_indent(c, &s));
    s.item_sep = plain_text(c->r, s.indent.kind == V_ABSENT ? ", " : ",");
    s.key_sep = plain_text(c->r, ": ");
    if (arg_given(c, 2)) {
        struct value seps = c->arg[2];
        if (!is_sequence(seps) || seps.l->n != 2 || !is_string(seps.l->v[0]) || !is_string(seps.l->v[1]))
            return tpl_fail(c->r, "tojson: separators must be two strings");
        s.item_sep = seps.l->v[0];
        s.key_sep = seps.l->v[1];
    }
    TRY(put_value(&b, &s, c->self, 0));
    *out = build_done(&b);
    return ST_OK;
}
