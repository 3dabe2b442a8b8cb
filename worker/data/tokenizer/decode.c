#include "worker/data/tokenizer/decode.h"

#include <string.h>

#include "worker/data/tokenizer/utf8.h"

static void add_alphabet(struct buf *b, const char *text, size_t n)
{
    size_t len;
    for (size_t i = 0; i < n; i += len)
        if (byte_of_alphabet(utf8_get(text + i, n - i, &len)) < 0) {
            buf_add(b, text, n);
            return;
        }
    for (size_t i = 0; i < n; i += len) buf_add(b, (char[]){(char)byte_of_alphabet(utf8_get(text + i, n - i, &len))}, 1);
}

status decode_bytes(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)matcher;
    for (size_t i = 0; i < in->n; i++) add_alphabet(&out->text, in->text.data + in->v[i].at, in->v[i].n);
    if (in->n) tok_span_push(out, 0, (uint32_t)out->text.len, true);
    return ST_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that a piece like <0x0A> stands for, or -1. */
static int fallback_byte(const char *text, size_t n)
{
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || hex(text[3]) < 0 || hex(text[4]) < 0) return -1;
    return hex(text[3]) * 16 + hex(text[4]);
}

status decode_fallback(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)matcher;
    bool joined = false; /* the last span is a run of bytes */
    for (size_t i = 0; i < in->n; i++) {
        const char *text = in->text.data + in->v[i].at;
        int byte = fallback_byte(text, in->v[i].n);
        if (byte < 0)
            tok_span_add(out, text, in->v[i].n, in->v[i].first);
        else if (!joined)
            tok_span_add(out, (char[]){(char)byte}, 1, in->v[i].first);
        else {
            buf_add(&out->text, (char[]){(char)byte}, 1);
            out->v[out->n - 1].n++;
        }
        joined = byte >= 0;
    }
    return ST_OK;
}

status decode_fuse(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)s, (void)matcher;
    for (size_t i = 0; i < in->n; i++) buf_add(&out->text, in->text.data + in->v[i].at, in->v[i].n);
    tok_span_push(out, 0, (uint32_t)out->text.len, true);
    return ST_OK;
}

status decode_strip(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    size_t k = s->text_n;
    for (size_t i = 0; i < in->n; i++) {
        const char *text = in->text.data + in->v[i].at;
        size_t from = 0, to = in->v[i].n;
        for (int c = 0; c < s->left && to - from >= k && memcmp(text + from, s->text, k) == 0; c++) from += k;
        for (int c = 0; c < s->right && to - from >= k && memcmp(text + to - k, s->text, k) == 0; c++) to -= k;
        tok_span_add(out, text + from, to - from, in->v[i].first);
    }
    return ST_OK;
}

status decode_metaspace(const struct tok_step *s, struct tok_matcher *matcher, const struct tok_spans *in, struct tok_spans *out)
{
    (void)matcher;
    for (size_t i = 0; i < in->n; i++) {
        const char *text = in->text.data + in->v[i].at;
        size_t n = in->v[i].n;
        uint32_t at = (uint32_t)out->text.len;
        for (size_t k = 0; k < n;) {
            bool mark = n - k >= s->text_n && memcmp(text + k, s->text, s->text_n) == 0;
            if (!mark)
                buf_add(&out->text, text + k, 1);
            else if (i > 0 || !s->flag)
                buf_add(&out->text, " ", 1);
            k += mark ? s->text_n : 1;
        }
        tok_span_push(out, at, (uint32_t)out->text.len - at, in->v[i].first);
    }
    return ST_OK;
}
