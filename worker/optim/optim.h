/* optim.h — optimizer states, the schedule, and the step of any range of the flat index.
 *
 * States are flat vectors with the parameters' own index (param_store.h). Which op runs and which states exist is one
 * table row per optimizer. */
#ifndef TRIMPOT_OPTIM_H
#define TRIMPOT_OPTIM_H

#include "collectives/own.h"
#include "configs/config.h"
#include "worker/memory/param_store.h"

struct optim {
    const struct config *cfg;
    struct param_store *params;
    struct stream *s;
    dtype state_dt;
    void *m, *v; /* flat; NULL when the optimizer has no such state */
    uint64_t seed;
};

void optim_init(struct optim *o, const struct config *cfg, struct param_store *params, struct stream *s, dtype state_dt);
void optim_layout(struct optim *o, struct arena *states);
status optim_zero(struct optim *o);

/* What a step with learning rate lr needs after `applied` steps, or one more: fills that part of the plan. */
void optim_plan(const struct optim *o, double lr, int64_t applied, struct step_plan *out);
/* The update of the elements in r, whose gradient is given, as `scalars` says (ops.h). `step` keys stochastic rounding. */
status optim_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r);

/* Learning-rate multiplier at 0-based step k of n. */
double schedule_at(const struct config *cfg, int64_t k, int64_t n);

#endif
