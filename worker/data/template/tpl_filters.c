/* Filters of single values, and the table of all filters. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_methods.h"

/* Jinja's soft_str: what a filter of texts is applied to. */
static status soften(struct call *c) { return value_to_str(c->r, c->self, &c->self); }

/* ---- texts ------------------------------------------------------------------------------------------------------- */

static status change_case(struct call *c, enum letter_case how, struct value *out)
{
    TRY(soften(c));
    return str_case(c->r, c->self, how, out);
}

static status filter_upper(struct call *c, struct value *out) { return change_case(c, CASE_UPPER, out); }
static status filter_lower(struct call *c, struct value *out) { return change_case(c, CASE_LOWER, out); }
static status filter_capitalize(struct call *c, struct value *out) { return change_case(c, CASE_CAPITAL, out); }

/* Not str.title(): words begin after white space and - ( { [ <, and only there. */
static status filter_title(struct call *c, struct value *out)
{
    struct build b = {.r = c->r};
    TRY(soften(c));
    const struct str *s = c->self.s;
    size_t len;
    for (size_t from = 0, at = 0; at <= s->n; at += len) {
        int32_t code = at < s->n ? char_at(s->p + at, s->n - at, &len) : (len = 1, ' ');
        if (!char_is_space(code) && !(code < 0x80 && strchr("-({[<", code))) continue;
        if (at > from) {
            size_t first;
            struct value part;
            char_at(s->p + from, s->n - from, &first);
            TRY(str_case(c->r, str_cut(c->r, c->self, from, from + first), CASE_UPPER, &part));
            TRY(build_str(&b, part));
            TRY(str_case(c->r, str_cut(c->r, c->self, from + first, at), CASE_LOWER, &part));
            TRY(build_str(&b, part));
        }
        if (at < s->n) TRY(build_cut(&b, c->self, at, at + len));
        from = at + len;
    }
    *out = build_done(&b);
    return ST_OK;
}

static status filter_trim(struct call *c, struct value *out)
{
    TRY(soften(c));
    return str_strip(c, out);
}

static status filter_string(struct call *c, struct value *out)
{
    TRY(soften(c));
    *out = c->self;
    return ST_OK;
}

static status filter_safe(struct call *c, struct value *out)
{
    TRY(soften(c));
    *out = c->self;
    out->markup = true;
    return ST_OK;
}

static status filter_escape(struct call *c, struct value *out)
{
    TRY(soften(c));
    *out = c->self;
    return c->self.markup ? ST_OK : str_escape(c->r, c->self, out);
}

static status filter_forceescape(struct call *c, struct value *out)
{
    TRY(soften(c));
    return str_escape(c->r, c->self, out);
}

/* str() of all three: no Markup is left. */
static status filter_replace(struct call *c, struct value *out)
{
    TRY(soften(c));
    for (int i = 0; i < 2; i++) TRY(value_to_str(c->r, c->arg[i], &c->arg[i]));
    c->self.markup = false;
    return str_replace(c, out);
}

static status filter_center(struct call *c, struct value *out)
{
    TRY(soften(c));
    if (c->arg[0].kind == V_ABSENT) c->arg[0] = value_int(80);
    return str_center(c, out);
}

static status filter_format(struct call *c, struct value *out)
{
    TRY(soften(c));
    struct list l = {.v = (struct value *)c->given->v, .n = c->given->n};
    struct dict *named = pool_take(&c->r->pool, sizeof *named);
    *named = (struct dict){.v = (struct pair *)c->given->named, .n = c->given->n_named};
    if (l.n && named->n) return tpl_fail(c->r, "filter 'format' takes arguments by position or by name, not both");
    struct value args = named->n ? (struct value){.kind = V_DICT, .d = named} : value_list(c->r, l, V_TUPLE, TEMPLATE_ITSELF);
    return tpl_percent(c->r, c->self, args, out);
}

static status filter_indent(struct call *c, struct value *out)
{
    struct build b = {.r = c->r}, quirk = {.r = c->r};
    struct value width, lines, newline = value_text(&c->r->pool, "\n", 1, TEMPLATE_ITSELF);
    bool first = arg_true(c, 1), blank = arg_true(c, 2);
    if (!is_string(c->self)) return tpl_fail(c->r, "filter 'indent' needs a string, not '%s'", kind_names[c->self.kind]);
    if (is_string(c->arg[0])) {
        width = c->arg[0];
    } else {
        int64_t n;
        struct build spaces = {.r = c->r};
        TRY(arg_int(c, 0, 4, &n));
        TRY(build_repeat(&spaces, value_text(&c->r->pool, " ", 1, TEMPLATE_ITSELF), n));
        width = build_done(&spaces);
    }
    TRY(build_str(&quirk, c->self)); /* Jinja adds a line end before it splits */
    TRY(build_str(&quirk, newline));
    struct call split = {.r = c->r, .what = c->what, .self = build_done(&quirk)};
    TRY(str_splitlines(&split, &lines));
    for (size_t i = 0; i < lines.l->n; i++) {
        if (i) TRY(build_str(&b, newline));
        if (i ? blank || lines.l->v[i].s->n : first) TRY(build_str(&b, width));
        TRY(build_str(&b, lines.l->v[i]));
    }
    *out = build_done(&b);
    out->markup = c->self.markup;
    return ST_OK;
}

static status filter_truncate(struct call *c, struct value *out)
{
    int64_t length, leeway;
    struct value end;
    struct build b = {.r = c->r};
    size_t n;
    if (!value_length(c->self, &n)) return tpl_fail(c->r, "filter 'truncate' needs a string, not '%s'", kind_names[c->self.kind]);
    TRY(arg_int(c, 0, 255, &length));
    TRY(arg_str(c, 2, "...", &end));
    TRY(arg_int(c, 3, 5, &leeway));
    if (length < (int64_t)end.s->chars || leeway < 0) return tpl_fail(c->r, "filter 'truncate': a length that is too small");
    *out = c->self;
    if ((int64_t)n - leeway <= length) return ST_OK;
    if (!is_string(c->self)) return tpl_fail(c->r, "filter 'truncate' needs a string, not '%s'", kind_names[c->self.kind]);
    size_t keep = str_offset(c->self.s, (size_t)length - end.s->chars), space = keep;
    while (!arg_true(c, 1) && space > 0 && c->self.s->p[space - 1] != ' ') space--;
    TRY(build_cut(&b, c->self, 0, space > 0 && !arg_true(c, 1) ? space - 1 : keep));
    TRY(build_str(&b, end));
    *out = build_done(&b);
    return ST_OK;
}

static status filter_wordcount(struct call *c, struct value *out)
{
    int64_t n = 0;
    bool inside = false;
    size_t len;
    TRY(soften(c));
    TRY(tpl_spend(c->r, c->self.s->n));
    for (size_t at = 0; at < c->self.s->n; at += len) {
        bool word = char_is_word(char_at(c->self.s->p + at, c->self.s->n - at, &len));
        n += word && !inside;
        inside = word;
    }
    *out = value_int(n);
    return ST_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static bool is_base_digit(char c, int base)
{
    int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
    return d < base;
}

/* A literal of Python's int() or float(): white space around it, single underscores within. false: it is none. */
static bool clean_number(struct value s, char out[400])
{
    size_t from = 0, to = s.s->n, n = 0, len;
    while (from < to && char_is_space(char_at(s.s->p + from, to - from, &len))) from += len;
    while (to > from && char_is_space(char_before(s.s->p, to, &len))) to -= len;
    if (from == to || to - from >= 399) return false;
    for (size_t i = from; i < to; i += len) {
        int32_t c = char_at(s.s->p + i, to - i, &len);
        bool inner = i > from && i + 1 < to && is_base_digit(s.s->p[i - 1], 36) && is_base_digit(s.s->p[i + 1], 36);
        if (c == '_' && !inner) return false;
        if (c >= 0x80 && char_digit(c) < 0) return false;
        if (c != '_') out[n++] = (char)(c < 0x80 ? c : '0' + char_digit(c));
    }
    out[n] = 0;
    return true;
}

/* *beyond: it is an integer, past 64 bits. */
static bool parse_int(struct value s, int base, int64_t *out, bool *beyond)
{
    char text[400], *p = text;
    *beyond = false;
    if (!clean_number(s, text)) return false;
    p += *p == '-' || *p == '+';
    char mark = *p == '0' ? (char)(p[1] | 32) : 0;
    int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == marked || base == 0)) {
        base = marked;
        p += 2;
    } else if (base == 0) {
        base = 10;
    }
    if (!*p) return false;
    for (const char *q = p; *q; q++)
        if (!is_base_digit(*q, base)) return false;
    errno = 0;
    int64_t v = strtoll(p, NULL, base);
    *out = *text == '-' ? -v : v;
    *beyond = errno == ERANGE;
    return true;
}

static bool parse_float(struct value s, double *out)
{
    char text[400], *end;
    if (!clean_number(s, text) || strpbrk(text, "xXpP(")) return false;
    *out = strtod(text, &end);
    return !*end;
}

static status too_large(struct call *c) { return tpl_fail(c->r, "an integer beyond 64 bits"); }

/* int(f), where it is one. */
static status truncated(struct call *c, double f, struct value *out)
{
    if (!(fabs(f) < 9.2e18)) return too_large(c);
    *out = value_int((int64_t)f);
    return ST_OK;
}

static status filter_int(struct call *c, struct value *out)
{
    int64_t base, i;
    bool beyond;
    double f;
    struct value otherwise = c->arg[0].kind == V_ABSENT ? value_int(0) : c->arg[0];
    TRY(arg_int(c, 1, 10, &base));
    if (base < 0 || base == 1 || base > 36) return tpl_fail(c->r, "filter 'int': base %d", (int)base);
    *out = otherwise;
    if (c->self.kind == V_UNDEFINED) return tpl_fail_undefined(c->r, c->self);
    if (is_integral(c->self)) {
        *out = value_int(value_integer(c->self));
    } else if (c->self.kind == V_FLOAT) {
        if (isinf(c->self.f)) return tpl_fail(c->r, "filter 'int': infinity is no integer");
        if (!isnan(c->self.f)) TRY(truncated(c, c->self.f, out));
    } else if (is_string(c->self)) {
        if (parse_int(c->self, (int)base, &i, &beyond)) {
            if (beyond) return too_large(c);
            *out = value_int(i);
        } else if (parse_float(c->self, &f) && isfinite(f)) {
            TRY(truncated(c, f, out));
        }
    }
    out->origin = c->self.origin;
    return ST_OK;
}

static status filter_float(struct call *c, struct value *out)
{
    double f;
    *out = c->arg[0].kind == V_ABSENT ? value_float(0) : c->arg[0];
    if (c->self.kind == V_UNDEFINED) return tpl_fail_undefined(c->r, c->self);
    if (is_number(c->self))
        *out = value_float(value_double(c->self));
    else if (is_string(c->self) && parse_float(c->self, &f))
        *out = value_float(f);
    out->origin = c->self.origin;
    return ST_OK;
}

static status need_number(struct call *c)
{
    if (c->self.kind == V_UNDEFINED) return tpl_fail_undefined(c->r, c->self);
    if (!is_number(c->self)) return tpl_fail(c->r, "filter '%s' needs a number, not '%s'", c->what->name, kind_names[c->self.kind]);
    return ST_OK;
}

static status filter_abs(struct call *c, struct value *out)
{
    TRY(need_number(c));
    *out = is_integral(c->self) ? value_int(value_integer(c->self)) : c->self;
    bool negative = out->kind == V_INT ? out->i < 0 : signbit(out->f);
    return negative ? value_negate(c->r, *out, out) : ST_OK;
}

/* Python rounds halves to even, of the exact value: so does printf. */
static double round_common(double f, int64_t precision)
{
    char text[400];
    if (!isfinite(f) || precision > 22) return f;
    if (precision >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)precision, f);
        return strtod(text, NULL);
    }
    double unit = pow(10, (double)-precision);
    return rint(f / unit) * unit;
}

static status filter_round(struct call *c, struct value *out)
{
    int64_t precision;
    struct value method;
    TRY(need_number(c));
    TRY(arg_int(c, 0, 0, &precision));
    TRY(arg_str(c, 1, "common", &method));
    if (precision < -300 || precision > 300) return tpl_fail(c->r, "filter 'round': a precision of %d", (int)precision);
    bool up = str_is(method, "ceil"), down = str_is(method, "floor");
    if (!up && !down && !str_is(method, "common")) return tpl_fail(c->r, "filter 'round': the method must be common, ceil or floor");
    double f = value_double(c->self), unit = pow(10, (double)precision);
    if (up || down) {
        *out = value_float((up ? ceil(f * unit) : floor(f * unit)) / unit);
    } else if (is_integral(c->self)) {
        *out = precision >= 0 ? value_int(value_integer(c->self)) : value_int((int64_t)round_common(f, precision));
    } else {
        *out = value_float(round_common(f, precision));
    }
    return ST_OK;
}

/* ---- anything ---------------------------------------------------------------------------------------------------- */

static status filter_length(struct call *c, struct value *out)
{
    size_t n;
    if (!value_length(c->self, &n)) return tpl_fail(c->r, "an object of type '%s' has no length", kind_names[c->self.kind]);
    *out = value_int((int64_t)n);
    return ST_OK;
}

static status filter_default(struct call *c, struct value *out)
{
    bool replace = c->self.kind == V_UNDEFINED || (arg_true(c, 1) && !value_true(c->self));
    *out = replace ? c->arg[0] : c->self;
    if (out->kind == V_ABSENT) *out = value_text(&c->r->pool, "", 0, TEMPLATE_ITSELF);
    return ST_OK;
}

static status filter_attr(struct call *c, struct value *out)
{
    struct value name;
    TRY(arg_str(c, 0, "", &name));
    bool method = c->self.kind != V_DICT || builtin_find(tpl_dict_methods, (struct word){name.s->p, name.s->n});
    if (method) return value_attr(c->r, c->self, name, out);
    *out = value_undefined(c->r, c->self, name); /* attributes only: the items of a dict are not asked */
    return ST_OK;
}

#define FOREIGN(name)                                                                                                                      \
    {                                                                                                                                      \
        name, NULL, NULL, false                                                                                                            \
    }
const struct builtin tpl_filters[] = {
    {"abs", "", filter_abs, false},
    {"attr", "name", filter_attr, false},
    {"batch", "linecount ?fill_with", filter_batch, false},
    {"capitalize", "", filter_capitalize, false},
    {"center", "?width", filter_center, false},
    {"count", "/", filter_length, false},
    {"d", "?default_value ?boolean", filter_default, false},
    {"default", "?default_value ?boolean", filter_default, false},
    {"dictsort", "?case_sensitive ?by ?reverse", filter_dictsort, false},
    {"e", "/", filter_escape, false},
    {"escape", "/", filter_escape, false},
    {"first", "", filter_first, false},
    {"float", "?default", filter_float, false},
    {"forceescape", "", filter_forceescape, false},
    {"format", NULL, filter_format, false},
    {"groupby", "attribute ?default ?case_sensitive", filter_groupby, false},
    {"indent", "?width ?first ?blank", filter_indent, false},
    {"int", "?default ?base", filter_int, false},
    {"items", "", filter_items, false},
    {"join", "?d ?attribute", filter_join, false},
    {"last", "", filter_last, false},
    {"length", "/", filter_length, false},
    {"list", "", filter_list, false},
    {"lower", "", filter_lower, false},
    {"map", NULL, filter_map, false},
    {"max", "?case_sensitive ?attribute", filter_max, false},
    {"min", "?case_sensitive ?attribute", filter_min, false},
    {"reject", NULL, filter_reject, false},
    {"rejectattr", NULL, filter_rejectattr, false},
    {"replace", "old new ?count", filter_replace, false},
    {"reverse", "", filter_reverse, false},
    {"round", "?precision ?method", filter_round, false},
    {"safe", "", filter_safe, false},
    {"select", NULL, filter_select, false},
    {"selectattr", NULL, filter_selectattr, false},
    {"slice", "slices ?fill_with", filter_slice, false},
    {"sort", "?reverse ?case_sensitive ?attribute", filter_sort, false},
    {"string", "/", filter_string, false},
    {"sum", "?attribute ?start", filter_sum, false},
    {"title", "", filter_title, false},
    {"tojson", "?ensure_ascii ?indent ?separators ?sort_keys", tpl_tojson, false},
    {"trim", "?chars", filter_trim, false},
    {"truncate", "?length ?killwords ?end ?leeway", filter_truncate, false},
    {"unique", "?case_sensitive ?attribute", filter_unique, false},
    {"upper", "", filter_upper, false},
    {"wordcount", "", filter_wordcount, false},
    FOREIGN("filesizeformat"),
    FOREIGN("pprint"),
    FOREIGN("random"),
    FOREIGN("striptags"),
    FOREIGN("urlencode"),
    FOREIGN("urlize"),
    FOREIGN("wordwrap"),
    FOREIGN("xmlattr"),
    {NULL, NULL, NULL, false},
};
