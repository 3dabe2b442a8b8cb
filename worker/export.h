/* export.h — what a person takes away: a Hugging Face directory, or a PEFT adapter. */
#ifndef TRIMPOT_EXPORT_H
#define TRIMPOT_EXPORT_H

#include "worker/session.h"

/* Rank 0 only. OUTPUT/export: the full model, or LoRA merged in f32 (into what: worker/merge.h), or, with
 * save_adapter_weights_only, the PEFT adapter. A LoRA run also leaves OUTPUT/adapter. The session is over with that: after a merge its
 * weights are those of the export. */
status export_run(struct session *x);

/* Elements of the largest piece of a weight that is made at a time: what session.wide and .narrow hold. */
int64_t export_piece(const struct param_store *ps);
int64_t export_most_rows(const struct param_store *ps); /* … and rows of one of a matrix: what session.lengths holds */

int64_t export_rows(const struct param *p); /* … and the rows of this one's */

/* The two halves, for `trimpot export`. */
status export_model(struct session *x, const char *dir);
status export_adapter(struct session *x, const char *dir);

#endif
