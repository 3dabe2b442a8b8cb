/* transport.h — how the partial sums of a round reach the ranks that own them, and their sums all ranks.
 *
 *   exchange   of every node of mine, the part that rank j owns  →  a row before rank j
 *   gather     what I summed  →  every rank
 *
 * Data movement only: nobody adds here. A round is one slice of what each rank owns (tree_reduce.c), so that memory is bounded.
 * All of it is host memory; a device's is staged by the caller. Every call is made by all ranks in the same order, on the host,
 * when the stream that reduces gets there: it may wait for peers. */
#ifndef TRIMPOT_TRANSPORT_H
#define TRIMPOT_TRANSPORT_H

#include "collectives/comm.h"

struct tree_rank {
    int first, n;
}; /* the nodes a rank brings, among those of all */

/* Of rank r, count[r] elements, at[r] elements behind whatever base a call is given. */
struct round {
    int64_t number, *at, *count;
};

struct transport {
    const struct transport_table *fn;
    struct comm *comm;
    const struct tree_rank *ranks;
    int n_nodes, max_nodes;
    int64_t each;   /* elements of a rank in a round, at most: rows are as far apart */
    size_t element; /* bytes of one */
    int threads;    /* of the copies */
    /* shared memory: */
    void **parts;      /* [size] every rank's part of the segment */
    uint32_t meetings; /* come to, by this rank */
    /* messages: */
    void *landing;  /* [n_nodes, each], the caller's */
    size_t *extent; /* [4][size] bytes and offsets of messages, sent and received */
};

struct transport_table {
    const char *name;
    int64_t piece; /* best elements of all nodes and owners together in a round */
    int lag;       /* what was sent has arrived after so many calls of turn: 0 (turn is NULL), or 1 */
    /* from[i]: base of my node i. Rows of my own nodes are left alone. */
    status (*exchange)(struct transport *x, const struct round *r, void *const *from);
    void *(*rows)(const struct transport *x, int64_t round);                  /* [n_nodes, each] for me */
    void *(*sum)(const struct transport *x, const struct round *r, void *to); /* where I put my sum for the gather to `to` */
    status (*gather)(struct transport *x, const struct round *r, void *to);   /* all ranks' sums */
    status (*turn)(struct transport *x);
};

extern const struct transport_table transport_messages, transport_shared;

/* Maps the memory that all ranks share. ST_NOT_BUILT on all of them where there is none. */
status transport_share(struct transport *x);

#endif
