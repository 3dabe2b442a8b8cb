#include "kernels/cpu/elem.h"

static void sum_block(const void *arg, int64_t b)
{
    const struct sumsq_args *q = arg;
    const void *x = (const char *)q->x.data + (size_t)b * NORM_BLOCK * dtype_bytes(q->x.dt);
    int64_t left = tensor_count(&q->x) - b * NORM_BLOCK, count = left < NORM_BLOCK ? left : NORM_BLOCK;
    lanes squares = {0};
    FOR_LANES(i, p, count) {
        vf v = vec_load(x, q->x.dt, i, count);
        squares.part[p] = vf_fma(v, v, squares.part[p]);
    }
    ((float *)q->partial.data)[b] = lanes_total(squares);
}

status CPU_FN(sumsq)(struct stream *s, const struct sumsq_args *q)
{
    int64_t n = tensor_count(&q->x);
    team_for(elem_threads(s, n), (n + NORM_BLOCK - 1) / NORM_BLOCK, sum_block, q);
    return ST_OK;
}
