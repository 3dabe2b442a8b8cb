/* What Python knows about characters: letters' cases, white space, what is printable. */
#include <string.h>

#include <utf8proc.h>

#include "worker/data/template/tpl_methods.h"

int32_t char_at(const char *p, size_t n, size_t *len)
{
    utf8proc_int32_t c = 0;
    if (n && (unsigned char)*p < 0x80) {
        *len = 1;
        return *p;
    }
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)p, n > 4 ? 4 : (utf8proc_ssize_t)n, &c);
    *len = got > 0 ? (size_t)got : 1;
    return c;
}

int32_t char_before(const char *p, size_t at, size_t *len)
{
    size_t begin = at - 1;
    while (begin > 0 && ((unsigned char)p[begin] & 0xC0) == 0x80) begin--;
    int32_t c = char_at(p + begin, at - begin, len);
    *len = at - begin;
    return c;
}

bool char_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool char_is_printable(int32_t c)
{
    if (c < 0x7F) return c >= 32;
    utf8proc_category_t k = utf8proc_category(c);
    return k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF && k != UTF8PROC_CATEGORY_CS && k != UTF8PROC_CATEGORY_CO &&
           k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_ZL && k != UTF8PROC_CATEGORY_ZP && k != UTF8PROC_CATEGORY_ZS;
}

/* \w of Python's re: letters, digits, numbers, and the underscore. */
bool char_is_word(int32_t c)
{
    if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

bool char_is_cased(int32_t c, bool *upper)
{
    utf8proc_category_t k = utf8proc_category(c);
    *upper = k == UTF8PROC_CATEGORY_LU || utf8proc_tolower(c) != c;
    return *upper || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT || utf8proc_toupper(c) != c;
}

/* Unicode's SpecialCasing: letters that become several. From → upper, title. */
static const struct {
    int32_t from;
    const char *upper, *title;
} special[] = {
#include "worker/data/template/tpl_case_table.h"
};
enum { N_SPECIAL = sizeof special / sizeof *special };

static const char *several(int32_t c, bool title)
{
    if (c < 0xDF) return NULL;
    int low = 0, high = N_SPECIAL - 1;
    while (low <= high) {
        int mid = (low + high) / 2;
        if (special[mid].from == c) return title ? special[mid].title : special[mid].upper;
        if (special[mid].from < c)
            low = mid + 1;
        else
            high = mid - 1;
    }
    return NULL;
}

/* Σ at the end of a word is ς: a cased letter before it, none after, marks between them skipped. */
static bool final_sigma(const struct str *s, size_t at, size_t len)
{
    size_t step;
    bool upper, before = false;
    for (size_t i = at; i > 0; i -= step) {
        int32_t c = char_before(s->p, i, &step);
        utf8proc_category_t k = utf8proc_category(c);
        if (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_CF || c == '\'' || c == '.' || c == ':') continue;
        before = char_is_cased(c, &upper);
        break;
    }
    if (!before) return false;
    for (size_t i = at + len; i < s->n; i += step) {
        int32_t c = char_at(s->p + i, s->n - i, &step);
        utf8proc_category_t k = utf8proc_category(c);
        if (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_CF || c == '\'' || c == '.' || c == ':') continue;
        return !char_is_cased(c, &upper);
    }
    return true;
}

static status put_lower(struct build *b, const struct str *s, size_t at, size_t len, int32_t c, template_origin o)
{
    if (c == 0x130) return build_add(b, "i\xCC\x87", 3, o);
    if (c == 0x3A3) return build_codepoint(b, final_sigma(s, at, len) ? 0x3C2 : 0x3C3, o);
    return build_codepoint(b, c < 0x80 ? (c >= 'A' && c <= 'Z' ? c | 32 : c) : utf8proc_tolower(c), o);
}

static status put_upper(struct build *b, int32_t c, bool title, template_origin o)
{
    const char *text = several(c, title);
    if (text) return build_text(b, text, o);
    if (c < 0x80) return build_codepoint(b, c >= 'a' && c <= 'z' ? c & ~32 : c, o);
    return build_codepoint(b, title ? utf8proc_totitle(c) : utf8proc_toupper(c), o);
}

static status put_folded(struct build *b, int32_t c, template_origin o)
{
    utf8proc_int32_t folded[8];
    int last_class = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char(c, folded, 8, UTF8PROC_CASEFOLD, &last_class);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; i++) TRY(build_codepoint(b, folded[i], o));
    return ST_OK;
}

status str_case(struct render *r, struct value s, enum letter_case how, struct value *out)
{
    struct build b = {.r = r};
    size_t len;
    bool inside = false; /* a word */
    for (size_t at = 0; at < s.s->n; at += len) {
        int32_t c = char_at(s.s->p + at, s.s->n - at, &len);
        template_origin o = str_origin(s, at);
        bool upper, cased = char_is_cased(c, &upper);
        if (how == CASE_FOLD)
            TRY(put_folded(&b, c, o));
        else if (how == CASE_UPPER || (how == CASE_SWAP && !upper))
            TRY(put_upper(&b, c, false, o));
        else if ((how == CASE_TITLE && !inside) || (how == CASE_CAPITAL && !at))
            TRY(put_upper(&b, c, true, o));
        else
            TRY(put_lower(&b, s.s, at, len, c, o));
        inside = cased;
    }
    bool markup = s.markup;
    *out = build_done(&b);
    out->markup = markup;
    return ST_OK;
}

int char_digit(int32_t c)
{
    int32_t zero = c;
    if (c < 0x80) return c >= '0' && c <= '9' ? c - '0' : -1;
    if (utf8proc_category(c) != UTF8PROC_CATEGORY_ND) return -1;
    while (utf8proc_category(zero - 1) == UTF8PROC_CATEGORY_ND) zero--; /* they come in tens, from zero */
    return (c - zero) % 10;
}

bool char_is_superscript(int32_t c)
{
    static const struct {
        int32_t from, to;
    } ranges[] = {{0xB2, 0xB3},     {0xB9, 0xB9},     {0x1369, 0x1371}, {0x19DA, 0x19DA}, {0x2070, 0x2070}, {0x2074, 0x2079},
                  {0x2080, 0x2089}, {0x2460, 0x2468}, {0x2474, 0x247C}, {0x2488, 0x2490}, {0x24EA, 0x24EA}, {0x24F5, 0x24FD},
                  {0x24FF, 0x24FF}, {0x2776, 0x277E}, {0x2780, 0x2788}, {0x278A, 0x2792}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i].from && c <= ranges[i].to) return true;
    return false;
}
