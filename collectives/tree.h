/* tree.h — the fixed reduction tree: the same bits on every number of ranks.
 *
 *   T(a,b) = leaf a                      if b − a = 1
 *          = T(a,a+p) + T(a+p,b)         else, p = largest power of two < b − a
 *
 * V leaves; rank r of P owns leaves [rV/P, (r+1)V/P), P | V. While it accumulates, a rank keeps the canonical nodes of
 * its range on a stack: pushing a leaf merges equal neighbours that are nodes of T(0,V).
 *
 *   V = 8, P = 2, rank 0:   l0 | l0+l1 | (01) l2 | (01) (23) → (0123)       rank 1 sends (4567); every rank adds
 *                                                                           (0123) + (4567) for its shard
 */
#ifndef TRIMPOT_TREE_H
#define TRIMPOT_TREE_H

#include "collectives/comm.h"
#include "kernels/base/arena.h"

struct stream;

struct tree_node { int lo, hi; };

enum { TREE_MAX_NODES = 32 };

/* The canonical nodes that cover leaves [lo, hi), left to right. Returns how many (≤ TREE_MAX_NODES). */
int tree_cover(int leaves, int lo, int hi, struct tree_node *out);

/* Is [lo, hi) one node of T(0, leaves)? */
bool tree_is_node(int leaves, int lo, int hi);

/* Buffers (beyond none) a rank needs to hold its partials: the deepest stack while leaves [lo, hi) are pushed one by
 * one and merged as soon as possible, where a right sibling leaf may be added straight into its left sibling's buffer
 * (so 2 leaves need 1 buffer, 4 need 2, 8 need 3). */
int tree_depth(int leaves, int lo, int hi);

struct tree_reduce {
    struct comm *comm;
    int leaves;
    int64_t longest;             /* vector reduced */
    int max_nodes, n_nodes;      /* the most nodes of one rank; nodes of all ranks together */
    int64_t piece, shard;        /* elements handled at a time, and a rank's share of them; they bound the scratch */
    struct tree_rank *ranks;     /* [size] what each rank brings, and where */
    void **parts;                /* [size] of the segment shared by all ranks */
    unsigned char *merges;       /* [n_nodes] merges of the two newest sums after each node: the tree in postfix */
    const float **source;        /* [n_nodes] where this rank's share of each node lies */
    size_t *extent;              /* [4][size] bytes and offsets of messages, sent and received */
    float *scratch;              /* partials received in messages */
    bool connected, shared;      /* shared: ranks read each other's staged partials instead */
    uint32_t meetings;
};

/* Measure or bind: takes its scratch (some MB, "reduction …") from `a`. max_count = longest vector reduced. The first
 * reduction maps a segment that the ranks of one host share, no larger than the scratch, and uses that instead of the
 * scratch, whose pages are then never touched. With one rank nothing is taken. leaves must be a multiple of the ranks. */
void tree_reduce_init(struct tree_reduce *t, struct comm *c, int leaves, int64_t max_count, struct arena *a);

/* nodes[i] (n_nodes of them, this rank's cover in order) each hold `count` f32. Afterwards `out` (may be nodes[0])
 * holds T(0, leaves) of all ranks, on every rank. With one rank the nodes are added in tree order, no communication.
 * Volume per rank = reduce-scatter + all-gather; sums are elementwise f32 in tree order, in parallel over elements. */
status tree_reduce(struct tree_reduce *t, struct stream *s, float *const *nodes, int n_nodes, float *out, int64_t count);

#endif
