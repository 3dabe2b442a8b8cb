#include "kernels/cpu/elem.h"
#include "kernels/formulas.h"

static vf ratio(const tensor *to, const tensor *from, int64_t c, int64_t width)
{
    return formula_ratio(vec_load(to->data, DT_F32, c, width), vec_load(from->data, DT_F32, c, width));
}

static void forward_row(const void *arg, int64_t row)
{
    const struct rescale_fwd_args *r = arg;
    int64_t width = r->u.dim[1];
    dtype dt = r->u.dt;
    const void *u = row_of(&r->u, row);
    void *y = row_of(&r->y, row);
    vf of_row = vf_zero();
    if (r->by_row) of_row = formula_ratio(vf_set(((const float *)r->to.data)[row]), vf_set(((const float *)r->from.data)[row]));
    for (int64_t c = 0; c < width; c += VW) {
        vf add = vf_zero(), by = r->by_row ? of_row : ratio(&r->to, &r->from, c, width);
        if (r->accumulate) add = vec_load(y, dt, c, width);
        if (r->bias.data) add = vec_load(r->bias.data, r->bias.dt, c, width);
        vec_store(y, dt, c, width, formula_rescale(vec_load(u, dt, c, width), add, by, r->accumulate));
    }
}

status CPU_FN(rescale_fwd)(struct stream *s, const struct rescale_fwd_args *r)
{
    int64_t rows = r->u.dim[0];
    team_for(elem_threads(s, rows * r->u.dim[1]), rows, forward_row, r);
    return ST_OK;
}

/* Of `to`; writes du on its way, which may lie over what was read. */
static vf gradient(const void *ctx, int64_t row, int64_t c, int64_t width)
{
    const struct rescale_bwd_args *r = ctx;
    dtype dt = r->dy.dt;
    vf dy = vec_load(row_of(&r->dy, row), dt, c, width), u = vec_load(row_of(&r->u, row), dt, c, width);
    vec_store(row_of(&r->du, row), dt, c, width, formula_rescale_du(dy, ratio(&r->to, &r->from, c, width), r->accumulate));
    return formula_ratio(dy * u, vec_load(r->from.data, DT_F32, c, width));
}

status CPU_FN(rescale_bwd)(struct stream *s, const struct rescale_bwd_args *r)
{
    int64_t rows = r->u.dim[0], width = r->u.dim[1];
    column_sums(elem_threads(s, rows * width), rows, width, r->d_to.data, r, gradient);
    return ST_OK;
}
