#include "kernels/cpu/elem.h"

static vf element(const void *ctx, int64_t row, int64_t c, int64_t width)
{
    const tensor *x = ctx;
    return vec_load(row_of(x, row), x->dt, c, width);
}

status CPU_FN(colsum)(struct stream *s, const struct colsum_args *c)
{
    int64_t rows = c->x.dim[0], width = c->x.dim[1];
    column_sums(elem_threads(s, rows * width), rows, width, c->out.data, &c->x, element);
    return ST_OK;
}
