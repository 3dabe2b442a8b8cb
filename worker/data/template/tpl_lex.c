/* Text to tokens, by the rules of Jinja's lexer with trim_blocks and lstrip_blocks. What stands between tags is data;
 * which white space of it goes is settled here. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/template/tpl_tree.h"

struct lexer {
    const char *name;
    struct pool *pool;
    const char *p; /* the text with \n line ends and without the last one */
    size_t n, at;
    int line;
    bool line_starts; /* the last match ended with a line end */
    struct tokens *out;
};

static status lex_fail(const struct lexer *l, const char *what) { FAIL(ST_CORRUPT, "%s:%d: %s", l->name, l->line, what); }

static bool looking_at(const struct lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return at <= l->n && l->n - at >= n && !memcmp(l->p + at, text, n);
}

static struct token *push(struct lexer *l, enum token_kind kind, const char *p, size_t n)
{
    struct tokens *out = l->out;
    if (out->n == out->cap) {
        out->cap = out->cap ? out->cap * 2 : 256;
        out->v = mem_grow(out->v, out->cap * sizeof *out->v);
    }
    out->v[out->n] = (struct token){.kind = kind, .line = l->line, .word = {p, n}};
    return &out->v[out->n++];
}

/* Moves on, counting lines. */
static void pass(struct lexer *l, size_t to)
{
    for (size_t i = l->at; i < to; i++) l->line += l->p[i] == '\n';
    if (to > l->at) l->line_starts = l->p[to - 1] == '\n';
    l->at = to;
}

static size_t skip_space(const struct lexer *l, size_t at)
{
    size_t len;
    while (at < l->n && char_is_space(char_at(l->p + at, l->n - at, &len))) at += len;
    return at;
}

/* Where [begin, end) ends without the white space at its end. */
static size_t trim_end(const struct lexer *l, size_t begin, size_t end)
{
    size_t len;
    while (end > begin && char_is_space(char_before(l->p, end, &len))) end -= len;
    return end;
}

/* Data up to `end`, before a tag that carries `sign`; lstrip: the tag is a block or a comment. */
static void push_data(struct lexer *l, size_t end, char sign, bool lstrip)
{
    size_t begin = l->at, keep = end;
    if (sign == '-') {
        keep = trim_end(l, begin, end);
    } else if (sign != '+' && lstrip) {
        size_t line = end;
        while (line > begin && l->p[line - 1] != '\n') line--;
        if ((line > begin || l->line_starts) && trim_end(l, line, end) == line) keep = line;
    }
    if (keep > begin) push(l, T_DATA, l->p + begin, keep - begin);
    pass(l, end);
}

/* After the closing `-%}` or `%}`: which white space belongs to the tag. */
static size_t after_tag(const struct lexer *l, size_t at, char sign, bool trims_newline)
{
    if (sign == '-') return skip_space(l, at);
    return trims_newline && sign != '+' && at < l->n && l->p[at] == '\n' ? at + 1 : at;
}

static char sign_at(const struct lexer *l, size_t at) { return at < l->n && (l->p[at] == '-' || l->p[at] == '+') ? l->p[at] : 0; }

/* `{% NAME %}` at `at`: where it ends, 0 if it is not that. */
static size_t match_tag(const struct lexer *l, size_t at, const char *name, char *open, char *close)
{
    if (!looking_at(l, at, "{%")) return 0;
    *open = sign_at(l, at + 2);
    at = skip_space(l, at + 2 + (*open != 0));
    if (!looking_at(l, at, name)) return 0;
    at = skip_space(l, at + strlen(name));
    *close = sign_at(l, at);
    at += *close != 0;
    return looking_at(l, at, "%}") ? at + 2 : 0;
}

static status lex_comment(struct lexer *l)
{
    for (size_t at = l->at; at + 1 < l->n; at++) {
        char sign = sign_at(l, at);
        size_t close = at + (sign != 0);
        if (!looking_at(l, close, "#}")) continue;
        pass(l, after_tag(l, close + 2, sign, true));
        return ST_OK;
    }
    return lex_fail(l, "a comment without its #}");
}

/* {% raw %}: its end is found, what lies between is data. */
static status lex_raw(struct lexer *l, size_t begin, char close)
{
    pass(l, after_tag(l, begin, close, false));
    for (size_t at = l->at; at + 1 < l->n; at++) {
        char open, end_close;
        size_t end = match_tag(l, at, "endraw", &open, &end_close);
        if (!end) continue;
        push_data(l, at, open, true);
        pass(l, after_tag(l, end, end_close, true));
        return ST_OK;
    }
    return lex_fail(l, "{% raw %} without its {% endraw %}");
}

/* ---- literals ---------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static status put_codepoint(const struct lexer *l, char *out, size_t *n, uint32_t c)
{
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return lex_fail(l, "an escape that is no character");
    if (c < 0x80) {
        out[(*n)++] = (char)c;
        return ST_OK;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
    out[(*n)++] = (char)(lead[more] | c >> (6 * more));
    while (more--) out[(*n)++] = (char)(0x80 | (c >> (6 * more) & 0x3F));
    return ST_OK;
}

/* Bytes of the escape at s (after the backslash) that were taken; its text goes to out. */
static status unescape_one(const struct lexer *l, const char *s, size_t n, char *out, size_t *to, size_t *used)
{
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    *used = 1;
    if (*s == '\n') return ST_OK;
    for (const char *e = plain; *e; e += 2)
        if (*e == *s) {
            out[(*to)++] = e[1];
            return ST_OK;
        }
    if (*s >= '0' && *s <= '7') {
        uint32_t c = 0;
        for (*used = 0; *used < 3 && *used < n && s[*used] >= '0' && s[*used] <= '7'; ++*used) c = c * 8 + (uint32_t)(s[*used] - '0');
        return put_codepoint(l, out, to, c);
    }
    size_t digits = *s == 'x' ? 2 : *s == 'u' ? 4 : *s == 'U' ? 8 : 0;
    if (digits) {
        uint32_t c = 0;
        for (size_t i = 1; i <= digits; i++) {
            int d = i < n ? hex_digit(s[i]) : -1;
            if (d < 0) return lex_fail(l, "a truncated \\x, \\u or \\U escape");
            c = c << 4 | (uint32_t)d;
        }
        *used = digits + 1;
        return put_codepoint(l, out, to, c);
    }
    if (*s == 'N') FAIL(ST_NOT_BUILT, "%s:%d: \\N{…} escapes are not built; write the character", l->name, l->line);
    *used = 0; /* an unknown escape keeps its backslash */
    out[(*to)++] = '\\';
    return ST_OK;
}

/* Python reads the literal as ASCII with every other character written as an escape: one behind a lone backslash is
 * shown as that escape. */
static void unescape_foreign(char *out, size_t *to, const char *s, size_t *used)
{
    int32_t c = char_at(s, 4, used);
    *to += (size_t)sprintf(out + *to, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
}

static status lex_string(struct lexer *l)
{
    char quote = l->p[l->at];
    size_t begin = l->at + 1, end = begin;
    while (end < l->n && l->p[end] != quote) end += l->p[end] == '\\' ? 2 : 1;
    if (end >= l->n) return lex_fail(l, "a string without its closing quote");
    char *out = pool_take(l->pool, (end - begin) * 5 + 16);
    size_t to = 0;
    for (size_t i = begin; i < end;) {
        if (l->p[i] != '\\') {
            out[to++] = l->p[i++];
            continue;
        }
        size_t used;
        i++;
        if ((unsigned char)l->p[i] >= 0x80)
            unescape_foreign(out, &to, l->p + i, &used);
        else
            TRY(unescape_one(l, l->p + i, end - i, out, &to, &used));
        i += used;
    }
    push(l, T_STRING, out, to);
    pass(l, end + 1);
    return ST_OK;
}

/* Digits in groups joined by single underscores; where they end. */
static size_t digits_end(const struct lexer *l, size_t at, const char *allowed)
{
    size_t end = at;
    while (end < l->n && ((l->p[end] && strchr(allowed, l->p[end] | (l->p[end] >= 'A' ? 32 : 0))) ||
                          (l->p[end] == '_' && end > at && end + 1 < l->n && l->p[end + 1] &&
                           strchr(allowed, l->p[end + 1] | (l->p[end + 1] >= 'A' ? 32 : 0)))))
        end++;
    return end;
}

static const char decimal[] = "0123456789";

/* Where a float that begins at `at` ends; 0: it is none. */
static size_t float_end(const struct lexer *l)
{
    if (l->at > 0 && l->p[l->at - 1] == '.') return 0;
    size_t end = digits_end(l, l->at, decimal), whole = end;
    if (end + 1 < l->n && l->p[end] == '.' && digits_end(l, end + 1, decimal) > end + 1) end = digits_end(l, end + 1, decimal);
    if (end < l->n && (l->p[end] | 32) == 'e') {
        size_t digits = end + 1 + (sign_at(l, end + 1) != 0);
        if (digits_end(l, digits, decimal) > digits) return digits_end(l, digits, decimal);
    }
    return end > whole ? end : 0;
}

static status lex_number(struct lexer *l)
{
    char text[400];
    size_t n = 0, begin = l->at, end = float_end(l);
    bool real = end > 0;
    int base = 10;
    if (!real) {
        char mark = l->p[begin] == '0' && begin + 1 < l->n ? (char)(l->p[begin + 1] | 32) : 0;
        const char *allowed = mark == 'x' ? "0123456789abcdef" : mark == 'o' ? "01234567" : mark == 'b' ? "01" : NULL;
        size_t from = begin + 2 + (allowed && begin + 2 < l->n && l->p[begin + 2] == '_');
        if (allowed && digits_end(l, from, allowed) > from) {
            base = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
            begin = from;
        } else {
            allowed = l->p[begin] == '0' ? "0" : decimal;
        }
        end = digits_end(l, begin, allowed);
    }
    for (size_t i = begin; i < end && n + 1 < sizeof text; i++)
        if (l->p[i] != '_') text[n++] = l->p[i];
    text[n] = 0;
    errno = 0;
    struct token *t = push(l, real ? T_FLOAT : T_INT, l->p + l->at, end - l->at);
    if (real)
        t->f = strtod(text, NULL);
    else
        t->i = strtoll(text, NULL, base);
    if ((!real && errno) || n + 1 == sizeof text) FAIL(ST_NOT_BUILT, "%s:%d: an integer beyond 64 bits", l->name, l->line);
    pass(l, end);
    return ST_OK;
}

/* ---- inside a tag ------------------------------------------------------------------------------------------------ */

static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
                                        "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";", NULL};

static status lex_operator(struct lexer *l, char *open, int *depth)
{
    const char *op = NULL;
    for (int i = 0; operators[i] && !op; i++)
        if (looking_at(l, l->at, operators[i])) op = operators[i];
    if (!op) {
        char what[64];
        snprintf(what, sizeof what, "unexpected character (byte 0x%02x)", (unsigned char)l->p[l->at]);
        return lex_fail(l, what);
    }
    if (strchr("([{", *op)) {
        if (*depth == TPL_MAX_NESTING) return lex_fail(l, "brackets nested too deeply");
        open[(*depth)++] = *op == '(' ? ')' : *op == '[' ? ']' : '}';
    } else if (strchr(")]}", *op) && (!*depth || open[--*depth] != *op)) {
        char what[64];
        snprintf(what, sizeof what, "unexpected '%s'", op);
        return lex_fail(l, what);
    }
    push(l, T_OP, op, strlen(op));
    pass(l, l->at + strlen(op));
    return ST_OK;
}

static status lex_name(struct lexer *l)
{
    size_t end = l->at, len;
    while (end < l->n && char_is_word(char_at(l->p + end, l->n - end, &len))) end += len;
    push(l, T_NAME, l->p + l->at, end - l->at);
    pass(l, end);
    return ST_OK;
}

/* Whether the tag ends here; passes over its end. */
static bool lex_tag_end(struct lexer *l, const char *close, bool block)
{
    char sign = sign_at(l, l->at);
    if (sign == '+' && !block) sign = 0; /* +}} is an operator and what follows */
    size_t at = l->at + (sign != 0);
    if (!looking_at(l, at, close)) return false;
    push(l, block ? T_TAG_END : T_PRINT_END, close, 2);
    pass(l, after_tag(l, at + 2, sign, block));
    return true;
}

static status lex_code(struct lexer *l, bool block)
{
    char open[TPL_MAX_NESTING];
    int depth = 0;
    const char *close = block ? "%}" : "}}";
    for (;;) {
        if (l->at >= l->n) return lex_fail(l, block ? "{% without its %}" : "{{ without its }}");
        if (!depth && lex_tag_end(l, close, block)) return ST_OK;
        size_t len, space = skip_space(l, l->at);
        if (space > l->at) {
            pass(l, space);
            continue;
        }
        char c = l->p[l->at];
        if (c >= '0' && c <= '9')
            TRY(lex_number(l));
        else if (c == '\'' || c == '"')
            TRY(lex_string(l));
        else if (char_is_word(char_at(l->p + l->at, l->n - l->at, &len)))
            TRY(lex_name(l));
        else
            TRY(lex_operator(l, open, &depth));
    }
}

/* Data up to the next tag, and the tag. */
static status lex_root(struct lexer *l)
{
    size_t at = l->at;
    while (at < l->n && !(l->p[at] == '{' && at + 1 < l->n && strchr("{%#", l->p[at + 1]) && l->p[at + 1])) at++;
    if (at >= l->n) {
        push(l, T_DATA, l->p + l->at, l->n - l->at);
        pass(l, l->n);
        return ST_OK;
    }
    char open, close, kind = l->p[at + 1];
    size_t raw = match_tag(l, at, "raw", &open, &close);
    if (raw && close != '+') {
        push_data(l, at, open, true);
        return lex_raw(l, raw, close);
    }
    open = sign_at(l, at + 2);
    push_data(l, at, open, kind != '{');
    pass(l, at + 2 + (open != 0));
    if (kind == '#') return lex_comment(l);
    push(l, kind == '{' ? T_PRINT : T_TAG, "", 0);
    return lex_code(l, kind == '%');
}

/* Line ends become \n, and one at the very end goes. */
static void normalise(struct lexer *l, const char *text, size_t n)
{
    char *p = pool_take(l->pool, n + 1);
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n') continue;
        p[to++] = text[i] == '\r' ? '\n' : text[i];
    }
    if (to && p[to - 1] == '\n') to--;
    p[to] = 0;
    l->p = p;
    l->n = to;
}

status tpl_lex(const char *name, const char *text, size_t n, struct pool *pool, struct tokens *out)
{
    struct lexer l = {.name = name, .pool = pool, .line = 1, .line_starts = true, .out = out};
    size_t bad;
    if (n > TPL_MAX_SOURCE) FAIL(ST_CORRUPT, "%s: a chat template of %zu bytes; the limit is %d", name, n, TPL_MAX_SOURCE);
    if (!text_is_utf8(text, n, &bad)) FAIL(ST_CORRUPT, "%s: byte %zu of the chat template is not UTF-8", name, bad);
    normalise(&l, text, n);
    while (l.at < l.n) TRY(lex_root(&l));
    push(&l, T_EOF, "", 0);
    return ST_OK;
}
