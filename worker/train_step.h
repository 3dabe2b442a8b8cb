/* train_step.h — one optimizer step. */
#ifndef TRIMPOT_TRAIN_STEP_H
#define TRIMPOT_TRAIN_STEP_H

#include "worker/metrics.h"
#include "worker/snapshot.h"

/* Runs step at->step and advances `at`. Collective. ST_NONFINITE after max_skipped_steps in a row. */
status train_step(struct session *x, struct progress *at, struct step_metrics *m);

#endif
