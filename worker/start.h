/* start.h — adapters that start from the weights they sit on (model.init_lora_weights; numerics.md §9).
 *
 *     W ──factor.h──▶ A0, B0         A, B begin as these; the base is W − s·B0·A0 from then on, rounded once, so that the model
 *                                    computes at first what it did
 *     exported:  A' = [A; A0], B' = [B, −B0]: of twice the rank, s·(B·A − B0·A0) on the base as it was: a plain adapter
 *
 * A0 and B0 stay in host memory, in the flat index, and are saved with every checkpoint: a resumed run takes no weight apart again,
 * and another machine's LAPACK changes no bit of it. Ranks share the work, adapter by adapter. */
#ifndef TRIMPOT_START_H
#define TRIMPOT_START_H

#include "worker/session.h"

/* After model_init: ST_USAGE, naming the module whose rank does not fit its weight. */
status start_check(const struct session *x);
void start_layout(struct session *x, struct arena *host);

/* When weights are loaded, on every rank. resumed: the checkpoint's A, B, A0, B0 are there as well. */
status start_settle(struct session *x, bool resumed);

/* A0 and B0, as a checkpoint has them; NULL: adapters start without. */
float *start_kept(const struct session *x);

/* What is exported of what is trained: as it is, or, an adapter's A or B, beside what it started as: its shape, and its values, where
 * `now` are those it has. */
bool start_doubles(const struct session *x, const struct param *p);
struct st_declare start_declare(const struct session *x, const struct param *p);
void start_portable(const struct session *x, const struct param *p, const float *now, float *out);
/* r and alpha of the exported adapter, in multiples of the trained one's. */
void start_scaled(const struct session *x, int64_t *rank, double *alpha);

#endif
