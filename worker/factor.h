/* factor.h — a weight taken apart on the host: the factors that an adapter starts from (numerics.md §9).
 *
 * All of them leave W ≈ rest + s·B·A. Computed in f64 by LAPACK, which is loaded when it is first asked for (liblapack.so.3, any of the
 * libraries behind that name), on one thread, so that the bits do not depend on how many there are. */
#ifndef TRIMPOT_FACTOR_H
#define TRIMPOT_FACTOR_H

#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/tensor.h"

struct factor {
    tensor w;     /* [out, in] f32 or bf16, in host memory; rows may be apart */
    int64_t rank; /* ≤ out, in */
    double scale; /* s */
    uint64_t key; /* of what is drawn */
    double *room; /* factor_room doubles */
    float *a, *b; /* results: [rank, in], [out, rank] */
};

/* ST_NOT_BUILT where there is no LAPACK. */
status factor_ready(void);

/* PiSSA: the `rank` largest singular values and their vectors, B = U·√(Σ/s), A = √(Σ/s)·Vᵀ. */
status factor_principal(const struct factor *f);
/* The same by `rounds` of subspace iteration from a random one, as PEFT's pissa_niter_N: an approximation, in a fraction of the time. */
status factor_subspace(const struct factor *f, int rounds);
/* OLoRA: B = Q, A = R of W = Q·R, the first `rank` columns and rows. */
status factor_qr(const struct factor *f);
/* Random, orthogonal between the two: B·A = 0. Reads no weight but its shape, and needs no LAPACK; rank must be even. */
void factor_orthogonal(const struct factor *f);

/* Doubles of room for any of them; `principal`: for factor_principal too, which takes the square of the smaller side. */
int64_t factor_room(int64_t out, int64_t in, int64_t rank, bool principal);

#endif
