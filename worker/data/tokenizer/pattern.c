#include "worker/data/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "kernels/base/text.h"

struct tok_regex {
    pcre2_code *code;
    char *source;
};

bool tok_is_space(int c)
{
    return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool tok_is_word(int c)
{
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
        (c >= 0x1f170 && c <= 0x1f189))
        return true;
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC;
}

/* ---- Oniguruma's syntax to PCRE2's ---- */

/* Oniguruma's \w: Alphabetic, marks, decimal digits, connectors; outside brackets also ² ³ ¹ ¼ ½ ¾. */
#define SET_WORD         SET_ALPHABETIC "\\p{M}\\p{Nd}\\p{Pc}"
#define SET_WORD_OUTSIDE SET_WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* clang-format off */
static const struct escape {
    char letter;
    const char *outside, *inside; /* NULL: refused there */
} ESCAPES[] = {
    {'s', "[" SET_SPACE "]", SET_SPACE},
    {'S', "[^" SET_SPACE "]", "\\S\\x{180e}"}, /* PCRE2's \s has U+180E beyond the set */
    {'w', "[" SET_WORD_OUTSIDE "]", SET_WORD},
    {'W', "[^" SET_WORD_OUTSIDE "]", NULL},
    {'d', "\\d", "\\d"},
    {'D', "\\D", "\\D"},
    {'r', "\\r", "\\r"},
    {'n', "\\n", "\\n"},
    {'t', "\\t", "\\t"},
    {'f', "\\f", "\\f"},
    {'v', "\\x{b}", "\\x{b}"},
    {'A', "\\A", NULL},
    {'z', "\\z", NULL},
    {'p', "\\p", "\\p"},
    {'P', "\\P", "\\P"},
    {'x', "\\x", "\\x"},
};

/* clang-format on */

static status unlike(const char *what)
{
    FAIL(ST_NOT_BUILT, "pattern uses %s, which Oniguruma and PCRE2 read differently; please report the model", what);
}

/* pattern[*i] is the backslash. */
static status rewrite_escape(struct buf *out, const char *p, size_t n, size_t *i, bool in_class)
{
    unsigned char c = *i + 1 < n ? (unsigned char)p[*i + 1] : 0;
    if (!c) FAIL(ST_CORRUPT, "pattern ends with a backslash");
    *i += 2;
    if (c == 'u') {
        if (*i + 4 > n) FAIL(ST_CORRUPT, "pattern has \\u without four digits");
        buf_printf(out, "\\x{%.4s}", p + *i);
        *i += 4;
        return ST_OK;
    }
    if (c < 0x80 && !tok_is_word(c)) {
        buf_add(out, p + *i - 2, 2);
        return ST_OK;
    }
    for (size_t k = 0; k < sizeof ESCAPES / sizeof *ESCAPES; k++) {
        const char *to = in_class ? ESCAPES[k].inside : ESCAPES[k].outside;
        if (ESCAPES[k].letter != c || !to) continue;
        buf_text(out, to);
        return ST_OK;
    }
    return unlike((char[]){'\\', (char)c, 0});
}

/* p[*i] is the '(' of "(?". Only groups both engines know. */
static status rewrite_group(struct buf *out, const char *p, size_t n, size_t *i)
{
    static const char *const known[] = {"(?:", "(?i:", "(?-i:", "(?i)", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        size_t len = strlen(known[k]);
        if (n - *i < len || memcmp(p + *i, known[k], len) != 0) continue;
        buf_add(out, p + *i, len);
        *i += len;
        return ST_OK;
    }
    return unlike("a (?… group other than (?: (?i: (?-i: (?i) (?= (?! (?<= (?<! (?>");
}

/* p[*i] is '{'. In Ruby's syntax {a,b}+ is not possessive but a repeated repeat. */
static status rewrite_interval(struct buf *out, const char *p, size_t n, size_t *i)
{
    size_t len = 1;
    while (*i + len < n && (p[*i + len] == ',' || (p[*i + len] >= '0' && p[*i + len] <= '9'))) len++;
    bool closed = *i + len < n && p[*i + len] == '}';
    len = closed ? len + 1 : 1;
    bool again = closed && *i + len < n && p[*i + len] == '+';
    if (again && len >= 4 && memcmp(p + *i, "{1,", 3) == 0) {
        buf_text(out, "+");
        *i += len + 1;
        return ST_OK;
    }
    if (again) return unlike("an interval followed by +");
    buf_add(out, p + *i, len);
    *i += len;
    return ST_OK;
}

static status rewrite_class_char(struct buf *out, const char *p, size_t n, size_t *i)
{
    if (p[*i] == '[') return unlike("a class inside a class");
    if (p[*i] == '&' && *i + 1 < n && p[*i + 1] == '&') return unlike("&& in a class");
    buf_add(out, p + (*i)++, 1);
    return ST_OK;
}

static status rewrite(struct buf *out, const char *p, size_t n)
{
    bool in_class = false;
    for (size_t i = 0; i < n;) {
        char c = p[i];
        if (c == '\\')
            TRY(rewrite_escape(out, p, n, &i, in_class));
        else if (in_class && c != ']')
            TRY(rewrite_class_char(out, p, n, &i));
        else if (c == '(' && i + 1 < n && (p[i + 1] == '?' || p[i + 1] == '*'))
            TRY(rewrite_group(out, p, n, &i));
        else if (c == '{')
            TRY(rewrite_interval(out, p, n, &i));
        else if (c == '[') {
            size_t open = i + 1 < n && p[i + 1] == '^' ? 2 : 1;
            buf_add(out, p + i, open);
            i += open;
            in_class = true;
            if (i < n && p[i] == ']') return unlike("] first in a class");
        } else {
            in_class = in_class && c != ']';
            buf_add(out, p + i++, 1);
        }
    }
    return ST_OK;
}

/* ---- matching ---- */

enum { MAX_PATTERN_BYTES = 1 << 16 };

status tok_regex_open(struct tok_regex **out, const char *pattern, size_t n, enum tok_regex_syntax syntax)
{
    status st = ST_OK;
    struct buf text = {0};
    struct tok_regex *r = mem_alloc(sizeof *r);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    r->source = mem_printf("%.*s", n < 200 ? (int)n : 200, pattern);
    if (n > MAX_PATTERN_BYTES) FAIL_DONE(ST_CORRUPT, "pattern of %zu bytes; the limit is %d", n, MAX_PATTERN_BYTES);
    buf_add(&text, "", 0);
    if (syntax == REGEX_ONIGURUMA)
        TRY_DONE(rewrite(&text, pattern, n));
    else
        buf_add(&text, pattern, n);
    /* Ruby: ^ and $ match at every line, and only \n ends one. */
    uint32_t options = PCRE2_UTF | (syntax == REGEX_LITERAL ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    int error;
    PCRE2_SIZE where;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    r->code = pcre2_compile((PCRE2_SPTR)text.data, text.len, options, &error, &where, context);
    if (!r->code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(error, why, sizeof why);
        FAIL_DONE(ST_CORRUPT, "pattern '%s': %s at byte %zu", r->source, (const char *)why, (size_t)where);
    }
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* without it the interpreter runs */
    *out = r;
    r = NULL;
done:
    pcre2_compile_context_free(context);
    buf_release(&text);
    tok_regex_close(r);
    return st;
}

void tok_regex_close(struct tok_regex *r)
{
    if (!r) return;
    pcre2_code_free(r->code);
    free(r->source);
    free(r);
}

void tok_matcher_release(struct tok_matcher *m)
{
    pcre2_match_data_free(m->data);
    m->data = NULL;
}

static size_t next_char(const char *text, size_t n, size_t i)
{
    do i++;
    while (i < n && ((unsigned char)text[i] & 0xc0) == 0x80);
    return i;
}

status tok_regex_next(const struct tok_regex *r, struct tok_matcher *m, const char *text, size_t n, struct tok_match *at)
{
    if (!m->data) m->data = pcre2_match_data_create(1, NULL);
    at->found = false;
    while (at->at <= n) {
        int rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, at->at, PCRE2_NO_UTF_CHECK, m->data, NULL);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, at->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, NULL);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            PCRE2_UCHAR why[128];
            pcre2_get_error_message(rc, why, sizeof why);
            FAIL(ST_DATA, "tokenizer pattern '%s' gave up at byte %zu of a text of %zu: %s", r->source, at->at, n, (const char *)why);
        }
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(m->data);
        size_t start = span[0], end = span[1];
        if (end < start) FAIL(ST_DATA, "tokenizer pattern '%s' ends a match before its start", r->source);
        at->at = end > start ? end : next_char(text, n, end);
        if (end == start && at->any && end == at->last_end) continue;
        at->any = at->found = true;
        at->start = start;
        at->end = at->last_end = end;
        return ST_OK;
    }
    return ST_OK;
}
