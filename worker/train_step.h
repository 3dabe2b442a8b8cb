/* train_step.h — one optimizer step: launched without waiting, told one step later. */
#ifndef TRIMPOT_TRAIN_STEP_H
#define TRIMPOT_TRAIN_STEP_H

#include "worker/metrics.h"
#include "worker/snapshot.h"

/* What the host knows of the steps in flight. */
struct steps {
    struct step_metrics m[TRAINER_SLOTS];
    double started_at[TRAINER_SLOTS], told_at; /* …, and when the step told last was done; clock_s() */
};

/* Queues step at->step and advances it: the data cursor. flags: what this rank has to say to all. Collective. */
status step_launch(struct session *x, struct steps *f, struct progress *at, unsigned flags);

/* Waits for the oldest step in flight, tells its numbers and adds the flags of all ranks; the rest of `at` follows. ST_NONFINITE
 * after max_skipped_steps in a row. */
status step_collect(struct session *x, struct steps *f, struct progress *at, struct step_metrics *m, unsigned *flags);

/* Could one of the steps in flight be the last that max_skipped_steps allows? Then none may be launched before they are told. */
bool step_may_be_last(const struct session *x, const struct progress *at);

#endif
