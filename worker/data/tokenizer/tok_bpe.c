/* Byte-pair merging: lowest rank first, leftmost on ties, over a heap of candidate pairs.
 *
 * Two questions differ between files, everything else is shared: what a text is cut into at first (HF resolves unknown
 * characters before merging, SentencePiece after), and which neighbours may merge (a table of id pairs, or the joined
 * bytes being a piece with a rank). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/tok_utf8.h"
#include "worker/data/tokenizer/tokenizer_impl.h"

void tok_byte_pieces(struct tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        t->byte_id[b] = tok_vocab_id(&t->vocab, name, 6);
    }
}

static bool has_bytes(const struct tokenizer *t, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t->byte_id[(unsigned char)text[i]] < 0) return false;
    return true;
}

bool tok_push_unknown(const struct tokenizer *t, const struct tok_spans *s, const char *text, size_t n,
                      struct tok_sink *out)
{
    if (has_bytes(t, text, n)) {
        for (size_t i = 0; i < n; i++) tok_emit(out, t->byte_id[(unsigned char)text[i]], s, text + i, text + i + 1);
        return true;
    }
    if (t->unk >= 0) tok_emit(out, t->unk, s, text, text + n);
    return t->unk >= 0;
}

static void add_symbol(struct tok_work *w, size_t at, size_t end, int32_t id, bool frozen)
{
    if (w->n_symbols == w->cap_symbols) {
        w->cap_symbols = w->cap_symbols ? w->cap_symbols * 2 : 64;
        w->symbols = mem_grow(w->symbols, w->cap_symbols * sizeof *w->symbols);
    }
    int32_t i = (int32_t)w->n_symbols++;
    w->symbols[i] = (struct tok_symbol){(uint32_t)at, (uint32_t)end, id, i - 1, i + 1, frozen};
}

/* HF: characters; unknown ones become bytes, or unk (one for a run if fuse_unk). A waiting unk is placed when the next
 * known character comes, behind bytes that came between: that is what HF does. It then stands for what was unknown
 * behind those bytes. */
static void cut_hf(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n)
{
    size_t unk_at = 0, unk_end = 0;
    for (size_t i = 0, len; i < n; i += len) {
        utf8_get(text + i, n - i, &len);
        int32_t id = tok_vocab_id(&t->vocab, text + i, len);
        if (id < 0 && has_bytes(t, text + i, len)) {
            for (size_t k = 0; k < len; k++)
                add_symbol(w, i + k, i + k + 1, t->byte_id[(unsigned char)text[i + k]], false);
            continue;
        }
        if (unk_end && (id >= 0 || !t->fuse_unk)) {
            add_symbol(w, unk_at, unk_end, t->unk, false);
            unk_end = 0;
        }
        if (id >= 0) {
            add_symbol(w, i, i + len, id, false);
        } else if (t->unk >= 0) {
            if (!unk_end) unk_at = i;
            unk_end = i + len;
        }
    }
    if (unk_end) add_symbol(w, unk_at, unk_end, t->unk, false);
}

/* SentencePiece and tiktoken: user-defined pieces, else characters whether they have a piece or not. */
static void cut_characters(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n)
{
    for (size_t i = 0, len; i < n; i += len) {
        int32_t id = -1;
        len = tok_trie_longest(&t->user_defined, text + i, n - i, &id);
        bool frozen = len > 0;
        if (!frozen) {
            utf8_get(text + i, n - i, &len);
            id = tok_vocab_id(&t->vocab, text + i, len);
        }
        add_symbol(w, i, i + len, id, frozen);
    }
}

static bool before(const struct tok_merge *a, const struct tok_merge *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void heap_push(struct tok_work *w, struct tok_merge m)
{
    if (w->n_heap == w->cap_heap) {
        w->cap_heap = w->cap_heap ? w->cap_heap * 2 : 64;
        w->heap = mem_grow(w->heap, w->cap_heap * sizeof *w->heap);
    }
    size_t i = w->n_heap++;
    for (; i > 0 && before(&m, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = m;
}

static struct tok_merge heap_pop(struct tok_work *w)
{
    struct tok_merge top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < w->n_heap) {
        if (child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void offer(const struct tokenizer *t, struct tok_work *w, const char *text, int32_t left)
{
    if (left < 0 || w->symbols[left].next >= (int32_t)w->n_symbols) return;
    const struct tok_symbol *a = &w->symbols[left], *b = &w->symbols[a->next];
    struct tok_merge m = {.left = left, .left_end = a->end, .right_end = b->end};
    if (t->by_pair) {
        uint64_t hit = tok_map_get(&t->pairs, (uint64_t)(uint32_t)a->id << 32 | (uint32_t)b->id);
        if (hit == TOK_NONE) return;
        m.rank = (uint32_t)(hit >> 32);
        m.id = (int32_t)(uint32_t)hit;
    } else {
        if (a->frozen || b->frozen) return;
        m.id = tok_vocab_id(&t->vocab, text + a->at, b->end - a->at);
        if (m.id < 0 || t->rank[m.id] == UINT32_MAX) return;
        m.rank = t->rank[m.id];
    }
    heap_push(w, m);
}

static void merge_all(const struct tokenizer *t, struct tok_work *w, const char *text)
{
    struct tok_symbol *s = w->symbols;
    int32_t end = (int32_t)w->n_symbols;
    w->n_heap = 0;
    for (int32_t i = 0; i + 1 < end; i++) offer(t, w, text, i);
    while (w->n_heap) {
        struct tok_merge m = heap_pop(w);
        struct tok_symbol *a = &s[m.left];
        if (a->end != m.left_end || a->next >= end || s[a->next].end != m.right_end) continue;
        struct tok_symbol *b = &s[a->next];
        a->end = b->end;
        a->id = m.id;
        a->next = b->next;
        b->end = 0;
        if (a->next < end) s[a->next].prev = m.left;
        offer(t, w, text, a->prev);
        offer(t, w, text, m.left);
    }
}

void tok_bpe_words(struct tokenizer *t)
{
    const size_t k = strlen(SPACE_MARK);
    t->words = tok_vocab_id(&t->vocab, SPACE_MARK, k) >= 0;
    for (int32_t id = 0; id < t->vocab.ids && t->words; id++) {
        size_t n, i = 0;
        const char *piece = tok_vocab_piece(&t->vocab, id, &n);
        if (!piece) continue;
        while (i + k <= n && memcmp(piece + i, SPACE_MARK, k) == 0) i += k;
        t->words = !memmem(piece + i, n - i, SPACE_MARK, k);
    }
}

/* Where a part of text that can be merged for itself ends: before a ▁ that follows something else. */
static size_t word_end(const struct tokenizer *t, const char *text, size_t n)
{
    const size_t k = strlen(SPACE_MARK);
    size_t i = 0;
    if (!t->words) return n;
    while (i + k <= n && memcmp(text + i, SPACE_MARK, k) == 0) i += k;
    const char *next = memmem(text + i, n - i, SPACE_MARK, k);
    return next ? (size_t)(next - text) : n;
}

static status merge_word(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n, struct tok_sink *out)
{
    w->n_symbols = 0;
    if (t->by_pair)
        cut_hf(t, w, text, n);
    else
        cut_characters(t, w, text, n);
    merge_all(t, w, text);
    int32_t end = (int32_t)w->n_symbols;
    for (int32_t i = 0; i < end; i = w->symbols[i].next) {
        const struct tok_symbol *s = &w->symbols[i];
        if (s->id >= 0) {
            tok_emit(out, s->id, &w->in, text + s->at, text + s->end);
            continue;
        }
        size_t end_of_run = s->end; /* SentencePiece makes one unk of a run of unknown characters */
        while (w->symbols[i].next < end && w->symbols[w->symbols[i].next].id < 0) {
            i = w->symbols[i].next;
            end_of_run = w->symbols[i].end;
        }
        size_t run = end_of_run - s->at;
        if (!tok_push_unknown(t, &w->in, text + s->at, run, out))
            FAIL(ST_DATA, "%s: no piece for '%.*s', and the file has no unknown token", t->path,
                 run < 40 ? (int)run : 40, text + s->at);
    }
    return ST_OK;
}

status tok_bpe_segment(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n, struct tok_sink *out)
{
    int32_t whole = t->ignore_merges && n ? tok_vocab_id(&t->vocab, text, n) : -1;
    if (whole >= 0) {
        tok_emit(out, whole, &w->in, text, text + n);
        return ST_OK;
    }
    for (size_t at = 0, end; at < n; at += end) {
        end = word_end(t, text + at, n - at);
        TRY(merge_word(t, w, text + at, end, out));
    }
    return ST_OK;
}
