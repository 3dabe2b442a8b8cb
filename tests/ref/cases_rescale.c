/* Cases of rows' products and of what rescales columns: see cases.c. */
#include <math.h>

#include "tests/ref/cases.h"

/* ---- rows' products: {M, C, flags}; columns rescaled: {N, C, flags} --------------------------------------------------------- */

void build_row_dot(struct kit *k, const int64_t *p)
{
    struct row_dot_args *r = &k->args.row_dot;
    *r = (struct row_dot_args){.x = kit_act(k, p[0], p[1], 1), .out = kit_f32(k, 0, p[0], 0), .root = p[2] & W_ROOT};
    r->y = p[2] & W_SAME ? r->x : (p[2] & W_MIXED ? kit_f32 : kit_act)(k, p[0], p[1], 1);
    if (p[2] & W_ADD) r->add = kit_f32(k, 0, p[0], 1);
    kit_output(k, "out", r->out, DT_F32);
}

/* The root of s, off by e: by e/(2√s), or by √e where s is no more than that. */
void bound_row_dot(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct row_dot_args *r = &in->args.row_dot;
    struct mat x = mat_load(&r->x), y = mat_load(&r->y), add = mat_load(&r->add), out = mat_load(&ref->out[0].t);
    bounds[0] = bound_like(ref, 0);
    for (int64_t i = 0; i < x.rows; i++) {
        double sum = add.v ? fabs(add.v[i]) : 0;
        for (int64_t c = 0; c < x.cols; c++) sum += fabs(AT(x, i, c) * AT(y, i, c));
        double e = EPS * sqrt((double)x.cols + 1) * sum;
        bounds[0].v[i] = !r->root ? e : out.v[i] * out.v[i] > e ? e / out.v[i] : 2 * sqrt(e);
    }
    mat_free(x), mat_free(y), mat_free(add), mat_free(out);
}

/* Lengths around 2, but for one that is 0. */
static tensor lengths(struct kit *k, int64_t n, bool zero)
{
    tensor t = kit_f32(k, 0, n, 1);
    struct mat v = mat_load(&t);
    for (int64_t i = 0; i < n; i++) v.v[i] = ref_round(DT_F32, 2 + v.v[i]);
    if (zero) v.v[n / 2] = 0;
    mat_store(&t, v);
    mat_free(v);
    return t;
}

void build_rescale_fwd(struct kit *k, const int64_t *p)
{
    struct rescale_fwd_args *r = &k->args.rescale_fwd;
    int64_t n = p[2] & S_BY_ROW ? p[0] : p[1];
    *r = (struct rescale_fwd_args){.u = kit_act(k, p[0], p[1], 1),
                                   .to = lengths(k, n, false),
                                   .from = lengths(k, n, n > 1),
                                   .accumulate = p[2] & S_ACCUMULATE,
                                   .by_row = p[2] & S_BY_ROW};
    r->y = p[2] & S_IN_PLACE ? r->u : kit_act(k, p[0], p[1], 1);
    if (p[2] & (S_BIAS | S_ACT_BIAS)) r->bias = (p[2] & S_ACT_BIAS ? kit_act : kit_f32)(k, 0, p[1], 1);
    kit_output(k, "y", r->y, k->value);
}

/* Ratios are at most 3; a quotient, a difference, a product and a sum. */
void bound_rescale_fwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    struct mat u = mat_load(&in->args.rescale_fwd.u);
    bounds[0] = bound_like(ref, 0);
    for (int64_t i = 0; i < u.rows * u.cols; i++) bounds[0].v[i] = 4 * EPS * (3 * fabs(u.v[i]) + 1);
    mat_free(u);
}

void build_rescale_bwd(struct kit *k, const int64_t *p)
{
    struct rescale_bwd_args *r = &k->args.rescale_bwd;
    *r = (struct rescale_bwd_args){.dy = kit_act(k, p[0], p[1], 1),
                                   .u = kit_act(k, p[0], p[1], 1),
                                   .to = lengths(k, p[1], false),
                                   .from = lengths(k, p[1], p[1] > 1),
                                   .d_to = kit_f32(k, 0, p[1], 1),
                                   .accumulate = p[2] & S_ACCUMULATE};
    r->du = p[2] & S_IN_PLACE ? r->u : p[2] & S_OVER_DY ? r->dy : kit_act(k, p[0], p[1], 0);
    kit_output(k, "du", r->du, k->value);
    kit_output(k, "d_to", r->d_to, DT_F32);
}

void bound_rescale_bwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    struct mat dy = mat_load(&in->args.rescale_bwd.dy), u = mat_load(&in->args.rescale_bwd.u), sum = mat_load(&in->args.rescale_bwd.d_to);
    bounds[0] = bound_like(ref, 0);
    for (int64_t j = 0; j < u.cols; j++) sum.v[j] = fabs(sum.v[j]);
    for (int64_t i = 0; i < u.rows; i++)
        for (int64_t j = 0; j < u.cols; j++) {
            AT(bounds[0], i, j) = 4 * EPS * 3 * fabs(AT(dy, i, j));
            sum.v[j] += fabs(AT(dy, i, j) * AT(u, i, j)); /* a length is 1 or more */
        }
    for (int64_t j = 0; j < u.cols; j++) sum.v[j] *= 2 * EPS * sqrt((double)u.rows + 1);
    bounds[1] = sum;
    mat_free(dy), mat_free(u);
}
