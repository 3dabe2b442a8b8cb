/* Python's two ways to format: "…%s…" % args, and "…{}…".format(args). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_value.h"

/* One field, as both ways understand it. */
struct spec {
    struct value fill;        /* one character; V_ABSENT: a space */
    char align;               /* '<' '>' '^' '=' or 0 */
    char sign;                /* '+' ' ' or 0 */
    bool alternate;           /* # */
    char group;               /* ',' '_' or 0 */
    int64_t width, precision; /* precision -1: not given */
    char type;                /* 0: not given */
};
enum { MAX_WIDTH = 100000, MAX_PRECISION = 300 };

/* ---- one value to text ------------------------------------------------------------------------------------------- */

static status put_padded(struct build *b, const struct spec *s, char align, struct value sign, struct value body)
{
    struct value fill = s->fill.kind == V_ABSENT ? value_text(&b->r->pool, " ", 1, body.origin) : s->fill;
    int64_t more = s->width - (int64_t)(sign.s->chars + body.s->chars);
    int64_t left = more <= 0 || align == '<' ? 0 : align == '^' ? more / 2 : more;
    if (align != '=') TRY(build_repeat(b, fill, left));
    TRY(build_str(b, sign));
    if (align == '=') TRY(build_repeat(b, fill, left));
    TRY(build_str(b, body));
    return build_repeat(b, fill, more - left);
}

static status put_text(struct build *b, const struct spec *s, char align, struct value v)
{
    if (s->precision >= 0) v = str_cut(b->r, v, 0, str_offset(v.s, (size_t)s->precision));
    return put_padded(b, s, align, value_text(&b->r->pool, "", 0, v.origin), v);
}

/* Digits with a mark between groups of three (or four, of hexadecimal). */
static void group_digits(const char *digits, char mark, int size, char *out)
{
    size_t whole = strspn(digits, "0123456789abcdefABCDEF"), to = 0;
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % (size_t)size == 0) out[to++] = mark;
        out[to++] = digits[i];
    }
    strcpy(out + to, digits + whole);
}

static void integer_digits(uint64_t i, char type, char out[72])
{
    int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    char text[72], *p = text + sizeof text - 1;
    *p = 0;
    do *--p = (type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[i % (unsigned)base];
    while (i /= (unsigned)base);
    strcpy(out, p);
}

static void float_digits(double f, const struct spec *s, char out[700])
{
    char format[16], type = s->type;
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : "inf");
        return;
    }
    if (!type && s->precision < 0) {
        print_float(f, out);
        return;
    }
    if (type == '%') f *= 100;
    snprintf(format, sizeof format, "%%%s.*%c", s->alternate ? "#" : "", type == '%' ? 'f' : type ? type : 'g');
    snprintf(out, 680, format, !type && precision == 0 ? 1 : precision, f);
    if (!type && !strpbrk(out, ".e")) strcat(out, ".0"); /* a float shows that it is one */
    if (type == '%') strcat(out, "%");
}

static status put_number(struct build *b, const struct spec *s, char align, struct value v)
{
    char digits[720], grouped[1024], sign[8] = "";
    bool real = v.kind == V_FLOAT || (s->type && strchr("fFeEgG%", s->type));
    bool negative = real ? signbit(value_double(v)) : value_integer(v) < 0;
    if (real)
        float_digits(fabs(value_double(v)), s, digits);
    else
        integer_digits(negative ? -(uint64_t)value_integer(v) : (uint64_t)value_integer(v), s->type, digits);
    if (negative || s->sign) snprintf(sign, sizeof sign, "%c", negative ? '-' : s->sign);
    if (s->alternate && s->type && strchr("xXob", s->type)) strncat(sign, (char[3]){'0', s->type, 0}, 3);
    if (s->group) group_digits(digits, s->group, s->type && strchr("xXob", s->type) ? 4 : 3, grouped);
    const char *text = s->group ? grouped : digits;
    struct value parts[2];
    struct build part = {.r = b->r};
    TRY(build_text(&part, sign, v.origin));
    parts[0] = build_done(&part);
    part = (struct build){.r = b->r};
    TRY(build_text(&part, text, v.origin));
    parts[1] = build_done(&part);
    return put_padded(b, s, align, parts[0], parts[1]);
}

/* ---- "…" % args -------------------------------------------------------------------------------------------------- */

struct percent {
    struct render *r;
    struct value format;
    size_t at;
    const struct value *items; /* of a tuple; or the one value */
    size_t n, used;
    struct value named; /* a dict */
};

static char next_byte(const struct percent *p) { return p->at < p->format.s->n ? p->format.s->p[p->at] : 0; }

static status next_item(struct percent *p, struct value *out)
{
    if (p->used == p->n) return tpl_fail(p->r, "not enough arguments for the format string");
    *out = p->items[p->used++];
    return ST_OK;
}

/* A number in the format, or * for an argument. */
static status read_count(struct percent *p, int64_t most, int64_t *out)
{
    *out = 0;
    if (next_byte(p) == '*') {
        struct value v;
        p->at++;
        TRY(next_item(p, &v));
        if (!is_integral(v)) return tpl_fail(p->r, "* in a format wants an integer");
        *out = value_integer(v);
    } else {
        while (next_byte(p) >= '0' && next_byte(p) <= '9' && *out <= most) *out = *out * 10 + (p->format.s->p[p->at++] - '0');
    }
    if (*out > most || *out < -most) return tpl_fail(p->r, "a width or precision beyond %" PRId64 " in a format", most);
    return ST_OK;
}

static status read_flags(struct percent *p, struct spec *s, bool *zero)
{
    for (;; p->at++) {
        char c = next_byte(p);
        if (c == '-')
            s->align = '<';
        else if (c == '+')
            s->sign = '+';
        else if (c == ' ')
            s->sign = s->sign ? s->sign : ' ';
        else if (c == '0')
            *zero = true;
        else if (c == '#')
            s->alternate = true;
        else
            break;
    }
    TRY(read_count(p, MAX_WIDTH, &s->width));
    if (s->width < 0) {
        s->align = '<';
        s->width = -s->width;
    }
    if (next_byte(p) != '.') return ST_OK;
    p->at++;
    TRY(read_count(p, MAX_PRECISION, &s->precision));
    if (s->precision < 0) s->precision = 0;
    return ST_OK;
}

static status read_key(struct percent *p, struct value *out)
{
    size_t from = ++p->at;
    while (p->at < p->format.s->n && p->format.s->p[p->at] != ')') p->at++;
    if (p->at == p->format.s->n) return tpl_fail(p->r, "a format string ends within a key");
    struct value key = str_cut(p->r, p->format, from, p->at++);
    if (p->named.kind != V_DICT) return tpl_fail(p->r, "the format wants a mapping");
    const struct value *v = dict_get(p->r, p->named.d, key);
    if (!v) return tpl_fail(p->r, "the format names a key that is not given");
    *out = *v;
    return ST_OK;
}

static status put_percent(struct build *b, struct percent *p, struct spec *s, bool zero, struct value v)
{
    bool numeric = strchr("diufFeEgGxXo", s->type) != NULL;
    if (s->type == 'r' || s->type == 'a') {
        struct build repr = {.r = b->r};
        TRY(print_repr(&repr, v));
        return put_text(b, s, s->align ? s->align : '>', build_done(&repr));
    }
    if (s->type == 's' || (s->type == 'c' && is_string(v) && v.s->chars == 1)) {
        TRY(value_to_str(b->r, v, &v));
        return put_text(b, s, s->align ? s->align : '>', v);
    }
    if (!numeric) return tpl_fail(p->r, "the format %%%c with a '%s'", s->type, kind_names[v.kind]);
    if (!is_number(v)) return tpl_fail(p->r, "%%%c wants a number, not '%s'", s->type, kind_names[v.kind]);
    if (strchr("diuxXo", s->type)) {
        if (v.kind == V_FLOAT && !(fabs(v.f) < 9e18)) return tpl_fail(p->r, "an integer beyond 64 bits");
        if (v.kind == V_FLOAT) v.i = (int64_t)v.f, v.kind = V_INT;
        if (s->precision >= 0) return tpl_fail_unbuilt(p->r, "a precision for an integer in a format");
    }
    if (s->type == 'u' || s->type == 'i') s->type = 'd';
    if (zero && !s->align) s->fill = value_text(&b->r->pool, "0", 1, v.origin);
    return put_number(b, s, s->align ? s->align : zero ? '=' : '>', v);
}

static status put_field(struct build *b, struct percent *p)
{
    struct spec s = {.precision = -1};
    struct value v = {.kind = V_ABSENT};
    bool zero = false;
    p->at++;
    if (next_byte(p) == '(') TRY(read_key(p, &v));
    TRY(read_flags(p, &s, &zero));
    while (next_byte(p) && strchr("hlL", next_byte(p))) p->at++;
    s.type = next_byte(p);
    if (!s.type) return tpl_fail(p->r, "a format string ends within a field");
    p->at++;
    if (s.type == '%') return build_cut(b, p->format, p->at - 1, p->at);
    if (!strchr("diufFeEgGxXosrac", s.type)) return tpl_fail(p->r, "an unsupported format character");
    if (v.kind == V_ABSENT) TRY(next_item(p, &v));
    return put_percent(b, p, &s, zero, v);
}

status tpl_percent(struct render *r, struct value format, struct value args, struct value *out)
{
    struct percent p = {.r = r, .format = format, .items = &args, .n = 1};
    struct build b = {.r = r};
    if (format.markup) return tpl_fail_unbuilt(r, "%% of a text marked safe is not built here");
    if (args.kind == V_DICT) p.named = args;
    if (args.kind == V_TUPLE) {
        p.items = args.l->v;
        p.n = args.l->n;
    }
    while (p.at < format.s->n) {
        const char *mark = memchr(format.s->p + p.at, '%', format.s->n - p.at);
        size_t to = mark ? (size_t)(mark - format.s->p) : format.s->n;
        TRY(build_cut(&b, format, p.at, to));
        p.at = to;
        if (mark) TRY(put_field(&b, &p));
    }
    bool indexable = args.kind == V_DICT || args.kind == V_LIST || args.kind == V_RANGE || args.kind == V_UNDEFINED;
    if (p.used < p.n && !indexable) /* Python lets pass what could be a mapping */
        return tpl_fail(r, "not all arguments were used by the format string");
    *out = build_done(&b);
    return ST_OK;
}

/* ---- "…".format(args) -------------------------------------------------------------------------------------------- */

static status bad_spec(struct render *r) { return tpl_fail(r, "a format specification that Python does not know"); }

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static status read_spec(struct render *r, struct value text, struct spec *s)
{
    const char *p = text.s->p, *end = p + text.s->n;
    size_t first = 0;
    if (p < end) char_at(p, text.s->n, &first);
    if (first && p + first < end && strchr("<>=^", p[first])) {
        s->fill = str_cut(r, text, 0, first);
        s->align = p[first];
        p += first + 1;
    } else if (p < end && strchr("<>=^", *p)) {
        s->align = *p++;
    }
    if (p < end && strchr("+- ", *p)) {
        s->sign = *p == '-' ? 0 : *p;
        p++;
    }
    if (p < end && *p == '#') s->alternate = true, p++;
    if (p < end && *p == '0' && !s->align) {
        s->fill = value_text(&r->pool, "0", 1, text.origin);
        s->align = '=';
        p++;
    }
    for (; p < end && *p >= '0' && *p <= '9' && s->width <= MAX_WIDTH; p++) s->width = s->width * 10 + (*p - '0');
    if (p < end && (*p == ',' || *p == '_')) s->group = *p++;
    if (p < end && *p == '.') {
        s->precision = 0;
        for (p++; p < end && *p >= '0' && *p <= '9' && s->precision <= MAX_PRECISION; p++) s->precision = s->precision * 10 + (*p - '0');
    }
    if (s->width > MAX_WIDTH || s->precision > MAX_PRECISION) return tpl_fail(r, "a width or precision too large to format");
    if (p < end) s->type = *p++;
    if (p < end || (s->type && !strchr("sdfFeEgGxXob%", s->type))) return bad_spec(r);
    return ST_OK;
}

static status put_formatted(struct build *b, struct value v, struct value spec_text)
{
    struct spec s = {.precision = -1};
    TRY(read_spec(b->r, spec_text, &s));
    bool numeric = is_number(v) && (v.kind != V_BOOL || s.type);
    if (numeric && s.type != 's') {
        if (v.kind == V_FLOAT && s.type && strchr("dxXob", s.type)) return bad_spec(b->r);
        if (is_integral(v) && s.precision >= 0 && (!s.type || strchr("dxXob", s.type))) return bad_spec(b->r);
        return put_number(b, &s, s.align ? s.align : '>', v);
    }
    if (spec_text.s->n && !is_string(v) && v.kind != V_BOOL) return bad_spec(b->r);
    if ((s.type && s.type != 's') || s.align == '=' || s.sign || s.group) return bad_spec(b->r);
    TRY(value_to_str(b->r, v, &v));
    return put_text(b, &s, s.align ? s.align : '<', v);
}

struct fields {
    struct render *r;
    const struct args *args;
    size_t next;
    bool numbered, automatic;
};

/* The value a field names: nothing, a number or a name, then .attr and [item]. */
static status find_field(struct fields *f, struct value name, struct value *out)
{
    const struct str *s = name.s;
    size_t end = 0, index = 0;
    while (end < s->n && s->p[end] != '.' && s->p[end] != '[') end++;
    bool number = end > 0;
    for (size_t i = 0; i < end; i++) {
        number = number && s->p[i] >= '0' && s->p[i] <= '9' && i < 9;
        if (number) index = index * 10 + (size_t)(s->p[i] - '0');
    }
    if (end < s->n) return tpl_fail_unbuilt(f->r, "attributes and items inside a field of .format() are not built here");
    if (!end || number) {
        f->automatic |= !end;
        f->numbered |= number;
        if (f->automatic && f->numbered) return tpl_fail(f->r, ".format() mixes numbered and automatic fields");
        if (!end) index = f->next++;
        if (index >= f->args->n) return tpl_fail(f->r, ".format() has no argument %zu", index);
        *out = f->args->v[index];
        return ST_OK;
    }
    for (size_t i = 0; i < f->args->n_named; i++) {
        const struct str *key = f->args->named[i].key.s;
        if (key->n != end || memcmp(key->p, s->p, end)) continue;
        *out = f->args->named[i].value;
        return ST_OK;
    }
    return tpl_fail(f->r, ".format() lacks a named argument");
}

/* {name!conversion:spec}; the text between the braces. */
static status put_replacement(struct build *b, struct fields *f, struct value field)
{
    const struct str *s = field.s;
    size_t colon = 0, bang;
    if (memchr(s->p, '{', s->n)) return tpl_fail_unbuilt(f->r, "a field within a field of .format() is not built here");
    while (colon < s->n && s->p[colon] != ':') colon++;
    for (bang = 0; bang < colon && s->p[bang] != '!'; bang++) continue;
    struct value v, spec = str_cut(f->r, field, colon < s->n ? colon + 1 : colon, s->n);
    TRY(find_field(f, str_cut(f->r, field, 0, bang), &v));
    if (bang < colon) {
        struct build text = {.r = f->r};
        char how = colon - bang == 2 ? s->p[bang + 1] : 0;
        if (how != 'r' && how != 's') return tpl_fail(f->r, "an unknown conversion in .format()");
        TRY(how == 'r' ? print_repr(&text, v) : print_value(&text, v));
        v = build_done(&text);
    }
    return put_formatted(b, v, spec);
}

status tpl_format(struct render *r, struct value format, const struct args *a, struct value *out)
{
    struct fields f = {.r = r, .args = a};
    struct build b = {.r = r};
    const struct str *s = format.s;
    if (format.markup) return tpl_fail_unbuilt(r, "format of a text marked safe is not built here");
    for (size_t at = 0; at < s->n; at++) {
        char c = s->p[at];
        if (c != '{' && c != '}') {
            TRY(build_cut(&b, format, at, at + 1));
            continue;
        }
        if (at + 1 < s->n && s->p[at + 1] == c) { /* doubled: itself */
            TRY(build_cut(&b, format, at, at + 1));
            at++;
            continue;
        }
        const char *close = c == '{' ? memchr(s->p + at, '}', s->n - at) : NULL;
        if (!close) return tpl_fail(r, "a single '%c' in the text of .format()", c);
        size_t to = (size_t)(close - s->p);
        TRY(put_replacement(&b, &f, str_cut(r, format, at + 1, to)));
        at = to;
    }
    *out = build_done(&b);
    return ST_OK;
}
