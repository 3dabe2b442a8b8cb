/* hf_rope.h — the rotary part of config.json. Internal to checkpoints/. */
#ifndef TRIMPOT_HF_ROPE_H
#define TRIMPOT_HF_ROPE_H

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"

/* rope_theta, rope_scaling (4.x), rope_parameters (5.x, one for all layers or one per layer type), rope_local_base_freq into
 * c->ropes, c->rope, c->local_theta; unsettled (hf_rope_settle). */
status hf_ropes_read(const struct jdoc *d, struct hf_config *c);

#endif
