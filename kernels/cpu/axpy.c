#include "kernels/cpu/elem.h"
#include "kernels/formulas.h"

static inline vf load_f16(const uint16_t *p, int64_t i, int64_t n)
{
    uint16_t lanes16[VW] = {0};
    memcpy(lanes16, p + i, (size_t)(n - i < VW ? n - i : VW) * sizeof *p);
#ifdef __AVX512F__
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)lanes16));
#else
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)lanes16));
#endif
}

static void axpy_row(const struct axpy_args *a, const void *x, void *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += VW) {
        vf v, old = vf_zero();
        if (a->x.dt == DT_F16)
            v = load_f16(x, i, n);
        else
            v = vec_load(x, a->x.dt, i, n);
        if (a->accumulate) old = vec_load(y, a->y.dt, i, n);
        vec_store(y, a->y.dt, i, n, formula_axpy(v, old, a->scale, a->accumulate));
    }
}

/* Dense tensors are cut into rows of our own, so that a long vector is shared out too. */
status CPU_FN(axpy)(struct stream *s, const struct axpy_args *a)
{
    enum { PIECE = 8192 };
    int64_t n = tensor_count(&a->x), width = PIECE, x_step = PIECE, y_step = PIECE;
    if (a->x.rank == 2 && a->y.rank == 2 && (a->x.ld != a->x.dim[1] || a->y.ld != a->y.dim[1])) {
        width = a->x.dim[1];
        x_step = a->x.ld;
        y_step = a->y.ld;
    }
    int64_t rows = width ? (n + width - 1) / width : 0;
    size_t x_bytes = dtype_bytes(a->x.dt), y_bytes = dtype_bytes(a->y.dt);
#pragma omp parallel for num_threads(elem_threads(s, n)) schedule(static)
    for (int64_t r = 0; r < rows; r++)
        axpy_row(a, (const char *)a->x.data + (size_t)(r * x_step) * x_bytes,
                 (char *)a->y.data + (size_t)(r * y_step) * y_bytes, n - r * width < width ? n - r * width : width);
    return ST_OK;
}
