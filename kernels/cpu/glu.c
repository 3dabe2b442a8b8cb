#include "kernels/cpu/elem.h"
#include "kernels/formulas.h"

static void forward_row(const void *arg, int64_t row)
{
    const struct glu_fwd_args *g = arg;
    int64_t width = g->gate.dim[1];
    dtype dt = g->gate.dt;
    const void *gate = row_of(&g->gate, row), *up = row_of(&g->up, row);
    void *h = row_of(&g->h, row);
    for (int64_t c = 0; c < width; c += VW)
        vec_store(h, dt, c, width, formula_gate(vec_load(gate, dt, c, width), g->kind).value * vec_load(up, dt, c, width));
}

status CPU_FN(glu_fwd)(struct stream *s, const struct glu_fwd_args *g)
{
    int64_t rows = g->gate.dim[0];
    team_for(elem_threads(s, rows * g->gate.dim[1]), rows, forward_row, g);
    return ST_OK;
}

static void backward_row(const void *arg, int64_t row)
{
    const struct glu_bwd_args *g = arg;
    int64_t width = g->gate.dim[1];
    dtype dt = g->gate.dt;
    const void *gate = row_of(&g->gate, row), *up = row_of(&g->up, row), *dh = row_of(&g->dh, row);
    void *dgate = row_of(&g->dgate, row), *dup = row_of(&g->dup, row);
    for (int64_t c = 0; c < width; c += VW) {
        glu_gate a = formula_gate(vec_load(gate, dt, c, width), g->kind);
        vf d = vec_load(dh, dt, c, width), u = vec_load(up, dt, c, width);
        vec_store(dup, dt, c, width, d * a.value);
        vec_store(dgate, dt, c, width, d * u * a.slope);
    }
}

status CPU_FN(glu_bwd)(struct stream *s, const struct glu_bwd_args *g)
{
    int64_t rows = g->gate.dim[0];
    team_for(elem_threads(s, rows * g->gate.dim[1]), rows, backward_row, g);
    return ST_OK;
}
