/* attn_bwd.cu — attention backward: P and dS are made again from lse (attn.h), in two passes with one text.
 *
 *      δ = rowsum(dO∘O);  P = exp(S − lse);  dS = P∘(dP − δ)(·(1 − (S/cap)²));  dV = Pᵀ·dO;  dK = scale·dSᵀ·Q;  dQ = scale·dS·K
 *
 * A block owns some rows, whose sums stay in registers, and walks all rows that meet them:
 *     keys     owns k, v      walks q, dO of every head of the group, ascending, and in each queries ascending: Sᵀ, dPᵀ → dK, dV
 *     queries  owns q, dO     walks k, v, ascending:                                                            S,  dP  → dQ
 * No row is anybody else's, so nothing is added across blocks. 7 products where one pass with atomics would make 5.
 *
 * Moves, per head: q, k, v, o, dO, dq, dk, dv once, and the walked pair once per block of owned rows: 2·walked·D elements each. */
#include "kernels/cuda/attn.h"

#include "kernels/cuda/attention.h"

template <class T, int D, bool KEYS> struct shape {
    static constexpr int row_warps = sizeof(T) == 2 || D <= 128 ? 4 : 2;
    static constexpr int splits = KEYS && D > 128 ? 2 : 1; /* warps with the same rows, each with its part of the channels to sum */
    static constexpr int threads = row_warps * splits * WARP, channels = D / splits;
    static constexpr int owned = 16 * row_warps;
    static constexpr int walked = sizeof(T) == 2 ? D <= 96 ? 64 : 32 : D <= 128 ? 32 : 16;
    static constexpr int stages = sizeof(T) == 2 && D <= 128 ? 2 : 1; /* the next pair of tiles comes while this one is used */
    static constexpr size_t tiles = 2 * (size_t)(owned + stages * walked) * D * sizeof(T);
    static constexpr size_t shared = tiles + (KEYS ? 2 * stages * walked * sizeof(float) : 0);
};

/* ---- δ and lse in base 2: stats [2][H][N] ----------------------------------------------------------------------------------- */

/* `lanes`, a power of two, make one sum. Moves 2·D elements per row and head. */
template <class T>
static __global__ void __launch_bounds__(256)
    attn_row_sums(const struct attn_bwd_args b, const struct attn_common c, int lanes, float *stats)
{
    const int per = 16 / sizeof(T);
    int64_t pairs = b.fwd.docs.n_tokens * c.heads, pair = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    int64_t row = (pair < pairs ? pair : 0) / c.heads;
    int head = (int)(pair % c.heads), lane = (int)threadIdx.x % lanes;
    const T *o = attn_rows_of<T>(b.fwd.o, row, head, c.d).data, *d_o = attn_rows_of<T>(b.d_o, row, head, c.d).data;
    float sum = 0.0f;
    for (int from = lane * per; from < c.d; from += lanes * per) {
        T x[per] = {}, y[per] = {};
        if (c.whole) {
            uint4 whole_x = *(const uint4 *)(o + from), whole_y = *(const uint4 *)(d_o + from);
            memcpy(x, &whole_x, 16);
            memcpy(y, &whole_y, 16);
        } else {
            for (int i = 0; i < per && from + i < c.d; i++) x[i] = o[from + i], y[i] = d_o[from + i];
        }
#pragma unroll
        for (int i = 0; i < per; i++) sum = fmaf(widen(x[i]), widen(y[i]), sum);
    }
    for (int half = lanes / 2; half; half /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, half);
    if (lane || pair >= pairs) return;
    float *out = stats + head * b.fwd.docs.n_tokens + row;
    out[0] = sum;
    out[pairs] = ((const float *)b.fwd.lse.data)[row * b.fwd.lse.ld + head] * ATTN_LOG2E;
}

/* ---- one pair of tiles ------------------------------------------------------------------------------------------------------ */

/* δ and lse of what a lane has: of its two rows (queries), or of the tile's columns, in shared memory (keys). */
template <bool KEYS> struct stats_of;
template <> struct stats_of<false> {
    float delta[2], lse[2];
    __device__ inline float delta_at(int half, int) const { return delta[half]; }
    __device__ inline float lse_at(int half, int) const { return lse[half]; }
};
template <> struct stats_of<true> {
    const float *delta, *lse;
    __device__ inline float delta_at(int, int column) const { return delta[column]; }
    __device__ inline float lse_at(int, int column) const { return lse[column]; }
};

/* Dot products s and dp → P and dS/scale in their place. own, other: positions of the first row and column. */
template <bool KEYS, int N>
static __device__ inline void gradients(float (&s)[1][N][4], float (&dp)[1][N][4], const struct attn_common &c, int own, int other,
                                        const struct stats_of<KEYS> &of)
{
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    attn_scores(s, c);
#pragma unroll
    for (int i = 0; i < 4 * N; i++) dp[0][i / 4][i % 4] -= of.delta_at(i % 4 / 2, i / 4 * 8 + 2 * t + i % 2);
    if (c.cap != 0.0f) {
        float by = 1.0f / c.cap;
#pragma unroll
        for (int i = 0; i < 4 * N; i++) {
            float share = s[0][i / 4][i % 4] * by;
            dp[0][i / 4][i % 4] *= fmaf(-share, share, 1.0f);
        }
    }
    if (KEYS ? attn_partly(other, 8 * N, own, 16, c.window) : attn_partly(own, 16, other, 8 * N, c.window)) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = own + g + 8 * half, column = other + 2 * t;
            attn_hide(s[0], half, KEYS ? attn_seeing(row, column, c.window) : attn_seen(row, column, c.window));
        }
    }
#pragma unroll
    for (int i = 0; i < 4 * N; i++) {
        float p = exp2_quick(s[0][i / 4][i % 4] - of.lse_at(i % 4 / 2, i / 4 * 8 + 2 * t + i % 2));
        s[0][i / 4][i % 4] = p;
        dp[0][i / 4][i % 4] *= p;
    }
}

/* ---- a block ---------------------------------------------------------------------------------------------------------------- */

/* What a block owns, positions [own, own + rows), and what it walks: [first, end) of `heads` heads from `head` on, in steps. */
struct walk {
    struct attn_place at;
    int own, rows, own_head;
    int first, end, head, heads;
};

template <class T, int D, bool KEYS>
static __device__ inline struct walk walk_of(const struct attn_bwd_args &b, const struct attn_common &c)
{
    typedef shape<T, D, KEYS> shape;
    int columns = KEYS ? c.heads / c.group : c.heads;
    struct walk w = {attn_place_of(&b.fwd.docs, (int)blockIdx.x / columns, shape::owned)};
    int blocks = (w.at.tokens + shape::owned - 1) / shape::owned, block = w.at.slot;
    if (!KEYS) block = blocks - 1 - block; /* the dearest first: early keys, late queries */
    if (w.at.slot >= blocks) return w;
    w.own = block * shape::owned;
    w.rows = w.at.tokens - w.own < shape::owned ? w.at.tokens - w.own : shape::owned;
    w.own_head = (int)blockIdx.x % columns;
    w.head = KEYS ? w.own_head * c.group : w.own_head / c.group;
    w.heads = KEYS ? c.group : 1;
    w.first = KEYS ? w.own / shape::walked * shape::walked : attn_first_key(w.own, shape::walked, c.window);
    w.end = w.own + w.rows;
    if (KEYS) w.end = c.window && w.end + c.window - 1 < w.at.tokens ? w.end + c.window - 1 : w.at.tokens;
    return w;
}

/* Sums to the owned tile, and from there to `out`. By all threads; nobody reads the tile any more. */
template <class T, int D, bool KEYS, int N>
static __device__ inline void put_out(const tensor &out, T *to, const struct walk &w, const struct attn_common &c,
                                      const float (&acc)[1][N][4], float scale)
{
    typedef shape<T, D, KEYS> shape;
    int warp = threadIdx.x / WARP;
    tile_put<T, D>(to, warp % shape::row_warps * 16, warp / shape::row_warps * shape::channels, acc[0], scale, scale);
    __syncthreads();
    attn_rows<T> rows = attn_rows_of<T>(out, w.at.start + w.own, w.own_head, c.d);
    tile_store<T, D, shape::owned>(rows, to, 0, w.rows, c.d, c.whole, threadIdx.x, shape::threads);
}

template <class T, int D, bool KEYS>
static __global__ void __launch_bounds__(shape<T, D, KEYS>::threads, 1)
    attn_bwd(const struct attn_bwd_args b, const struct attn_common c, const float *stats)
{
    typedef shape<T, D, KEYS> shape;
    constexpr int walked = shape::walked;
    DYNAMIC_SHARED(T, own_tiles); /* k, v or q, dO; then `stages` pairs of the others; then δ and lse of the walked */
    T *walked_tiles = own_tiles + 2 * shape::owned * D;
    float *walked_stats = (float *)((char *)own_tiles + shape::tiles);
    struct walk w = walk_of<T, D, KEYS>(b, c);
    if (!w.rows) return;
    const tensor &own0 = KEYS ? b.fwd.k : b.fwd.q, &own1 = KEYS ? b.fwd.v : b.d_o;
    const tensor &walk0 = KEYS ? b.fwd.q : b.fwd.k, &walk1 = KEYS ? b.d_o : b.fwd.v;
    int64_t n = b.fwd.docs.n_tokens;
    int per_head = (w.end - w.first + walked - 1) / walked, steps = per_head * w.heads;
    int lane = threadIdx.x % WARP, my_row = (int)threadIdx.x / WARP % shape::row_warps * 16;
    int channel = (int)threadIdx.x / WARP / shape::row_warps * shape::channels, own = w.own + my_row;

    auto load = [&](int step) {
        int head = w.head + step / per_head, from = w.first + step % per_head * walked, stage = step % shape::stages;
        int64_t row = w.at.start + from;
        T *to = walked_tiles + stage * 2 * walked * D;
        tile_load<T, D, walked, shape::threads>(to, attn_rows_of<T>(walk0, row, head, c.d), w.end - from, c.d, c.whole);
        tile_load<T, D, walked, shape::threads>(to + walked * D, attn_rows_of<T>(walk1, row, head, c.d), w.end - from, c.d, c.whole);
        cp_async_commit();
        for (int i = threadIdx.x; KEYS && i < 2 * walked; i += shape::threads)
            walked_stats[stage * 2 * walked + i] =
                from + i % walked < w.end ? stats[(i / walked * c.heads + head) * n + row + i % walked] : 0.0f;
    };

    struct stats_of<KEYS> of;
    if constexpr (!KEYS) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = my_row + lane / 4 + 8 * half;
            const float *at = stats + w.own_head * n + w.at.start + w.own + row;
            of.delta[half] = row < w.rows ? at[0] : 0.0f;
            of.lse[half] = row < w.rows ? at[c.heads * n] : 0.0f;
        }
    }
    float sum0[1][shape::channels / 8][4] = {}, sum1[1][shape::channels / 8][4] = {};
    tile_load<T, D, shape::owned, shape::threads>(own_tiles, attn_rows_of<T>(own0, w.at.start + w.own, w.own_head, c.d), w.rows, c.d,
                                                  c.whole);
    tile_load<T, D, shape::owned, shape::threads>(own_tiles + shape::owned * D, attn_rows_of<T>(own1, w.at.start + w.own, w.own_head, c.d),
                                                  w.rows, c.d, c.whole);
    load(0);
    for (int step = 0; step < steps; step++) {
        int from = w.first + step % per_head * walked, stage = step % shape::stages;
        const T *tile0 = walked_tiles + stage * 2 * walked * D, *tile1 = tile0 + walked * D;
        cp_async_wait<0>();
        __syncthreads(); /* the tiles of this step are here, and nobody reads the ones before */
        if (shape::stages > 1 && step + 1 < steps) load(step + 1);
        bool nowhere = KEYS ? attn_nowhere(from, walked, own, 16, c.window) : attn_nowhere(own, 16, from, walked, c.window);
        if (my_row < w.rows && !nowhere) {
            float s[1][walked / 8][4], dp[1][walked / 8][4];
            product_rows<D>(s, own_tiles, my_row, tile0);
            product_rows<D>(dp, own_tiles + shape::owned * D, my_row, tile1);
            if constexpr (KEYS) {
                of.delta = walked_stats + stage * 2 * walked;
                of.lse = of.delta + walked;
            }
            gradients<KEYS>(s, dp, c, own, from, of);
            if (KEYS) product_columns<D>(sum1, s, tile1, channel);
            product_columns<D>(sum0, dp, tile0, channel);
        }
        if (shape::stages > 1 || step + 1 == steps) continue;
        __syncthreads();
        load(step + 1);
    }
    __syncthreads();
    put_out<T, D, KEYS>(KEYS ? b.dk : b.dq, own_tiles, w, c, sum0, b.fwd.scale);
    if (KEYS) put_out<T, D, KEYS>(b.dv, own_tiles + shape::owned * D, w, c, sum1, 1.0f);
}

/* ---- the op ----------------------------------------------------------------------------------------------------------------- */

static size_t stats_bytes(int64_t tokens, int64_t heads) { return 2 * (size_t)(tokens * heads) * sizeof(float); }

template <class T, int D, bool KEYS>
static status launch_pass(struct stream *s, const struct attn_bwd_args *b, const struct attn_common *c, const float *stats)
{
    typedef shape<T, D, KEYS> shape;
    unsigned grid = (unsigned)(attn_slots(&b->fwd.docs, shape::owned) * (KEYS ? b->fwd.kv_heads : b->fwd.heads));
    return LAUNCH((attn_bwd<T, D, KEYS>), grid, shape::threads, shape::shared, s, *b, *c, stats);
}

template <class T, int D>
static status launch(struct stream *s, const struct attn_bwd_args *b, const struct attn_common *c, const float *stats)
{
    TRY((launch_pass<T, D, true>(s, b, c, stats)));
    return launch_pass<T, D, false>(s, b, c, stats);
}

template <class T> static status launch_row_sums(struct stream *s, const struct attn_bwd_args *b, const struct attn_common *c, float *stats)
{
    int lanes = 1;
    while (lanes < WARP && lanes * 16 < c->d * (int)sizeof(T)) lanes *= 2;
    int64_t threads = b->fwd.docs.n_tokens * b->fwd.heads * lanes;
    return LAUNCH(attn_row_sums<T>, (unsigned)((threads + 255) / 256), 256, 0, s, *b, *c, lanes, stats);
}

status attn_bwd_own(struct stream *s, const struct attn_bwd_args *args)
{
    struct attn_bwd_args device = *args, *b = &device;
    device.fwd = attn_of_device(args->fwd);
#define LAUNCHER(D) launch<T, D>,
    typedef status launcher(struct stream *, const struct attn_bwd_args *, const struct attn_common *, const float *);
    const struct attn_fwd_args *f = &b->fwd;
    struct attn_common c = attn_common_of(f);
    int size = attn_size(f->head_dim);
    void *stats;
    for (const tensor *t : {&b->d_o, &b->dq, &b->dk, &b->dv}) c.whole = c.whole && attn_whole(*t, f->head_dim);
    TRY(stream_workspace(s, stats_bytes(f->docs.n_tokens, f->heads), "attn_bwd", &stats));
    WITH_TYPE(f->q.dt, T, {
        static launcher *const launchers[] = {ATTN_SIZES(LAUNCHER)};
        if (size == sizeof launchers / sizeof *launchers)
            FAIL(ST_SHAPE, "attn_bwd: heads of %lld channels, but attention on a GPU goes up to 256", (long long)f->head_dim);
        TRY(launch_row_sums<T>(s, b, &c, (float *)stats));
        TRY(launchers[size](s, b, &c, (const float *)stats));
    });
    return ST_OK;
}

extern "C" size_t attn_bwd_own_workspace(const struct work_bounds *w) { return stats_bytes(w->tokens, w->heads); }
