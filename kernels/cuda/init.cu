/* init.cu — moves sizeof(w) bytes per element, once in a run. A thread has the four elements of one block of random numbers. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 256 };

template <class T> static __global__ void init(T *w, int64_t n, float bound, bool normal, uint64_t key, int64_t flat0)
{
    int64_t block = flat0 / 4 + blockIdx.x * (int64_t)THREADS + threadIdx.x, first = 4 * block - flat0;
    philox4 r = philox(key, (uint64_t)block, 0);
    float x[4];
    if (normal)
        formula_normal(r.v[0], r.v[1], x), formula_normal(r.v[2], r.v[3], x + 2);
    else
        for (int j = 0; j < 4; j++) x[j] = formula_uniform(r.v[j]);
    for (int j = 0; j < 4; j++)
        if (first + j >= 0 && first + j < n) w[first + j] = narrow<T>(x[j] * bound);
}

status init_cuda(struct stream *s, const struct init_args *a)
{
    int64_t n = tensor_count(&a->w), blocks = (a->flat0 + n + 3) / 4 - a->flat0 / 4;
    if (!n) return ST_OK;
    WITH_TYPE(a->w.dt, T, {
        TRY(LAUNCH(init<T>, (unsigned)((blocks + THREADS - 1) / THREADS), THREADS, 0, s, (T *)a->w.data, n, a->bound, a->normal, a->key,
                   a->flat0));
    });
    return ST_OK;
}
