#include "kernels/cpu/elem.h"

static void cap_row(const void *arg, int64_t row)
{
    const struct soft_cap_args *c = arg;
    int64_t width = c->z.dim[1];
    dtype dt = c->z.dt;
    void *z = row_of(&c->z, row);
    for (int64_t i = 0; i < width; i += VW) vec_store(z, dt, i, width, vf_soft_cap(vec_load(z, dt, i, width), c->cap));
}

status CPU_FN(soft_cap)(struct stream *s, const struct soft_cap_args *c)
{
    int64_t rows = c->z.dim[0];
    team_for(elem_threads(s, rows * c->z.dim[1]), rows, cap_row, c);
    return ST_OK;
}
