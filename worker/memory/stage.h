/* stage.h — the way between ordinary host memory and tensor memory, for all that is no micro-batch: weights and checkpoints
 * in, weights, checkpoints and logits out.
 *
 *   heap, mapped file ──memcpy──▶ pinned, two halves ──copy──▶ tensor memory (or `raw`, from where an op converts it)
 *                                  each reused when the copy of its last content is done
 *
 * Where tensors live in host memory it is one copy, straight. Calls return when the host's side is free (in) or filled (out). */
#ifndef TRIMPOT_STAGE_H
#define TRIMPOT_STAGE_H

#include "kernels/backend.h"
#include "kernels/base/arena.h"

enum { STAGE_BYTES = 8 << 20 }; /* both halves */

struct stage {
    struct stream *s;
    bool apart;            /* tensor memory is not the host's */
    void *half[2];         /* pinned, STAGE_BYTES / 2 each */
    struct event *free[2]; /* what was copied from or to a half is done */
    int turn;
    void *raw;        /* tensor memory: bytes of a file, before an op converts them … */
    size_t raw_bytes; /* … as many as one conversion takes, at most; without `apart` nothing and 0 */
};

/* raw_bytes: the largest piece that stage_raw will be asked for. */
status stage_init(struct stage *g, struct stream *s, size_t raw_bytes);
/* raw: raw_bytes of tensor memory, which no step uses. */
void stage_layout(struct stage *g, void *raw, struct arena *pinned);
void stage_release(struct stage *g);

status stage_in(struct stage *g, void *tensors, const void *host, size_t bytes);
status stage_out(struct stage *g, void *host, const void *tensors, size_t bytes);

/* The bytes as the host can read them until the next call: themselves, or their copy in `room`, which holds as many. */
status stage_look(struct stage *g, const void *tensors, size_t bytes, void *room, const void **host);

/* `host` as ops can read it until the next call: itself, or its copy in `raw`. bytes ≤ raw_bytes. */
status stage_raw(struct stage *g, const void *host, size_t bytes, void **tensors);

#endif
