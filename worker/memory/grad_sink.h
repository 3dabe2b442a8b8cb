/* grad_sink.h — where gradients go: accumulated for the step and reduced over ranks, or consumed at once.
 *
 *   for each micro-batch:   grad_micro_begin … (grad_acquire, compute, grad_done)* … grad_micro_end
 *   between its layers:     grad_send → of the step's last: what is complete is on its way over the ranks
 *   after the last one:     grad_reduce → every rank will hold T(0, leaves)
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
 * The last micro-batch of the last leaf completes the flat index bucket by bucket (buckets.h). Of a complete one the partial sums are
 * merged, and stream `across` reduces it while `s` computes the gradients of lower layers: the same additions, of fewer elements at
 * a time. Where nothing could run meanwhile the two streams are one, and all is one bucket.
 *
 *   s        … bwd L−1 │merge 0│ bwd L−2 │merge 1 2│ bwd L−3 …
 *   across             ready └▶[ reduce 0 ]    └▶[ reduce 1 ][ reduce 2 ] …
 *
 * With `optimizer_in_bwd` no flat gradient exists: grad_done reduces the one tensor over the ranks and hands it to
 * `consume`, and the scratch is free for the next. */
#ifndef TRIMPOT_GRAD_SINK_H
#define TRIMPOT_GRAD_SINK_H

#include "collectives/tree.h"
#include "configs/config.h"
#include "worker/memory/buckets.h"

/* What a configuration asks for: M micro-batches of a step over all ranks; whether gradients step one by one, as soon as they are there. */
int64_t grad_micro_batches(const struct config *c, int64_t ranks);
bool grad_steps_at_once(const struct config *c);
/* M, those of the checkpoint that is resumed or (0) as configured, and V leaves of the reduction tree. ST_CONFIG_RUNTIME. */
status grad_divide(const struct config *c, int64_t ranks, int64_t resumed, int64_t *micro_batches, int64_t *leaves);

/* A step has leaves × micros micro-batches over all ranks. */
struct grad_sizes {
    dtype dt;
    int leaves, micros;
    int64_t bucket; /* elements that are reduced at a time; 0: all */
};

struct grad_sink {
    struct param_store *params;
    struct stream *s, *across; /* gradients are made on one and cross ranks on the other */
    struct tree_reduce reduce;
    dtype dt;           /* f32; f64 over the reference backend */
    int leaves, lo, hi; /* of the step; this rank's */
    int depth;          /* buffers */
    void *buffer[TREE_MAX_NODES];
    void *scratch;    /* one tensor at a time … */
    int open;         /* … that is not complete, -1 none … */
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
    /* of the step's last micro-batch: */
    bool closing; /* it is in progress, or over and not reduced */
    struct buckets buckets;
    int height, remain;  /* partial sums on the stack; and those when the last leaf is merged */
    struct event *ready; /* on s: buckets are complete and merged */
};

/* across: s itself, or a stream that nothing else waits for before grad_reduce. With consume it is s. */
status grad_sink_init(struct grad_sink *g, struct param_store *params, struct comm *comm, struct stream *s, struct stream *across,
                      const struct grad_sizes *sizes, status (*consume)(void *, int, tensor), void *owner);
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
/* Nothing that s is given from here on writes into a gradient that is done: what is complete may leave. */
status grad_send(struct grad_sink *g);
/* The rest leaves, and `across` is where the sums are: whoever reads them on s waits for it. It has seen all that s had before. */
status grad_reduce(struct grad_sink *g);
tensor grad_all(const struct grad_sink *g);           /* the whole flat index, after grad_reduce; unless consumed */
bool grad_held(const struct grad_sink *g, int param); /* trained, and not consumed already: grad_of is there */
tensor grad_of(const struct grad_sink *g, int param); /* flat view, after grad_reduce */

#endif
