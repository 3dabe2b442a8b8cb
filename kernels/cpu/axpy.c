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

static void axpy_run(const struct axpy_args *a, const void *x, void *y, int64_t n)
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

struct pieces {
    const struct axpy_args *a;
    int64_t n, width, x_step, y_step;
};

static void axpy_piece(const void *arg, int64_t i)
{
    const struct pieces *p = arg;
    const struct axpy_args *a = p->a;
    int64_t left = p->n - i * p->width;
    axpy_run(a, (const char *)a->x.data + (size_t)(i * p->x_step) * dtype_bytes(a->x.dt),
             (char *)a->y.data + (size_t)(i * p->y_step) * dtype_bytes(a->y.dt), left < p->width ? left : p->width);
}

/* Dense tensors are cut into rows of our own, so that a long vector is shared out too. */
status CPU_FN(axpy)(struct stream *s, const struct axpy_args *a)
{
    enum { PIECE = 8192 };
    int64_t n = tensor_count(&a->x);
    struct pieces p = {a, n, PIECE, PIECE, PIECE};
    if (a->x.rank == 2 && a->y.rank == 2 && (a->x.ld != a->x.dim[1] || a->y.ld != a->y.dim[1]))
        p = (struct pieces){a, n, a->x.dim[1], a->x.ld, a->y.ld};
    team_for(elem_threads(s, n), p.width ? (n + p.width - 1) / p.width : 0, axpy_piece, &p);
    return ST_OK;
}
