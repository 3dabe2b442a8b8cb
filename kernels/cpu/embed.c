#include "kernels/cpu/elem.h"

static vf scale_of(const struct embed_args *e) { return vf_set(e->scale != 0 ? e->scale : 1.0f); }

static void take_row(const void *arg, int64_t t)
{
    const struct embed_args *e = arg;
    int64_t width = e->y.dim[1];
    const void *from = row_of(&e->table, e->ids[t]);
    void *to = row_of(&e->y, t);
    vf scale = scale_of(e);
    for (int64_t c = 0; c < width; c += VW) vec_store(to, e->y.dt, c, width, vec_load(from, e->table.dt, c, width) * scale);
}

status CPU_FN(embed_fwd)(struct stream *s, const struct embed_args *e)
{
    team_for(elem_threads(s, e->n * e->y.dim[1]), e->n, take_row, e);
    return ST_OK;
}

static void add_columns(const void *arg, int64_t tile)
{
    const struct embed_args *e = arg;
    int64_t width = e->y.dim[1], c0 = tile * COLUMN_TILE, c1 = c0 + COLUMN_TILE < width ? c0 + COLUMN_TILE : width;
    vf scale = scale_of(e);
    for (int64_t t = 0; t < e->n; t++) {
        float *to = row_of(&e->table, e->ids[t]);
        const void *from = row_of(&e->y, t);
        for (int64_t c = c0; c < c1; c += VW)
            vec_store(to, DT_F32, c, c1, vf_fma(scale, vec_load(from, e->y.dt, c, c1), vec_load(to, DT_F32, c, c1)));
    }
}

/* Columns are shared out, so every element of the table adds its tokens in order whatever the threads. */
status CPU_FN(embed_bwd)(struct stream *s, const struct embed_args *e)
{
    int64_t width = e->y.dim[1];
    team_for(elem_threads(s, e->n * width), (width + COLUMN_TILE - 1) / COLUMN_TILE, add_columns, e);
    return ST_OK;
}
