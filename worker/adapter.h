/* adapter.h — a loaded PEFT adapter: its directory, and its tensors as sources of the model's parameters. */
#ifndef TRIMPOT_ADAPTER_H
#define TRIMPOT_ADAPTER_H

#include "worker/session.h"

/* Reads checkpointer.adapter_checkpoint, if the configuration has one; else its patterns of ranks and alphas. After family_shape: an adapter on the embedding, or
 * on a head that is the embedding, is refused here. */
status adapter_open(struct session *x);

/* What of the model is adapted, how, and what is trained beside it: as the configuration says, or the adapter that was read. */
void adapter_plan(const struct session *x, struct model_plan *p);

/* After param_store_match. Every tensor of the file has its place or is an error, and so is every missing one; all are
 * listed. PEFT also saves the base's head or embedding in some cases and loads them again: they replace the base's. */
status adapter_match(struct session *x);

/* Does this parameter of the base come from the adapter's file, with values of its own? Its name there. */
const char *adapter_replaces(const struct session *x, const struct param *p);

#endif
