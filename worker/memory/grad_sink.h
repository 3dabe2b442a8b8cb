/* grad_sink.h — where gradients go: accumulated for the step and reduced over ranks, or consumed at once.
 *
 *   for each micro-batch:   grad_micro_begin … (grad_acquire, compute, grad_done)* … grad_micro_end
 *   after the last one:     grad_reduce → every rank holds T(0, leaves)
 *
 * Accumulating, a rank holds the partial sums of its part of the reduction tree (collectives/tree.h). The left leaf of a
 * pair writes its sum straight into a new buffer; the right one computes each tensor in scratch and adds it when it is
 * complete, which is bitwise what two ranks would do.
 *
 *   leaves 0..3 of 4, one rank:    l0 → [0]    l1 → scratch, [0] += l1    l2 → [1]    l3 → scratch, [1] += l3, [0] += [1]
 *
 * A leaf is one micro-batch by default (every rank count that divides them gives the same bits); `virtual_ranks` makes
 * leaves of several micro-batches, accumulated linearly, for fewer buffers.
 *
 * With `optimizer_in_bwd` no flat gradient exists: grad_done reduces the one tensor over the ranks and hands it to
 * `consume`, and the scratch is free for the next. */
#ifndef TRIMPOT_GRAD_SINK_H
#define TRIMPOT_GRAD_SINK_H

#include "collectives/tree.h"
#include "worker/memory/param_store.h"

struct grad_sink {
    struct param_store *params;
    struct stream *s;
    struct tree_reduce reduce;
    dtype dt;           /* f32; f64 over the reference backend */
    int leaves, lo, hi; /* of the step; this rank's */
    int depth;          /* buffers */
    void *buffer[TREE_MAX_NODES];
    void *scratch;    /* one tensor at a time … */
    void *held;       /* … but for those that stay open beside it (param.held), each at its place */
    int64_t *held_at; /* [params] */
    struct tree_node node[TREE_MAX_NODES];
    int n_nodes;                                            /* partial sums now on the stack */
    int leaf, micro, micros;                                /* leaf in progress; micro-batch within it, of how many */
    bool right;                                             /* the leaf in progress is added to its left sibling */
    int *seen;                                              /* [params] contributions of this leaf that are complete … */
    bool *touched;                                          /* … and whether any has begun */
    status (*consume)(void *owner, int param, tensor grad); /* optimizer_in_bwd, else NULL */
    void *owner;
};

/* A step has leaves × micros micro-batches over all ranks. */
void grad_sink_init(struct grad_sink *g, struct param_store *params, struct comm *comm, struct stream *s, dtype dt, int leaves, int micros,
                    status (*consume)(void *, int, tensor), void *owner);
void grad_sink_layout(struct grad_sink *g, struct arena *gradients, struct arena *scratch, struct arena *comm_scratch,
                      struct arena *staging);
void grad_sink_release(struct grad_sink *g);

void grad_step_begin(struct grad_sink *g);
status grad_micro_begin(struct grad_sink *g);
/* The tensor to write this contribution into: overwrite it when *accumulate is false, else add to it. */
tensor grad_acquire(struct grad_sink *g, int param, bool *accumulate);
/* The same for who can only add: zeroed where nothing was written yet. */
status grad_acquire_zeroed(struct grad_sink *g, int param, tensor *out);
status grad_done(struct grad_sink *g, int param);
/* Parameters that saw no gradient (an empty micro-batch) contribute zeros. */
status grad_micro_end(struct grad_sink *g);
status grad_reduce(struct grad_sink *g);
tensor grad_all(const struct grad_sink *g);           /* the whole flat index, after grad_reduce; unless consumed */
bool grad_held(const struct grad_sink *g, int param); /* trained, and not consumed already: grad_of is there */
tensor grad_of(const struct grad_sink *g, int param); /* flat view, after grad_reduce */

#endif
