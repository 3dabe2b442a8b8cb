/* axpy.cu — moves sizeof(x) + sizeof(y) bytes per element, and sizeof(y) more to accumulate. */
#include "kernels/cuda/pack.h"

static __device__ inline float widen(__half x) { return __half2float(x); }

/* y may be x: a thread writes what it has read. */
template <class X, class Y, bool ACCUMULATE, bool V> static __global__ void axpy(struct sheet m, view<const X> x, view<Y> y, float scale)
{
    constexpr int N = LANES<X, Y>;
    struct spot at = spot_of<N>(m);
    if (at.left <= 0) return;
    pack<X, N> from = take<V, N>(x.row(at.row) + at.col, at.left);
    pack<Y, N> to = {};
    if (ACCUMULATE) to = take<V, N>(y.row(at.row) + at.col, at.left);
    for (int i = 0; i < N; i++) to.at[i] = narrow<Y>(formula_axpy(widen(from.at[i]), widen(to.at[i]), scale, ACCUMULATE));
    put<V>(y.row(at.row) + at.col, to, at.left);
}

template <class X, class Y> static status axpy_of(struct stream *s, const struct axpy_args *a, struct layout l)
{
    struct sheet m = sheet_of(&a->x, l);
    WITH_BOOL(a->accumulate, ACCUMULATE, {
        WITH_BOOL(l.aligned, V, {
            TRY(LAUNCH((axpy<X, Y, ACCUMULATE, V>), m.grid, m.block, 0, s, m, view_of<const X>(&a->x, l), view_of<Y>(&a->y, l), a->scale));
        });
    });
    return ST_OK;
}

status axpy_cuda(struct stream *s, const struct axpy_args *a)
{
    struct layout l = layout_of({&a->x, &a->y}, true);
    if (!tensor_count(&a->x)) return ST_OK;
    WITH_TYPE(a->y.dt, Y, {
        if (a->x.dt == DT_F16) return axpy_of<__half, Y>(s, a, l);
        WITH_TYPE(a->x.dt, X, { return (axpy_of<X, Y>(s, a, l)); });
    });
    return ST_OK;
}
