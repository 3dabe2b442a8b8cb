/* row_dot.cu — moves sizeof(x) + sizeof(y) bytes per element, or the former alone where they are one. */
#include "kernels/cuda/pack.h"

constexpr int ROWS = 8; /* of a block, a warp each: a thread has every 32nd pack */

template <class X, class Y, bool V>
static __global__ void __launch_bounds__(ROWS *WARP)
    row_dot(view<const X> x, view<const Y> y, int64_t rows, int64_t cols, const float *add, bool root, float *out)
{
    constexpr int N = LANES<X, Y>;
    int64_t row = (int64_t)blockIdx.x * ROWS + threadIdx.y;
    float sum[N] = {};
    for (int64_t c = (int64_t)threadIdx.x * N; row < rows && c < cols; c += WARP * N) {
        int left = (int)(cols - c < N ? cols - c : N);
        pack<X, N> a = take<V, N>(x.row(row) + c, left);
        pack<Y, N> b = take<V, N>(y.row(row) + c, left);
        for (int i = 0; i < N; i++) sum[i] = vf_fma(widen(a.at[i]), widen(b.at[i]), sum[i]);
    }
    float mine = 0;
    for (int i = 0; i < N; i++) mine += sum[i];
    float total = warp_sum(mine);
    if (threadIdx.x || row >= rows) return;
    if (add) total += add[row];
    out[row] = !root ? total : total < 0 ? 0 : vf_sqrt(total);
}

template <class X, class Y> static status row_dot_of(struct stream *s, const struct row_dot_args *a)
{
    struct layout l = layout_of({&a->x, &a->y}, false);
    dim3 grid((unsigned)ceil_div(a->x.dim[0], ROWS)), block(WARP, ROWS);
    WITH_BOOL(l.aligned, V, {
        TRY(LAUNCH((row_dot<X, Y, V>), grid, block, 0, s, view_of<const X>(&a->x, l), view_of<const Y>(&a->y, l), a->x.dim[0], a->x.dim[1],
                   (const float *)a->add.data, a->root, (float *)a->out.data));
    });
    return ST_OK;
}

status row_dot_cuda(struct stream *s, const struct row_dot_args *a)
{
    if (!a->x.dim[0]) return ST_OK;
    WITH_TYPE(a->x.dt, X, { WITH_TYPE(a->y.dt, Y, { return (row_dot_of<X, Y>(s, a)); }); });
    return ST_OK;
}
