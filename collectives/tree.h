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

#include "collectives/own.h"
#include "collectives/transport.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"

struct tree_node {
    int lo, hi;
};

enum { TREE_MAX_NODES = 32 };

/* The canonical nodes that cover leaves [lo, hi), left to right. Returns how many (≤ TREE_MAX_NODES). */
int tree_cover(int leaves, int lo, int hi, struct tree_node *out);

/* Is [lo, hi) one node of T(0, leaves)? */
bool tree_is_node(int leaves, int lo, int hi);

/* Buffers (beyond none) a rank needs to hold its partials: the deepest stack while leaves [lo, hi) are pushed one by
 * one and merged as soon as possible, where a right sibling leaf may be added straight into its left sibling's buffer
 * (so 2 leaves need 1 buffer, 4 need 2, 8 need 3). */
int tree_depth(int leaves, int lo, int hi);

/* One reduction on its way: what it was called with, and how far the host's part of it has come. */
struct tree_job {
    struct tree_reduce *t;
    void *node[TREE_MAX_NODES], *out;
    int64_t count, rounds;
    int threads;
    int64_t sent, landed, put; /* rounds, counted by the host calls alone … */
    _Atomic int64_t taken;     /* … and, where those run on another thread, read by who reuses this */
    struct tree_job *next;
};

struct tree_reduce {
    struct comm *comm;
    int leaves;
    dtype dt;
    int64_t longest;        /* vector reduced */
    int n_nodes, max_nodes; /* nodes of all ranks together; the most of one rank */
    bool direct;            /* tensors are host memory: nothing is staged */
    bool connected;
    struct tree_rank *ranks; /* [size] what each rank brings */
    struct transport by;
    struct tree_sum_args sum; /* but for the addresses */
    /* of a round, for calls and for what runs on the stream: [2][size] */
    int64_t *here, *there;
    /* tensor memory: */
    void *rows; /* [n_nodes, each] partials that messages bring, or what is staged of them */
    /* pinned, when tensors are not host memory: */
    void *send, *landing, *spread; /* [my nodes, size, each] [n_nodes, each] [size, each] */
    struct tree_job *newest;       /* of a ring, as many as were ever on their way at once */
};

/* Owns ordinary memory: release. longest: the longest vector that will be reduced; dt: f32 (f64 over the reference, on one
 * rank). leaves must be a multiple of the ranks, and these at most TREE_SUM_NODES (ST_CONFIG_RUNTIME by the first reduction). */
void tree_reduce_init(struct tree_reduce *t, struct comm *c, const struct backend *be, int leaves, int64_t longest, dtype dt);
void tree_reduce_release(struct tree_reduce *t);

/* Measure or bind: some MB of "reduction …", in tensor and pinned memory; nothing with one rank. The first reduction maps a
 * segment that the ranks of one host share, no larger than that of the messages, whose pages are then never touched. */
void tree_reduce_layout(struct tree_reduce *t, struct arena *tensors, struct arena *pinned);

/* nodes[i] (n_nodes of them, this rank's cover in order) each hold `count` elements. Afterwards `out` (may be nodes[0]) is T(0, leaves)
 * of all ranks, on every rank: rank r adds own(count, r, size) of it. All ranks call with the same lengths in the same order; parts of a
 * vector may be reduced one after the other, each a vector of its own, with the same bits.
 * Queued on s, always the same; with one rank a copy. Volume per rank = reduce-scatter + all-gather; sums are elementwise in tree order. */
status tree_reduce(struct tree_reduce *t, struct stream *s, void *const *nodes, int n_nodes, void *out, int64_t count);

#endif
