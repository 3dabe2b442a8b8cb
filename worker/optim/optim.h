/* optim.h — optimizer states, the schedule, and one parameter's step.
 *
 * States are flat vectors with the parameters' own index (param_store.h). Which op runs and which states exist is one
 * table row per optimizer. */
#ifndef TRIMPOT_OPTIM_H
#define TRIMPOT_OPTIM_H

#include "configs/config.h"
#include "worker/memory/param_store.h"

struct optim {
    const struct config *cfg;
    struct param_store *params;
    struct stream *s;
    dtype state_dt;
    void *m, *v;           /* flat; NULL when the optimizer has no such state */
    uint64_t seed;
    int64_t applied;       /* steps applied so far: t − 1 of the next */
};

void optim_init(struct optim *o, const struct config *cfg, struct param_store *params, struct stream *s, dtype state_dt);
void optim_layout(struct optim *o, struct arena *states);
status optim_zero(struct optim *o);

/* Applies one step to parameter `id` with learning rate lr: t = applied + 1. `step` keys stochastic rounding. The
 * caller bumps `applied` once per step, after all parameters. */
status optim_apply(struct optim *o, int id, tensor grad, double gscale, double lr, int64_t step);

/* Learning-rate multiplier at 0-based step k of n. */
double schedule_at(const struct config *cfg, int64_t k, int64_t n);

#endif
