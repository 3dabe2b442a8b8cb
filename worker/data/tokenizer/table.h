/* table.h — the lookup tables of tokenizers: integers, byte strings, and prefixes of text. Filled while a file is
 * read, constant afterwards. */
#ifndef TRIMPOT_TOK_TABLE_H
#define TRIMPOT_TOK_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/text.h"

enum { TOK_MAX_IDS = 1 << 22, TOK_MAX_PIECE_BYTES = 1 << 16 }; /* no real vocabulary comes near either */

/* uint64 → uint64; neither key nor value may be TOK_NONE. */
#define TOK_NONE UINT64_MAX
struct tok_map_slot {
    uint64_t key, value;
};

struct tok_map {
    struct tok_map_slot *slot;
    size_t mask, used;
};
void tok_map_put(struct tok_map *m, uint64_t key, uint64_t value); /* replaces */
uint64_t tok_map_get(const struct tok_map *m, uint64_t key);       /* TOK_NONE: absent */
void tok_map_release(struct tok_map *m);

struct tok_place {
    uint32_t at, n; /* at == UINT32_MAX: a hole */
};

/* Pieces by id, and ids by piece. */
struct tok_vocab {
    struct buf text;         /* every piece, NUL after each */
    struct tok_place *piece; /* [ids] */
    int32_t ids, cap;        /* largest id + 1 */
    uint64_t *slot;          /* hash << 32 | id + 1; 0 is empty */
    size_t mask, used;
};
/* ST_CORRUPT: id out of range or taken, a piece that is there already, too long or empty. The caller prefixes. */
status tok_vocab_add(struct tok_vocab *v, int64_t id, const char *piece, size_t n);
int32_t tok_vocab_id(const struct tok_vocab *v, const char *piece, size_t n);  /* -1: unknown */
const char *tok_vocab_piece(const struct tok_vocab *v, int32_t id, size_t *n); /* NULL: hole or out of range */
void tok_vocab_release(struct tok_vocab *v);

/* Byte strings as paths from node 0. */
struct tok_trie {
    struct tok_map edge; /* node << 8 | byte → node */
    int32_t *value;      /* per node; -1: nothing ends here */
    uint32_t nodes, cap;
    bool starts[256]; /* some string begins with this byte */
};
void tok_trie_add(struct tok_trie *t, const char *s, size_t n, int32_t value); /* n > 0; replaces */
/* One step; false when the path ends. */
static inline bool tok_trie_step(const struct tok_trie *t, uint32_t *node, unsigned char byte)
{
    uint64_t next = tok_map_get(&t->edge, (uint64_t)*node << 8 | byte);
    *node = (uint32_t)next;
    return next != TOK_NONE;
}
/* Bytes of the longest string that text begins with; 0: none. */
size_t tok_trie_longest(const struct tok_trie *t, const char *text, size_t n, int32_t *value);
void tok_trie_release(struct tok_trie *t);

#endif
