/* gemm_plain.cu — the whole contract of op_gemm in one kernel of fused multiply-adds, for what cuBLASLt does not take: mixed pairs,
 * views without any alignment, products of no depth, and the last pass over a sum that is f32 (gemm.c).
 *
 *        B  K │ 64 columns │    A block has 64 × 64 elements of C, a thread 4 × 4 of them in registers. Both operands pass
 *             ├────────────┤    through shared memory 16 deep, widened to f32. Every element is one chain of fma over k
 *    A  K     │            │    ascending: the bits depend on neither the grid nor the strides.
 *    ──┬──────┼────────────┤
 *   64 │      │ C          │    Reads A N/64 times, B M/64 times, C and sum once; bounded by fma, not by memory, from a
 *    ──┴──────┴────────────┘    depth of about 32 on. */
#include "kernels/cuda/cuda.h"

extern "C" {
#include "kernels/cuda/gemm.h"
}

enum { TILE = 64, DEPTH = 16, THREADS = 256, EACH = 4, SIDE = TILE / EACH, ROOM = TILE + 4 };

/* Element (i, k) lies at data[i·outer + k·inner]. */
struct operand {
    const void *data;
    int64_t outer, inner;
    bool wide; /* f32, else bf16 */
};

struct job {
    operand a, b, a2, b2;
    int64_t m, n, k, k2;
    const float *sum;
    int64_t sum_ld;
    const void *bias;
    bool bias_wide, keep, vectors; /* keep: beta = 1; vectors: EACH elements of C and of sum lie aligned */
    float alpha;
};

static __device__ inline float element(const operand &o, int64_t i, int64_t k)
{
    int64_t at = i * o.outer + k * o.inner;
    return o.wide ? ((const float *)o.data)[at] : bf16_widen(((const bf16 *)o.data)[at]);
}

/* room[k][i] = o(i0 + i, k0 + k), zero outside. Neighbouring threads read neighbours in memory. */
static __device__ inline void load(float (*room)[ROOM], const operand &o, int64_t i0, int64_t k0, int64_t outer, int64_t depth)
{
    for (int e = threadIdx.x; e < TILE * DEPTH; e += THREADS) {
        int i = o.inner == 1 ? e / DEPTH : e % TILE, k = o.inner == 1 ? e % DEPTH : e / TILE;
        room[k][i] = i0 + i < outer && k0 + k < depth ? element(o, i0 + i, k0 + k) : 0.0f;
    }
}

static __device__ inline void multiply(float (*acc)[EACH], float (*left)[ROOM], float (*right)[ROOM], const operand &a, const operand &b,
                                       const job &j, int64_t m0, int64_t n0, int64_t depth)
{
    int row = threadIdx.x / SIDE * EACH, col = threadIdx.x % SIDE * EACH;
    for (int64_t k0 = 0; k0 < depth; k0 += DEPTH) {
        load(left, a, m0, k0, j.m, depth);
        load(right, b, n0, k0, j.n, depth);
        __syncthreads();
        for (int k = 0; k < DEPTH; k++)
            for (int r = 0; r < EACH; r++)
                for (int c = 0; c < EACH; c++) acc[r][c] = fmaf(left[k][row + r], right[k][col + c], acc[r][c]);
        __syncthreads();
    }
}

/* EACH neighbours of a row, moved at once. */
template <class T> struct alignas(EACH * sizeof(T)) few {
    T x[EACH];
};

/* C[m, n …] of which the products gave acc. `some`: only so many of the EACH are there, or they are not aligned. */
template <class T> static __device__ inline void finish(const job &j, T *c, const float *acc, int64_t m, int64_t n, int some)
{
    const float *sum = j.sum ? j.sum + m * j.sum_ld + n : NULL;
    few<float> add = {};
    few<T> old = {};
    if (some) {
        for (int q = 0; q < EACH; q++)
            if (q < some) {
                if (sum) add.x[q] = sum[q];
                if (j.keep) old.x[q] = c[q];
            }
    } else {
        if (sum) add = *(const few<float> *)sum;
        if (j.keep) old = *(few<T> *)c;
    }
    for (int q = 0; q < EACH; q++) {
        float x = acc[q] + add.x[q];
        if (j.bias && (!some || q < some)) x += j.bias_wide ? ((const float *)j.bias)[n + q] : bf16_widen(((const bf16 *)j.bias)[n + q]);
        old.x[q] = narrow<T>(x + widen(old.x[q]));
    }
    if (some) {
        for (int q = 0; q < EACH; q++)
            if (q < some) c[q] = old.x[q];
    } else {
        *(few<T> *)c = old;
    }
}

template <class T> static __global__ void __launch_bounds__(THREADS, 2) gemm_tile(job j, T *c, int64_t ld)
{
    __shared__ float left[DEPTH][ROOM], right[DEPTH][ROOM];
    int64_t across = (j.n + TILE - 1) / TILE, m0 = blockIdx.x / across * TILE, n0 = blockIdx.x % across * TILE;
    int64_t m = m0 + threadIdx.x / SIDE * EACH, n = n0 + threadIdx.x % SIDE * EACH;
    float acc[EACH][EACH] = {};
    multiply(acc, left, right, j.a, j.b, j, m0, n0, j.k);
    for (int r = 0; r < EACH; r++)
        for (int q = 0; q < EACH; q++) acc[r][q] *= j.alpha;
    multiply(acc, left, right, j.a2, j.b2, j, m0, n0, j.k2);
    int some = n + EACH > j.n ? (int)(j.n - n) : j.vectors ? 0 : EACH;
    if (n >= j.n) return;
    for (int r = 0; r < EACH; r++)
        if (m + r < j.m) finish(j, c + (m + r) * ld + n, acc[r], m + r, n, some);
}

/* op(t) by (outer, k): rows of memory are the outer dimension, or the depth when `across`. */
static operand operand_of(const tensor *t, bool across)
{
    operand o = {t->data, across ? 1 : t->ld, across ? t->ld : 1, t->dt == DT_F32};
    return o;
}

extern "C" status gemm_plain(struct stream *s, const struct gemm_args *g, const float *sum, int64_t sum_ld)
{
    job j = {};
    j.m = g->c.dim[0], j.n = g->c.dim[1];
    j.a = operand_of(&g->a, g->ta), j.b = operand_of(&g->b, !g->tb);
    j.a2 = operand_of(&g->a2, false), j.b2 = operand_of(&g->b2, !g->tb);
    j.k = g->a.data ? g->a.dim[g->ta ? 0 : 1] : 0;
    j.k2 = g->a2.data ? g->a2.dim[1] : 0;
    j.sum = sum, j.sum_ld = sum_ld;
    j.bias = g->bias.data, j.bias_wide = g->bias.dt == DT_F32;
    j.keep = g->beta != 0;
    j.alpha = g->alpha;
    size_t few_bytes = EACH * dtype_bytes(g->c.dt);
    j.vectors =
        (uintptr_t)g->c.data % few_bytes == 0 && g->c.ld % EACH == 0 && (uintptr_t)sum % (EACH * sizeof *sum) == 0 && sum_ld % EACH == 0;
    int64_t blocks = (j.m + TILE - 1) / TILE * ((j.n + TILE - 1) / TILE);
    if (!blocks) return ST_OK;
    WITH_TYPE(g->c.dt, T, { TRY(LAUNCH(gemm_tile<T>, (unsigned)blocks, THREADS, 0, s, j, (T *)g->c.data, g->c.ld)); });
    return ST_OK;
}
