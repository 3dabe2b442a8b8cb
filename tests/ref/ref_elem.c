/* Reference: embedding, norm, rotation, gate, rows, dropout, sums. */
#include <math.h>
#include <string.h>

#include "tests/ref/ref.h"

status embed_fwd_ref(struct stream *s, const struct embed_args *e)
{
    (void)s;
    struct mat table = mat_load(&e->table), y = mat_zero(e->n, e->y.dim[1]);
    for (int64_t t = 0; t < y.rows; t++)
        for (int64_t c = 0; c < y.cols; c++) AT(y, t, c) = AT(table, e->ids[t], c) * (e->scale != 0 ? (double)e->scale : 1);
    mat_store(&e->y, y);
    mat_free(table), mat_free(y);
    return ST_OK;
}

status embed_bwd_ref(struct stream *s, const struct embed_args *e)
{
    (void)s;
    struct mat table = mat_load(&e->table), y = mat_load(&e->y);
    for (int64_t t = 0; t < e->n; t++)
        for (int64_t c = 0; c < y.cols; c++) AT(table, e->ids[t], c) += AT(y, t, c) * (e->scale != 0 ? (double)e->scale : 1);
    mat_store(&e->table, table);
    mat_free(table), mat_free(y);
    return ST_OK;
}

status rmsnorm_fwd_ref(struct stream *s, const struct rmsnorm_fwd_args *r)
{
    (void)s;
    struct mat x = mat_load(&r->x), delta = mat_load(&r->delta), w = mat_load(&r->w);
    struct mat y = mat_zero(x.rows, x.cols), rstd = mat_zero(1, x.rows);
    if (delta.v) {
        for (int64_t i = 0; i < x.rows * x.cols; i++) x.v[i] = ref_round(r->sum.dt, x.v[i] + delta.v[i]);
        mat_store(&r->sum, x);
    }
    for (int64_t t = 0; t < x.rows; t++) {
        double squares = 0;
        for (int64_t c = 0; c < x.cols; c++) squares += AT(x, t, c) * AT(x, t, c);
        AT(rstd, 0, t) = 1 / sqrt(squares / (double)x.cols + (double)r->eps);
        for (int64_t c = 0; c < x.cols; c++) AT(y, t, c) = AT(x, t, c) * AT(rstd, 0, t) * (w.v[c] + r->unit_offset);
    }
    mat_store(&r->y, y);
    mat_store(&r->rstd, rstd);
    mat_free(x), mat_free(delta), mat_free(w), mat_free(y), mat_free(rstd);
    return ST_OK;
}

status rmsnorm_bwd_ref(struct stream *s, const struct rmsnorm_bwd_args *r)
{
    (void)s;
    struct mat x = mat_load(&r->x), dy = mat_load(&r->dy), w = mat_load(&r->w), rstd = mat_load(&r->rstd);
    struct mat residual = mat_load(&r->residual), dw = mat_load(&r->dw), dx = mat_zero(x.rows, x.cols);
    for (int64_t t = 0; t < x.rows; t++) {
        double inverse = AT(rstd, 0, t), dot = 0;
        for (int64_t c = 0; c < x.cols; c++) dot += AT(dy, t, c) * (w.v[c] + r->unit_offset) * AT(x, t, c) * inverse;
        for (int64_t c = 0; c < x.cols; c++) {
            double xhat = AT(x, t, c) * inverse, g = AT(dy, t, c) * (w.v[c] + r->unit_offset);
            AT(dx, t, c) = inverse * (g - xhat * dot / (double)x.cols) + (residual.v ? AT(residual, t, c) : 0);
            if (dw.v) dw.v[c] += AT(dy, t, c) * xhat;
        }
    }
    mat_store(&r->dx, dx);
    if (dw.v) mat_store(&r->dw, dw);
    mat_free(x), mat_free(dy), mat_free(w), mat_free(rstd), mat_free(residual), mat_free(dw), mat_free(dx);
    return ST_OK;
}

static void rotate(const struct rope_args *r, const tensor *t, int64_t heads)
{
    struct mat x = mat_load(t), cosines = mat_load(&r->cos), sines = mat_load(&r->sin);
    for (int64_t row = 0; row < x.rows; row++) {
        int64_t position = r->rows.position[row];
        for (int64_t h = 0; h < heads; h++)
            for (int64_t j = 0; j < cosines.cols; j++) {
                int64_t lower = h * r->head_dim + j, upper = lower + cosines.cols;
                double a = AT(x, row, lower), b = AT(x, row, upper);
                double c = AT(cosines, position, j), sn = AT(sines, position, j) * (r->inverse ? -1 : 1);
                AT(x, row, lower) = a * c - b * sn;
                AT(x, row, upper) = b * c + a * sn;
            }
    }
    mat_store(t, x);
    mat_free(x), mat_free(cosines), mat_free(sines);
}

status rope_ref(struct stream *s, const struct rope_args *r)
{
    (void)s;
    rotate(r, &r->q, r->heads);
    if (r->k.data) rotate(r, &r->k, r->kv_heads);
    return ST_OK;
}

/* act(a) and act'(a), as the papers write them. */
static double activation(enum act_kind kind, double a, double *slope)
{
    if (kind == ACT_SILU) {
        double sigma = 1 / (1 + exp(-a));
        *slope = sigma * (1 + a * (1 - sigma));
        return a * sigma;
    }
    double k = sqrt(2 / 3.14159265358979323846), t = tanh(k * (a + 0.044715 * a * a * a));
    *slope = 0.5 * (1 + t) + 0.5 * a * (1 - t * t) * k * (1 + 3 * 0.044715 * a * a);
    return 0.5 * a * (1 + t);
}

status glu_fwd_ref(struct stream *s, const struct glu_fwd_args *g)
{
    (void)s;
    struct mat gate = mat_load(&g->gate), up = mat_load(&g->up), h = mat_zero(gate.rows, gate.cols);
    double slope;
    for (int64_t i = 0; i < h.rows * h.cols; i++) h.v[i] = activation(g->kind, gate.v[i], &slope) * up.v[i];
    mat_store(&g->h, h);
    mat_free(gate), mat_free(up), mat_free(h);
    return ST_OK;
}

status glu_bwd_ref(struct stream *s, const struct glu_bwd_args *g)
{
    (void)s;
    struct mat gate = mat_load(&g->gate), up = mat_load(&g->up), dh = mat_load(&g->dh);
    for (int64_t i = 0; i < dh.rows * dh.cols; i++) {
        double slope, value = activation(g->kind, gate.v[i], &slope);
        gate.v[i] = dh.v[i] * up.v[i] * slope;
        up.v[i] = dh.v[i] * value;
    }
    mat_store(&g->dgate, gate);
    mat_store(&g->dup, up);
    mat_free(gate), mat_free(up), mat_free(dh);
    return ST_OK;
}

static status move_rows(const struct rows_args *r, bool scatter)
{
    struct mat src = mat_load(&r->src), dst = mat_load(&r->dst);
    for (int64_t i = 0; i < r->n; i++)
        for (int64_t c = 0; c < src.cols; c++) AT(dst, scatter ? r->rows[i] : i, c) = AT(src, scatter ? i : r->rows[i], c);
    mat_store(&r->dst, dst);
    mat_free(src), mat_free(dst);
    return ST_OK;
}

status gather_rows_ref(struct stream *s, const struct rows_args *r)
{
    (void)s;
    return move_rows(r, false);
}

status scatter_rows_ref(struct stream *s, const struct rows_args *r)
{
    (void)s;
    return move_rows(r, true);
}

/* The key of a step (numerics.md §11): SplitMix64 of its base and number. plan[0] is the number. */
static uint64_t key_of(const struct dropout_args *d)
{
    uint64_t z = (d->base ^ (uint32_t)((const double *)d->plan.data)[0]) + 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

status dropout_ref(struct stream *s, const struct dropout_args *d)
{
    (void)s;
    struct mat x = mat_load(&d->x), y = mat_load(&d->y);
    uint64_t threshold = (uint64_t)floor((double)d->p * 4294967296.0);
    for (int64_t t = 0; t < x.rows; t++) {
        int64_t position = d->rows.position[t];
        for (int64_t c = 0; c < x.cols; c++) {
            uint32_t words[4];
            int64_t e = position * x.cols + c;
            ref_philox(key_of(d), (uint64_t)e / 4, (uint64_t)d->rows.sample[t], words);
            double kept = words[e % 4] >= threshold ? AT(x, t, c) / (1 - (double)d->p) : 0;
            AT(y, t, c) = (d->accumulate ? AT(y, t, c) : 0) + kept;
        }
    }
    mat_store(&d->y, y);
    mat_free(x), mat_free(y);
    return ST_OK;
}

status axpy_ref(struct stream *s, const struct axpy_args *a)
{
    (void)s;
    struct mat x = mat_load(&a->x), y = mat_load(&a->y);
    for (int64_t i = 0; i < y.rows * y.cols; i++) y.v[i] = (a->accumulate ? y.v[i] : 0) + (double)a->scale * x.v[i];
    mat_store(&a->y, y);
    mat_free(x), mat_free(y);
    return ST_OK;
}

status colsum_ref(struct stream *s, const struct colsum_args *c)
{
    (void)s;
    struct mat x = mat_load(&c->x), out = mat_load(&c->out);
    for (int64_t t = 0; t < x.rows; t++)
        for (int64_t j = 0; j < x.cols; j++) out.v[j] += AT(x, t, j);
    mat_store(&c->out, out);
    mat_free(x), mat_free(out);
    return ST_OK;
}

status row_dot_ref(struct stream *s, const struct row_dot_args *r)
{
    (void)s;
    struct mat x = mat_load(&r->x), y = mat_load(&r->y), add = mat_load(&r->add), out = mat_zero(1, x.rows);
    for (int64_t i = 0; i < x.rows; i++) {
        for (int64_t c = 0; c < x.cols; c++) out.v[i] += AT(x, i, c) * AT(y, i, c);
        if (add.v) out.v[i] += add.v[i];
        if (r->root) out.v[i] = out.v[i] < 0 ? 0 : sqrt(out.v[i]);
    }
    mat_store(&r->out, out);
    mat_free(x), mat_free(y), mat_free(add), mat_free(out);
    return ST_OK;
}

status rescale_fwd_ref(struct stream *s, const struct rescale_fwd_args *r)
{
    (void)s;
    struct mat u = mat_load(&r->u), y = mat_load(&r->y), to = mat_load(&r->to), from = mat_load(&r->from), bias = mat_load(&r->bias);
    for (int64_t t = 0; t < u.rows; t++)
        for (int64_t c = 0; c < u.cols; c++) {
            int64_t i = r->by_row ? t : c;
            double ratio = from.v[i] == 0 ? 0 : to.v[i] / from.v[i];
            AT(y, t, c) = r->accumulate ? AT(y, t, c) + (ratio - 1) * AT(u, t, c) : ratio * AT(u, t, c) + (bias.v ? bias.v[c] : 0);
        }
    mat_store(&r->y, y);
    mat_free(u), mat_free(y), mat_free(to), mat_free(from), mat_free(bias);
    return ST_OK;
}

status rescale_bwd_ref(struct stream *s, const struct rescale_bwd_args *r)
{
    (void)s;
    struct mat dy = mat_load(&r->dy), u = mat_load(&r->u), to = mat_load(&r->to), from = mat_load(&r->from), d_to = mat_load(&r->d_to);
    for (int64_t t = 0; t < u.rows; t++)
        for (int64_t c = 0; c < u.cols; c++) {
            double ratio = from.v[c] == 0 ? 0 : to.v[c] / from.v[c], g = AT(dy, t, c);
            d_to.v[c] += from.v[c] == 0 ? 0 : g * AT(u, t, c) / from.v[c];
            AT(dy, t, c) = (r->accumulate ? ratio - 1 : ratio) * g;
        }
    mat_store(&r->du, dy);
    mat_store(&r->d_to, d_to);
    mat_free(dy), mat_free(u), mat_free(to), mat_free(from), mat_free(d_to);
    return ST_OK;
}

status tree_sum_ref(struct stream *s, const struct tree_sum_args *t)
{
    (void)s;
    struct mat rows = mat_load(&t->rows), open = mat_zero(TREE_SUM_OPEN, rows.cols);
    int64_t depth = 0;
    for (int64_t k = 0; k < rows.rows; k++) {
        bool mine = k >= t->first && k < t->first + t->n_mine;
        struct mat v = mine ? mat_load(&t->mine[k - t->first]) : mat_zero(0, 0);
        for (int64_t i = 0; i < rows.cols; i++) AT(open, depth, i) = mine ? v.v[i] : AT(rows, k, i);
        mat_free(v);
        depth++;
        for (int m = 0; m < t->merges[k]; m++, depth--)
            for (int64_t i = 0; i < rows.cols; i++) AT(open, depth - 2, i) += AT(open, depth - 1, i);
    }
    open.rows = 1;
    mat_store(&t->out, open);
    mat_free(rows), mat_free(open);
    return ST_OK;
}
