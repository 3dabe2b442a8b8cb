#include "worker/data/tokenizer/table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static size_t map_place(const struct tok_map *m, uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15ull;
    size_t i = (h ^ h >> 32) & m->mask;
    while (m->slot[i].key != TOK_NONE && m->slot[i].key != key) i = (i + 1) & m->mask;
    return i;
}

static void map_grow(struct tok_map *m)
{
    struct tok_map old = *m;
    m->mask = old.slot ? old.mask * 2 + 1 : 63;
    m->slot = mem_grow(NULL, (m->mask + 1) * sizeof *m->slot);
    memset(m->slot, 0xff, (m->mask + 1) * sizeof *m->slot);
    for (size_t i = 0; old.slot && i <= old.mask; i++)
        if (old.slot[i].key != TOK_NONE) m->slot[map_place(m, old.slot[i].key)] = old.slot[i];
    free(old.slot);
}

void tok_map_put(struct tok_map *m, uint64_t key, uint64_t value)
{
    if (!m->slot || m->used * 4 >= m->mask * 3) map_grow(m);
    size_t i = map_place(m, key);
    m->used += m->slot[i].key == TOK_NONE;
    m->slot[i].key = key;
    m->slot[i].value = value;
}

uint64_t tok_map_get(const struct tok_map *m, uint64_t key) { return m->slot ? m->slot[map_place(m, key)].value : TOK_NONE; }

void tok_map_release(struct tok_map *m)
{
    free(m->slot);
    *m = (struct tok_map){0};
}

static uint32_t piece_hash(const char *s, size_t n) { return (uint32_t)XXH3_64bits(s, n); }

static size_t vocab_place(const struct tok_vocab *v, uint32_t hash, const char *piece, size_t n)
{
    size_t i = hash & v->mask;
    for (; v->slot[i]; i = (i + 1) & v->mask) {
        if (v->slot[i] >> 32 != hash) continue;
        size_t id = (uint32_t)v->slot[i] - 1;
        if (v->piece[id].n == n && memcmp(v->text.data + v->piece[id].at, piece, n) == 0) break;
    }
    return i;
}

static void vocab_grow(struct tok_vocab *v)
{
    uint64_t *old = v->slot;
    size_t slots = old ? v->mask + 1 : 0;
    v->mask = old ? v->mask * 2 + 1 : 255;
    v->slot = mem_alloc((v->mask + 1) * sizeof *v->slot);
    for (size_t k = 0; k < slots; k++) {
        if (!old[k]) continue;
        size_t i = (old[k] >> 32) & v->mask;
        while (v->slot[i]) i = (i + 1) & v->mask;
        v->slot[i] = old[k];
    }
    free(old);
}

static status vocab_check(const struct tok_vocab *v, int64_t id, const char *piece, size_t n)
{
    int shown = n < 40 ? (int)n : 40;
    if (n == 0) FAIL(ST_CORRUPT, "id %" PRId64 ": empty piece", id);
    if (n > TOK_MAX_PIECE_BYTES) FAIL(ST_CORRUPT, "piece '%.*s…': %zu bytes; the limit is %d", shown, piece, n, TOK_MAX_PIECE_BYTES);
    if (id < 0 || id >= TOK_MAX_IDS) FAIL(ST_CORRUPT, "piece '%.*s': id %" PRId64 " is not in 0 … %d", shown, piece, id, TOK_MAX_IDS - 1);
    if (v->text.len + n + 1 >= UINT32_MAX) FAIL(ST_CORRUPT, "piece '%.*s': vocabulary of more than 4 GB", shown, piece);
    if (tok_vocab_id(v, piece, n) >= 0)
        FAIL(ST_CORRUPT, "piece '%.*s' has two ids, %d and %" PRId64, shown, piece, tok_vocab_id(v, piece, n), id);
    if (tok_vocab_piece(v, (int32_t)id, NULL))
        FAIL(ST_CORRUPT, "id %" PRId64 " belongs to two pieces, '%s' and '%.*s'", id, tok_vocab_piece(v, (int32_t)id, NULL), shown, piece);
    return ST_OK;
}

status tok_vocab_add(struct tok_vocab *v, int64_t id, const char *piece, size_t n)
{
    TRY(vocab_check(v, id, piece, n));
    if (id >= v->cap) {
        int32_t cap = v->cap ? v->cap : 256;
        while (cap <= id) cap *= 2;
        v->piece = mem_grow(v->piece, (size_t)cap * sizeof *v->piece);
        memset(v->piece + v->cap, 0xff, (size_t)(cap - v->cap) * sizeof *v->piece);
        v->cap = cap;
    }
    if (!v->slot || v->used * 4 >= v->mask * 3) vocab_grow(v);
    v->piece[id].at = (uint32_t)v->text.len;
    v->piece[id].n = (uint32_t)n;
    buf_add(&v->text, piece, n);
    buf_add(&v->text, "", 1);
    if (id >= v->ids) v->ids = (int32_t)id + 1;
    uint32_t hash = piece_hash(piece, n);
    v->slot[vocab_place(v, hash, piece, n)] = (uint64_t)hash << 32 | (uint64_t)(id + 1);
    v->used++;
    return ST_OK;
}

int32_t tok_vocab_id(const struct tok_vocab *v, const char *piece, size_t n)
{
    return v->slot ? (int32_t)(uint32_t)v->slot[vocab_place(v, piece_hash(piece, n), piece, n)] - 1 : -1;
}

const char *tok_vocab_piece(const struct tok_vocab *v, int32_t id, size_t *n)
{
    if (id < 0 || id >= v->ids || v->piece[id].at == UINT32_MAX) return NULL;
    if (n) *n = v->piece[id].n;
    return v->text.data + v->piece[id].at;
}

void tok_vocab_release(struct tok_vocab *v)
{
    buf_release(&v->text);
    free(v->piece);
    free(v->slot);
    *v = (struct tok_vocab){0};
}

static uint32_t trie_node(struct tok_trie *t)
{
    if (t->nodes == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->value = mem_grow(t->value, t->cap * sizeof *t->value);
    }
    t->value[t->nodes] = -1;
    return t->nodes++;
}

void tok_trie_add(struct tok_trie *t, const char *s, size_t n, int32_t value)
{
    uint32_t node = t->nodes ? 0 : trie_node(t);
    t->starts[(unsigned char)s[0]] = true;
    for (size_t i = 0; i < n; i++) {
        uint64_t key = (uint64_t)node << 8 | (unsigned char)s[i], next = tok_map_get(&t->edge, key);
        if (next == TOK_NONE) {
            next = trie_node(t);
            tok_map_put(&t->edge, key, next);
        }
        node = (uint32_t)next;
    }
    t->value[node] = value;
}

size_t tok_trie_longest(const struct tok_trie *t, const char *text, size_t n, int32_t *value)
{
    size_t best = 0;
    uint32_t node = 0;
    if (n == 0 || !t->starts[(unsigned char)text[0]]) return 0;
    for (size_t i = 0; i < n && tok_trie_step(t, &node, (unsigned char)text[i]); i++)
        if (t->value[node] >= 0) {
            best = i + 1;
            *value = t->value[node];
        }
    return best;
}

void tok_trie_release(struct tok_trie *t)
{
    tok_map_release(&t->edge);
    free(t->value);
    *t = (struct tok_trie){0};
}
