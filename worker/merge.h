/* merge.h — what an adapter is merged into, and whether what came out computes the same.
 *
 *   base                              merge_base      merged into
 *   unquantised                       -               itself
 *   quantised while loading           null            itself, as it is in the files
 *   quantised in its directory        null            nothing: the adapter is what the run leaves
 *                                     a directory     that one: the model that was quantised
 *   quantised                         dequantized     what the codes stand for
 *
 * Nothing merged is ever quantised again. */
#ifndef TRIMPOT_MERGE_H
#define TRIMPOT_MERGE_H

#include "worker/session.h"

/* Once parameters are matched: judges merge_base, and finds each weight's original. */
status merge_open(struct session *x);
void merge_note(const struct session *x);            /* at the start, where it is not what one expects */
bool merge_is_declined(const struct session *x);     /* the adapter is to be the export (save_adapter_weights_only) */
bool merge_is_adapter_only(const struct session *x); /* for that or another reason the run leaves an adapter only */
const char *merge_other(const struct config *c);     /* the directory that merge_base names; NULL: none */
/* The numbers that a weight leaves as, before its adapter; NULL: those in memory. */
const struct st_entry *merge_source(const struct session *x, const struct param *p);
const char *merge_dir(const struct session *x); /* whose configuration and tokenizer an export has */

/* After the merge into `dir`: prints the largest difference of logits between the base with its adapter and what is there, on the first
 * tokens of some rows. The session's weights are those of `dir` from then on. */
status merge_probe(struct session *x, const char *dir);

#endif
