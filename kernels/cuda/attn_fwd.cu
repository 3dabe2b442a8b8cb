/* attn_fwd.cu — attention forward, flash scheme (attn.h). A block has `queries` rows of one head in shared memory and walks the keys that
 * they see, `keys` at a time: while scores are made, v arrives; while P·v is added, the next k does.
 *
 * Per q head and block of queries: moves (2·queries + 2·keys seen)·D elements; 4·D products and one 2^x per pair seen. */
#include "kernels/cuda/attn.h"

#include "kernels/cuda/attention.h"

template <class T, int D> struct shape {
    static constexpr int warps = 4, threads = warps * WARP;
    static constexpr int m = sizeof(T) == 2 && D <= 128 ? 2 : 1; /* times 16 rows of a warp */
    static constexpr int queries = 16 * m * warps;
    static constexpr int keys = sizeof(T) == 2 || D <= 64 ? 64 : D <= 128 ? 32 : 16;
    static constexpr size_t shared = (size_t)(queries + 2 * keys) * D * sizeof(T);
};

/* Dot products → probabilities relative to the running maximum, to which sums and o are brought too. q, k: positions of the
 * first row and column. */
template <int M, int N, int C>
static __device__ inline void softmax(float (&s)[M][N][4], float (&o)[M][C][4], float (&top)[M][2], float (&sum)[M][2],
                                      const struct attn_common &c, int q, int k)
{
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    attn_scores(s, c);
    if (attn_partly(q, 16 * M, k, 8 * N, c.window)) {
#pragma unroll
        for (int r = 0; r < 2 * M; r++) attn_hide(s[r / 2], r % 2, attn_seen(q + 8 * r + g, k + 2 * t, c.window));
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float high = top[m][half], part = 0.0f;
#pragma unroll
            for (int j = 0; j < N; j++) high = fmaxf(high, fmaxf(s[m][j][2 * half], s[m][j][2 * half + 1]));
            high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
            high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
            float keep = exp2_quick(top[m][half] - high);
            top[m][half] = high;
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) part += s[m][j][i] = exp2_quick(s[m][j][i] - high);
            sum[m][half] = sum[m][half] * keep + part;
#pragma unroll
            for (int j = 0; j < C; j++) o[m][j][2 * half] *= keep, o[m][j][2 * half + 1] *= keep;
        }
}

/* o/sum to the rows that q had in shared memory, which are this warp's alone, and from there out; lse. */
template <class T, int D, int M>
static __device__ inline void finish(const struct attn_fwd_args &a, const struct attn_common &c, T *rows_of_q, float (&o)[M][D / 8][4],
                                     const float (&top)[M][2], float (&sum)[M][2], int row, int rows, int head)
{
    int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * 16 * M;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[m][half] += __shfl_xor_sync(0xffffffffu, sum[m][half], 1);
            sum[m][half] += __shfl_xor_sync(0xffffffffu, sum[m][half], 2);
            int r = first + 16 * m + lane / 4 + 8 * half;
            float *lse = (float *)a.lse.data + (int64_t)(row + r) * a.lse.ld + head;
            if (lane % 4 == 0 && r < rows) *lse = (top[m][half] + log2f(sum[m][half])) * ATTN_LN2;
        }
        tile_put<T, D>(rows_of_q, first + 16 * m, 0, o[m], 1.0f / sum[m][0], 1.0f / sum[m][1]);
    }
    __syncwarp();
    attn_rows<T> out = attn_rows_of<T>(a.o, row, head, c.d);
    tile_store<T, D, 16 * M>(out, rows_of_q, first, rows, c.d, c.whole, lane, WARP);
}

template <class T, int D>
static __global__ void __launch_bounds__(shape<T, D>::threads) attn_fwd(const struct attn_fwd_args a, const struct attn_common c)
{
    typedef shape<T, D> shape;
    DYNAMIC_SHARED(T, q_tile);
    T *k_tile = q_tile + shape::queries * D, *v_tile = k_tile + shape::keys * D;

    int head = (int)blockIdx.x % c.heads, kv_head = head / c.group;
    struct attn_place at = attn_place_of(&a.docs, (int)blockIdx.x / c.heads, shape::queries);
    int blocks = (at.tokens + shape::queries - 1) / shape::queries;
    if (at.slot >= blocks) return;
    int block = (blocks - 1 - at.slot) * shape::queries; /* the last queries see the most keys: first */
    int past = a.docs.past.dev ? a.docs.past.dev[at.doc] : 0;
    int rows = at.tokens - block < shape::queries ? at.tokens - block : shape::queries;
    int q0 = past + block, end = q0 + rows;
    int key_row = a.key_start.dev ? a.key_start.dev[at.doc] : at.start;
    attn_rows<T> q = attn_rows_of<T>(a.q, at.start + block, head, c.d);
    int my_q = q0 + (int)(threadIdx.x / WARP) * 16 * shape::m;

    float o[shape::m][D / 8][4] = {}, top[shape::m][2], sum[shape::m][2] = {};
#pragma unroll
    for (int m = 0; m < shape::m; m++) top[m][0] = top[m][1] = ATTN_MASKED;
    int k0 = attn_first_key(q0, shape::keys, c.window);
    tile_load<T, D, shape::queries, shape::threads>(q_tile, q, rows, c.d, c.whole);
    tile_load<T, D, shape::keys, shape::threads>(k_tile, attn_rows_of<T>(a.k, key_row + k0, kv_head, c.d), end - k0, c.d, c.whole);
    cp_async_commit();
    for (; k0 < end; k0 += shape::keys) {
        float s[shape::m][shape::keys / 8][4];
        bool mine = my_q < end && !attn_nowhere(my_q, 16 * shape::m, k0, shape::keys, c.window);
        cp_async_wait<0>();
        __syncthreads(); /* k is here, and nobody reads the v before */
        tile_load<T, D, shape::keys, shape::threads>(v_tile, attn_rows_of<T>(a.v, key_row + k0, opaque(kv_head), c.d), end - k0, c.d,
                                                     c.whole);
        cp_async_commit();
        if (mine) product_rows<D>(s, q_tile, my_q - q0, k_tile);
        cp_async_wait<0>();
        __syncthreads();
        if (mine) softmax(s, o, top, sum, c, my_q, k0);
        int next = k0 + shape::keys;
        if (next < end)
            tile_load<T, D, shape::keys, shape::threads>(k_tile, attn_rows_of<T>(a.k, key_row + next, opaque(kv_head), c.d), end - next,
                                                         c.d, c.whole);
        cp_async_commit();
        if (mine) product_columns<D>(o, s, v_tile, 0);
    }
    if (my_q < end) finish<T, D>(a, c, q_tile, o, top, sum, at.start + block, rows, head);
}

template <class T, int D> static status launch(struct stream *s, const struct attn_fwd_args *a)
{
    typedef shape<T, D> shape;
    unsigned grid = (unsigned)(attn_slots(&a->docs, shape::queries) * a->heads);
    return LAUNCH((attn_fwd<T, D>), grid, shape::threads, shape::shared, s, attn_of_device(*a), attn_common_of(a));
}

status attn_fwd_own(struct stream *s, const struct attn_fwd_args *a)
{
#define LAUNCHER(D) launch<T, D>,
    int size = attn_size(a->head_dim);
    WITH_TYPE(a->q.dt, T, {
        static status (*const launchers[])(struct stream *, const struct attn_fwd_args *) = {ATTN_SIZES(LAUNCHER)};
        if (size == sizeof launchers / sizeof *launchers)
            FAIL(ST_SHAPE, "attn_fwd: heads of %lld channels, but attention on a GPU goes up to 256", (long long)a->head_dim);
        TRY(launchers[size](s, a));
    });
    return ST_OK;
}
