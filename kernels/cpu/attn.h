/* attn.h — what attention's forward and backward pass share: blocks of f32 rows, and products of such blocks.
 *
 * Both passes walk the causal triangle of every document in blocks of ATTN_BLOCK queries × ATTN_BLOCK keys. A block of
 * q, k, v … is a `rows` view: the tensor itself where it is f32 and whole vectors fit, else a widened copy. */
#ifndef TRIMPOT_CPU_ATTN_H
#define TRIMPOT_CPU_ATTN_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

enum { ATTN_BLOCK = 64, ATTN_SLAB = 16 };

/* Smaller than any score; exp(ATTN_MASKED − m) is 0 for every m a real score can give. */
#define ATTN_MASKED (-1e30f)

struct rows {
    const float *data;
    int64_t ld;
};

static inline int64_t attn_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t attn_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t attn_pad(int64_t n) { return (n + VW - 1) / VW * VW; } /* whole vectors */

static inline const void *attn_at(const tensor *t, int64_t row, int64_t col)
{
    return (const char *)t->data + (size_t)(row * t->ld + col) * dtype_bytes(t->dt);
}

/* Rows [row, row + n), columns [col, col + d) of t; columns d … attn_pad(d) read as zero. `room` has n·attn_pad(d). */
static inline struct rows attn_rows(const tensor *t, int64_t row, int64_t n, int64_t col, int64_t d, float *room)
{
    if (t->dt == DT_F32 && d % VW == 0) return (struct rows){attn_at(t, row, col), t->ld};
    int64_t ld = attn_pad(d);
    for (int64_t r = 0; r < n; r++) {
        const void *src = attn_at(t, row + r, col);
        for (int64_t i = 0; i < d; i += VW) vf_store(room + r * ld + i, vec_load(src, t->dt, i, d));
    }
    return (struct rows){room, ld};
}

/* The same block transposed: out [d, ATTN_BLOCK], columns n … ATTN_BLOCK zero. */
static inline void attn_transposed(const tensor *t, int64_t row, int64_t n, int64_t col, int64_t d, float *out)
{
    for (int64_t r = 0; r < n; r++) {
        const void *src = attn_at(t, row + r, col);
        for (int64_t i = 0; i < d; i += VW) {
            float lanes[VW];
            vf_store(lanes, vec_load(src, t->dt, i, d));
            for (int64_t l = 0; l < attn_min(VW, d - i); l++) out[(i + l) * ATTN_BLOCK + r] = lanes[l];
        }
    }
    for (int64_t i = 0; i < d && n < ATTN_BLOCK; i++) memset(out + i * ATTN_BLOCK + n, 0, (size_t)(ATTN_BLOCK - n) * sizeof *out);
}

/* ---- C[m, n] = (accumulate ? C : 0) + A[m, k]·B[k, n] -------------------------------------------------------------
 * A is read element by element through two strides, so it may be transposed; B and C are rows of whole vectors
 * (n % VW == 0). Each element is one chain of fused products in ascending k, whatever the shape of the call. */

struct left {
    const float *data;
    int64_t row, k; /* strides */
};

#ifdef __AVX512F__
enum { MM_ROWS = 6, MM_VECTORS = 4 };
#else
enum { MM_ROWS = 6, MM_VECTORS = 2 };
#endif

static inline __attribute__((always_inline)) void attn_micro(int rows, int vectors, int64_t k, struct left a, const float *b, int64_t ldb,
                                                             float *c, int64_t ldc, bool accumulate)
{
    vf sum[MM_ROWS][MM_VECTORS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sum[i][j] = accumulate ? vf_load(c + i * ldc + j * VW) : vf_zero();
    for (int64_t p = 0; p < k; p++) {
        vf right[MM_VECTORS];
        for (int j = 0; j < vectors; j++) right[j] = vf_load(b + p * ldb + j * VW);
        for (int i = 0; i < rows; i++) {
            vf x = vf_set(a.data[i * a.row + p * a.k]);
            for (int j = 0; j < vectors; j++) sum[i][j] = vf_fma(x, right[j], sum[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) vf_store(c + i * ldc + j * VW, sum[i][j]);
}

static inline __attribute__((always_inline)) void attn_column(int vectors, int64_t m, int64_t k, struct left a, const float *b, int64_t ldb,
                                                              float *c, int64_t ldc, bool accumulate)
{
    int64_t i = 0;
    for (; i + MM_ROWS <= m; i += MM_ROWS)
        attn_micro(MM_ROWS, vectors, k, (struct left){a.data + i * a.row, a.row, a.k}, b, ldb, c + i * ldc, ldc, accumulate);
    for (; i + 2 <= m; i += 2)
        attn_micro(2, vectors, k, (struct left){a.data + i * a.row, a.row, a.k}, b, ldb, c + i * ldc, ldc, accumulate);
    if (i < m) attn_micro(1, vectors, k, (struct left){a.data + i * a.row, a.row, a.k}, b, ldb, c + i * ldc, ldc, accumulate);
}

static void attn_mm(int64_t m, int64_t n, int64_t k, struct left a, struct rows b, float *c, int64_t ldc, bool accumulate)
{
    int64_t j = 0;
    for (; j + MM_VECTORS * VW <= n; j += MM_VECTORS * VW) attn_column(MM_VECTORS, m, k, a, b.data + j, b.ld, c + j, ldc, accumulate);
    for (; j + 2 * VW <= n; j += 2 * VW) attn_column(2, m, k, a, b.data + j, b.ld, c + j, ldc, accumulate);
    for (; j < n; j += VW) attn_column(1, m, k, a, b.data + j, b.ld, c + j, ldc, accumulate);
}

/* ---- which keys a query sees -------------------------------------------------------------------------------- */

/* Keys [lo, hi) of a block that query `i` sees; i counts from the block's first key. May be empty. */
struct span {
    int64_t lo, hi;
};

static inline struct span attn_span(int64_t i, int64_t keys, int64_t window)
{
    struct span s = {window && i - window + 1 > 0 ? i - window + 1 : 0, attn_min(i + 1, keys)};
    if (s.lo > s.hi) s.lo = s.hi;
    return s;
}

/* Rows handled together: a whole block, or slabs of it where the causal diagonal cuts off what need not be computed. */
static inline int64_t attn_slab(int64_t q0, int64_t queries, int64_t k0) { return k0 + ATTN_BLOCK > q0 + 1 ? ATTN_SLAB : queries; }

static inline vf attn_score(vf s, float scale, float cap) { return vf_soft_cap(s * vf_set(scale), cap); }

static inline vf attn_ramp(int64_t from) /* from, from + 1, … */
{
    static const float step[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vf_load(step) + vf_set((float)from);
}

/* ATTN_MASKED outside the span. */
static inline vf attn_mask(vf s, int64_t j, struct span seen)
{
    if (seen.lo <= j && j + VW <= seen.hi) return s;
    vf at = attn_ramp(j), masked = vf_set(ATTN_MASKED);
    s = vf_pick(vf_ge(at, vf_set((float)seen.lo)), s, masked);
    return vf_pick(vf_lt(at, vf_set((float)seen.hi)), s, masked);
}

/* The q block's first key block: the window hides the ones before it. */
static inline int64_t attn_first_key(int64_t q0, int64_t window)
{
    int64_t first = window ? attn_max(0, q0 - window + 1) : 0;
    return first / ATTN_BLOCK * ATTN_BLOCK;
}

#endif
