/* sdpa_offsets.cu — where the documents of a micro-batch lie, as cuDNN's ragged tensors have it (attention.h). Moves a few bytes per
 * document. */
#include "kernels/cuda/cuda.h"

#include "kernels/cuda/attention.h"

static __global__ void sdpa_offsets(struct attention_slots t, const int32_t *start, int32_t n_docs)
{
    int64_t per = t.slots + 1, all = t.calls * per;
    for (int64_t i = threadIdx.x; i < all; i += blockDim.x) {
        int64_t call = i / per, slot = i % per, doc = call * t.slots + slot;
        int64_t at = start[doc < n_docs ? doc : n_docs];
        for (int which = 0; which < SDPA_OPERANDS; which++)
            t.offsets[(call * SDPA_OPERANDS + which) * t.offsets_pitch + slot] = at * t.ld[which];
        if (slot < t.slots) t.lengths[call * t.lengths_pitch + slot] = doc < n_docs ? (int32_t)(start[doc + 1] - at) : 0;
    }
}

status attention_offsets(struct stream *s, const struct attention_slots *t, const struct docs *docs)
{
    return LAUNCH(sdpa_offsets, 1, 256, 0, s, *t, docs->start.dev, (int32_t)docs->n_docs);
}
