/* sdpa.h — attention through cuDNN: causal, grouped heads, bf16; documents laid end to end, or all of one length.
 *
 *     shape ─▶ sdpa_plan ─▶ plan: engine, bytes of workspace ─▶ sdpa_run(plan, pointers)
 *
 * A plan is built once per shape (0.3–2 s of one core: its kernel is generated), kept, and holds no pointers. What cuDNN has no
 * engine for is ST_NOT_BUILT with cuDNN's own reason, and the caller takes the kernels of attn_fwd.cu and attn_bwd.cu. */
#ifndef TRIMPOT_CUDA_SDPA_H
#define TRIMPOT_CUDA_SDPA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

enum sdpa_way {
    SDPA_FORWARD,       /* o and lse */
    SDPA_BACKWARD,      /* dq, dk, dv; dq is summed by atomics: other bits on every run */
    SDPA_DETERMINISTIC, /* the same without atomics: dS lies in memory, heads·T² of it per document */
    SDPA_WAYS,
};

/* What a call touches. lse [rows, heads] is f32, the others are bf16. */
enum sdpa_operand { SDPA_Q, SDPA_K, SDPA_V, SDPA_O, SDPA_LSE, SDPA_DO, SDPA_DQ, SDPA_DK, SDPA_DV, SDPA_OPERANDS };

/* All of it makes the plan: two shapes have one plan exactly when their bytes are equal. */
struct sdpa_shape {
    int64_t docs;   /* documents; ragged: slots for documents, some of which may be empty */
    int64_t tokens; /* of each; ragged: of the longest that fits */
    int64_t heads, kv_heads, head_dim;
    int64_t window;            /* 0: none; else query i sees keys j with i − j < window */
    int64_t ld[SDPA_OPERANDS]; /* elements from one token's row to the next */
    int32_t way;               /* enum sdpa_way */
    int32_t ragged;            /* lengths and offsets of documents are arrays on the device */
    int32_t capped;            /* scores go through a soft cap */
    int32_t no_bytes_between;  /* 0 */
};

/* Workspace of a call, by sdpa_bytes_of, which needs no cuDNN: exact to 256 bytes for `engine`, what the plan itself asks for; the
 * rest is what cuDNN leaves to its caller, for `rows` tokens in all. `major`: of the device's compute capability. */
struct sdpa_bytes {
    size_t engine;
    size_t row_sum;        /* backward: Σ dO∘O of every row, f32 */
    size_t dq_sum;         /* SDPA_BACKWARD: dq in f32 */
    size_t dk_all, dv_all; /* backward, ragged, grouped heads: of every query head */
};
struct sdpa_bytes sdpa_bytes_of(const struct sdpa_shape *s, int64_t rows, int major);
size_t sdpa_bytes_sum(const struct sdpa_bytes *b); /* each part rounded up by: */
static inline size_t sdpa_round(size_t bytes) { return (bytes + 255) / 256 * 256; }

/* cuDNN on one device: the present CUDA device, or (for tests and plans without one) the device that cuDNN's JSON describes.
 * ST_NOT_BUILT when there is no cuDNN, or when TRIMPOT_CUDNN=off is in the environment. */
struct sdpa;
status sdpa_open(const char *device_json, int major, struct sdpa **out);
void sdpa_close(struct sdpa *d);
const char *sdpa_describe(const struct sdpa *d); /* "cuDNN 9.19.0" */

struct sdpa_plan {
    struct sdpa_shape shape;
    struct sdpa_bytes bytes; /* engine: the plan's own word; the rest for no rows */
    int64_t engine;          /* cuDNN's number of it */
};

/* The plan of a shape, built when it is first asked for: not while a stream is being captured. */
status sdpa_plan(struct sdpa *d, const struct sdpa_shape *s, const struct sdpa_plan **out);

struct sdpa_call {
    void *at[SDPA_OPERANDS]; /* 16-byte aligned; the way's own */
    float scale, cap;
    /* Ragged: tokens of each slot [docs], and for each operand the first element of each slot and where the last one ends, in
     * elements of that operand [docs + 1]. */
    const int32_t *lengths;
    const int64_t *offsets[SDPA_OPERANDS];
    int64_t rows;    /* tokens of the whole call */
    void *workspace; /* sdpa_bytes_of, 256-byte aligned */
};
status sdpa_run(struct sdpa *d, const struct sdpa_plan *p, void *cuda_stream, const struct sdpa_call *c);

#endif
