/* soft_cap.cu — moves 2·sizeof(act) bytes per element. */
#include "kernels/cuda/cuda.h"

template <class T> static __global__ void soft_cap(T *z, int64_t ld, int64_t cols, float cap)
{
    T *row = z + blockIdx.x * ld;
    for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) row[c] = narrow<T>(vf_soft_cap(widen(row[c]), cap));
}

status soft_cap_cuda(struct stream *s, const struct soft_cap_args *a)
{
    WITH_TYPE(a->z.dt, T, { TRY(LAUNCH(soft_cap<T>, (unsigned)a->z.dim[0], 256, 0, s, (T *)a->z.data, a->z.ld, a->z.dim[1], a->cap)); });
    return ST_OK;
}
