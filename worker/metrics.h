/* metrics.h — what a step reports: metrics.jsonl, one object per step, and the line or bar a person sees. */
#ifndef TRIMPOT_METRICS_H
#define TRIMPOT_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/status.h"

struct step_metrics {
    int64_t step, total; /* 1-based: steps done after this one */
    double epoch;        /* fraction of epochs done */
    double loss, lr, grad_norm;
    int64_t tokens, supervised;
    double step_s, data_s, comm_s;
    int64_t skipped; /* steps skipped so far */
    double val_loss; /* NAN when not evaluated at this step */
};

struct metrics {
    FILE *file; /* rank 0 only */
    char *path;
    double smoothed_s;
    int64_t every;
    bool echo; /* each object goes to stdout too */
};

/* Opens OUTPUT/metrics.jsonl: fresh, or, resuming after `done` steps, keeping the lines of steps ≤ done. */
status metrics_open(struct metrics *m, const char *dir, int64_t done, int64_t every);
status metrics_put(struct metrics *m, const struct step_metrics *s); /* file line, flushed, and the visible line */
void metrics_close(struct metrics *m);

/* The shortest decimal that reads back to the same bits; at least 32 bytes. */
void metrics_number(double x, char *out, size_t n);

int64_t metrics_resident_bytes(void); /* VmHWM */

#endif
