/* rmsnorm.cu — forward moves (2·C)·sizeof(act) + 4 bytes per row (x → y, rstd), with delta (4·C)·sizeof(act) + 4 (x, delta → sum, y):
 * 8C + 4 in bf16. Backward moves (3·C)·sizeof(act) + 4 (dy, x, rstd → dx), with residual (4·C)·sizeof(act) + 4, and with dw 8·C bytes
 * per group of rows (at most 512 groups). Weights come from the cache.
 *
 *     a row: blockDim.x threads, a few packs each  |t0|t1|…|t0|t1|…|rest   in registers between the sum and what needs it;
 *     a block: blockDim.y rows at a time           a rest, beyond 1024 threads, is read again, from the cache */
#include "kernels/cuda/columns.h"

constexpr int NORM_FWD_EACH = 16, NORM_BWD_EACH = 8; /* elements of a row in a thread's registers: rows of 16384 and of 8192 fit */
constexpr int NORM_GROUPS = 512, NORM_THREADS = 256;

/* Σ over the blockDim.x threads of a row, all of which get it. Threads of all rows of the block call it. scratch: WARP floats, free
 * again after the next but one barrier. */
static __device__ inline float row_sum(float x, float *scratch)
{
    int across = (int)blockDim.x, thread = (int)(threadIdx.y * blockDim.x + threadIdx.x), lane = thread % WARP;
    for (int half = (across < WARP ? across : WARP) / 2; half; half /= 2) x += __shfl_xor_sync(0xffffffffu, x, half);
    if (across <= WARP) return x;
    int warps = across / WARP, first = thread / across * warps;
    if (lane == 0) scratch[thread / WARP] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[first + lane] : 0.0f);
}

template <class T, class W> struct norm_row {
    const W *w;
    int cols;
    bool unit_offset;
    __device__ float weight(W x) const { return unit_offset ? widen(x) + 1.0f : widen(x); }
};

/* How rows are shared out. */
struct norm_cut {
    dim3 block;
    int held;  /* elements of a row that its threads hold */
    bool rest; /* and there are more */
};

static struct norm_cut norm_cut_of(int64_t cols, int each)
{
    int x = threads_for(ceil_div(cols, each), MAX_THREADS);
    return {dim3((unsigned)x, (unsigned)(x < NORM_THREADS ? NORM_THREADS / x : 1)), x * each, cols > x * each};
}

/* ---- forward ------------------------------------------------------------------------------------------------------------------ */

template <class T, class W> struct norm_fwd {
    view<const T> x, delta;
    view<T> sum, y;
    norm_row<T, W> n;
    float *rstd;
    int64_t rows;
    float eps;
};

template <class T, int N> static __device__ inline pack<T, N> rounded_sum(const pack<T, N> &a, const pack<T, N> &b)
{
    pack<T, N> x;
    for (int i = 0; i < N; i++) x.at[i] = narrow<T>(widen(a.at[i]) + widen(b.at[i]));
    return x;
}

template <class T, int N> static __device__ inline float squares(const pack<T, N> &x, float sum)
{
    for (int i = 0; i < N; i++) sum = vf_fma(widen(x.at[i]), widen(x.at[i]), sum);
    return sum;
}

template <bool V, class T, class W, int N>
static __device__ inline void put_normed(const norm_fwd<T, W> &a, int64_t row, int c, const pack<T, N> &x, float rstd)
{
    int left = a.n.cols - c;
    pack<W, N> w = take<V, N>(a.n.w + c, left);
    pack<T, N> y;
    for (int i = 0; i < N; i++) y.at[i] = narrow<T>(widen(x.at[i]) * rstd * a.n.weight(w.at[i]));
    put<V>(a.y.row(row) + c, y, left);
}

template <class T, class W, bool REST, bool V> static __global__ void __launch_bounds__(MAX_THREADS) rmsnorm_fwd(norm_fwd<T, W> a)
{
    constexpr int N = LANES<T>, KEPT = NORM_FWD_EACH / N;
    __shared__ float scratch[WARP];
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    int cols = row < a.rows ? a.n.cols : 0, step = (int)blockDim.x * N, first = (int)threadIdx.x * N;
    bool adds = a.delta.data != NULL;
    pack<T, N> x[KEPT] = {}, d[KEPT] = {};
    float sum = 0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int c = first + k * step;
        if (c < cols) x[k] = take<V, N>(a.x.row(row) + c, cols - c);
        if (c < cols && adds) d[k] = take<V, N>(a.delta.row(row) + c, cols - c);
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int c = first + k * step;
        if (adds) x[k] = rounded_sum(x[k], d[k]);
        if (c < cols && adds) put<V>(a.sum.row(row) + c, x[k], cols - c);
        sum = squares(x[k], sum);
    }
    for (int c = first + KEPT * step; REST && c < cols; c += step) {
        pack<T, N> more = take<V, N>(a.x.row(row) + c, cols - c);
        if (adds) {
            more = rounded_sum(more, take<V, N>(a.delta.row(row) + c, cols - c));
            put<V>(a.sum.row(row) + c, more, cols - c);
        }
        sum = squares(more, sum);
    }
    float rstd = 1.0f / sqrtf(row_sum(sum, scratch) / (float)a.n.cols + a.eps);
    if (row < a.rows && threadIdx.x == 0) a.rstd[row] = rstd;
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        if (first + k * step < cols) put_normed<V>(a, row, first + k * step, x[k], rstd);
    for (int c = first + KEPT * step; REST && c < cols; c += step)
        put_normed<V>(a, row, c, take<V, N>((adds ? (const T *)a.sum.row(row) : a.x.row(row)) + c, cols - c), rstd);
}

template <class T, class W> static status forward_of(struct stream *s, const struct rmsnorm_fwd_args *a)
{
    struct layout l = layout_of({&a->x, &a->delta, &a->sum, &a->y}, false);
    norm_fwd<T, W> p = {view_of<const T>(&a->x, l),
                        view_of<const T>(&a->delta, l),
                        view_of<T>(&a->sum, l),
                        view_of<T>(&a->y, l),
                        {(const W *)a->w.data, (int)a->x.dim[1], a->unit_offset},
                        (float *)a->rstd.data,
                        a->x.dim[0],
                        a->eps};
    bool aligned = l.aligned && is_aligned(&a->w, false, l.lanes);
    struct norm_cut k = norm_cut_of(p.n.cols, NORM_FWD_EACH);
    dim3 grid((unsigned)ceil_div(p.rows, k.block.y));
    if (k.rest)
        TRY(LAUNCH((rmsnorm_fwd<T, W, true, false>), grid, k.block, 0, s, p));
    else
        WITH_BOOL(aligned, V, { TRY(LAUNCH((rmsnorm_fwd<T, W, false, V>), grid, k.block, 0, s, p)); });
    return ST_OK;
}

status rmsnorm_fwd_cuda(struct stream *s, const struct rmsnorm_fwd_args *a)
{
    if (!tensor_count(&a->x)) return ST_OK;
    if (a->x.dt == DT_F32) return forward_of<float, float>(s, a);
    return a->w.dt == DT_F32 ? forward_of<bf16, float>(s, a) : forward_of<bf16, bf16>(s, a);
}

/* ---- backward ----------------------------------------------------------------------------------------------------------------- */

template <class T, class W> struct norm_bwd {
    view<const T> dy, x, residual;
    view<T> dx;
    norm_row<T, W> n;
    const float *rstd;
    float *partial; /* of dw: [groups, ld] */
    int64_t rows, rows_each;
    int ld;
};

/* What one pack of a row adds to Σ g·x̂. */
template <bool V, class T, class W, int N>
static __device__ inline float dot(const norm_bwd<T, W> &a, int c, const pack<T, N> &dy, const pack<T, N> &x, float rstd, float sum)
{
    pack<W, N> w = take<V, N>(a.n.w + c, a.n.cols - c);
    for (int i = 0; i < N; i++) sum = vf_fma(widen(dy.at[i]) * a.n.weight(w.at[i]), widen(x.at[i]) * rstd, sum);
    return sum;
}

template <bool V, int N, class T, class W> static __device__ inline pack<T, N> take_residual(const norm_bwd<T, W> &a, int64_t row, int c)
{
    if (!a.residual.data) return {};
    return take<V, N>(a.residual.row(row) + c, a.n.cols - c);
}

/* residual and dy may be dx: a thread writes what it has read. */
template <bool V, class T, class W, int N>
static __device__ inline void put_dx(const norm_bwd<T, W> &a, int64_t row, int c, pack<T, N> dy, const pack<T, N> &x,
                                     const pack<T, N> &residual, float rstd, float mean)
{
    int left = a.n.cols - c;
    pack<W, N> w = take<V, N>(a.n.w + c, left);
    for (int i = 0; i < N; i++) {
        float d = formula_rmsnorm_dx(widen(dy.at[i]) * a.n.weight(w.at[i]), widen(x.at[i]) * rstd, rstd, mean);
        if (a.residual.data) d += widen(residual.at[i]);
        dy.at[i] = narrow<T>(d);
    }
    put<V>(a.dx.row(row) + c, dy, left);
}

/* Sums of the rows of a block in order of threadIdx.y, one thread per column. */
template <int N, int K> static __device__ inline void put_partials(const float (&dw)[K][N], float *partial, int ld)
{
    DYNAMIC_SHARED(float, sums);
    int step = (int)blockDim.x * N, first = (int)threadIdx.x * N, deep = (int)blockDim.y;
    float *to = deep > 1 ? sums + (int)threadIdx.y * ld : partial;
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int i = 0; i < N; i++) to[first + k * step + i] = dw[k][i];
    if (deep == 1) return;
    __syncthreads();
    for (int c = (int)(threadIdx.y * blockDim.x + threadIdx.x); c < ld; c += (int)blockDim.x * deep) {
        float total = 0;
        for (int y = 0; y < deep; y++) total += sums[y * ld + c];
        partial[c] = total;
    }
}

template <class T, class W, bool REST, bool DW, bool V> static __global__ void __launch_bounds__(MAX_THREADS) rmsnorm_bwd(norm_bwd<T, W> a)
{
    constexpr int N = LANES<T>, KEPT = NORM_BWD_EACH / N;
    __shared__ float scratch[2][WARP];
    int step = (int)blockDim.x * N, first = (int)threadIdx.x * N, turn = 0;
    int64_t begin = (int64_t)blockIdx.x * a.rows_each, end = begin + a.rows_each < a.rows ? begin + a.rows_each : a.rows;
    float dw[KEPT][N] = {};
    for (int64_t at = begin; at < end; at += blockDim.y, turn ^= 1) {
        int64_t row = at + threadIdx.y;
        int cols = row < end ? a.n.cols : 0;
        float rstd = row < end ? a.rstd[row] : 0.0f, sum = 0;
        pack<T, N> x[KEPT] = {}, dy[KEPT] = {}, residual[KEPT] = {};
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int c = first + k * step;
            if (c < cols) x[k] = take<V, N>(a.x.row(row) + c, cols - c);
            if (c < cols) dy[k] = take<V, N>(a.dy.row(row) + c, cols - c);
            if (c < cols) residual[k] = take_residual<V, N>(a, row, c);
        }
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int c = first + k * step;
            if (c < cols) sum = dot<V>(a, c, dy[k], x[k], rstd, sum);
        }
        for (int c = first + KEPT * step; REST && c < cols; c += step)
            sum = dot<V>(a, c, take<V, N>(a.dy.row(row) + c, cols - c), take<V, N>(a.x.row(row) + c, cols - c), rstd, sum);
        float mean = row_sum(sum, scratch[turn]) / (float)a.n.cols;
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int c = first + k * step;
            if (c < cols) put_dx<V>(a, row, c, dy[k], x[k], residual[k], rstd, mean);
            for (int i = 0; DW && i < N; i++) dw[k][i] += widen(dy[k].at[i]) * (widen(x[k].at[i]) * rstd);
        }
        for (int c = first + KEPT * step; REST && c < cols; c += step)
            put_dx<V>(a, row, c, take<V, N>(a.dy.row(row) + c, cols - c), take<V, N>(a.x.row(row) + c, cols - c),
                      take_residual<V, N>(a, row, c), rstd, mean);
    }
    if (DW) put_partials(dw, a.partial + (int64_t)blockIdx.x * a.ld, a.ld);
}

/* Of rows that registers do not hold, dw is a pass of its own. */
template <class T, bool V> struct dw_term {
    static constexpr int N = LANES<T>, AHEAD = 2;
    view<const T> dy, x;
    const float *rstd;
    struct fetched {
        pack<T, N> dy, x;
        float rstd;
    };
    __device__ fetched fetch(int64_t row, int64_t col, int left) const
    {
        return {take<V, N>(dy.row(row) + col, left), take<V, N>(x.row(row) + col, left), rstd[row]};
    }
    __device__ float term(const fetched &f, int i) const { return widen(f.dy.at[i]) * (widen(f.x.at[i]) * f.rstd); }
};

template <class T> static status long_dw(struct stream *s, const struct rmsnorm_bwd_args *a, struct layout l)
{
    void *partial;
    struct column_cut k = column_cut_of(a->x.dim[0], a->x.dim[1], l.lanes);
    TRY(stream_workspace(s, (size_t)(k.groups * k.ld) * sizeof(float), "rmsnorm_bwd", &partial));
    WITH_BOOL(l.aligned, V, {
        dw_term<T, V> term = {view_of<const T>(&a->dy, l), view_of<const T>(&a->x, l), (const float *)a->rstd.data};
        TRY(LAUNCH((column_partials<dw_term<T, V>>), k.grid, k.block, 0, s, k, term, (float *)partial));
    });
    return column_finish(s, (const float *)partial, k.groups, k.ld, k.cols, (float *)a->dw.data);
}

extern "C" cuda_workspace_fn rmsnorm_bwd_cuda_workspace;
size_t rmsnorm_bwd_cuda_workspace(const struct work_bounds *w)
{
    int64_t widest = w->width;
    for (int64_t width : {w->heads * w->head_dim, w->kv_heads * w->head_dim, w->head_dim})
        if (width > widest) widest = width;
    size_t kept = (size_t)NORM_GROUPS * (size_t)norm_cut_of(widest, NORM_BWD_EACH).held * sizeof(float), rest = column_workspace(widest);
    return kept > rest ? kept : rest;
}

template <class T, class W> static status backward_of(struct stream *s, const struct rmsnorm_bwd_args *a)
{
    struct layout l = layout_of({&a->dy, &a->x, &a->residual, &a->dx}, false);
    int64_t rows = a->x.dim[0], cols = a->x.dim[1];
    struct norm_cut k = norm_cut_of(cols, NORM_BWD_EACH);
    norm_bwd<T, W> p = {view_of<const T>(&a->dy, l),
                        view_of<const T>(&a->x, l),
                        view_of<const T>(&a->residual, l),
                        view_of<T>(&a->dx, l),
                        {(const W *)a->w.data, (int)cols, a->unit_offset},
                        (const float *)a->rstd.data,
                        NULL,
                        rows,
                        k.block.y,
                        k.held};
    bool aligned = l.aligned && is_aligned(&a->w, false, l.lanes), sums = a->dw.data && !k.rest;
    if (a->dw.data && k.rest) TRY(long_dw<T>(s, a, l)); /* dx may be dy: first */
    if (sums) p.rows_each = ceil_div(ceil_div(rows, NORM_GROUPS), 4 * k.block.y) * 4 * k.block.y;
    int64_t groups = ceil_div(rows, p.rows_each);
    size_t shared = sums && k.block.y > 1 ? k.block.y * (size_t)k.held * sizeof(float) : 0;
    if (sums) TRY(stream_workspace(s, (size_t)groups * (size_t)k.held * sizeof(float), "rmsnorm_bwd", (void **)&p.partial));
    dim3 grid((unsigned)groups);
    if (k.rest)
        WITH_BOOL(aligned, V, { TRY(LAUNCH((rmsnorm_bwd<T, W, true, false, V>), grid, k.block, 0, s, p)); });
    else
        WITH_BOOL(sums, DW, { WITH_BOOL(aligned, V, { TRY(LAUNCH((rmsnorm_bwd<T, W, false, DW, V>), grid, k.block, shared, s, p)); }); });
    return sums ? column_finish(s, p.partial, groups, k.held, cols, (float *)a->dw.data) : ST_OK;
}

status rmsnorm_bwd_cuda(struct stream *s, const struct rmsnorm_bwd_args *a)
{
    if (!tensor_count(&a->x)) return ST_OK;
    if (a->x.dt == DT_F32) return backward_of<float, float>(s, a);
    return a->w.dt == DT_F32 ? backward_of<bf16, float>(s, a) : backward_of<bf16, bf16>(s, a);
}
