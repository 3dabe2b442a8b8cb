/* cases.h — what the rows of the table in cases.c are made of, where it is not in that file. */
#ifndef TRIMPOT_TESTS_CASES_H
#define TRIMPOT_TESTS_CASES_H

#include "tests/ref/kit.h"

#define EPS      0x1p-24
#define EPS_BF16 0x1p-8

typedef void build_fn(struct kit *k, const int64_t *p);
typedef void bound_fn(const struct kit *in, const struct kit *ref, struct mat bounds[]);

/* Zeros of the shape of an output. */
static inline struct mat bound_like(const struct kit *k, int out)
{
    const tensor *t = &k->out[out].t;
    int64_t cols = t->dim[t->rank - 1];
    return mat_zero(cols ? tensor_count(t) / cols : 0, cols);
}

/* cases_step.c */
tensor kit_f64(struct kit *k, int64_t rows, int64_t cols, const double *values); /* rows 0: a vector; NULL: random */
build_fn build_sumsq_segs, build_loss_sum, build_step_decide, build_step_admit, build_update, build_init, build_nf4_quantize,
    build_nf4_dequantize;
bound_fn bound_sumsq_segs, bound_step, bound_update, bound_init, bound_nf4_quantize, bound_nf4_dequantize;

/* Flags of update. */
enum {
    O_MASTER = 1,
    O_F32_STATES = 2,
    O_F32_GRADIENT = 4,
    O_SR = 8,
    O_FIRST = 16,
    O_NESTEROV = 32,
    O_PLAIN = 64,
    O_WORK = 128,
    O_REFUSED = 256,
    O_EIGHT = 512
};

/* cases_rescale.c */
build_fn build_row_dot, build_rescale_fwd, build_rescale_bwd;
bound_fn bound_row_dot, bound_rescale_fwd, bound_rescale_bwd;

/* Flags of row_dot, and of rescale. */
enum { W_SAME = 1, W_ADD = 2, W_ROOT = 4, W_MIXED = 8 };
enum { S_ACCUMULATE = 1, S_IN_PLACE = 2, S_BY_ROW = 4, S_BIAS = 8, S_ACT_BIAS = 16, S_OVER_DY = 32 };

#endif
