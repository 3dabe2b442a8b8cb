#include <math.h>

#include "kernels/cpu/elem.h"
#include "kernels/formulas.h"

static inline vf weight(const tensor *w, bool unit_offset, int64_t c, int64_t width)
{
    vf x = vec_load(w->data, w->dt, c, width);
    if (unit_offset) x += vf_set(1.0f);
    return x;
}

static void forward_row(const void *arg, int64_t row)
{
    const struct rmsnorm_fwd_args *r = arg;
    int64_t width = r->x.dim[1];
    dtype dt = r->x.dt;
    const void *x = row_of(&r->x, row), *delta = row_of(&r->delta, row);
    lanes squares = {0};
    if (delta) {
        void *sum = row_of(&r->sum, row);
        FOR_LANES(c, p, width)
        {
            vf v = vec_load(x, dt, c, width) + vec_load(delta, dt, c, width);
            vec_store(sum, dt, c, width, v);
            v = vec_rounded(dt, v);
            squares.part[p] = vf_fma(v, v, squares.part[p]);
        }
        x = sum;
    } else {
        FOR_LANES(c, p, width)
        {
            vf v = vec_load(x, dt, c, width);
            squares.part[p] = vf_fma(v, v, squares.part[p]);
        }
    }
    float rstd = 1.0f / sqrtf(lanes_total(squares) / (float)width + r->eps);
    ((float *)r->rstd.data)[row] = rstd;
    void *y = row_of(&r->y, row);
    for (int64_t c = 0; c < width; c += VW)
        vec_store(y, dt, c, width, vec_load(x, dt, c, width) * vf_set(rstd) * weight(&r->w, r->unit_offset, c, width));
}

status CPU_FN(rmsnorm_fwd)(struct stream *s, const struct rmsnorm_fwd_args *r)
{
    int64_t rows = r->x.dim[0];
    team_for(elem_threads(s, rows * r->x.dim[1]), rows, forward_row, r);
    return ST_OK;
}

static void backward_row(const void *arg, int64_t row)
{
    const struct rmsnorm_bwd_args *r = arg;
    int64_t width = r->x.dim[1];
    dtype dt = r->x.dt;
    const void *x = row_of(&r->x, row), *dy = row_of(&r->dy, row), *residual = row_of(&r->residual, row);
    void *dx = row_of(&r->dx, row);
    float rstd = ((const float *)r->rstd.data)[row];
    lanes dot = {0};
    FOR_LANES(c, p, width)
    {
        vf g = vec_load(dy, dt, c, width) * weight(&r->w, r->unit_offset, c, width);
        dot.part[p] = vf_fma(g, vec_load(x, dt, c, width) * vf_set(rstd), dot.part[p]);
    }
    float mean = lanes_total(dot) / (float)width;
    for (int64_t c = 0; c < width; c += VW) {
        vf g = vec_load(dy, dt, c, width) * weight(&r->w, r->unit_offset, c, width);
        vf d = formula_rmsnorm_dx(g, vec_load(x, dt, c, width) * vf_set(rstd), rstd, mean);
        if (residual) d += vec_load(residual, dt, c, width);
        vec_store(dx, dt, c, width, d);
    }
}

static vf weight_gradient(const void *ctx, int64_t row, int64_t c, int64_t width)
{
    const struct rmsnorm_bwd_args *r = ctx;
    float rstd = ((const float *)r->rstd.data)[row];
    return vec_load(row_of(&r->dy, row), r->dy.dt, c, width) * (vec_load(row_of(&r->x, row), r->x.dt, c, width) * vf_set(rstd));
}

status CPU_FN(rmsnorm_bwd)(struct stream *s, const struct rmsnorm_bwd_args *r)
{
    int64_t rows = r->x.dim[0];
    int threads = elem_threads(s, rows * r->x.dim[1]);
    if (r->dw.data) column_sums(threads, rows, r->x.dim[1], r->dw.data, r, weight_gradient); /* dx may be dy: first */
    team_for(threads, rows, backward_row, r);
    return ST_OK;
}
