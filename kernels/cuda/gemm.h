/* gemm.h — the matrix product's own kernel. gemm.c says which products and passes a call
 * becomes, gemm_lt.c runs a product through cuBLASLt, gemm_choices.c knows algorithms that were timed, gemm_plain.cu computes what
 * the library does not take. */
#ifndef TRIMPOT_CUDA_GEMM_H
#define TRIMPOT_CUDA_GEMM_H

#include "kernels/cuda/stream.h"

/* C = sum + alpha·op(A)·op(B) + A2·op(B2) + bias + beta·C, any dtypes and strides; each product may be absent (data NULL, or of no
 * depth), and so may sum [M, N] f32, whose rows are sum_ld apart and which may be C itself. One rounding. gemm_plain.cu */
status gemm_plain(struct stream *s, const struct gemm_args *g, const float *sum, int64_t sum_ld);

#endif
