/* cases.c — every op of the table, at sizes that are 1, prime, a multiple of the tile, or not, with the error that
 * f32 arithmetic may make: c · eps · sqrt(terms) · Σ|term|, derived per op below. */
/* clang-format off */
#include <math.h>
#include <string.h>

#include "tests/ref/cases.h"

static void bound_exact(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    for (int o = 0; o < ref->n_outs; o++) bounds[o] = bound_like(ref, o);
}

/* ---- matrix product: {M, N, K, flags, K2} --------------------------------------------------------------------- */

/* G_JOINED: A2 lies right behind A's columns, B2 behind B's depth. G_ACT_BIAS: bias is act. */
enum { G_TA = 1, G_TB = 2, G_BIAS = 4, G_BETA = 8, G_MIXED = 16, G_F32_OUT = 32, G_JOINED = 64, G_ACT_BIAS = 128 };

static void build_gemm(struct kit *k, const int64_t *p)
{
    struct gemm_args *g = &k->args.gemm;
    bool ta = p[3] & G_TA, tb = p[3] & G_TB, wide = p[3] & G_F32_OUT;
    *g = (struct gemm_args){.ta = ta, .tb = tb, .alpha = p[3] & G_BETA ? 0.5f : 1, .beta = p[3] & G_BETA ? 1 : 0};
    g->a = kit_act(k, ta ? p[2] : p[0], ta ? p[0] : p[2], 1);
    g->b = (p[3] & G_MIXED ? kit_f32 : kit_act)(k, tb ? p[1] : p[2], tb ? p[2] : p[1], 1);
    g->c = (wide ? kit_f32 : kit_act)(k, p[0], p[1], 1);
    if (p[3] & G_JOINED) {
        tensor a = kit_act(k, p[0], p[2] + p[4], 1), b = kit_act(k, tb ? p[1] : p[2] + p[4], tb ? p[2] + p[4] : p[1], 1);
        g->a = tensor_columns(&a, 0, p[2]), g->a2 = tensor_columns(&a, p[2], p[4]);
        g->b = tb ? tensor_columns(&b, 0, p[2]) : tensor_rows(&b, 0, p[2]);
        g->b2 = tb ? tensor_columns(&b, p[2], p[4]) : tensor_rows(&b, p[2], p[4]);
    } else if (p[4]) {
        g->a2 = kit_act(k, p[0], p[4], 1);
        g->b2 = kit_act(k, tb ? p[1] : p[4], tb ? p[4] : p[1], 1);
    }
    if (p[3] & (G_BIAS | G_ACT_BIAS)) g->bias = (p[3] & G_ACT_BIAS ? kit_act : kit_f32)(k, 0, p[1], 1);
    kit_output(k, "c", g->c, wide ? DT_F32 : k->value);
}

static void bound_gemm(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct gemm_args *g = &in->args.gemm;
    struct mat a = mat_load_t(&g->a, g->ta), b = mat_load_t(&g->b, g->tb), c = mat_load(&g->c);
    struct mat a2 = mat_load(&g->a2), b2 = mat_load_t(&g->b2, g->tb), bias = mat_load(&g->bias);
    bounds[0] = bound_like(ref, 0);
    double terms = (double)(a.cols + a2.cols + 2);
    for (int64_t i = 0; i < c.rows; i++)
        for (int64_t j = 0; j < c.cols; j++) {
            double sum = (bias.v ? fabs(bias.v[j]) : 0) + (g->beta != 0 ? fabs(AT(c, i, j)) : 0);
            for (int64_t l = 0; l < a.cols; l++) sum += fabs((double)g->alpha * AT(a, i, l) * AT(b, l, j));
            for (int64_t l = 0; a2.v && l < a2.cols; l++) sum += fabs(AT(a2, i, l) * AT(b2, l, j));
            AT(bounds[0], i, j) = 4 * EPS * sqrt(terms) * sum;
        }
    mat_free(a), mat_free(b), mat_free(c), mat_free(a2), mat_free(b2), mat_free(bias);
}

/* ---- embedding: {N, C, V, f32 table, scaled}; norm: {N, C, flags} ----------------------------------------------------------- */

static void build_embed_fwd(struct kit *k, const int64_t *p)
{
    k->args.embed_fwd = (struct embed_args){(p[3] ? kit_f32 : kit_act)(k, p[2], p[1], 1),
                                            kit_indices(k, p[0], p[2], false), p[0], kit_act(k, p[0], p[1], 0),
                                            p[4] ? 45.25f : 0};
    kit_output(k, "y", k->args.embed_fwd.y, k->value);
}

static void bound_embed_fwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    bounds[0] = mat_load(&ref->out[0].t);
    for (int64_t i = 0; i < bounds[0].rows * bounds[0].cols; i++)
        bounds[0].v[i] = in->args.embed_fwd.scale != 0 ? EPS * fabs(bounds[0].v[i]) : 0;
}

static void build_embed_bwd(struct kit *k, const int64_t *p)
{
    k->args.embed_bwd = (struct embed_args){kit_f32(k, p[2], p[1], 1), kit_indices(k, p[0], p[2], false), p[0],
                                            kit_act(k, p[0], p[1], 1), p[4] ? 45.25f : 0};
    kit_output(k, "table", k->args.embed_bwd.table, DT_F32);
}

static void bound_embed_bwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct embed_args *e = &in->args.embed_bwd;
    struct mat y = mat_load(&e->y);
    bounds[0] = mat_load(&e->table);
    (void)ref;
    for (int64_t i = 0; i < bounds[0].rows * bounds[0].cols; i++) bounds[0].v[i] = fabs(bounds[0].v[i]);
    for (int64_t t = 0; t < e->n; t++)
        for (int64_t c = 0; c < y.cols; c++) AT(bounds[0], e->ids[t], c) += fabs(AT(y, t, c)) * (e->scale != 0 ? (double)e->scale : 1);
    for (int64_t i = 0; i < bounds[0].rows * bounds[0].cols; i++) bounds[0].v[i] *= EPS * sqrt((double)e->n + 1);
    mat_free(y);
}

enum { N_DELTA = 1, N_UNIT = 2, N_IN_PLACE = 4, N_RESIDUAL = 8, N_DW = 16, N_F32_WEIGHT = 32 };

static void build_rmsnorm_fwd(struct kit *k, const int64_t *p)
{
    struct rmsnorm_fwd_args *r = &k->args.rmsnorm_fwd;
    *r = (struct rmsnorm_fwd_args){.x = kit_grid(k, p[0], p[1]),
                                   .w = (p[2] & N_F32_WEIGHT ? kit_f32 : kit_act)(k, 0, p[1], 1),
                                   .y = kit_act(k, p[0], p[1], 0),
                                   .rstd = kit_f32(k, 0, p[0], 0),
                                   .eps = 1e-5f,
                                   .unit_offset = p[2] & N_UNIT};
    kit_output(k, "y", r->y, k->value);
    kit_output(k, "rstd", r->rstd, DT_F32);
    if (!(p[2] & N_DELTA)) return;
    r->delta = kit_grid(k, p[0], p[1]);
    r->sum = p[2] & N_IN_PLACE ? r->x : kit_act(k, p[0], p[1], 0);
    kit_output(k, "sum", r->sum, k->value);
}

static void bound_rmsnorm_fwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    double c = EPS * (6 + sqrt((double)ref->args.rmsnorm_fwd.x.dim[1]));
    for (int o = 0; o < ref->n_outs; o++) {
        bounds[o] = mat_load(&ref->out[o].t);
        for (int64_t i = 0; i < bounds[o].rows * bounds[o].cols; i++)
            bounds[o].v[i] = o == 2 ? 0 : c * fabs(bounds[o].v[i]);
    }
}

static void build_rmsnorm_bwd(struct kit *k, const int64_t *p)
{
    struct rmsnorm_bwd_args *r = &k->args.rmsnorm_bwd;
    *r = (struct rmsnorm_bwd_args){.dy = kit_act(k, p[0], p[1], 1),
                                   .x = kit_act(k, p[0], p[1], 3),
                                   .w = (p[2] & N_F32_WEIGHT ? kit_f32 : kit_act)(k, 0, p[1], 1),
                                   .rstd = kit_f32(k, 0, p[0], 1),
                                   .unit_offset = p[2] & N_UNIT};
    if (p[2] & N_RESIDUAL) r->residual = kit_act(k, p[0], p[1], 1);
    if (p[2] & N_DW) r->dw = kit_f32(k, 0, p[1], 1);
    r->dx = p[2] & N_IN_PLACE ? (p[2] & N_RESIDUAL ? r->residual : r->dy) : kit_act(k, p[0], p[1], 0);
    kit_output(k, "dx", r->dx, k->value);
    if (p[2] & N_DW) kit_output(k, "dw", r->dw, DT_F32);
}

static void bound_rmsnorm_bwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct rmsnorm_bwd_args *r = &in->args.rmsnorm_bwd;
    struct mat dy = mat_load(&r->dy), x = mat_load(&r->x), w = mat_load(&r->w), rstd = mat_load(&r->rstd);
    struct mat residual = mat_load(&r->residual), dw = mat_load(&r->dw);
    bounds[0] = bound_like(ref, 0);
    for (int64_t c = 0; dw.v && c < x.cols; c++) dw.v[c] = fabs(dw.v[c]);
    for (int64_t t = 0; t < x.rows; t++) {
        double dot = 0, inverse = fabs(rstd.v[t]);
        for (int64_t c = 0; c < x.cols; c++) {
            double xhat = fabs(AT(x, t, c)) * inverse;
            dot += fabs(AT(dy, t, c) * (w.v[c] + r->unit_offset)) * xhat / (double)x.cols;
            if (dw.v) dw.v[c] += fabs(AT(dy, t, c)) * xhat;
        }
        for (int64_t c = 0; c < x.cols; c++)
            AT(bounds[0], t, c) =
                EPS * (8 + 2 * sqrt((double)x.cols)) *
                (inverse * (fabs(AT(dy, t, c)) * (fabs(w.v[c]) + r->unit_offset) + fabs(AT(x, t, c)) * inverse * dot) +
                 (residual.v ? fabs(AT(residual, t, c)) : 0));
    }
    for (int64_t c = 0; dw.v && c < x.cols; c++) dw.v[c] *= 4 * EPS * sqrt((double)x.rows + 1);
    bounds[1] = dw;
    mat_free(dy), mat_free(x), mat_free(w), mat_free(rstd), mat_free(residual);
}

/* ---- rope: {N, heads, D, rotated, docs, inverse, past, kv heads}; glu: {N, F, kind, in place} ------------------------------------ */

static void build_rope(struct kit *k, const int64_t *p)
{
    struct docs docs = kit_docs(k, p[0], p[4]);
    int64_t keys;
    kit_past(k, &docs, p[6], &keys);
    k->args.rope = (struct rope_args){.q = kit_act(k, p[0], p[1] * p[2], 1),
                                      .cos = kit_f32(k, docs.positions + 3, p[3] / 2, 1),
                                      .sin = kit_f32(k, docs.positions + 3, p[3] / 2, 1),
                                      .heads = p[1],
                                      .kv_heads = p[7],
                                      .head_dim = p[2],
                                      .positions = docs.positions,
                                      .rows = docs.rows,
                                      .inverse = p[5]};
    if (p[7]) k->args.rope.k = kit_act(k, p[0], p[7] * p[2], 1);
    kit_output(k, "q", k->args.rope.q, k->value);
    if (p[7]) kit_output(k, "k", k->args.rope.k, k->value);
}

static void bound_rope(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    for (int o = 0; o < ref->n_outs; o++) {
        bounds[o] = bound_like(ref, o);
        for (int64_t i = 0; i < bounds[o].rows * bounds[o].cols; i++)
            bounds[o].v[i] = 3 * EPS * 2; /* |x|, |cos|, |sin| ≤ 1 */
    }
}

static void build_glu_fwd(struct kit *k, const int64_t *p)
{
    k->args.glu_fwd = (struct glu_fwd_args){kit_act(k, p[0], p[1], 9), kit_act(k, p[0], p[1], 2),
                                            kit_act(k, p[0], p[1], 0), (enum act_kind)p[2]};
    kit_output(k, "h", k->args.glu_fwd.h, k->value);
}

static void build_glu_bwd(struct kit *k, const int64_t *p)
{
    struct glu_bwd_args *g = &k->args.glu_bwd;
    *g = (struct glu_bwd_args){.gate = kit_act(k, p[0], p[1], 9),
                               .up = kit_act(k, p[0], p[1], 2),
                               .dh = kit_act(k, p[0], p[1], 1),
                               .kind = (enum act_kind)p[2]};
    g->dgate = p[3] ? g->gate : kit_act(k, p[0], p[1], 0);
    g->dup = p[3] ? g->up : kit_act(k, p[0], p[1], 0);
    kit_output(k, "dgate", g->dgate, k->value);
    kit_output(k, "dup", g->dup, k->value);
}

/* act = a·σ(u): an error eps·|u| of u is a relative error of σ; the slope adds a·σ(1 − σ)·u'. */
static void gate_bound(enum act_kind kind, double a, double *value, double *slope)
{
    double u = a, du = 1;
    if (kind == ACT_GELU_TANH) {
        u = 1.5957691216 * (a + 0.044715 * a * a * a);
        du = 1.5957691216 * (1 + 3 * 0.044715 * a * a);
    }
    double sigma = 1 / (1 + exp(-u)), rest = 1 / (1 + exp(u)), c = 8 * EPS * (1 + fabs(u));
    *value = c * fabs(a) * sigma + 0x1p-126; /* below the smallest normal number anything may round to zero */
    if (kind == ACT_GELU_TANH) *value += fabs(a) * 0x1p-51; /* the reference's own 1 + tanh cancels in f64 */
    *slope = c * (sigma + fabs(a) * sigma * rest * du) + (1 + fabs(a) * du) * 0x1p-50;
}

static void bound_glu_fwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    struct mat gate = mat_load(&in->args.glu_fwd.gate), up = mat_load(&in->args.glu_fwd.up);
    bounds[0] = bound_like(ref, 0);
    for (int64_t i = 0; i < gate.rows * gate.cols; i++) {
        double value, slope;
        gate_bound(in->args.glu_fwd.kind, gate.v[i], &value, &slope);
        bounds[0].v[i] = value * fabs(up.v[i]);
    }
    mat_free(gate), mat_free(up);
}

static void bound_glu_bwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct glu_bwd_args *g = &in->args.glu_bwd;
    struct mat gate = mat_load(&g->gate), up = mat_load(&g->up), dh = mat_load(&g->dh);
    bounds[0] = bound_like(ref, 0);
    bounds[1] = bound_like(ref, 1);
    for (int64_t i = 0; i < gate.rows * gate.cols; i++) {
        double value, slope;
        gate_bound(g->kind, gate.v[i], &value, &slope);
        bounds[0].v[i] = slope * fabs(dh.v[i] * up.v[i]);
        bounds[1].v[i] = value * fabs(dh.v[i]);
    }
    mat_free(gate), mat_free(up), mat_free(dh);
}

/* ---- attention: {N, H, K, D, docs, window, cap, past} ------------------------------------------------------------ */

static struct attn_fwd_args attn_operands(struct kit *k, const int64_t *p)
{
    struct docs docs = kit_docs(k, p[0], p[4]);
    int64_t keys;
    struct ints key_start = kit_past(k, &docs, p[7], &keys);
    return (struct attn_fwd_args){
        .q = kit_act(k, p[0], p[1] * p[3], 1),
        .k = kit_act(k, keys, p[2] * p[3], 1),
        .v = kit_act(k, keys, p[2] * p[3], 1),
        .o = kit_act(k, p[0], p[1] * p[3], 0),
        .lse = kit_f32(k, p[0], p[1], 0),
        .heads = p[1],
        .kv_heads = p[2],
        .head_dim = p[3],
        .window = p[5],
        .scale = (float)(2 / sqrt((double)p[3])),
        .cap = (float)p[6],
        .docs = docs,
        .key_start = key_start,
    };
}

static void build_attn_fwd(struct kit *k, const int64_t *p)
{
    k->args.attn_fwd = attn_operands(k, p);
    kit_output(k, "o", k->args.attn_fwd.o, k->value);
    kit_output(k, "lse", k->args.attn_fwd.lse, DT_F32);
}

/* o and lse are what the reference's forward pass saved, rounded as a backend would have. */
static void build_attn_bwd(struct kit *k, const int64_t *p)
{
    struct attn_bwd_args *b = &k->args.attn_bwd;
    bool f64 = k->f64;
    k->f64 = true;
    struct kit forward = *k;
    forward.n_owned = 0;
    struct attn_fwd_args exact = attn_operands(&forward, p);
    attn_fwd_ref(NULL, &exact);
    k->f64 = f64;
    b->fwd = attn_operands(k, p);
    struct mat o = mat_load(&exact.o), lse = mat_load(&exact.lse);
    for (int64_t i = 0; i < o.rows * o.cols; i++) o.v[i] = ref_round(k->value, o.v[i]);
    for (int64_t i = 0; i < lse.rows * lse.cols; i++) lse.v[i] = ref_round(DT_F32, lse.v[i]);
    mat_store(&b->fwd.o, o), mat_store(&b->fwd.lse, lse);
    mat_free(o), mat_free(lse), kit_release(&forward);
    b->d_o = kit_act(k, p[0], p[1] * p[3], 1);
    b->dq = kit_act(k, p[0], p[1] * p[3], 0);
    b->dk = kit_act(k, p[0], p[2] * p[3], 0);
    b->dv = kit_act(k, p[0], p[2] * p[3], 0);
    kit_output(k, "dq", b->dq, k->value), kit_output(k, "dk", b->dk, k->value), kit_output(k, "dv", b->dv, k->value);
}

/* The probability p_ij, and a bound of its relative error: the score's absolute error (D products, and what the exp
 * and the maximum make of |S|), and in bf16 the rounding of P itself. */
struct pair {
    double p, error;
};

static struct pair pair_at(const struct kit *in, const struct attn_fwd_args *f, struct mat q, struct mat k, int64_t h,
                           int64_t i, int64_t j, double lse)
{
    int64_t at = h * f->head_dim, kv = h * f->kv_heads / f->heads * f->head_dim;
    double dot = 0, size = 0;
    for (int64_t d = 0; d < f->head_dim; d++) {
        dot += AT(q, i, at + d) * AT(k, j, kv + d);
        size += fabs(AT(q, i, at + d) * AT(k, j, kv + d));
    }
    double s = dot * (double)f->scale;
    if (f->cap != 0) s = (double)f->cap * tanh(s / (double)f->cap);
    double error =
        4 * EPS *
        (2 + sqrt((double)f->head_dim) * size * (double)f->scale + fabs(s) + fabs(lse) + fabs((double)f->cap));
    return (struct pair){exp(s - lse), error + (in->value == DT_BF16 ? EPS_BF16 : 0)};
}

static void bound_attn_fwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct attn_fwd_args *f = &in->args.attn_fwd;
    struct mat q = mat_load(&f->q), k = mat_load(&f->k), v = mat_load(&f->v), lse = mat_load(&ref->args.attn_fwd.lse);
    bounds[0] = bound_like(ref, 0), bounds[1] = bound_like(ref, 1);
    for (int64_t h = 0; h < f->heads; h++)
        for (int64_t i = 0; i < q.rows; i++) {
            struct ref_keys keys = ref_keys_of(f, i);
            for (int64_t j = keys.first; j < keys.end; j++) {
                struct pair pair = pair_at(in, f, q, k, h, i, j, AT(lse, i, h));
                double error = pair.error + EPS * sqrt((double)(keys.end - keys.first));
                for (int64_t d = 0; d < f->head_dim; d++) /* twice: in the numerator and in the sum below it */
                    AT(bounds[0], i, h * f->head_dim + d) +=
                        2 * error * pair.p * fabs(AT(v, j, h * f->kv_heads / f->heads * f->head_dim + d));
                double exact = error - (in->value == DT_BF16 ? EPS_BF16 : 0); /* the sum is of f32 P */
                AT(bounds[1], i, h) = fmax(AT(bounds[1], i, h), 2 * exact);
            }
        }
    mat_free(q), mat_free(k), mat_free(v), mat_free(lse);
}

static void bound_attn_bwd(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct attn_bwd_args *b = &in->args.attn_bwd;
    const struct attn_fwd_args *f = &b->fwd;
    struct mat q = mat_load(&f->q), k = mat_load(&f->k), v = mat_load(&f->v), o = mat_load(&f->o);
    struct mat lse = mat_load(&f->lse), d_o = mat_load(&b->d_o);
    for (int out = 0; out < 3; out++) bounds[out] = bound_like(ref, out);
    for (int64_t h = 0; h < f->heads; h++) {
        int64_t at = h * f->head_dim, kv = h * f->kv_heads / f->heads * f->head_dim;
        for (int64_t i = 0; i < q.rows; i++) {
            struct ref_keys keys = ref_keys_of(f, i);
            for (int64_t j = keys.first; j < keys.end; j++) {
                struct pair pair = pair_at(in, f, q, k, h, i, j, AT(lse, i, h));
                double size = 0, error = 2 * (pair.error + EPS * (sqrt((double)q.rows) + sqrt((double)f->head_dim)));
                for (int64_t d = 0; d < f->head_dim; d++)
                    size += fabs(AT(d_o, i, at + d)) * (fabs(AT(v, j, kv + d)) + fabs(AT(o, i, at + d)));
                double ds = error * pair.p * size * (double)f->scale;
                for (int64_t d = 0; d < f->head_dim; d++) {
                    AT(bounds[0], i, at + d) += ds * fabs(AT(k, j, kv + d));
                    AT(bounds[1], j, kv + d) += ds * fabs(AT(q, i, at + d));
                    AT(bounds[2], j, kv + d) += error * pair.p * fabs(AT(d_o, i, at + d));
                }
            }
        }
    }
    mat_free(q), mat_free(k), mat_free(v), mat_free(o), mat_free(lse), mat_free(d_o);
}

/* ---- loss: {n, V, cap, forward only} ------------------------------------------------------------------------------
 */

static void build_loss(struct kit *k, const int64_t *p)
{
    k->args.loss = (struct loss_args){kit_act(k, p[0], p[1], 12), kit_indices(k, p[0], p[1], false),
                                      kit_f32(k, 0, p[0], 0), (float)p[2], p[3]};
    kit_output(k, "loss", k->args.loss.loss, DT_F32);
    if (!p[3]) kit_output(k, "dz", k->args.loss.z, k->value);
}

static void bound_loss(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct loss_args *l = &in->args.loss;
    struct mat z = mat_load(&l->z), loss = mat_load(&ref->args.loss.loss), dz = mat_load(&ref->args.loss.z);
    bounds[0] = bound_like(ref, 0);
    if (ref->n_outs > 1) bounds[1] = bound_like(ref, 1);
    for (int64_t i = 0; i < z.rows; i++) {
        double target = fabs(AT(z, i, l->labels[i])),
               error = EPS * (4 * (26 + target + fabs((double)l->cap)) + sqrt((double)z.cols));
        bounds[0].v[i] = error + EPS * fabs(loss.v[i]);
        for (int64_t j = 0; ref->n_outs > 1 && j < z.cols;
             j++) /* softmax = dz + onehot, relative; then one subtraction */
            AT(bounds[1], i, j) = 2 * error * fabs(AT(dz, i, j) + (j == l->labels[i])) + EPS;
    }
    mat_free(z), mat_free(loss), mat_free(dz);
}

/* ---- soft cap: {n, V, cap} ------------------------------------------------------------------------------------- */

static void build_soft_cap(struct kit *k, const int64_t *p)
{
    k->args.soft_cap = (struct soft_cap_args){kit_act(k, p[0], p[1], 60), (float)p[2]};
    kit_output(k, "z", k->args.soft_cap.z, k->value);
}

/* A division, tanh within 1.3 ulp of its argument's, a product: all relative, and tanh makes no error larger. */
static void bound_soft_cap(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    bounds[0] = mat_load(&ref->out[0].t);
    for (int64_t i = 0; i < bounds[0].rows * bounds[0].cols; i++) bounds[0].v[i] = 6 * EPS * fabs(bounds[0].v[i]);
}

/* ---- rows: {rows, C, n}; dropout: {N, C, docs, percent, flags, step}; axpy: {rows, cols, flags} --------------------------
 */

static void build_gather(struct kit *k, const int64_t *p)
{
    k->args.gather_rows = (struct rows_args){kit_act(k, p[0], p[1], 1), kit_act(k, p[2] + 1, p[1], 1),
                                             kit_indices(k, p[2], p[0], false), p[2]};
    kit_output(k, "dst", tensor_rows(&k->args.gather_rows.dst, 0, p[2]), k->value);
}

static void build_scatter(struct kit *k, const int64_t *p)
{
    k->args.scatter_rows = (struct rows_args){kit_act(k, p[2], p[1], 1), kit_act(k, p[0], p[1], 1),
                                              kit_indices(k, p[2], p[0], true), p[2]};
    kit_output(k, "dst", k->args.scatter_rows.dst, k->value);
}

enum { D_ACCUMULATE = 1, D_IN_PLACE = 2 };

static void build_dropout(struct kit *k, const int64_t *p)
{
    struct dropout_args *d = &k->args.dropout;
    struct step_plan plan = {.step = (double)p[5], .supervised = 3};
    *d = (struct dropout_args){.x = kit_act(k, p[0], p[1], 1),
                               .p = (float)p[3] / 100,
                               .plan = kit_f64(k, 0, STEP_PLAN, (const double *)&plan),
                               .base = 0x9e3779b97f4a7c15ull,
                               .rows = kit_docs(k, p[0], p[2]).rows,
                               .accumulate = p[4] & D_ACCUMULATE};
    d->y = p[4] & D_IN_PLACE ? d->x : kit_act(k, p[0], p[1], 1);
    kit_output(k, "y", d->y, k->value);
}

static void bound_two_terms(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    struct mat before = mat_load(&in->out[0].t);
    bounds[0] = mat_load(&ref->out[0].t);
    for (int64_t i = 0; i < before.rows * before.cols; i++)
        bounds[0].v[i] = 4 * EPS * (2 * fabs(before.v[i]) + fabs(bounds[0].v[i]));
    mat_free(before);
}

enum { A_ACCUMULATE = 1, A_IN_PLACE = 2, A_WIDEN = 4, A_NARROW = 8, A_HALF = 16, A_FLAT = 32 };

static void build_axpy(struct kit *k, const int64_t *p)
{
    struct axpy_args *a = &k->args.axpy;
    tensor (*make)(struct kit *, int64_t, int64_t, double) = p[2] & A_NARROW ? kit_f32
                                                             : p[2] & A_HALF ? kit_f16
                                                                             : kit_act;
    a->x = make(k, p[2] & A_FLAT ? 0 : p[0], p[1], 1);
    a->y = p[2] & A_IN_PLACE ? a->x : (p[2] & A_WIDEN ? kit_f32 : kit_act)(k, p[2] & A_FLAT ? 0 : p[0], p[1], 1);
    a->scale = p[2] & A_IN_PLACE ? -1.5f : 0.7f;
    a->accumulate = p[2] & A_ACCUMULATE;
    kit_output(k, "y", a->y, p[2] & A_WIDEN ? DT_F32 : k->value);
}

/* ---- sums: {N, M}, {n} ---------------------------------------------------------------------------------------------
 */

static void build_colsum(struct kit *k, const int64_t *p)
{
    k->args.colsum = (struct colsum_args){kit_act(k, p[0], p[1], 1), kit_f32(k, 0, p[1], 1)};
    kit_output(k, "out", k->args.colsum.out, DT_F32);
}

static void bound_colsum(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    struct mat x = mat_load(&in->args.colsum.x);
    bounds[0] = mat_load(&in->args.colsum.out);
    (void)ref;
    for (int64_t j = 0; j < x.cols; j++) {
        bounds[0].v[j] = fabs(bounds[0].v[j]);
        for (int64_t i = 0; i < x.rows; i++) bounds[0].v[j] += fabs(AT(x, i, j));
        bounds[0].v[j] *= EPS * sqrt((double)x.rows + 1);
    }
    mat_free(x);
}

/* ---- the ordered sum: {K, n, first, n_mine, in place, shape, elements between rows} -----------------------------------------------------------
 */

/* shape 0: one after the other; 1: as a binary counter does, the rest in the end; 2: all in the end. */
static void set_merges(struct tree_sum_args *t, int64_t n, int64_t shape)
{
    int open = 0;
    for (int64_t k = 0; k < n; k++) {
        if (shape == 1) t->merges[k] = (unsigned char)__builtin_ctzll((uint64_t)k + 1);
        else t->merges[k] = shape == 0 && k > 0;
        open += 1 - t->merges[k];
    }
    t->merges[n - 1] += (unsigned char)(open - 1);
}

static void build_tree_sum(struct kit *k, const int64_t *p)
{
    struct tree_sum_args *t = &k->args.tree_sum;
    *t = (struct tree_sum_args){.rows = kit_f32(k, p[0], p[1] + p[6], 1), .first = (int)p[2], .n_mine = (int)p[3]};
    t->rows.dim[1] = p[1];
    for (int i = 0; i < t->n_mine; i++) t->mine[i] = kit_f32(k, 0, p[1], 1);
    t->out = p[4] ? t->mine[t->n_mine - 1] : kit_f32(k, 0, p[1], 0);
    set_merges(t, p[0], p[5]);
    kit_output(k, "out", t->out, DT_F32);
}

/* K − 1 additions of sums that are at most Σ|v|. */
static void bound_tree_sum(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct tree_sum_args *t = &in->args.tree_sum;
    struct mat rows = mat_load(&t->rows);
    bounds[0] = bound_like(ref, 0);
    for (int64_t i = 0; i < rows.cols; i++) {
        for (int64_t k = 0; k < rows.rows; k++) bounds[0].v[i] += k < t->first || k >= t->first + t->n_mine ? fabs(AT(rows, k, i)) : 1;
        bounds[0].v[i] *= EPS * (double)(rows.rows - 1);
    }
    mat_free(rows);
}

/* ---- the table ------------------------------------------------------------------------------------------------------
 */

#define KIT_RUN(name, args)                                                                                            \
    static status run_##name(struct stream *s, const union op_args *a) { return op_##name(s, &a->name); }
TRIMPOT_OPS(KIT_RUN)

#define CASE(name, build, bound, dtypes, ...)                                                                          \
    {                                                                                                                  \
#name, {__VA_ARGS__ }, run_##name, build, bound, dtypes, false                                                 \
    }
#define PRODUCT(name, build, bound, ...)                                                                               \
    {                                                                                                                  \
#name, {__VA_ARGS__ }, run_##name, build, bound, "fb", true                                                    \
    }

const struct op_case op_cases[] = {
    PRODUCT(gemm, build_gemm, bound_gemm, 1, 1, 1, 0),
    PRODUCT(gemm, build_gemm, bound_gemm, 7, 13, 5, G_TB | G_BIAS),
    PRODUCT(gemm, build_gemm, bound_gemm, 64, 96, 48, G_TB),
    PRODUCT(gemm, build_gemm, bound_gemm, 130, 70, 33, G_BETA),
    PRODUCT(gemm, build_gemm, bound_gemm, 33, 257, 65, G_TA | G_BETA | G_F32_OUT),
    PRODUCT(gemm, build_gemm, bound_gemm, 45, 129, 128, G_TB | G_BIAS, 16),
    PRODUCT(gemm, build_gemm, bound_gemm, 300, 516, 64, G_TB, 7),
    PRODUCT(gemm, build_gemm, bound_gemm, 31, 40, 129, 0, 3),
    PRODUCT(gemm, build_gemm, bound_gemm, 29, 16, 300, G_TB | G_MIXED | G_F32_OUT),
    PRODUCT(gemm, build_gemm, bound_gemm, 16, 61, 200, G_TA | G_MIXED),
    PRODUCT(gemm, build_gemm, bound_gemm, 40, 72, 64, G_TB | G_ACT_BIAS | G_BETA),
    PRODUCT(gemm, build_gemm, bound_gemm, 45, 136, 128, G_TB | G_ACT_BIAS | G_JOINED, 16),
    PRODUCT(gemm, build_gemm, bound_gemm, 45, 67, 61, G_JOINED, 7),
    PRODUCT(gemm, build_gemm, bound_gemm, 45, 72, 64, G_TB | G_JOINED | G_BETA, 48),
    PRODUCT(gemm, build_gemm, bound_gemm, 45, 72, 64, G_BETA, 48),
    PRODUCT(gemm, build_gemm, bound_gemm, 37, 72, 64, G_TB | G_BETA | G_F32_OUT | G_ACT_BIAS, 16),
    PRODUCT(gemm, build_gemm, bound_gemm, 23, 40, 4500, G_TA | G_BETA | G_F32_OUT),
    CASE(embed_fwd, build_embed_fwd, bound_embed_fwd, "fb", 1, 1, 1),
    CASE(embed_fwd, build_embed_fwd, bound_embed_fwd, "fb", 37, 67, 11, 1),
    CASE(embed_fwd, build_embed_fwd, bound_embed_fwd, "fb", 50, 512, 300),
    CASE(embed_fwd, build_embed_fwd, bound_embed_fwd, "fb", 29, 71, 13, 0, 1),
    CASE(embed_fwd, build_embed_fwd, bound_embed_fwd, "fb", 33, 2056, 20, 1, 1),
    CASE(embed_bwd, build_embed_bwd, bound_embed_bwd, "fb", 1, 1, 1),
    CASE(embed_bwd, build_embed_bwd, bound_embed_bwd, "fb", 101, 259, 13),
    CASE(embed_bwd, build_embed_bwd, bound_embed_bwd, "fb", 37, 67, 5, 0, 1),
    CASE(embed_bwd, build_embed_bwd, bound_embed_bwd, "fb", 2500, 40, 50),
    CASE(embed_bwd, build_embed_bwd, bound_embed_bwd, "fb", 700, 9, 3000, 0, 1),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 1, 1, 0),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 5, 37, N_DELTA),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 67, 896, N_DELTA | N_IN_PLACE | N_F32_WEIGHT),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 9, 101, N_UNIT | N_F32_WEIGHT),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 300, 64, N_F32_WEIGHT),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 3, 4096, N_DELTA),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 2, 16416, N_UNIT),
    CASE(rmsnorm_fwd, build_rmsnorm_fwd, bound_rmsnorm_fwd, "fb", 2, 16411, N_DELTA | N_IN_PLACE),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 1, 1, N_DW),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 5, 37, N_RESIDUAL | N_IN_PLACE),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 131, 260, N_DW | N_RESIDUAL | N_UNIT),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 66, 512, N_DW | N_IN_PLACE),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 300, 64, N_DW | N_UNIT | N_F32_WEIGHT),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 9, 2051, N_DW | N_RESIDUAL | N_IN_PLACE),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 3, 4096, N_RESIDUAL | N_F32_WEIGHT),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 3, 8200, N_DW | N_RESIDUAL),
    CASE(rmsnorm_bwd, build_rmsnorm_bwd, bound_rmsnorm_bwd, "fb", 2, 8203, N_DW | N_IN_PLACE),
    CASE(rope, build_rope, bound_rope, "fb", 1, 1, 2, 2, 1),
    CASE(rope, build_rope, bound_rope, "fb", 29, 3, 14, 10, 3),
    CASE(rope, build_rope, bound_rope, "fb", 37, 6, 16, 16, 2, 1, 0, 3),
    CASE(rope, build_rope, bound_rope, "fb", 130, 4, 64, 64, 4, 1),
    CASE(rope, build_rope, bound_rope, "fb", 31, 2, 16, 16, 3, 0, 9),
    CASE(rope, build_rope, bound_rope, "fb", 5, 40, 128, 128, 2, 0, 0, 8),
    CASE(rope, build_rope, bound_rope, "fb", 2, 2, 2100, 2060, 1, 1, 0, 1),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 1, 1, 1, 1, 1),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 37, 4, 2, 16, 3),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 150, 2, 1, 64, 2, 0, 30),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 131, 3, 3, 24, 1, 17),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 300, 2, 2, 8, 1),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 3, 4, 2, 16, 3, 0, 0, 1),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 97, 2, 1, 64, 3, 0, 0, 70),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 70, 3, 3, 24, 2, 33, 30, 101),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 129, 4, 1, 80, 1),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 127, 2, 2, 128, 1),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 70, 2, 1, 256, 2),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 200, 2, 1, 16, 71),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 330, 2, 1, 32, 2, 70),
    PRODUCT(attn_fwd, build_attn_fwd, bound_attn_fwd, 5, 2, 1, 40, 2, 20, 0, 150),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 1, 1, 1, 1, 1),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 37, 4, 2, 16, 3),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 150, 2, 1, 64, 2, 0, 30),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 131, 3, 3, 24, 1, 17),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 300, 2, 2, 8, 1),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 129, 4, 1, 80, 1),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 127, 2, 2, 128, 1),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 70, 2, 1, 256, 2),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 200, 2, 1, 16, 71),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 330, 2, 1, 32, 2, 70),
    PRODUCT(attn_bwd, build_attn_bwd, bound_attn_bwd, 67, 6, 2, 40, 2, 20, 20),
    CASE(glu_fwd, build_glu_fwd, bound_glu_fwd, "fb", 1, 1, ACT_SILU),
    CASE(glu_fwd, build_glu_fwd, bound_glu_fwd, "fb", 65, 301, ACT_SILU),
    CASE(glu_fwd, build_glu_fwd, bound_glu_fwd, "fb", 31, 129, ACT_GELU_TANH),
    CASE(glu_fwd, build_glu_fwd, bound_glu_fwd, "fb", 64, 304, ACT_GELU_TANH),
    CASE(glu_fwd, build_glu_fwd, bound_glu_fwd, "fb", 3, 2056, ACT_SILU),
    CASE(glu_bwd, build_glu_bwd, bound_glu_bwd, "fb", 1, 1, ACT_SILU, 1),
    CASE(glu_bwd, build_glu_bwd, bound_glu_bwd, "fb", 65, 301, ACT_SILU, 1),
    CASE(glu_bwd, build_glu_bwd, bound_glu_bwd, "fb", 31, 129, ACT_GELU_TANH),
    CASE(glu_bwd, build_glu_bwd, bound_glu_bwd, "fb", 64, 304, ACT_GELU_TANH, 1),
    CASE(glu_bwd, build_glu_bwd, bound_glu_bwd, "fb", 3, 2056, ACT_SILU),
    CASE(loss, build_loss, bound_loss, "fb", 1, 1),
    CASE(loss, build_loss, bound_loss, "fb", 7, 1009),
    CASE(loss, build_loss, bound_loss, "fb", 33, 4096, 0, 1),
    CASE(loss, build_loss, bound_loss, "fb", 5, 333, 30),
    CASE(loss, build_loss, bound_loss, "fb", 3, 512, 30),
    CASE(loss, build_loss, bound_loss, "fb", 2, 120008),
    CASE(soft_cap, build_soft_cap, bound_soft_cap, "fb", 1, 1, 30),
    CASE(soft_cap, build_soft_cap, bound_soft_cap, "fb", 7, 1009, 30),
    CASE(soft_cap, build_soft_cap, bound_soft_cap, "fb", 5, 2056, 50),
    CASE(gather_rows, build_gather, bound_exact, "fb", 1, 1, 1),
    CASE(gather_rows, build_gather, bound_exact, "fb", 41, 515, 60),
    CASE(gather_rows, build_gather, bound_exact, "fb", 41, 2056, 60),
    CASE(scatter_rows, build_scatter, bound_exact, "fb", 1, 1, 1),
    CASE(scatter_rows, build_scatter, bound_exact, "fb", 97, 515, 41),
    CASE(scatter_rows, build_scatter, bound_exact, "fb", 97, 512, 41),
    CASE(dropout, build_dropout, bound_two_terms, "fb", 1, 1, 1, 50),
    CASE(dropout, build_dropout, bound_two_terms, "fb", 37, 67, 3, 10, D_ACCUMULATE, 1),
    CASE(dropout, build_dropout, bound_two_terms, "fb", 130, 256, 4, 35, D_IN_PLACE, 4294967295),
    CASE(dropout, build_dropout, bound_two_terms, "fb", 9, 130, 2, 0),
    CASE(dropout, build_dropout, bound_two_terms, "fb", 37, 2056, 3, 10, D_ACCUMULATE),
    CASE(dropout, build_dropout, bound_two_terms, "fb", 29, 68, 3, 25, 0, 70007),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 1, 1, 0),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 37, 61, A_ACCUMULATE),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 130, 256, A_IN_PLACE),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 3, 40001, A_WIDEN | A_ACCUMULATE | A_FLAT),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 3, 20011, A_NARROW | A_FLAT),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 0, 1237, A_HALF | A_FLAT),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 3, 40000, A_WIDEN | A_ACCUMULATE | A_FLAT),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 0, 1240, A_HALF | A_FLAT | A_ACCUMULATE),
    CASE(axpy, build_axpy, bound_two_terms, "fb", 37, 2056, A_NARROW),
    CASE(colsum, build_colsum, bound_colsum, "fb", 1, 1),
    CASE(colsum, build_colsum, bound_colsum, "fb", 131, 389),
    CASE(colsum, build_colsum, bound_colsum, "fb", 1030, 16),
    CASE(colsum, build_colsum, bound_colsum, "fb", 1100, 256),
    CASE(row_dot, build_row_dot, bound_row_dot, "fb", 1, 1),
    CASE(row_dot, build_row_dot, bound_row_dot, "fb", 131, 389, W_SAME),
    CASE(row_dot, build_row_dot, bound_row_dot, "fb", 37, 8, W_ADD | W_ROOT | W_MIXED),
    CASE(row_dot, build_row_dot, bound_row_dot, "fb", 9, 2056, W_SAME | W_ADD | W_ROOT),
    CASE(rescale_fwd, build_rescale_fwd, bound_rescale_fwd, "fb", 1, 1),
    CASE(rescale_fwd, build_rescale_fwd, bound_rescale_fwd, "fb", 37, 61, S_IN_PLACE | S_BIAS),
    CASE(rescale_fwd, build_rescale_fwd, bound_rescale_fwd, "fb", 37, 72, S_IN_PLACE | S_ACT_BIAS),
    CASE(rescale_fwd, build_rescale_fwd, bound_rescale_fwd, "fb", 130, 256, S_ACCUMULATE),
    CASE(rescale_fwd, build_rescale_fwd, bound_rescale_fwd, "fb", 3, 2056, S_BY_ROW | S_IN_PLACE),
    CASE(rescale_bwd, build_rescale_bwd, bound_rescale_bwd, "fb", 1, 1),
    CASE(rescale_bwd, build_rescale_bwd, bound_rescale_bwd, "fb", 131, 389, S_IN_PLACE),
    CASE(rescale_bwd, build_rescale_bwd, bound_rescale_bwd, "fb", 1030, 16, S_ACCUMULATE),
    CASE(rescale_bwd, build_rescale_bwd, bound_rescale_bwd, "fb", 1100, 256, S_ACCUMULATE | S_OVER_DY),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", 1, 1),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", 1, 37, 0, 1),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", 2, 1543, 1, 1, 1),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", 13, 20011, 4, 3, 1, 1),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", 48, 1024, 47, 1, 0, 1),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", TREE_SUM_NODES, 67, 0, 3, 0, 1),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", 13, 1001, 4, 3, 0, 1, 7),
    CASE(tree_sum, build_tree_sum, bound_tree_sum, "f", TREE_SUM_OPEN, 260, 0, 1, 0, 2),
    CASE(loss_sum, build_loss_sum, bound_step, "f", 1),
    CASE(loss_sum, build_loss_sum, bound_step, "f", 1003),
    CASE(loss_sum, build_loss_sum, bound_step, "f", 10007),
    CASE(sumsq_segs, build_sumsq_segs, bound_sumsq_segs, "fb", 4 * FLAT_PAGE + 10),
    CASE(sumsq_segs, build_sumsq_segs, bound_sumsq_segs, "fb", 2 * FLAT_PAGE + 99, FLAT_PAGE),
    CASE(sumsq_segs, build_sumsq_segs, bound_sumsq_segs, "fb", 1000, 3 * FLAT_PAGE + 256),
    CASE(sumsq_segs, build_sumsq_segs, bound_sumsq_segs, "fb", 4000, 4 * FLAT_PAGE),
    CASE(step_decide, build_step_decide, bound_step, "f", 100),
    CASE(step_decide, build_step_decide, bound_step, "f", 100, 7, 1),
    CASE(step_decide, build_step_decide, bound_step, "f", 0, 7),
    CASE(step_decide, build_step_decide, bound_step, "f", 50, 0, 0, 3),
    CASE(step_decide, build_step_decide, bound_step, "f", 100, 7, 0, 0, 1024),
    CASE(step_decide, build_step_decide, bound_step, "f", 100, 7, 1, 0, 5003),
    CASE(step_admit, build_step_admit, bound_step, "f", 100),
    CASE(step_admit, build_step_admit, bound_step, "f", 100, 7, 1, 5),
    CASE(step_admit, build_step_admit, bound_step, "f", 100, 0, 0, 0, 300, 299),
    CASE(step_admit, build_step_admit, bound_step, "f", 100, 0, 0, 2, 300, 31),
    CASE(step_admit, build_step_admit, bound_step, "f", 0),
    CASE(update, build_update, bound_update, "fb", 1, OPTIM_ADAMW, O_SR),
    CASE(update, build_update, bound_update, "fb", 1031, OPTIM_ADAMW, O_SR, 5),
    CASE(update, build_update, bound_update, "fb", 20000, OPTIM_ADAMW, O_SR | O_F32_GRADIENT, 65536),
    CASE(update, build_update, bound_update, "fb", 300, OPTIM_ADAMW, O_SR | O_REFUSED, 65536),
    CASE(update, build_update, bound_update, "b", 515, OPTIM_ADAMW, O_MASTER | O_F32_STATES | O_F32_GRADIENT),
    CASE(update, build_update, bound_update, "fb", 777, OPTIM_ADAMW, O_WORK | O_F32_STATES | O_F32_GRADIENT, 99),
    CASE(update, build_update, bound_update, "fb", 257, OPTIM_ADAM, O_F32_STATES),
    CASE(update, build_update, bound_update, "fb", 130, OPTIM_SGD, O_SR | O_FIRST | O_NESTEROV),
    CASE(update, build_update, bound_update, "fb", 333, OPTIM_SGD, O_SR | O_NESTEROV, 7),
    CASE(update, build_update, bound_update, "fb", 333, OPTIM_SGD, O_MASTER | O_F32_STATES),
    CASE(update, build_update, bound_update, "fb", 333, OPTIM_SGD, O_PLAIN | O_SR, (1ll << 35) - 16),
    CASE(update, build_update, bound_update, "fb", 1, OPTIM_ADAMW, O_EIGHT | O_SR),
    CASE(update, build_update, bound_update, "fb", 255, OPTIM_ADAMW, O_EIGHT | O_SR, 256),
    CASE(update, build_update, bound_update, "fb", 2048, OPTIM_ADAMW, O_EIGHT | O_SR | O_F32_GRADIENT, 65536),
    CASE(update, build_update, bound_update, "b", 1291, OPTIM_ADAMW, O_EIGHT | O_MASTER | O_F32_GRADIENT),
    CASE(update, build_update, bound_update, "fb", 3077, OPTIM_ADAM, O_EIGHT | O_WORK | O_F32_GRADIENT, (1ll << 35) - 256),
    CASE(update, build_update, bound_update, "fb", 1100, OPTIM_SGD, O_EIGHT | O_SR | O_NESTEROV, 1024),
    CASE(update, build_update, bound_update, "fb", 555, OPTIM_SGD, O_EIGHT | O_SR | O_FIRST),
    CASE(update, build_update, bound_update, "fb", 300, OPTIM_ADAMW, O_EIGHT | O_SR | O_REFUSED, 65536),
    CASE(nf4_quantize, build_nf4_quantize, bound_nf4_quantize, "fb", 1),
    CASE(nf4_quantize, build_nf4_quantize, bound_nf4_quantize, "fb", 3 * 16384 + 64 * 5 + 7),
    CASE(nf4_quantize, build_nf4_quantize, bound_nf4_quantize, "fb", 130, 1),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 1),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 2 * 16384 + 64 * 3 + 29),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 3 * 130 * 64, 3 * 64, 64), /* whole blocks in a row */
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 173 * 101, 173, 3),       /* blocks over two rows */
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 3 * 67, 3, 5),            /* … over many */
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 16384 + 64 * 3 + 29, 0, 0, 1),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 173 * 101, 173, 3, 1 | 2),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 3 * 130 * 64, 3 * 64, 64, 1 | 4),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 3 * 130 * 64, 0, 0, 1 | 4 | 8),
    CASE(nf4_dequantize, build_nf4_dequantize, bound_nf4_dequantize, "fb", 64 * 260 + 10, 0, 0, 4),
    CASE(init, build_init, bound_init, "fb", 1),
    CASE(init, build_init, bound_init, "fb", 20011, 0, 6),
    CASE(init, build_init, bound_init, "fb", 16411, 1, (1ll << 34) - 64 + 3),
};

const int n_op_cases = (int)(sizeof op_cases / sizeof op_cases[0]);
