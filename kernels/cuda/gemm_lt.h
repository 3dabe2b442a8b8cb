/* gemm_lt.h — products through cuBLASLt, and the algorithms they take. */
#ifndef TRIMPOT_CUDA_GEMM_LT_H
#define TRIMPOT_CUDA_GEMM_LT_H

#include <cublasLt.h>

#include "kernels/cuda/gemm.h"

/* ---- gemm_lt.c -------------------------------------------------------------------------------------------------------------- */

enum { GEMM_LT_BYTES = 32 << 20, GEMM_LT_ALIGN = 256 }; /* the workspace of a product, and how it lies */

/* Whether the library knows these types: A and B of one dtype, C of theirs or f32, bias of C's; no second product, some depth. */
bool gemm_lt_takes(const struct gemm_args *g);

/* C = alpha·op(A)·op(B) + bias + beta·C in one launch. *done is false, and nothing was launched, where the library has no
 * algorithm: for some views whose rows are not aligned. */
status gemm_lt(struct stream *s, const struct gemm_args *g, void *workspace, bool *done);

/* ---- gemm_choices.c --------------------------------------------------------------------------------------------------------- */

/* A product as far as choices go: sizes rounded up to eighths of a power of two, since token counts differ from batch to batch. */
struct gemm_shape {
    int64_t m, n, k;
    uint64_t traits; /* transposes, dtypes, bias, beta, alignments */
};

struct gemm_choice {
    struct gemm_shape shape;
    cublasLtMatmulAlgo_t algo;
    double first_us, fastest_us; /* of the first candidate, and of this one */
};

struct gemm_choices;
/* *out is NULL when the environment asks for nothing. */
status gemm_choices_open(struct gemm_choices **out);
void gemm_choices_close(struct gemm_choices *c);
const struct gemm_choice *gemm_choices_find(const struct gemm_choices *c, const struct gemm_shape *q); /* to be taken; or NULL */
bool gemm_choices_wants(const struct gemm_choices *c, const struct gemm_shape *q);                     /* to be told this shape's */
status gemm_choices_put(struct gemm_choices *c, const struct gemm_choice *found);

#endif
