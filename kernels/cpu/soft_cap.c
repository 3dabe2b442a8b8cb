#include "kernels/cpu/elem.h"

status CPU_FN(soft_cap)(struct stream *s, const struct soft_cap_args *c)
{
    int64_t rows = c->z.dim[0], width = c->z.dim[1];
    dtype dt = c->z.dt;
#pragma omp parallel for num_threads(elem_threads(s, rows * width)) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        void *z = row_of(&c->z, row);
        for (int64_t i = 0; i < width; i += VW) vec_store(z, dt, i, width, vf_soft_cap(vec_load(z, dt, i, width), c->cap));
    }
    return ST_OK;
}
