/* optim.h — optimizer states, the schedule, and the step of any range of the flat index.
 *
 * States are vectors with the parameters' own index (param_store.h), or, of 8-bit optimizers, two kinds side by side, each with the
 * tensors it holds in the order of the index and no others (ops.h, op_update):
 *
 *   index    |seg 0        |seg 1|seg 2     |…          coded: ≥ min_8bit_size elements, and embedding and head if they may be
 *   m8, v8   |seg 0        |seg 2     |…                codes, one byte each, each tensor from a multiple of 256 on
 *   absmax   |             |          |                 one f32 for 256 codes
 *   m, v     |seg 1|…                                   f32
 *
 * Which op runs and which states exist is one table row per optimizer.
 *
 * Paged optimizers cut the index into windows (windows.c), each an interval of every vector; a window is updated by an op of its own,
 * which changes no bit. Some stay on the device, the others wait in pinned memory and come in turn (memory/pager.h): which, follows
 * from how many bytes they may have there (optim_fit), before anything is allocated. Unpaged, there is one window, and it stays.
 *
 *   index    |seg 0        |seg 1|seg 2     |…          tensors below min_paged_size are in windows that stay
 *   windows  |0     |1     |2    |3     |4  |…          otherwise paged_window elements each, at the most
 *   m8, v8   |0     |1     |3     |4  |                 of coded states an op is given the window's part, and a table of segments in
 *   m, v     |2    |                                    which tensors are cut where the window is, and places begin with it
 *
 * The optimizer on the host has its states there, and steps there (host.h). */
#ifndef TRIMPOT_OPTIM_H
#define TRIMPOT_OPTIM_H

#include "collectives/own.h"
#include "configs/config.h"
#include "worker/memory/pager.h"
#include "worker/memory/param_store.h"
#include "worker/optim/host.h"

/* A vector of states: `count` elements of its own index, one stored for each `per` of them. */
struct state_vector {
    const char *name; /* in checkpoints: "m", "v8", … */
    dtype dt;
    int64_t count, per;
};

enum { STATE_M, STATE_V, STATE_M8, STATE_V8, STATE_M_ABSMAX, STATE_V_ABSMAX, STATE_VECTORS };
_Static_assert((int)STATE_VECTORS == (int)PAGER_VECTORS, "the pager has every vector of states");

struct optim {
    const struct config *cfg;
    struct param_store *params;
    struct stream *s;
    struct state_vector vector[STATE_VECTORS]; /* those that the optimizer does not have: count 0 */
    struct pager pager;                        /* where they are … */
    struct optim_host host;                    /* … unless they are the host's, which then steps */
    struct segs *segs;                         /* of each window, where places of states begin with it; NULL: params->segs */
    struct seg *seg_rows;                      /* of them all */
    int64_t n_seg_rows;
    bool coded; /* some states are codes */
    uint64_t seed;
};

/* What a configuration asks for: the states' type where they are no codes; masters of bf16 weights, where weights are trained. */
dtype optim_state_dtype(const struct config *c);
bool optim_has_masters(const struct config *c);

/* state_dt: of states that are not codes, but beside codes, where they are f32. Says in params->segs where states are: before their
 * table goes to the device. */
status optim_init(struct optim *o, const struct config *cfg, struct param_store *params, struct stream *s, dtype state_dt);
bool optim_is_paged(const struct optim *o);   /* its states may wait in pinned memory … */
bool optim_is_on_host(const struct optim *o); /* … or are to be the host's: where tensors are host memory both change nothing */
/* Of paged states as many stay on the device as fit into so many bytes, tables included: before the layout. Nothing where optimizer.paged_resident says
 * how many, or states are not paged. */
status optim_fit(struct optim *o, size_t bytes);
/* hosted, staging: of states that the host steps, and of what then crosses. */
void optim_layout(struct optim *o, struct arena *states, struct arena *paged, struct arena *hosted, struct arena *staging);
void optim_settle(struct optim *o); /* what is queued on its streams is over; what came of it is nobody's */
void optim_release(struct optim *o);
status optim_zero(struct optim *o, struct stage *g); /* once bound */
size_t state_bytes(const struct state_vector *v);
/* What two runs must have in common to go on with each other's states, in words: "f32", "8-bit (of 4096 elements or more)". Where they
 * are is not of it. */
void optim_format(const struct optim *o, char text[64]);

/* What a step with learning rate lr needs after `applied` steps, or one more: fills that part of the plan. */
void optim_plan(const struct optim *o, double lr, int64_t applied, struct step_plan *out);
/* The update of the elements in r, whose gradient is given, as `scalars` says (ops.h). `step` keys stochastic rounding. */
status optim_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r);
/* No further range of this step comes. */
status optim_rest(struct optim *o);

/* Stored elements [at, at + n) of a vector, for checkpoints. */
status optim_read(struct optim *o, struct stage *g, int vector, int64_t at, int64_t n, void *to_host);
status optim_write(struct optim *o, struct stage *g, int vector, int64_t at, int64_t n, const void *from_host);

/* For host.c: of an update all but its tensors and table. */
struct update_args optim_args(const struct optim *o, int64_t step, struct range r);

/* For optim.c (windows.c). All of the index as windows for paging, or as one, in *n. */
struct pager_window *optim_windows(const struct optim *o, bool paged, int *n);
/* The tables of segments of windows of coded states, which are the pager's now. */
void optim_tables(struct optim *o);

/* Learning-rate multiplier at 0-based step k of n. */
double schedule_at(const struct config *cfg, int64_t k, int64_t n);

#endif
