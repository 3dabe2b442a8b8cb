#include <math.h>

#include "kernels/cpu/elem.h"

static void dot_row(const void *arg, int64_t row)
{
    const struct row_dot_args *r = arg;
    int64_t width = r->x.dim[1];
    const void *x = row_of(&r->x, row), *y = row_of(&r->y, row);
    lanes sums = {0};
    FOR_LANES(c, p, width) { sums.part[p] = vf_fma(vec_load(x, r->x.dt, c, width), vec_load(y, r->y.dt, c, width), sums.part[p]); }
    float sum = lanes_total(sums);
    if (r->add.data) sum += ((const float *)r->add.data)[row];
    ((float *)r->out.data)[row] = !r->root ? sum : sum < 0 ? 0 : sqrtf(sum);
}

status CPU_FN(row_dot)(struct stream *s, const struct row_dot_args *r)
{
    int64_t rows = r->x.dim[0];
    team_for(elem_threads(s, rows * r->x.dim[1]), rows, dot_row, r);
    return ST_OK;
}
