#include <string.h>

#include "kernels/cpu/elem.h"

static size_t row_bytes(const struct rows_args *r) { return (size_t)r->src.dim[1] * dtype_bytes(r->src.dt); }

static void gather_row(const void *arg, int64_t i)
{
    const struct rows_args *r = arg;
    memcpy(row_of(&r->dst, i), row_of(&r->src, r->rows[i]), row_bytes(r));
}

static void scatter_row(const void *arg, int64_t i)
{
    const struct rows_args *r = arg;
    memcpy(row_of(&r->dst, r->rows[i]), row_of(&r->src, i), row_bytes(r));
}

status CPU_FN(gather_rows)(struct stream *s, const struct rows_args *r)
{
    team_for(elem_threads(s, r->n * r->src.dim[1]), r->n, gather_row, r);
    return ST_OK;
}

status CPU_FN(scatter_rows)(struct stream *s, const struct rows_args *r)
{
    team_for(elem_threads(s, r->n * r->src.dim[1]), r->n, scatter_row, r);
    return ST_OK;
}
