/* fake_tokenizer.h — a tokenizer whose ids can be read: one id per byte, and specials by name.
 *
 * It stands in for all of worker/data/tokenizer/tokenizer.h, so that a test of the data pipeline sees every boundary the pipeline
 * makes and nothing else. Include it in one file of a test program; the library's own is then not linked. The space
 * SentencePiece puts in front of every text is '_' here. */
#ifndef TRIMPOT_FAKE_TOKENIZER_H
#define TRIMPOT_FAKE_TOKENIZER_H

#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/tokenizer/tokenizer.h"

struct tokenizer {
    const char *const *specials; /* NULL-terminated; ids from 256 */
    const char *bos, *eos;
    bool space; /* a '_' in front of every text */
};

static const char *const llama3_specials[] = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", NULL};
static const char *const qwen_specials[] = {"<|im_start|>", "<|im_end|>", "<|endoftext|>", NULL};
static const char *const spm_specials[] = {"<s>", "</s>", NULL};
static const char *const no_specials[] = {NULL};

static const struct tokenizer fake_llama3 = {llama3_specials, "<|begin_of_text|>", "<|eot_id|>", false};
static const struct tokenizer fake_qwen = {qwen_specials, NULL, "<|endoftext|>", false};
static const struct tokenizer fake_spm = {spm_specials, "<s>", "</s>", true};
static const struct tokenizer fake_tiny = {spm_specials, "<s>", "</s>", false};
static const struct tokenizer fake_bare = {no_specials, NULL, NULL, false};

void ids_push(struct ids *a, int32_t id)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 16;
        a->v = mem_grow(a->v, a->cap * sizeof *a->v);
    }
    a->v[a->n++] = id;
}

static int32_t special_at(const struct tokenizer *t, const char *text, size_t n)
{
    for (int32_t i = 0; t->specials[i]; i++)
        if (n >= strlen(t->specials[i]) && !memcmp(text, t->specials[i], strlen(t->specials[i]))) return 256 + i;
    return -1;
}

status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool specials, struct ids *out)
{
    if (n && t->space) ids_push(out, '_');
    for (size_t i = 0; i < n; i++) {
        int32_t id = specials ? special_at(t, text + i, n - i) : -1;
        ids_push(out, id < 0 ? (unsigned char)text[i] : id);
        if (id >= 0) i += strlen(t->specials[id - 256]) - 1;
    }
    return ST_OK;
}

status tokenizer_encode_rendered(const struct tokenizer *t, const char *text, size_t n, const unsigned char *quoted, struct ids *out,
                                 struct ids *from, struct ids *to)
{
    for (size_t i = 0, len; i < n; i += len) {
        int32_t id = special_at(t, text + i, n - i);
        len = id < 0 ? 1 : strlen(t->specials[id - 256]);
        for (size_t k = i; k < i + len && quoted && id >= 0; k++)
            if (quoted[k]) id = -1;
        if (id < 0) len = 1;
        if (i == 0 && t->space) {
            ids_push(out, '_');
            ids_push(from, 0);
            ids_push(to, 1);
        }
        ids_push(out, id < 0 ? (unsigned char)text[i] : id);
        ids_push(from, (int32_t)i);
        ids_push(to, (int32_t)(i + len));
    }
    return ST_OK;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *piece)
{
    for (int32_t i = 0; t->specials[i]; i++)
        if (!strcmp(t->specials[i], piece)) return 256 + i;
    return -1;
}

int32_t tokenizer_bos(const struct tokenizer *t) { return t->bos ? tokenizer_id(t, t->bos) : -1; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->eos ? tokenizer_id(t, t->eos) : -1; }
int32_t tokenizer_pad(const struct tokenizer *t)
{
    (void)t;
    return -1;
}
int32_t tokenizer_size(const struct tokenizer *t)
{
    (void)t;
    return 512;
}
bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    (void)t;
    return id >= 256;
}
const char *tokenizer_describe(const struct tokenizer *t)
{
    (void)t;
    return "fake: bytes";
}
const char *tokenizer_piece(const struct tokenizer *t, int32_t id) { return id >= 256 ? t->specials[id - 256] : NULL; }

void tokenizer_around(const struct tokenizer *t, const struct ids **prefix, const struct ids **suffix)
{
    static struct ids bos, none;
    bos.n = 0;
    if (t->bos) ids_push(&bos, tokenizer_bos(t));
    *prefix = &bos;
    *suffix = &none;
}

status tokenizer_encode_document(const struct tokenizer *t, const char *text, size_t n, struct ids *out)
{
    if (t->bos) ids_push(out, tokenizer_bos(t));
    return tokenizer_encode(t, text, n, true, out);
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_specials, size_t *bytes)
{
    struct buf b = {0};
    buf_text(&b, "");
    for (size_t i = 0; i < n; i++) {
        char c = (char)ids[i];
        if (ids[i] < 256)
            buf_add(&b, &c, 1);
        else if (!skip_specials)
            buf_text(&b, t->specials[ids[i] - 256]);
    }
    if (bytes) *bytes = b.len;
    return b.data;
}

status tokenizer_open(const char *path, const struct tokenizer_hint *hint, struct tokenizer **out)
{
    (void)hint;
    *out = NULL;
    FAIL(ST_NOT_BUILT, "%s: the fake tokenizer opens no file", path);
}

void tokenizer_close(struct tokenizer *t) { (void)t; }

/* Ids as text: bytes as they are, specials by their shortest name, "{" … "}" around what is trained on
 * (target[t] != -100). Caller frees. */
static inline char *fake_show(const struct tokenizer *t, const int32_t *ids, const int32_t *target, int64_t n)
{
    struct buf b = {0};
    buf_text(&b, "");
    bool in = false;
    for (int64_t i = 0; i < n; i++) {
        bool trained = target[i] != -100;
        if (trained != in) buf_text(&b, in ? "}" : "{");
        in = trained;
        char *piece = tokenizer_decode(t, ids + i, 1, false, NULL);
        buf_text(&b, piece);
        free(piece);
    }
    if (in) buf_text(&b, "}");
    return b.data;
}

#endif
