#include "kernels/cpu/elem.h"

status CPU_FN(sumsq)(struct stream *s, const struct sumsq_args *q)
{
    int64_t n = tensor_count(&q->x), blocks = (n + NORM_BLOCK - 1) / NORM_BLOCK;
    float *partial = q->partial.data;
#pragma omp parallel for num_threads(elem_threads(s, n)) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const void *x = (const char *)q->x.data + (size_t)b * NORM_BLOCK * dtype_bytes(q->x.dt);
        int64_t count = n - b * NORM_BLOCK < NORM_BLOCK ? n - b * NORM_BLOCK : NORM_BLOCK;
        lanes squares = {0};
        FOR_LANES(i, p, count) {
            vf v = vec_load(x, q->x.dt, i, count);
            squares.part[p] = vf_fma(v, v, squares.part[p]);
        }
        partial[b] = lanes_total(squares);
    }
    return ST_OK;
}
