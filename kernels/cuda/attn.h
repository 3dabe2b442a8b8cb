/* attn.h — what attention's passes share: where a block of threads works, tiles in shared memory, products of tiles.
 *
 * A tile is some rows of one head, D channels each, in shared memory; what the tensors do not have (rows behind a document's end,
 * channels behind head_dim) is zero there. D is head_dim rounded up to a size of ATTN_SIZES. A row is cut into chunks of 16 bytes, and chunk
 * c of row r lies at place c ^ f(r), such that 8 rows' chunks c lie in 8 different groups of banks:
 *
 *     row 0   0 1 2 3 4 5 6 7        any 8 consecutive rows of one column, as ldmatrix reads them, and any 8 chunks of one
 *     row 1   1 0 3 2 5 4 7 6        row, as they are stored, touch every bank once
 *     row 2   2 3 0 1 6 7 4 5 …
 *
 * Products accumulate in registers in the layout of mma's C (mma.h): a warp has 16 rows, lane l = 4g + t of it rows g and g + 8 and columns
 * 8j + 2t, 8j + 2t + 1 in acc[j]. bf16: tensor cores; f32: fused products in ascending order, the same layout. */
#ifndef TRIMPOT_CUDA_ATTN_H
#define TRIMPOT_CUDA_ATTN_H

#include "kernels/cuda/mma.h"

#define ATTN_LOG2E 1.44269504f
#define ATTN_LN2   0.693147181f

/* Smaller than any score in base 2; 2^(ATTN_MASKED − m) is 0 for every m a real score can give. */
#define ATTN_MASKED (-1e30f)

/* ---- where a block works --------------------------------------------------------------------------------------------------
 * Documents are cut into blocks of ROWS tokens. Document i has the slots [start[i]/ROWS + i, start[i + 1]/ROWS + i + 1), at least as
 * many as it has blocks, so that a slot finds its document in `start` alone and a launch needs to know no more than two sizes. */

static inline int64_t attn_slots(const struct docs *d, int rows) { return d->n_tokens / rows + d->n_docs; }

struct attn_place {
    int doc, start, tokens; /* the document's first row and length */
    int slot, slots;        /* of the document's own; those from the number of its blocks on have no work */
};

/* By whole warps: every round leaves 1/32 of the documents. */
static __device__ inline struct attn_place attn_place_of(const struct docs *d, int slot, int rows)
{
    const int32_t *start = d->start.dev;
    int low = 0, n = (int)d->n_docs, lane = (int)threadIdx.x % WARP;
    while (n > 1) {
        int step = (n + WARP - 1) / WARP, at = lane * step;
        bool below = at < n && start[low + at] / rows + low + at <= slot;
        at = (__popc(__ballot_sync(0xffffffffu, below)) - 1) * step;
        low += at;
        n = n - at < step ? n - at : step;
    }
    int first = start[low] / rows + low;
    return {low, start[low], start[low + 1] - start[low], slot - first, start[low + 1] / rows + low + 1 - first};
}

/* ---- what all blocks of a call share; the host makes it ------------------------------------------------------------------- */

struct attn_common {
    int heads, group, d, window;
    float dot, into, cap; /* a score, in base 2, is its dot product · dot, or with a soft cap: cap · tanh, of it · into */
    bool whole;           /* chunks of 16 bytes are whole and aligned, in all tensors */
};

static inline bool attn_whole(const tensor &t, int64_t d)
{
    int64_t per = 16 / (int64_t)dtype_bytes(t.dt);
    return d % per == 0 && t.ld % per == 0 && (uintptr_t)t.data % 16 == 0;
}

/* Without the host's twins: a kernel is given no pointer that it may not read. */
static inline struct attn_fwd_args attn_of_device(struct attn_fwd_args a)
{
    a.docs.start.host = a.docs.past.host = a.key_start.host = NULL;
    return a;
}

/* Windows as wide as all positions are none. */
static inline struct attn_common attn_common_of(const struct attn_fwd_args *a)
{
    struct attn_common c = {(int)a->heads, (int)(a->heads / a->kv_heads), (int)a->head_dim, 0, a->scale * ATTN_LOG2E, 0.0f, 0.0f, true};
    if (a->window < a->docs.positions) c.window = (int)a->window;
    if (a->cap != 0.0f) c.into = 2.0f * ATTN_LOG2E * a->scale / a->cap, c.cap = a->cap * ATTN_LOG2E;
    for (const tensor *t : {&a->q, &a->k, &a->v, &a->o}) c.whole = c.whole && attn_whole(*t, a->head_dim);
    return c;
}

/* A head's channels of row `row`, and the distance of the next. */
template <class T> struct attn_rows {
    T *data;
    int ld;
};

template <class T> static __device__ inline attn_rows<T> attn_rows_of(const tensor &t, int64_t row, int head, int d)
{
    return {(T *)t.data + row * t.ld + head * d, (int)t.ld};
}

/* ---- tiles ---------------------------------------------------------------------------------------------------------------- */

template <class T, int D> struct tile {
    static constexpr int per = 16 / sizeof(T), chunks = D / per;

    static constexpr int swizzled = chunks % 8 == 0 ? 7 : chunks % 4 == 0 ? 3 : 1; /* bits of a chunk's number */

    static __device__ constexpr int swizzle(int row) { return swizzled == 7 ? row & 7 : swizzled == 3 ? row >> 1 & 3 : row >> 2 & 1; }

    /* Bytes from the tile's begin. */
    static __device__ inline int place(int row, int chunk) { return (row * chunks + (chunk ^ swizzle(row))) * 16; }
    /* The place of chunk + more from that of chunk 0 or 1; more is even: one instruction, because the rest is known. */
    static __device__ inline int further(int place, int more) { return (place ^ (more & swizzled) * 16) + (more & ~swizzled) * 16; }

    static __device__ inline T *at(T *base, int row, int chunk) { return base + place(row, chunk) / (int)sizeof(T); }
    static __device__ inline const T *at(const T *base, int row, int chunk) { return at((T *)base, row, chunk); }
};

/* `rows` rows of src to a tile of ROWS rows. Asynchronous where chunks are whole; by all threads of the block, of which `lanes` share a
 * row. Their rows are a multiple of 8 apart, so that a thread's chunks keep their places. */
template <class T, int D, int ROWS, int THREADS>
static __device__ inline void tile_load(T *to, attn_rows<T> src, int rows, int d, bool whole)
{
    typedef tile<T, D> tile;
    constexpr int lanes = tile::chunks % 8 == 0 ? 8 : tile::chunks % 4 == 0 ? 4 : 2, step = THREADS / lanes;
    static_assert(step % 8 == 0, "rows of a thread share a swizzle");
    int chunk = (int)threadIdx.x % lanes, row = (int)threadIdx.x / lanes;
    const T *from = src.data + (int64_t)row * src.ld + chunk * tile::per;
    T *at = tile::at(to, row, chunk);
#pragma unroll 1
    for (; row < ROWS; row += step, from += (int64_t)step * src.ld, at += step * D) {
#pragma unroll
        for (int c = 0; c < tile::chunks; c += lanes) {
            int left = row < rows ? d - (chunk + c) * tile::per : 0;
            if (whole)
                cp_async(at + c * tile::per, left > 0 ? from + c * tile::per : src.data, left > 0);
            else
                for (int e = 0; e < tile::per; e++) at[c * tile::per + e] = e < left ? from[c * tile::per + e] : T(0);
        }
    }
}

/* acc·by, as this warp holds it, to columns [column, column + 8·N) of 16 rows of a tile from `row` on. */
template <class T, int D, int N>
static __device__ inline void tile_put(T *to, int row, int column, const float (&acc)[N][4], float by0, float by1)
{
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int c = column + 8 * j + 2 * t + i % 2;
            *(tile<T, D>::at(to, row + g + i / 2 * 8, c / tile<T, D>::per) + c % tile<T, D>::per) =
                narrow<T>(acc[j][i] * (i < 2 ? by0 : by1));
        }
}

/* Rows [row, row + ROWS) of a tile, as far as they are among `rows`, to dst (tile row 0 is its row 0). By the threads first, first + n
 * … */
template <class T, int D, int ROWS>
static __device__ inline void tile_store(attn_rows<T> dst, const T *from, int row, int rows, int d, bool whole, int first, int n)
{
    typedef tile<T, D> tile;
    for (int i = first; i < ROWS * tile::chunks; i += n) {
        int r = row + i / tile::chunks, chunk = i % tile::chunks, left = d - chunk * tile::per;
        if (r >= rows || left <= 0) continue;
        T *to = dst.data + (int64_t)r * dst.ld + chunk * tile::per;
        const T *at = tile::at(from, r, chunk);
        if (whole)
            *(uint4 *)to = *(const uint4 *)at;
        else
            for (int e = 0; e < tile::per && e < left; e++) to[e] = at[e];
    }
}

/* ---- products --------------------------------------------------------------------------------------------------------------
 * M: how many times 16 rows a warp has, N: columns / 8. */

/* acc = A·Bᵀ: rows [row, row + 16·M) of tile a by the first 8·N rows of tile b. */
template <int D, int M, int N> static __device__ inline void product_rows(float (&acc)[M][N][4], const bf16 *a, int row, const bf16 *b)
{
    typedef tile<bf16, D> tile;
    int lane = threadIdx.x % WARP, left_at = tile::place(row + lane % 16, lane / 16);
    int right_at = tile::place(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    shared_at a_tile = shared_place(a), b_tile = shared_place(b);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][j][i] = 0.0f;
#pragma unroll 4 /* all of it would cost registers for places foreseen */
    for (int k = 0; k < D / 16; k++) {
        unsigned left[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) ldmatrix(left[m], a_tile + tile::further(left_at, 2 * k) + m * 16 * tile::chunks * 16);
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            unsigned right[4];
            ldmatrix(right, b_tile + tile::further(right_at, 2 * k) + j * 8 * tile::chunks * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(acc[m][j], left[m], right[0], right[1]);
                mma(acc[m][j + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* acc += P·B: P [16·M, 8·K] in registers, lost by the call; B columns [column, column + 8·N) of the first 8·K rows of tile b. */
template <int D, int M, int N, int K>
static __device__ inline void product_columns(float (&acc)[M][N][4], float (&p)[M][K][4], const bf16 *b, int column)
{
    typedef tile<bf16, D> tile;
    int lane = threadIdx.x % WARP, right_at = tile::place(lane % 16, lane / 16);
    shared_at b_tile = shared_place(b);
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        unsigned left[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            left[m][0] = pack_bf16(p[m][k][0], p[m][k][1]);
            left[m][1] = pack_bf16(p[m][k][2], p[m][k][3]);
            left[m][2] = pack_bf16(p[m][k + 1][0], p[m][k + 1][1]);
            left[m][3] = pack_bf16(p[m][k + 1][2], p[m][k + 1][3]);
        }
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            unsigned right[4];
            ldmatrix_transposed(right, b_tile + tile::further(right_at, column / 8 + j) + k * 8 * tile::chunks * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(acc[m][j], left[m], right[0], right[1]);
                mma(acc[m][j + 1], left[m], right[2], right[3]);
            }
        }
    }
}

template <int D, int M, int N> static __device__ inline void product_rows(float (&acc)[M][N][4], const float *a, int row, const float *b)
{
    static_assert(M == 1, "the f32 product is written for 16 rows");
    typedef tile<float, D> tile;
    int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) acc[0][j][i] = 0.0f;
#pragma unroll 1
    for (int chunk = 0; chunk < tile::chunks; chunk++) {
        float4 low = *(const float4 *)tile::at(a, row + g, chunk), high = *(const float4 *)tile::at(a, row + g + 8, chunk);
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float4 x = i < 2 ? low : high, y = *(const float4 *)tile::at(b, 8 * j + 2 * t + i % 2, chunk);
                acc[0][j][i] = fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, acc[0][j][i]))));
            }
    }
}

template <int D, int M, int N, int K>
static __device__ inline void product_columns(float (&acc)[M][N][4], float (&p)[M][K][4], const float *b, int column)
{
    static_assert(M == 1, "the f32 product is written for 16 rows");
    typedef tile<float, D> tile;
    int lane = threadIdx.x % WARP, t = lane % 4;
    /* The lane's half of an even pair of chunks, as an even or an odd swizzle leaves it: all the rest of an address is known. */
    const float *halves[2] = {b + column + t / 2 * 4 + t % 2 * 2, b + column + (t / 2 ^ 1) * 4 + t % 2 * 2};
#pragma unroll 1
    for (int k = 0; k < 8 * K; k += 8) {
#pragma unroll
        for (int i = 0; i < 8; i++) { /* P's column i is with the lanes t = i / 2 */
            float low = __shfl_sync(0xffffffffu, p[0][0][i % 2], lane - t + i / 2);
            float high = __shfl_sync(0xffffffffu, p[0][0][2 + i % 2], lane - t + i / 2);
#pragma unroll
            for (int j = 0; j < N; j++) {
                int f = tile::swizzle(i), chunk = 2 * j ^ (f & ~1);
                float2 y = *(const float2 *)(halves[f & 1] + k * D + i * D + chunk * 4);
                acc[0][j][0] = fmaf(low, y.x, acc[0][j][0]);
                acc[0][j][1] = fmaf(low, y.y, acc[0][j][1]);
                acc[0][j][2] = fmaf(high, y.x, acc[0][j][2]);
                acc[0][j][3] = fmaf(high, y.y, acc[0][j][3]);
            }
        }
#pragma unroll
        for (int j = 0; j < K - 1; j++) /* registers have no index: the next ones come to where the first were */
#pragma unroll
            for (int i = 0; i < 4; i++) p[0][j][i] = p[0][j + 1][i];
    }
}

/* ---- scores ---------------------------------------------------------------------------------------------------------------- */

/* tanh from 2^(x·2·log2 e); within 2^-22 of the truth. Above 2^40 it is 1; NaN stays. */
static __device__ inline float attn_tanh(float exponent)
{
    float e = exp2_quick(exponent > 40.0f ? 40.0f : exponent);
    return (e - 1.0f) * reciprocal_quick(e + 1.0f);
}

/* Dot products → scores. */
template <int M, int N> static __device__ inline void attn_scores(float (&s)[M][N][4], const struct attn_common &by)
{
    if (by.cap != 0.0f) {
#pragma unroll
        for (int i = 0; i < M * N * 4; i++) s[i / N / 4][i / 4 % N][i % 4] = by.cap * attn_tanh(s[i / N / 4][i / 4 % N][i % 4] * by.into);
    } else {
#pragma unroll
        for (int i = 0; i < M * N * 4; i++) s[i / N / 4][i / 4 % N][i % 4] *= by.dot;
    }
}

/* Whether some query of positions [q, q + queries) must not see some key of [k, k + keys); whether no query sees any key. */
static __device__ inline bool attn_partly(int q, int queries, int k, int keys, int window)
{
    return k + keys - 1 > q || (window && q + queries - 1 - k >= window);
}
static __device__ inline bool attn_nowhere(int q, int queries, int k, int keys, int window)
{
    return k > q + queries - 1 || (window && q - (k + keys - 1) >= window);
}
/* Columns [low, high] of a tile: the keys from k on that a query sees, or the queries from q on that see a key. */
struct attn_span {
    int low, high;
};
static __device__ inline struct attn_span attn_seen(int q, int k, int window) { return {window ? q - k - window + 1 : 0, q - k}; }
static __device__ inline struct attn_span attn_seeing(int k, int q, int window)
{
    return {k - q, window ? k - q + window - 1 : 0x7fffffff};
}

/* Hides what is outside from one of a lane's two rows; the span counts from the lane's first column. */
template <int N> static __device__ inline void attn_hide(float (&s)[N][4], int half, struct attn_span seen)
{
#pragma unroll
    for (int i = 0; i < 2 * N; i++) {
        int column = i / 2 * 8 + i % 2;
        if (column < seen.low || column > seen.high) s[i / 2][half * 2 + i % 2] = ATTN_MASKED;
    }
}

/* The first key, at a multiple of `keys`, that queries from q on see. */
static __device__ inline int attn_first_key(int q, int keys, int window)
{
    return window && q >= window ? (q - window + 1) / keys * keys : 0;
}

/* ---- sizes ----------------------------------------------------------------------------------------------------------------- */

/* The D there are kernels for. Head sizes between them pay for the next. */
#define ATTN_SIZES(X) X(16) X(32) X(64) X(96) X(128) X(256)

#define ATTN_INDEX(D) +(head_dim > (D))
static inline int attn_size(int64_t head_dim) { return 0 ATTN_SIZES(ATTN_INDEX); }

#endif
