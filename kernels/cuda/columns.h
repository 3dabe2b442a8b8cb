/* columns.h — out[c] += Σ_rows of term(row, c), in an order that follows from the shape alone: rows are cut into groups, each group has
 * a partial sum per column in the workspace, and partial sums are added in the order of groups.
 *
 *                 columns ──▶
 *     group 0     |block|block|…     a thread of a block has a pack of columns and every y'th row of the group; those sums are
 *     group 1     |block|block|…     added in order of y. Then column_finish adds over groups. */
#ifndef TRIMPOT_CUDA_COLUMNS_H
#define TRIMPOT_CUDA_COLUMNS_H

#include "kernels/cuda/pack.h"

constexpr int COLUMN_GROUPS = 512; /* at most */

/* out[c] += Σ_g partial[g·ld + c], c < cols. colsum.cu */
status column_finish(struct stream *s, const float *partial, int64_t groups, int64_t ld, int64_t cols, float *out);

struct column_cut {
    int64_t rows, cols, groups, rows_each, ld; /* ld: of the partial sums */
    dim3 grid, block;
};

/* About 1024 blocks, and no group with less than four rows per thread but the last. */
static inline struct column_cut column_cut_of(int64_t rows, int64_t cols, int lanes)
{
    struct column_cut k = {rows, cols, 0, 0, 0, dim3(1), dim3(1)};
    int64_t packs = ceil_div(cols, lanes);
    int x = threads_for(packs, WARP), y = SHEET_THREADS / x;
    int64_t across = ceil_div(packs, x), groups = ceil_div(1024, across);
    if (groups > COLUMN_GROUPS) groups = COLUMN_GROUPS;
    k.rows_each = ceil_div(ceil_div(rows, groups), 4 * y) * 4 * y;
    k.groups = ceil_div(rows, k.rows_each);
    k.ld = across * x * lanes;
    k.block = dim3((unsigned)x, (unsigned)y);
    k.grid = dim3((unsigned)across, (unsigned)k.groups);
    return k;
}

/* TERM: int N, a pack; int AHEAD, rows in flight at a time; fetch(row, col, left), `fetched`, what a pack is made of; term(fetched, i), its element i. */
template <class TERM>
static __global__ void __launch_bounds__(SHEET_THREADS, 4) column_partials(struct column_cut k, TERM term, float *partial)
{
    constexpr int N = TERM::N, AHEAD = TERM::AHEAD;
    __shared__ float sums[SHEET_THREADS * N];
    int x = (int)threadIdx.x, y = (int)threadIdx.y, across = (int)blockDim.x, deep = (int)blockDim.y;
    int64_t col = ((int64_t)blockIdx.x * across + x) * N, first = (int64_t)blockIdx.y * k.rows_each;
    int64_t end = first + k.rows_each < k.rows ? first + k.rows_each : k.rows;
    int left = (int)(k.cols - col < N ? k.cols - col : N);
    float sum[N] = {};
    for (int64_t r = first + y; left > 0 && r < end; r += AHEAD * deep) {
        typename TERM::fetched x[AHEAD];
        int n = (int)(r + (AHEAD - 1) * deep < end ? AHEAD : (end - r + deep - 1) / deep);
        for (int a = 0; a < AHEAD; a++)
            if (a < n) x[a] = term.fetch(r + a * deep, col, left);
        for (int a = 0; a < AHEAD; a++)
            for (int i = 0; i < N; i++)
                if (a < n) sum[i] += term.term(x[a], i);
    }
    for (int i = 0; i < N; i++) sums[(y * across + x) * N + i] = sum[i];
    __syncthreads();
    for (int c = y * across + x; c < across * N; c += SHEET_THREADS) {
        float total = 0;
        for (int j = 0; j < deep; j++) total += sums[j * across * N + c];
        partial[blockIdx.y * k.ld + (int64_t)blockIdx.x * across * N + c] = total;
    }
}

/* Bytes of the partial sums of up to `cols` columns, whatever the rows: groups · across is below 1024 + across. */
static inline size_t column_workspace(int64_t cols)
{
    int64_t block = WARP * LANES<bf16>;
    return (size_t)(1024 * block + cols + block) * sizeof(float);
}

#endif
