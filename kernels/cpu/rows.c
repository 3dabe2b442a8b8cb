#include <string.h>

#include "kernels/cpu/elem.h"

status CPU_FN(gather_rows)(struct stream *s, const struct rows_args *r)
{
    size_t bytes = (size_t)r->src.dim[1] * dtype_bytes(r->src.dt);
#pragma omp parallel for num_threads(elem_threads(s, r->n * r->src.dim[1])) schedule(static)
    for (int64_t i = 0; i < r->n; i++) memcpy(row_of(&r->dst, i), row_of(&r->src, r->rows[i]), bytes);
    return ST_OK;
}

status CPU_FN(scatter_rows)(struct stream *s, const struct rows_args *r)
{
    size_t bytes = (size_t)r->src.dim[1] * dtype_bytes(r->src.dt);
#pragma omp parallel for num_threads(elem_threads(s, r->n * r->src.dim[1])) schedule(static)
    for (int64_t i = 0; i < r->n; i++) memcpy(row_of(&r->dst, r->rows[i]), row_of(&r->src, i), bytes);
    return ST_OK;
}
