/* snapshot.h — what of a session a checkpoint holds, and back. */
#ifndef TRIMPOT_SNAPSHOT_H
#define TRIMPOT_SNAPSHOT_H

#include "checkpoints/ckpt.h"
#include "worker/run_lock.h"
#include "worker/session.h"

/* Where the run stands, at a step boundary. */
struct progress {
    int64_t step;    /* optimizer steps done, skipped ones included: the data cursor */
    int64_t applied; /* steps that changed weights: the optimizer's t */
    int64_t skipped, skipped_in_a_row;
};

char *snapshot_dir(const struct config *c); /* OUTPUT/checkpoints; caller frees */
/* ST_USAGE on every rank: the folder is another run's by now, and this one wrote nothing. */
status snapshot_save(struct session *x, const struct progress *at, struct run_lock *lock);

/* The checkpoint that a run continues. Its M, date and seed rule over the configuration's and the clock's. */
struct resume {
    struct ckpt_info info;
    bool found;
    struct session_start start;
    uint64_t seed;
};

/* Before session_open; finds nothing unless resume_from_checkpoint is set. */
status snapshot_peek(const struct config *c, struct comm *comm, struct resume *r);

/* The configuration that the checkpoint was saved with, as text; NULL: none is known. Caller frees. */
char *snapshot_config(const struct resume *r);

/* After session_bind. Passes over checkpoints that do not verify, loudly; r->found = false: nothing usable is left. */
status snapshot_load(struct session *x, struct resume *r, struct progress *at);

#endif
