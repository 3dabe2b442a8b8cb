/* attention.h — who computes attention: cuDNN (sdpa.h) where it takes a call, else our own kernels (attn_fwd.cu, attn_bwd.cu).
 *
 * cuDNN takes bf16 on a real device, whole micro-batches without a cache of keys, heads of a multiple of 8 channels, rows and
 * pointers on 16 bytes, when its plan's workspace is within what prepare() announced. Deterministic calls are cut into slices of
 * whole groups of heads, and of documents, that stay below a cap; where not even one group of one document does, the kernels are ours.
 *
 * What a call queues follows from its args and prepare()'s bounds alone, of its documents from their bounds (struct docs): where they
 * lie is read on the device, and blocks of threads and slots for which there is no document end at once. */
#ifndef TRIMPOT_CUDA_ATTENTION_H
#define TRIMPOT_CUDA_ATTENTION_H

#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

op_attn_fwd_fn attn_fwd_own;
op_attn_bwd_fn attn_bwd_own;
cuda_workspace_fn attn_bwd_own_workspace;

/* Ragged arrays of `calls` calls of `slots` documents each, 16-byte aligned, pitches in elements:
 * lengths [calls][pitch], offsets [calls][SDPA_OPERANDS][pitch]. */
struct attention_slots {
    int64_t calls, slots, lengths_pitch, offsets_pitch;
    int64_t ld[SDPA_OPERANDS];
    int32_t *lengths;
    int64_t *offsets;
};
status attention_offsets(struct stream *s, const struct attention_slots *t, const struct docs *docs); /* sdpa_offsets.cu */

/* Backward passes may be cuDNN's that sum by atomics; for the backend's `unordered`. */
bool attention_unordered(const struct work_bounds *w);

/* "cuDNN 9.19.0" once it has been found, else "own attention"; for cuda_describe. */
const char *attention_describe(void);

#ifdef __cplusplus
}
#endif
#endif
