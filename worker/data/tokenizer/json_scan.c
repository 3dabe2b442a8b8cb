#include "worker/data/tokenizer/json_scan.h"

#include <string.h>

#include "worker/data/tokenizer/utf8.h"

enum { MAX_DEPTH = 64 };

void tok_scan_close(struct tok_scanner *s) { buf_release(&s->text); }

status tok_scan_bad(const struct tok_scanner *s, const char *wanted)
{
    size_t line = 1, column = 1;
    for (const char *p = s->start; p < s->at; p++) {
        column = *p == '\n' ? 1 : column + 1;
        line += *p == '\n';
    }
    FAIL(ST_CORRUPT, "line %zu, column %zu: %s expected", line, column, wanted);
}

static char peek(struct tok_scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
    return s->at < s->end ? *s->at : 0;
}

bool tok_scan_take(struct tok_scanner *s, char c)
{
    if (peek(s) != c || s->at == s->end) return false;
    s->at++;
    return true;
}

status tok_scan_end(struct tok_scanner *s)
{
    peek(s);
    return s->at == s->end ? ST_OK : tok_scan_bad(s, "the end of the file");
}

status tok_scan_next(struct tok_scanner *s, char close, bool *more)
{
    *more = tok_scan_take(s, ',');
    if (*more || tok_scan_take(s, close)) return ST_OK;
    return tok_scan_bad(s, close == '}' ? "',' or '}'" : "',' or ']'");
}

/* Four hexadecimal digits, or -1. */
static int hex4(struct tok_scanner *s)
{
    int v = 0;
    if (s->end - s->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char *digit = strchr("0123456789abcdef", *s->at | 0x20);
        if (!*s->at || !digit || !*digit) return -1;
        v = v * 16 + (int)(digit - "0123456789abcdef");
        s->at++;
    }
    return v;
}

static status escape(struct tok_scanner *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = s->at < s->end ? *s->at : 0;
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        s->at++;
        buf_add(&s->text, &to[simple - from], 1);
        return ST_OK;
    }
    if (c != 'u') return tok_scan_bad(s, "an escape like \\n or \\u00e9");
    s->at++;
    int code = hex4(s);
    if (code >= 0xd800 && code < 0xdc00 && s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
        s->at += 2;
        int low = hex4(s);
        code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
    }
    if (code < 0 || (code >= 0xd800 && code < 0xe000)) return tok_scan_bad(s, "four hexadecimal digits of a character");
    char utf8[4];
    buf_add(&s->text, utf8, utf8_put(utf8, code));
    return ST_OK;
}

status tok_scan_string(struct tok_scanner *s)
{
    buf_clear(&s->text);
    buf_add(&s->text, "", 0);
    if (!tok_scan_take(s, '"')) return tok_scan_bad(s, "a string");
    for (;;) {
        const char *from = s->at;
        while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20) s->at++;
        buf_add(&s->text, from, (size_t)(s->at - from));
        if (s->at == s->end || (unsigned char)*s->at < 0x20) return tok_scan_bad(s, "the end of the string");
        if (*s->at++ == '"') return ST_OK;
        TRY(escape(s));
    }
}

status tok_scan_int(struct tok_scanner *s, int64_t *v)
{
    peek(s);
    const char *from = s->at;
    *v = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - from < 18) *v = *v * 10 + (*s->at++ - '0');
    bool more = s->at < s->end && *s->at && strchr("0123456789.eE", *s->at);
    if (s->at == from || more || (*from == '0' && s->at - from > 1)) return tok_scan_bad(s, "a whole number (an id)");
    return ST_OK;
}

static void skip_string(struct tok_scanner *s)
{
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
        if (*s->at == '\\' && s->at + 1 < s->end) s->at++;
    if (s->at < s->end) s->at++;
}

status tok_scan_skip(struct tok_scanner *s)
{
    int depth = 0;
    do {
        char c = peek(s);
        if (s->at == s->end) return tok_scan_bad(s, "the rest of a value");
        if (c == '"') {
            skip_string(s);
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) return tok_scan_bad(s, "nesting of at most 64");
            s->at++;
        } else if (c == '}' || c == ']') {
            if (--depth < 0) return tok_scan_bad(s, "a value");
            s->at++;
        } else if (depth && (c == ',' || c == ':')) {
            s->at++;
        } else {
            const char *from = s->at;
            while (s->at < s->end && *s->at && !strchr("{}[],:\" \t\r\n", *s->at)) s->at++;
            if (s->at == from) return tok_scan_bad(s, "a value");
        }
    } while (depth);
    return ST_OK;
}

/* The members of model: notes where the two large ones are. */
static status scan_members(struct tok_scanner *s, struct tok_extent *vocab, struct tok_extent *merges)
{
    bool more = !tok_scan_take(s, '}');
    while (more) {
        TRY(tok_scan_string(s));
        bool is_vocab = strcmp(s->text.data, "vocab") == 0, is_merges = strcmp(s->text.data, "merges") == 0;
        if (!tok_scan_take(s, ':')) return tok_scan_bad(s, "':'");
        char open = peek(s);
        const char *from = s->at;
        TRY(tok_scan_skip(s));
        struct tok_extent part = {from, (size_t)(s->at - from)};
        if (is_vocab && open == '{' && !vocab->at) *vocab = part;
        if (is_merges && open == '[' && !merges->at) *merges = part;
        TRY(tok_scan_next(s, '}', &more));
    }
    return ST_OK;
}

static status scan_root(struct tok_scanner *s, struct tok_extent *vocab, struct tok_extent *merges)
{
    if (!tok_scan_take(s, '{')) return tok_scan_bad(s, "a JSON object");
    bool more = !tok_scan_take(s, '}');
    while (more) {
        TRY(tok_scan_string(s));
        bool model = strcmp(s->text.data, "model") == 0;
        if (!tok_scan_take(s, ':')) return tok_scan_bad(s, "':'");
        if (model && !vocab->at && tok_scan_take(s, '{'))
            TRY(scan_members(s, vocab, merges));
        else
            TRY(tok_scan_skip(s));
        TRY(tok_scan_next(s, '}', &more));
    }
    return ST_OK;
}

status tok_scan_model(const char *data, size_t n, struct tok_extent *vocab, struct tok_extent *merges, struct buf *rest)
{
    struct tok_scanner s = {data, data, data + n, {0}};
    size_t bad_at;
    *vocab = *merges = (struct tok_extent){0};
    if (!text_is_utf8(data, n, &bad_at)) {
        s.at += bad_at;
        return tok_scan_bad(&s, "UTF-8");
    }
    status st = scan_root(&s, vocab, merges);
    tok_scan_close(&s);
    TRY(st);
    const struct tok_extent *first = vocab, *second = merges;
    if (merges->at && (!vocab->at || merges->at < vocab->at)) {
        first = merges;
        second = vocab;
    }
    const char *from = data;
    for (int i = 0; i < 2; i++) {
        const struct tok_extent *part = i ? second : first;
        if (!part->at) continue;
        buf_add(rest, from, (size_t)(part->at - from));
        buf_text(rest, part == vocab ? "{" : "[");
        for (size_t k = 0; k < part->n; k++) /* jansson's line numbers stay right */
            if (part->at[k] == '\n') buf_add(rest, "\n", 1);
        buf_text(rest, part == vocab ? "}" : "]");
        from = part->at + part->n;
    }
    buf_add(rest, from, (size_t)(data + n - from));
    return ST_OK;
}
