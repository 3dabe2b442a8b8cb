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
 * Which op runs and which states exist is one table row per optimizer. */
#ifndef TRIMPOT_OPTIM_H
#define TRIMPOT_OPTIM_H

#include "collectives/own.h"
#include "configs/config.h"
#include "worker/memory/param_store.h"

/* A vector of states: `count` elements of its own index, one stored for each `per` of them. */
struct state_vector {
    const char *name; /* in checkpoints: "m", "v8", … */
    dtype dt;
    int64_t count, per;
    void *data;
};

enum { STATE_M, STATE_V, STATE_M8, STATE_V8, STATE_M_ABSMAX, STATE_V_ABSMAX, STATE_VECTORS };

struct optim {
    const struct config *cfg;
    struct param_store *params;
    struct stream *s;
    struct state_vector vector[STATE_VECTORS]; /* those that the optimizer does not have: count 0 */
    bool coded;                                /* some states are codes */
    uint64_t seed;
};

/* state_dt: of states that are not codes, but beside codes, where they are f32. Says in params->segs where states are: before their
 * table goes to the device. */
void optim_init(struct optim *o, const struct config *cfg, struct param_store *params, struct stream *s, dtype state_dt);
void optim_layout(struct optim *o, struct arena *states);
status optim_zero(struct optim *o);
size_t state_bytes(const struct state_vector *v);
/* What two runs must have in common to go on with each other's states, in words: "f32", "8-bit (of 4096 elements or more)". */
void optim_format(const struct optim *o, char text[64]);

/* What a step with learning rate lr needs after `applied` steps, or one more: fills that part of the plan. */
void optim_plan(const struct optim *o, double lr, int64_t applied, struct step_plan *out);
/* The update of the elements in r, whose gradient is given, as `scalars` says (ops.h). `step` keys stochastic rounding. */
status optim_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r);

/* Learning-rate multiplier at 0-based step k of n. */
double schedule_at(const struct config *cfg, int64_t k, int64_t n);

#endif
