/* Byte-pair merging: lowest rank first, leftmost on ties, over a heap of candidate pairs.
 *
 * Two questions differ between files, everything else is shared: what a text is cut into at first (HF resolves unknown
 * characters before merging, SentencePiece after), and which neighbours may merge (a table of id pairs, or the joined
 * bytes being a piece with a rank). */
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/segment.h"
#include "worker/data/tokenizer/utf8.h"

struct tok_symbol {   /* of a word being merged: a list threaded through an array */
    uint32_t at, end; /* end == 0: merged into its left neighbour; else no two symbols end at one place */
    int32_t id;       /* -1: not a piece (yet) */
    int32_t prev, next;
    bool frozen; /* a user-defined piece: never merged */
};

struct tok_merge {                      /* a candidate pair on the heap */
    uint32_t rank, left_end, right_end; /* they tell whether it is stale */
    int32_t left, id;
};

void tok_work_release(struct tok_work *w)
{
    free(w->symbols);
    free(w->heap);
    free(w->best);
    *w = (struct tok_work){0};
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
static void cut_hf(const struct tok_model *m, struct tok_work *w, const char *text, size_t n)
{
    size_t unk_at = 0, unk_end = 0;
    for (size_t i = 0, len; i < n; i += len) {
        utf8_get(text + i, n - i, &len);
        int32_t id = tok_vocab_id(&m->vocab, text + i, len);
        if (id < 0 && tok_has_bytes(m, text + i, len)) {
            for (size_t k = 0; k < len; k++) add_symbol(w, i + k, i + k + 1, m->byte_id[(unsigned char)text[i + k]], false);
            continue;
        }
        if (unk_end && (id >= 0 || !m->fuse_unk)) {
            add_symbol(w, unk_at, unk_end, m->unk, false);
            unk_end = 0;
        }
        if (id >= 0) {
            add_symbol(w, i, i + len, id, false);
        } else if (m->unk >= 0) {
            if (!unk_end) unk_at = i;
            unk_end = i + len;
        }
    }
    if (unk_end) add_symbol(w, unk_at, unk_end, m->unk, false);
}

/* SentencePiece and tiktoken: user-defined pieces, else characters whether they have a piece or not. */
static void cut_characters(const struct tok_model *m, struct tok_work *w, const char *text, size_t n)
{
    for (size_t i = 0, len; i < n; i += len) {
        int32_t id = -1;
        len = tok_trie_longest(&m->user_defined, text + i, n - i, &id);
        bool frozen = len > 0;
        if (!frozen) {
            utf8_get(text + i, n - i, &len);
            id = tok_vocab_id(&m->vocab, text + i, len);
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

static void offer(const struct tok_model *m, struct tok_work *w, const char *text, int32_t left)
{
    if (left < 0 || w->symbols[left].next >= (int32_t)w->n_symbols) return;
    const struct tok_symbol *a = &w->symbols[left], *b = &w->symbols[a->next];
    struct tok_merge pair = {.left = left, .left_end = a->end, .right_end = b->end};
    if (m->by_pair) {
        uint64_t hit = tok_map_get(&m->pairs, (uint64_t)(uint32_t)a->id << 32 | (uint32_t)b->id);
        if (hit == TOK_NONE) return;
        pair.rank = (uint32_t)(hit >> 32);
        pair.id = (int32_t)(uint32_t)hit;
    } else {
        if (a->frozen || b->frozen) return;
        pair.id = tok_vocab_id(&m->vocab, text + a->at, b->end - a->at);
        if (pair.id < 0 || m->rank[pair.id] == UINT32_MAX) return;
        pair.rank = m->rank[pair.id];
    }
    heap_push(w, pair);
}

static void merge_all(const struct tok_model *m, struct tok_work *w, const char *text)
{
    struct tok_symbol *s = w->symbols;
    int32_t end = (int32_t)w->n_symbols;
    w->n_heap = 0;
    for (int32_t i = 0; i + 1 < end; i++) offer(m, w, text, i);
    while (w->n_heap) {
        struct tok_merge pair = heap_pop(w);
        struct tok_symbol *a = &s[pair.left];
        if (a->end != pair.left_end || a->next >= end || s[a->next].end != pair.right_end) continue;
        struct tok_symbol *b = &s[a->next];
        a->end = b->end;
        a->id = pair.id;
        a->next = b->next;
        b->end = 0;
        if (a->next < end) s[a->next].prev = pair.left;
        offer(m, w, text, a->prev);
        offer(m, w, text, pair.left);
    }
}

void tok_bpe_words(struct tok_model *m)
{
    const size_t k = strlen(SPACE_MARK);
    m->words = tok_vocab_id(&m->vocab, SPACE_MARK, k) >= 0;
    for (int32_t id = 0; id < m->vocab.ids && m->words; id++) {
        size_t n, i = 0;
        const char *piece = tok_vocab_piece(&m->vocab, id, &n);
        if (!piece) continue;
        while (i + k <= n && memcmp(piece + i, SPACE_MARK, k) == 0) i += k;
        m->words = !memmem(piece + i, n - i, SPACE_MARK, k);
    }
}

/* Where a part of text that can be merged for itself ends: before a ▁ that follows something else. */
static size_t word_end(const struct tok_model *m, const char *text, size_t n)
{
    const size_t k = strlen(SPACE_MARK);
    size_t i = 0;
    if (!m->words) return n;
    while (i + k <= n && memcmp(text + i, SPACE_MARK, k) == 0) i += k;
    const char *next = memmem(text + i, n - i, SPACE_MARK, k);
    return next ? (size_t)(next - text) : n;
}

static status merge_word(const struct tok_model *m, struct tok_work *w, const struct tok_spans *s, size_t at, size_t n,
                         struct tok_sink *out)
{
    const char *text = s->text.data + at;
    w->n_symbols = 0;
    if (m->by_pair)
        cut_hf(m, w, text, n);
    else
        cut_characters(m, w, text, n);
    merge_all(m, w, text);
    int32_t end = (int32_t)w->n_symbols;
    for (int32_t i = 0; i < end; i = w->symbols[i].next) {
        const struct tok_symbol *a = &w->symbols[i];
        if (a->id >= 0) {
            /* a merge with a late unk ends before it begins */
            tok_emit(out, a->id, s, at + a->at, at + (a->end > a->at ? a->end : a->at + 1));
            continue;
        }
        while (w->symbols[i].next < end && w->symbols[w->symbols[i].next].id < 0) i = w->symbols[i].next;
        /* SentencePiece makes one unk of a run of unknown characters */
        TRY(tok_push_unknown(m, s, at + a->at, at + w->symbols[i].end, out));
    }
    return ST_OK;
}

status tok_bpe_segment(const struct tok_model *m, struct tok_work *w, const struct tok_spans *s, size_t at, size_t n, struct tok_sink *out)
{
    int32_t whole = m->ignore_merges && n ? tok_vocab_id(&m->vocab, s->text.data + at, n) : -1;
    if (whole >= 0) {
        tok_emit(out, whole, s, at, at + n);
        return ST_OK;
    }
    for (size_t len; n > 0; at += len, n -= len) {
        len = word_end(m, s->text.data + at, n);
        TRY(merge_word(m, w, s, at, len, out));
    }
    return ST_OK;
}
