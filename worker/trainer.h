/* trainer.h — from micro-batches to new weights: gradients, their norm, the update. What a session's steps and a test's are.
 *
 *   trainer_begin → trainer_micro, once per micro-batch of this rank → trainer_finish
 *
 * It knows neither data nor files nor schedule: whoever calls it brings the batches and the learning rate. */
#ifndef TRIMPOT_TRAINER_H
#define TRIMPOT_TRAINER_H

#include "collectives/comm.h"
#include "configs/config.h"
#include "worker/model/model.h"
#include "worker/optim/optim.h"

/* Of a step: M micro-batches over all ranks, V leaves of the reduction tree. consume: optimizer_in_bwd. */
struct trainer_sizes { int64_t micro_batches, leaves; dtype state_dt; bool consume; };

/* What is known of a step before it runs. supervised: tokens, of all micro-batches. */
struct step_start { int64_t step, supervised; double lr; };

/* What came of it. usable = false: something was not finite, or nothing supervised, and no weight changed. */
struct step_result { double loss, grad_norm; bool usable; };

struct trainer {
    const struct config *cfg;
    struct model *m;
    struct comm *comm;
    struct stream *s;
    struct trainer_sizes sizes;
    int64_t accumulation;    /* micro-batches of this rank */
    struct grad_sink sink;
    struct optim optim;
    tensor partials;         /* square sums per (trained tensor, block) */
    int64_t *partial_at;     /* [params] first partial of each; the last entry: how many there are */
    double *losses;          /* [micro-batches], token losses of each */
    struct step_start now;
    double gscale;           /* 1 / supervised */
};

void trainer_init(struct trainer *t, const struct config *cfg, struct model *m, struct comm *comm, struct stream *s,
                  const struct trainer_sizes *sizes);
void trainer_layout(struct trainer *t, struct arena *arenas); /* [PLAN_ARENAS]; measured, then bound */
void trainer_release(struct trainer *t);

status trainer_begin(struct trainer *t, const struct step_start *start);
/* Micro-batch i of this rank, of `accumulation`: runs p (whose sink is the trainer's) forward and backward. */
status trainer_micro(struct trainer *t, struct pass *p, int64_t i);
/* Reduces over the ranks, judges, updates. Collective. */
status trainer_reduce(struct trainer *t);
status trainer_update(struct trainer *t, struct step_result *out);

#endif
