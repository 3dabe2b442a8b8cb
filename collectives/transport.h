/* transport.h — how the partial sums of a round reach the ranks that own them, and their sums all ranks.
 *
 *   exchange   of every node of mine, the part that rank j owns  →  a row before rank j
 *   gather     what I summed  →  every rank
 *
 * Data movement only: nobody adds here. A round is one slice of what each rank owns (tree_reduce.c), so that memory is bounded.
 * Every call is made by all ranks in the same order. Through the hosts it is made when the stream that reduces gets there, where it
 * may wait for peers, and all memory is the host's (a device's is staged by the caller). Between devices (`queued`) calls are queued on
 * that stream and memory is the device's. */
#ifndef TRIMPOT_TRANSPORT_H
#define TRIMPOT_TRANSPORT_H

#include "collectives/comm.h"
#include "kernels/backend.h"

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
    /* messages, and between devices: */
    void *landing; /* [n_nodes, each], the caller's */
    /* messages: */
    size_t *extent; /* [4][size] bytes and offsets of messages, sent and received */
    /* between devices: */
    struct device_links *links;
    struct stream *stream; /* on which calls are queued */
};

struct transport_table {
    const char *name;
    int64_t piece; /* best elements of all nodes and owners together in a round */
    bool queued;   /* between devices: rows and sum are NULL, what lands is x->landing, the sums lie where they are gathered */
    int lag;       /* what was sent has arrived after so many calls of turn: 0 (turn is NULL), or 1 */
    /* from[i]: base of my node i. Rows of my own nodes are left alone. */
    status (*exchange)(struct transport *x, const struct round *r, void *const *from);
    void *(*rows)(const struct transport *x, int64_t round);                  /* [n_nodes, each] for me */
    void *(*sum)(const struct transport *x, const struct round *r, void *to); /* where I put my sum for the gather to `to` */
    status (*gather)(struct transport *x, const struct round *r, void *to);   /* all ranks' sums */
    status (*turn)(struct transport *x);
    status (*add)(struct transport *x, void *data, int64_t count); /* queued, `reduce: fast`: the library's own sum over ranks, in place */
};

extern const struct transport_table transport_messages, transport_shared;

/* Maps the memory that all ranks share. ST_NOT_BUILT on all of them where there is none. */
status transport_share(struct transport *x);

/* `piece` between devices: messages of 4 MB at 8 ranks. */
enum { TRANSPORT_QUEUED_PIECE = 8 * 1024 * 1024 };

/* What joins the ranks' devices, opened by all ranks together: a library's communicator, in a plugin. */
struct device_links {
    const struct transport_table *fn;
    const char *what;                                 /* "NCCL 2.28.9" */
    bool fast;                                        /* the library adds (`reduce: fast`) */
    size_t held_bytes;                                /* of the device, taken by opening them */
    void (*close)(struct device_links *l, bool well); /* by all ranks; well: nothing failed and nothing is queued */
};
typedef status transport_link_fn(struct comm *c, struct device_links **out); /* trimpot_transport_link of trimpot_BACKEND_nccl.so */

/* Joins the devices of all ranks where the backend has such a plugin on all of them; else what crosses ranks goes through the hosts.
 * Called by all ranks, with their GPUs chosen; until transport_unlink reductions of `c` go this way. */
status transport_link(struct comm *c, const struct backend *be, bool fast);
void transport_unlink(struct comm *c, bool well);
/* The same for a plan, where the devices are elsewhere: reductions have the memory that they would have with NCCL. */
void transport_imagine(struct comm *c, bool fast);

/* Device memory that the library keeps for itself, an estimate, and what of it is taken by now. 0 where it joins nothing. */
size_t transport_library_bytes(const struct comm *c);
size_t transport_held_bytes(const struct comm *c);

#endif
