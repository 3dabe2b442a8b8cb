/* The methods of Python's str. Positions are code points outside and bytes inside. */
#include <string.h>

#include <utf8proc.h>

#include "worker/data/template/tpl_methods.h"

/* ---- searching --------------------------------------------------------------------------------------------------- */

/* Bytes [from, to) of s between the arguments `first` and `first + 1`, read as the bounds of a slice. */
static status window(struct call *c, struct value s, int first, size_t *from, size_t *to, bool *empty)
{
    int64_t n = (int64_t)s.s->chars, bound[2];
    TRY(arg_int(c, first, 0, &bound[0]));
    TRY(arg_int(c, first + 1, n, &bound[1]));
    *empty = bound[0] > n;
    for (int i = 0; i < 2; i++) {
        if (bound[i] < 0) bound[i] = bound[i] < -n ? 0 : bound[i] + n;
        if (bound[i] > n) bound[i] = n;
    }
    *empty |= bound[0] > bound[1];
    *from = str_offset(s.s, (size_t)bound[0]);
    *to = *empty ? *from : str_offset(s.s, (size_t)bound[1]);
    return tpl_spend(c->r, s.s->n);
}

/* The first or last place of `what` in bytes [from, to) of s; SIZE_MAX: none. */
static size_t find(const struct str *s, size_t from, size_t to, const struct str *what, bool last)
{
    if (to - from < what->n) return SIZE_MAX;
    if (!last) {
        if (!what->n) return from;
        const char *at = memmem(s->p + from, to - from, what->p, what->n);
        return at ? (size_t)(at - s->p) : SIZE_MAX;
    }
    for (size_t at = to - what->n + 1; at-- > from;)
        if (!memcmp(s->p + at, what->p, what->n)) return at;
    return SIZE_MAX;
}

static int64_t chars_before(const struct str *s, size_t at)
{
    int64_t chars = 0;
    for (size_t i = 0; i < at; i++) chars += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    return chars;
}

static status find_any(struct call *c, bool last, bool must, struct value *out)
{
    struct value what;
    size_t from, to;
    bool empty;
    TRY(arg_str(c, 0, "", &what));
    TRY(window(c, c->self, 1, &from, &to, &empty));
    if (last) TRY(tpl_spend(c->r, c->self.s->n * (what.s->n / 16 + 1)));
    size_t at = empty ? SIZE_MAX : find(c->self.s, from, to, what.s, last);
    if (at == SIZE_MAX && must) return tpl_fail(c->r, "'%s': substring not found", c->what->name);
    *out = value_int(at == SIZE_MAX ? -1 : chars_before(c->self.s, at));
    return ST_OK;
}

static status str_find(struct call *c, struct value *out) { return find_any(c, false, false, out); }
static status str_rfind(struct call *c, struct value *out) { return find_any(c, true, false, out); }
static status str_index(struct call *c, struct value *out) { return find_any(c, false, true, out); }
static status str_rindex(struct call *c, struct value *out) { return find_any(c, true, true, out); }

static status str_count(struct call *c, struct value *out)
{
    struct value what;
    size_t from, to, at;
    bool empty;
    int64_t n = 0;
    TRY(arg_str(c, 0, "", &what));
    TRY(window(c, c->self, 1, &from, &to, &empty));
    if (!what.s->n && !empty) n = chars_before(c->self.s, to) - chars_before(c->self.s, from) + 1;
    for (; what.s->n && !empty && (at = find(c->self.s, from, to, what.s, false)) != SIZE_MAX; n++) from = at + what.s->n;
    *out = value_int(n);
    return ST_OK;
}

static status affix(struct call *c, bool end, struct value *out)
{
    const struct value *items = &c->arg[0];
    size_t n = 1, from, to;
    bool empty, found = false;
    if (c->arg[0].kind == V_TUPLE) TRY(value_items(c->r, c->arg[0], &items, &n));
    TRY(window(c, c->self, 1, &from, &to, &empty));
    for (size_t i = 0; i < n && !found; i++) {
        if (items[i].kind == V_UNDEFINED) return tpl_fail_undefined(c->r, items[i]);
        if (!is_string(items[i]))
            return tpl_fail(c->r, "'%s' needs a string or a tuple of strings, not '%s'", c->what->name, kind_names[items[i].kind]);
        size_t len = items[i].s->n;
        found = !empty && to - from >= len && !memcmp(c->self.s->p + (end ? to - len : from), items[i].s->p, len);
    }
    *out = value_bool(found);
    return ST_OK;
}

static status str_startswith(struct call *c, struct value *out) { return affix(c, false, out); }
static status str_endswith(struct call *c, struct value *out) { return affix(c, true, out); }

static status str_removeprefix(struct call *c, struct value *out)
{
    struct value what;
    TRY(arg_str(c, 0, "", &what));
    const struct str *s = c->self.s;
    bool has = s->n >= what.s->n && !memcmp(s->p, what.s->p, what.s->n);
    *out = has ? str_cut(c->r, c->self, what.s->n, s->n) : c->self;
    return ST_OK;
}

static status str_removesuffix(struct call *c, struct value *out)
{
    struct value what;
    TRY(arg_str(c, 0, "", &what));
    const struct str *s = c->self.s;
    bool has = s->n >= what.s->n && !memcmp(s->p + s->n - what.s->n, what.s->p, what.s->n);
    *out = has ? str_cut(c->r, c->self, 0, s->n - what.s->n) : c->self;
    return ST_OK;
}

/* ---- trimming ---------------------------------------------------------------------------------------------------- */

/* Whether the character at p goes: white space, or one of `chars`. */
static bool goes(const char *p, size_t len, int32_t code, const struct str *chars)
{
    return chars ? memmem(chars->p, chars->n, p, len) != NULL : char_is_space(code);
}

static status strip(struct call *c, bool left, bool right, struct value *out)
{
    struct value chars;
    const struct str *set = NULL, *s = c->self.s;
    size_t from = 0, to = s->n, len;
    if (arg_given(c, 0)) {
        TRY(arg_str(c, 0, "", &chars));
        set = chars.s;
    }
    TRY(tpl_spend(c->r, s->n));
    for (; left && from < to; from += len) {
        int32_t code = char_at(s->p + from, to - from, &len);
        if (!goes(s->p + from, len, code, set)) break;
    }
    for (; right && to > from; to -= len) {
        int32_t code = char_before(s->p, to, &len);
        if (!goes(s->p + to - len, len, code, set)) break;
    }
    *out = str_cut(c->r, c->self, from, to);
    return ST_OK;
}

status str_strip(struct call *c, struct value *out) { return strip(c, true, true, out); }
static status str_lstrip(struct call *c, struct value *out) { return strip(c, true, false, out); }
static status str_rstrip(struct call *c, struct value *out) { return strip(c, false, true, out); }

/* ---- splitting --------------------------------------------------------------------------------------------------- */

static status push_cut(struct call *c, struct list *l, size_t from, size_t to)
{
    return list_push(c->r, l, str_cut(c->r, c->self, from, to));
}

static void reverse(struct list *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        struct value swap = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = swap;
    }
}

/* At white space; runs of it are one separator, at the ends none. */
static status split_space(struct call *c, int64_t most, struct list *l)
{
    const struct str *s = c->self.s;
    size_t at = 0, len;
    for (;;) {
        while (at < s->n && char_is_space(char_at(s->p + at, s->n - at, &len))) at += len;
        if (at == s->n) return ST_OK;
        size_t from = at;
        if (!most--) return push_cut(c, l, from, s->n);
        while (at < s->n && !char_is_space(char_at(s->p + at, s->n - at, &len))) at += len;
        TRY(push_cut(c, l, from, at));
    }
}

static status rsplit_space(struct call *c, int64_t most, struct list *l)
{
    const struct str *s = c->self.s;
    size_t at = s->n, len;
    for (;;) {
        while (at && char_is_space(char_before(s->p, at, &len))) at -= len;
        if (!at) break;
        size_t to = at;
        if (!most--) {
            TRY(push_cut(c, l, 0, to));
            break;
        }
        while (at && !char_is_space(char_before(s->p, at, &len))) at -= len;
        TRY(push_cut(c, l, at, to));
    }
    reverse(l);
    return ST_OK;
}

static status split_at(struct call *c, const struct str *sep, int64_t most, bool from_right, struct list *l)
{
    const struct str *s = c->self.s;
    size_t from = 0, to = s->n, at;
    for (; most && (at = find(s, from, to, sep, from_right)) != SIZE_MAX; most--) {
        TRY(from_right ? push_cut(c, l, at + sep->n, to) : push_cut(c, l, from, at));
        if (from_right)
            to = at;
        else
            from = at + sep->n;
    }
    TRY(push_cut(c, l, from, to));
    if (from_right) reverse(l);
    return ST_OK;
}

static status split(struct call *c, bool from_right, struct value *out)
{
    struct list l = {0};
    struct value sep;
    int64_t most;
    TRY(arg_int(c, 1, -1, &most));
    if (most < 0) most = INT64_MAX;
    TRY(tpl_spend(c->r, c->self.s->n));
    if (arg_given(c, 0)) {
        TRY(arg_str(c, 0, "", &sep));
        if (!sep.s->n) return tpl_fail(c->r, "'%s': empty separator", c->what->name);
        if (from_right) TRY(tpl_spend(c->r, c->self.s->n * (sep.s->n / 16 + 1)));
        TRY(split_at(c, sep.s, most, from_right, &l));
    } else {
        TRY(from_right ? rsplit_space(c, most, &l) : split_space(c, most, &l));
    }
    *out = value_list(c->r, l, V_LIST, c->self.origin);
    return ST_OK;
}

static status str_split(struct call *c, struct value *out) { return split(c, false, out); }
static status str_rsplit(struct call *c, struct value *out) { return split(c, true, out); }

status str_splitlines(struct call *c, struct value *out)
{
    const struct str *s = c->self.s;
    struct list l = {0};
    bool keep = arg_true(c, 0);
    size_t from = 0, len;
    TRY(tpl_spend(c->r, s->n));
    for (size_t at = 0; at < s->n; at += len) {
        int32_t code = char_at(s->p + at, s->n - at, &len);
        bool ends = (code >= 10 && code <= 13) || (code >= 28 && code <= 30) || code == 0x85 || code == 0x2028 || code == 0x2029;
        if (!ends) continue;
        if (code == '\r' && at + 1 < s->n && s->p[at + 1] == '\n') len = 2;
        TRY(push_cut(c, &l, from, keep ? at + len : at));
        from = at + len;
    }
    if (from < s->n) TRY(push_cut(c, &l, from, s->n));
    *out = value_list(c->r, l, V_LIST, c->self.origin);
    return ST_OK;
}

static status partition(struct call *c, bool last, struct value *out)
{
    struct value sep;
    struct list l = {0};
    const struct str *s = c->self.s;
    TRY(arg_str(c, 0, "", &sep));
    if (!sep.s->n) return tpl_fail(c->r, "'%s': empty separator", c->what->name);
    TRY(tpl_spend(c->r, s->n * (sep.s->n / 16 + 1)));
    size_t at = find(s, 0, s->n, sep.s, last);
    size_t a = at != SIZE_MAX ? at : last ? 0 : s->n, b = at != SIZE_MAX ? at + sep.s->n : a;
    TRY(push_cut(c, &l, 0, a));
    TRY(push_cut(c, &l, a, b));
    TRY(push_cut(c, &l, b, s->n));
    *out = value_list(c->r, l, V_TUPLE, c->self.origin);
    return ST_OK;
}

static status str_partition(struct call *c, struct value *out) { return partition(c, false, out); }
static status str_rpartition(struct call *c, struct value *out) { return partition(c, true, out); }

/* ---- making new ones --------------------------------------------------------------------------------------------- */

status str_replace(struct call *c, struct value *out)
{
    struct value old, new;
    struct build b = {.r = c->r};
    const struct str *s = c->self.s;
    int64_t most;
    size_t from = 0, at;
    TRY(arg_str(c, 0, "", &old));
    TRY(arg_str(c, 1, "", &new));
    TRY(arg_int(c, 2, -1, &most));
    if (most < 0) most = INT64_MAX;
    if (c->self.markup && !new.markup) TRY(str_escape(c->r, new, &new));
    TRY(tpl_spend(c->r, s->n));
    if (!old.s->n) /* between all characters */
        for (size_t len; most > 0 && from <= s->n; most--, from += len) {
            TRY(build_str(&b, new));
            len = 1;
            if (from < s->n) {
                char_at(s->p + from, s->n - from, &len);
                TRY(build_cut(&b, c->self, from, from + len));
            }
        }
    else
        for (; most && (at = find(s, from, s->n, old.s, false)) != SIZE_MAX; most--, from = at + old.s->n) {
            TRY(build_cut(&b, c->self, from, at));
            TRY(build_str(&b, new));
        }
    if (from < s->n) TRY(build_cut(&b, c->self, from, s->n));
    *out = build_done(&b);
    out->markup = c->self.markup;
    return ST_OK;
}

static status str_join(struct call *c, struct value *out)
{
    struct build b = {.r = c->r};
    const struct value *items;
    size_t n;
    if (c->self.markup) return tpl_fail_unbuilt(c->r, "join of a text marked safe is not built here");
    TRY(value_items(c->r, c->arg[0], &items, &n));
    for (size_t i = 0; i < n; i++) {
        if (!is_string(items[i])) return tpl_fail(c->r, "'join': item %zu is '%s', not a string", i, kind_names[items[i].kind]);
        if (i) TRY(build_str(&b, c->self));
        TRY(build_str(&b, items[i]));
    }
    *out = build_done(&b);
    return ST_OK;
}

static status str_upper(struct call *c, struct value *out) { return str_case(c->r, c->self, CASE_UPPER, out); }
static status str_lower(struct call *c, struct value *out) { return str_case(c->r, c->self, CASE_LOWER, out); }
static status str_title(struct call *c, struct value *out) { return str_case(c->r, c->self, CASE_TITLE, out); }
static status str_capitalize(struct call *c, struct value *out) { return str_case(c->r, c->self, CASE_CAPITAL, out); }
static status str_casefold(struct call *c, struct value *out) { return str_case(c->r, c->self, CASE_FOLD, out); }
static status str_swapcase(struct call *c, struct value *out) { return str_case(c->r, c->self, CASE_SWAP, out); }

/* Fills up to a width: `left` of the fill in front, the rest behind. */
static status pad(struct call *c, size_t left_of_2, struct value *out)
{
    int64_t width;
    struct value fill;
    struct build b = {.r = c->r};
    TRY(arg_int(c, 0, 0, &width));
    TRY(arg_str(c, 1, " ", &fill));
    if (fill.s->chars != 1) return tpl_fail(c->r, "'%s': the fill must be one character", c->what->name);
    int64_t n = (int64_t)c->self.s->chars, more = width > n ? width - n : 0;
    int64_t left = left_of_2 == 1 ? more / 2 + (more & width & 1) : left_of_2 == 2 ? more : 0;
    TRY(build_repeat(&b, fill, left));
    TRY(build_str(&b, c->self));
    TRY(build_repeat(&b, fill, more - left));
    *out = build_done(&b);
    out->markup = c->self.markup;
    return ST_OK;
}

static status str_ljust(struct call *c, struct value *out) { return pad(c, 0, out); }
status str_center(struct call *c, struct value *out) { return pad(c, 1, out); }
static status str_rjust(struct call *c, struct value *out) { return pad(c, 2, out); }

static status str_zfill(struct call *c, struct value *out)
{
    int64_t width;
    struct build b = {.r = c->r};
    const struct str *s = c->self.s;
    TRY(arg_int(c, 0, 0, &width));
    size_t sign = s->n && (*s->p == '-' || *s->p == '+');
    TRY(build_cut(&b, c->self, 0, sign));
    TRY(build_repeat(&b, value_text(&c->r->pool, "0", 1, c->self.origin), width - (int64_t)s->chars));
    TRY(build_cut(&b, c->self, sign, s->n));
    *out = build_done(&b);
    return ST_OK;
}

static status str_format_method(struct call *c, struct value *out) { return tpl_format(c->r, c->self, c->given, out); }

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static bool is_digit(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND || char_is_superscript(c); }
static bool is_decimal(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }
static bool is_numeric(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}
static bool is_alpha(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
static bool is_alnum(int32_t c) { return is_alpha(c) || is_numeric(c); }

/* All characters are; an empty string's answer is `empty`. */
static status all_are(struct call *c, bool (*is)(int32_t), bool empty, struct value *out)
{
    const struct str *s = c->self.s;
    bool all = s->n || empty;
    size_t len;
    TRY(tpl_spend(c->r, s->n));
    for (size_t at = 0; all && at < s->n; at += len) all = is(char_at(s->p + at, s->n - at, &len));
    *out = value_bool(all);
    return ST_OK;
}

static bool is_ascii(int32_t c) { return c < 0x80; }
static status str_isdigit(struct call *c, struct value *out) { return all_are(c, is_digit, false, out); }
static status str_isdecimal(struct call *c, struct value *out) { return all_are(c, is_decimal, false, out); }
static status str_isnumeric(struct call *c, struct value *out) { return all_are(c, is_numeric, false, out); }
static status str_isalpha(struct call *c, struct value *out) { return all_are(c, is_alpha, false, out); }
static status str_isalnum(struct call *c, struct value *out) { return all_are(c, is_alnum, false, out); }
static status str_isspace(struct call *c, struct value *out) { return all_are(c, char_is_space, false, out); }
static status str_isascii(struct call *c, struct value *out) { return all_are(c, is_ascii, true, out); }
static status str_isprintable(struct call *c, struct value *out) { return all_are(c, char_is_printable, true, out); }

static status str_isidentifier(struct call *c, struct value *out)
{
    size_t len;
    TRY(all_are(c, char_is_word, false, out));
    if (out->b) out->b = !is_numeric(char_at(c->self.s->p, c->self.s->n, &len));
    return ST_OK;
}

static status is_case(struct call *c, bool want_upper, struct value *out)
{
    const struct str *s = c->self.s;
    bool any = false, all = true;
    size_t len;
    TRY(tpl_spend(c->r, s->n));
    for (size_t at = 0; all && at < s->n; at += len) {
        bool upper;
        if (!char_is_cased(char_at(s->p + at, s->n - at, &len), &upper)) continue;
        any = true;
        all = upper == want_upper;
    }
    *out = value_bool(any && all);
    return ST_OK;
}

status str_isupper(struct call *c, struct value *out) { return is_case(c, true, out); }
status str_islower(struct call *c, struct value *out) { return is_case(c, false, out); }

static status str_istitle(struct call *c, struct value *out)
{
    const struct str *s = c->self.s;
    bool any = false, inside = false, good = true;
    size_t len;
    TRY(tpl_spend(c->r, s->n));
    for (size_t at = 0; good && at < s->n; at += len) {
        bool upper, cased = char_is_cased(char_at(s->p + at, s->n - at, &len), &upper);
        if (cased) good = upper != inside;
        any |= cased;
        inside = cased;
    }
    *out = value_bool(any && good);
    return ST_OK;
}

const struct builtin tpl_str_methods[] = {
    {"split", "?sep ?maxsplit", str_split, false},
    {"strip", "/ ?chars", str_strip, false},
    {"lstrip", "/ ?chars", str_lstrip, false},
    {"rstrip", "/ ?chars", str_rstrip, false},
    {"startswith", "/ prefix ?start ?end", str_startswith, false},
    {"endswith", "/ suffix ?start ?end", str_endswith, false},
    {"replace", "/ old new ?count", str_replace, false},
    {"upper", "/", str_upper, false},
    {"lower", "/", str_lower, false},
    {"title", "/", str_title, false},
    {"capitalize", "/", str_capitalize, false},
    {"casefold", "/", str_casefold, false},
    {"swapcase", "/", str_swapcase, false},
    {"rsplit", "?sep ?maxsplit", str_rsplit, false},
    {"splitlines", "?keepends", str_splitlines, false},
    {"partition", "/ sep", str_partition, false},
    {"rpartition", "/ sep", str_rpartition, false},
    {"find", "/ sub ?start ?end", str_find, false},
    {"rfind", "/ sub ?start ?end", str_rfind, false},
    {"index", "/ sub ?start ?end", str_index, false},
    {"rindex", "/ sub ?start ?end", str_rindex, false},
    {"count", "/ sub ?start ?end", str_count, false},
    {"join", "/ iterable", str_join, false},
    {"format", NULL, str_format_method, false},
    {"removeprefix", "/ prefix", str_removeprefix, false},
    {"removesuffix", "/ suffix", str_removesuffix, false},
    {"ljust", "/ width ?fillchar", str_ljust, false},
    {"rjust", "/ width ?fillchar", str_rjust, false},
    {"center", "/ width ?fillchar", str_center, false},
    {"zfill", "/ width", str_zfill, false},
    {"isdigit", "/", str_isdigit, false},
    {"isdecimal", "/", str_isdecimal, false},
    {"isnumeric", "/", str_isnumeric, false},
    {"isalpha", "/", str_isalpha, false},
    {"isalnum", "/", str_isalnum, false},
    {"isspace", "/", str_isspace, false},
    {"isupper", "/", str_isupper, false},
    {"islower", "/", str_islower, false},
    {"istitle", "/", str_istitle, false},
    {"isascii", "/", str_isascii, false},
    {"isprintable", "/", str_isprintable, false},
    {"isidentifier", "/", str_isidentifier, false},
    {"encode", NULL, NULL, false},
    {"expandtabs", NULL, NULL, false},
    {"format_map", NULL, NULL, false},
    {"maketrans", NULL, NULL, false},
    {"translate", NULL, NULL, false},
    {NULL, NULL, NULL, false},
};
