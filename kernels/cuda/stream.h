/* stream.h — what the C files of this folder know of a stream, and how CUDA's codes become ours. */
#ifndef TRIMPOT_CUDA_STREAM_H
#define TRIMPOT_CUDA_STREAM_H

#include <assert.h>

#include <cuda_runtime_api.h>

#include "kernels/backend.h"

struct gemm_context; /* gemm.c's: handle, descriptors, chosen algorithms */
struct host_calls;   /* device.c's: failures of host_call on their way to the next sync */

struct cuda_stream {
    struct stream base; /* first */
    cudaStream_t on;
    struct gemm_context *gemm; /* and what gives it back when the stream closes: both set by gemm.c */
    void (*gemm_close)(struct gemm_context *g);
    struct host_calls *calls;
};

static inline struct cuda_stream *cuda_stream(struct stream *s) { return (struct cuda_stream *)(void *)s; }
/* What uses it queues now: within a recorded stretch (kernels/record.h) it would overtake what is written down. */
static inline cudaStream_t cuda_on(struct stream *s)
{
    assert(!s->recorded);
    return cuda_stream(s)->on;
}

/* ST_OK, or ST_OOM or ST_DEVICE with "WHAT: cudaErrorName: its text". device.c */
status cuda_status(cudaError_t e, const char *what);

/* Bytes that an op's calls need within these bounds, for prepare: one such function per op that has any. */
typedef size_t cuda_workspace_fn(const struct work_bounds *w);

#endif
