/* colsum.cu — moves sizeof(x) bytes per element, and at most 1 MB of partial sums twice. */
#include "kernels/cuda/columns.h"

/* A warp has 32 columns, each of its threads one of them in every 32nd group. */
static __global__ void __launch_bounds__(MAX_THREADS) add_groups(const float *partial, int64_t groups, int64_t ld, int64_t cols, float *out)
{
    __shared__ float sums[WARP][WARP];
    int x = (int)threadIdx.x, y = (int)threadIdx.y;
    int64_t c = (int64_t)blockIdx.x * WARP + x;
    float sum = 0;
#pragma unroll 4
    for (int64_t g = y; g < groups && c < cols; g += WARP) sum += partial[g * ld + c];
    sums[y][x] = sum;
    __syncthreads();
    if (y || c >= cols) return;
    float total = 0;
    for (int j = 0; j < WARP; j++) total += sums[j][x];
    out[c] += total;
}

status column_finish(struct stream *s, const float *partial, int64_t groups, int64_t ld, int64_t cols, float *out)
{
    return LAUNCH(add_groups, dim3((unsigned)ceil_div(cols, WARP)), dim3(WARP, WARP), 0, s, partial, groups, ld, cols, out);
}

template <class T, bool V> struct colsum_term {
    static constexpr int N = LANES<T>, AHEAD = 4;
    typedef pack<T, N> fetched;
    view<const T> x;
    __device__ fetched fetch(int64_t row, int64_t col, int left) const { return take<V, N>(x.row(row) + col, left); }
    __device__ float term(const fetched &x, int i) const { return widen(x.at[i]); }
};

extern "C" cuda_workspace_fn colsum_cuda_workspace;
size_t colsum_cuda_workspace(const struct work_bounds *w)
{
    int64_t widest = (w->heads + w->kv_heads) * w->head_dim;
    for (int64_t width : {w->width, w->ffn, w->vocab})
        if (width > widest) widest = width;
    return column_workspace(widest);
}

status colsum_cuda(struct stream *s, const struct colsum_args *a)
{
    void *partial;
    struct layout l = layout_of({&a->x}, false);
    if (!tensor_count(&a->x)) return ST_OK;
    struct column_cut k = column_cut_of(a->x.dim[0], a->x.dim[1], l.lanes);
    TRY(stream_workspace(s, (size_t)(k.groups * k.ld) * sizeof(float), "colsum", &partial));
    WITH_TYPE(a->x.dt, T, {
        WITH_BOOL(l.aligned, V, {
            TRY(LAUNCH((column_partials<colsum_term<T, V>>), k.grid, k.block, 0, s, k, colsum_term<T, V>{view_of<const T>(&a->x, l)},
                       (float *)partial));
        });
    });
    return column_finish(s, (const float *)partial, k.groups, k.ld, k.cols, (float *)a->out.data);
}
