/* trainer.h — from micro-batches to new weights: gradients, their norm, the judgement, the update. What the steps of a session
 * and of a test have in common.
 *
 *   trainer_begin → trainer_micro, once per micro-batch of this rank → trainer_reduce → trainer_update      launched …
 *   trainer_collect                                                                                          … and told, later
 *
 * Nothing between waits: the host reads no result of a step when it launches it, nor before it launches the next. Losses, norm,
 * clipping, the guard against what is not finite, and the count of applied steps are the device's (struct step_scalars); a
 * collected step tells them. Two steps may be in flight, so that one is always queued behind the one that runs:
 *
 *   host     launch 0 | launch 1 | collect 0 | launch 2 | collect 1 | …             slots 0 1 0 1 …, in pinned memory
 *   device     └ plan 0 ↓, step 0 … found 0 ↑, plan 1 ↓, step 1 … found 1 ↑ …
 *
 * With several ranks gradients cross on a stream of their own where they can, while lower layers compute theirs
 * (worker/memory/grad_sink.h). Behind them, on the same stream, the losses of a step, and what else ranks must agree on (`flags`),
 * cross in one gather. While a step is in flight no other collective may be begun from the host: ranks must meet in one order
 * (collectives/comm.h).
 *
 * It knows neither data nor files nor schedule: whoever calls it brings the batches and the learning rate. */
#ifndef TRIMPOT_TRAINER_H
#define TRIMPOT_TRAINER_H

#include "collectives/comm.h"
#include "configs/config.h"
#include "worker/model/model.h"
#include "worker/optim/optim.h"

enum { TRAINER_SLOTS = 2 };

/* Of a step: M micro-batches over all ranks, V leaves of the reduction tree. consume: optimizer_in_bwd. */
struct trainer_sizes {
    int64_t micro_batches, leaves;
    int64_t bucket; /* elements of the gradients that cross ranks at a time; 0: all */
    dtype state_dt;
    bool consume;
};

/* What is known of a step before it runs. step from 0; supervised: tokens, of all micro-batches. */
struct step_start {
    int64_t step, supervised;
    double lr;
};

/* What came of it. usable = false: something was not finite, or nothing supervised, and no weight changed. */
struct step_result {
    double loss, grad_norm;
    bool usable;
    int64_t applied;    /* usable steps so far */
    unsigned flags;     /* any rank's */
    double finished_at; /* clock_s() when the device was done with it */
};

/* A step in flight: what goes down and comes up. */
struct trainer_slot {
    struct step_plan *plan;     /* pinned */
    double *shared;             /* pinned, [ranks][accumulation + 1]: losses and flags of each rank */
    struct step_scalars *found; /* pinned */
    double finished_at;
    struct trainer *trainer;
    struct event *crossed, *done; /* on `across`; on the compute stream */
};

struct trainer {
    const struct config *cfg;
    struct model *m;
    struct comm *comm;
    struct stream *s, *across; /* compute; what crosses ranks: where nothing could overlap, the same */
    struct trainer_sizes sizes;
    int64_t accumulation; /* micro-batches of this rank */
    struct grad_sink sink;
    struct optim optim;
    tensor losses;        /* [ranks, accumulation] f64, rows one longer, as in `shared` */
    tensor partials;      /* square sums per (trained tensor, page) */
    tensor plan, scalars; /* the step's, where tensors live */
    struct trainer_slot slot[TRAINER_SLOTS];
    int64_t launched, collected; /* steps, of this process */
    int64_t step;                /* being launched */
    int64_t applied;             /* usable steps, of those collected */
};

status trainer_init(struct trainer *t, const struct config *cfg, struct model *m, struct comm *comm, struct stream *s,
                    struct stream *across, const struct trainer_sizes *sizes);
void trainer_layout(struct trainer *t, struct arena *arenas); /* [PLAN_ARENAS]; measured, then bound */
void trainer_release(struct trainer *t);

/* The step's number among the applied ones goes on from here. After binding, and when states were loaded. */
status trainer_set_applied(struct trainer *t, int64_t applied);

/* At most TRAINER_SLOTS steps may be launched and not collected. */
status trainer_begin(struct trainer *t, const struct step_start *start);
/* Micro-batch i of this rank, of `accumulation`: runs p (whose sink is the trainer's) forward and backward. */
status trainer_micro(struct trainer *t, struct pass *p, int64_t i);
status trainer_reduce(struct trainer *t, unsigned flags); /* over the ranks; collective */
status trainer_update(struct trainer *t);
static inline int64_t trainer_in_flight(const struct trainer *t) { return t->launched - t->collected; }

/* Waits for the oldest step in flight. ST_NONFINITE: with optimizer_in_bwd, a gradient was not finite; nothing has been
 * updated since. */
status trainer_collect(struct trainer *t, struct step_result *out);

#endif
