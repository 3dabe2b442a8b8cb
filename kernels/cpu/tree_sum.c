#include "kernels/cpu/elem.h"

enum { BLOCK = 512 }; /* elements summed at a time: the open sums stay in the first-level cache */

/* to may be a. */
static void add(float *to, const float *a, const float *b, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = a[i] + b[i];
}

static const float *vector(const struct tree_sum_args *t, int64_t k)
{
    if (k >= t->first && k < t->first + t->n_mine) return t->mine[k - t->first].data;
    return (const float *)t->rows.data + k * t->rows.ld;
}

/* `out` is written by the last addition only, when every vector has been read: it may be one of them. */
static void sum_block(const struct tree_sum_args *t, int64_t at, int64_t n, float *out)
{
    float partial[TREE_SUM_OPEN][BLOCK];
    const float *top[TREE_SUM_OPEN];
    int64_t count = t->rows.dim[0];
    int depth = 0;
    for (int64_t k = 0; k < count; k++) {
        top[depth++] = vector(t, k) + at;
        for (int m = t->merges[k]; m > 0; m--, depth--) {
            float *to = k == count - 1 && m == 1 ? out : partial[depth - 2];
            add(to, top[depth - 2], top[depth - 1], n);
            top[depth - 2] = to;
        }
    }
    if (top[0] != out) memcpy(out, top[0], (size_t)n * sizeof *out);
}

static void sum_part(const void *arg, int64_t i)
{
    const struct tree_sum_args *t = arg;
    int64_t at = i * BLOCK, left = t->out.dim[0] - at;
    sum_block(t, at, left < BLOCK ? left : BLOCK, (float *)t->out.data + at);
}

status CPU_FN(tree_sum)(struct stream *s, const struct tree_sum_args *t)
{
    int64_t n = t->out.dim[0];
    team_for(elem_threads(s, n), (n + BLOCK - 1) / BLOCK, sum_part, t);
    return ST_OK;
}
