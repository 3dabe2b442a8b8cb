/* Python's str() and repr(). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

/* The fewest digits that read back as the same number; an exponent where Python writes one. */
void print_float(double f, char out[40])
{
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char digits[40];
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        strcpy(out, digits);
        return;
    }
    snprintf(out, 40, "%.*f", precision > exponent ? precision - exponent : 0, f);
    if (!strchr(out, '.')) strcat(out, ".0");
}

static status repr_string(struct build *b, struct value s)
{
    char quote = memchr(s.s->p, '\'', s.s->n) && !memchr(s.s->p, '"', s.s->n) ? '"' : '\'';
    size_t len;
    TRY(build_add(b, &quote, 1, s.origin));
    for (size_t at = 0; at < s.s->n; at += len) {
        int32_t c = char_at(s.s->p + at, s.s->n - at, &len);
        template_origin o = str_origin(s, at);
        char text[16];
        if (c == quote || c == '\\')
            snprintf(text, sizeof text, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (char_is_printable(c)) {
            TRY(build_cut(b, s, at, at + len));
            continue;
        } else
            snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        TRY(build_text(b, text, o));
    }
    return build_add(b, &quote, 1, s.origin);
}

static status repr_items(struct build *b, struct value v, const char *open, const char *close)
{
    const struct value *items;
    size_t n;
    TRY(value_items(b->r, v, &items, &n));
    TRY(build_text(b, open, v.origin));
    for (size_t i = 0; i < n; i++) {
        if (i) TRY(build_text(b, ", ", v.origin));
        TRY(print_repr(b, items[i]));
    }
    if (v.kind == V_TUPLE && n == 1) TRY(build_text(b, ",", v.origin));
    return build_text(b, close, v.origin);
}

static status repr_dict(struct build *b, struct value v)
{
    TRY(build_text(b, v.kind == V_DICT ? "{" : "<Namespace {", v.origin));
    for (size_t i = 0; i < v.d->n; i++) {
        if (i) TRY(build_text(b, ", ", v.origin));
        TRY(print_repr(b, v.d->v[i].key));
        TRY(build_text(b, ": ", v.origin));
        TRY(print_repr(b, v.d->v[i].value));
    }
    return build_text(b, v.kind == V_DICT ? "}" : "}>", v.origin);
}

static status repr_range(struct build *b, struct value v)
{
    char text[96];
    int n = snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64, v.range->start, v.range->stop);
    if (v.range->step != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %" PRId64, v.range->step);
    snprintf(text + n, sizeof text - (size_t)n, ")");
    return build_text(b, text, v.origin);
}

static status repr_nested(struct build *b, struct value v)
{
    static const char *const view_open[] = {[VIEW_KEYS] = "dict_keys([", [VIEW_VALUES] = "dict_values([", [VIEW_ITEMS] = "dict_items(["};
    switch (v.kind) {
    case V_LIST:
        return repr_items(b, v, "[", "]");
    case V_TUPLE:
        return repr_items(b, v, "(", ")");
    case V_VIEW:
        return repr_items(b, v, view_open[v.view->what], "])");
    case V_DICT:
    case V_NAMESPACE:
        return repr_dict(b, v);
    default:
        break; /* Python prints an address */
    }
    return tpl_fail(b->r, "a %s is printed as if it were text", kind_names[v.kind]);
}

static status print_scalar(struct build *b, struct value v, bool *done)
{
    char text[40];
    *done = true;
    switch (v.kind) {
    case V_UNDEFINED:
        return build_text(b, "Undefined", TEMPLATE_ITSELF);
    case V_NONE:
        return build_text(b, "None", v.origin);
    case V_BOOL:
        return build_text(b, v.b ? "True" : "False", v.origin);
    case V_INT:
        snprintf(text, sizeof text, "%" PRId64, v.i);
        return build_text(b, text, v.origin);
    case V_FLOAT:
        TRY(tpl_spend(b->r, TPL_FLOAT_WORK));
        print_float(v.f, text);
        return build_text(b, text, v.origin);
    case V_RANGE:
        return repr_range(b, v);
    case V_STRING:
        if (v.markup) TRY(build_text(b, "Markup(", v.origin));
        TRY(repr_string(b, v));
        return v.markup ? build_text(b, ")", v.origin) : ST_OK;
    default:
        *done = false;
        return ST_OK;
    }
}

status print_repr(struct build *b, struct value v)
{
    bool done;
    TRY(tpl_spend(b->r, TPL_NODE_WORK));
    TRY(print_scalar(b, v, &done));
    if (done) return ST_OK;
    TRY(tpl_enter(b->r));
    TRY(repr_nested(b, v));
    tpl_leave(b->r);
    return ST_OK;
}

status print_value(struct build *b, struct value v)
{
    if (is_string(v)) return build_str(b, v);
    if (v.kind == V_UNDEFINED) return ST_OK;
    return print_repr(b, v);
}

status value_to_str(struct render *r, struct value v, struct value *out)
{
    struct build b = {.r = r};
    *out = v;
    if (is_string(v)) return ST_OK;
    TRY(print_value(&b, v));
    *out = build_done(&b);
    return ST_OK;
}
