/* Reference: matrix product, attention with the whole score matrix of a head, head loss. */
#include <math.h>

#include "tests/ref/ref.h"

/* Its rows by themselves: most of what the gradients' central differences take, under sanitizers more than elsewhere. */
static void add_row(double *restrict to, const double *restrict from, double x, int64_t n)
{
    for (int64_t j = 0; j < n; j++) to[j] += x * from[j];
}

static void add_product(struct mat out, struct mat a, struct mat b, double alpha)
{
    for (int64_t i = 0; i < out.rows; i++)
        for (int64_t k = 0; k < a.cols; k++) add_row(&AT(out, i, 0), &AT(b, k, 0), alpha * AT(a, i, k), out.cols);
}

status gemm_ref(struct stream *s, const struct gemm_args *g)
{
    (void)s;
    struct mat a = mat_load_t(&g->a, g->ta), b = mat_load_t(&g->b, g->tb), bias = mat_load(&g->bias);
    struct mat a2 = mat_load(&g->a2), b2 = mat_load_t(&g->b2, g->tb);
    struct mat c = g->beta != 0 ? mat_load(&g->c) : mat_zero(g->c.dim[0], g->c.dim[1]);
    add_product(c, a, b, (double)g->alpha);
    if (a2.v) add_product(c, a2, b2, 1);
    for (int64_t i = 0; bias.v && i < c.rows; i++)
        for (int64_t j = 0; j < c.cols; j++) AT(c, i, j) += bias.v[j];
    mat_store(&g->c, c);
    mat_free(a), mat_free(b), mat_free(bias), mat_free(a2), mat_free(b2), mat_free(c);
    return ST_OK;
}

struct attn {
    const struct attn_fwd_args *args;
    struct mat q, k, v;
};

static struct attn attn_load(const struct attn_fwd_args *a) { return (struct attn){a, mat_load(&a->q), mat_load(&a->k), mat_load(&a->v)}; }

static void attn_free(struct attn *a) { mat_free(a->q), mat_free(a->k), mat_free(a->v); }

static double score(const struct attn *a, int64_t head, int64_t i, int64_t j)
{
    const struct attn_fwd_args *f = a->args;
    int64_t kv = head * f->kv_heads / f->heads;
    double dot = 0;
    for (int64_t d = 0; d < f->head_dim; d++) dot += AT(a->q, i, head * f->head_dim + d) * AT(a->k, j, kv * f->head_dim + d);
    dot *= (double)f->scale;
    return f->cap != 0 ? (double)f->cap * tanh(dot / (double)f->cap) : dot;
}

status attn_fwd_ref(struct stream *s, const struct attn_fwd_args *f)
{
    (void)s;
    struct attn a = attn_load(f);
    struct mat o = mat_zero(f->q.dim[0], f->heads * f->head_dim), lse = mat_zero(f->q.dim[0], f->heads);
    for (int64_t h = 0; h < f->heads; h++)
        for (int64_t i = 0; i < o.rows; i++) {
            struct ref_keys keys = ref_keys_of(f, i);
            double top = -INFINITY, sum = 0;
            for (int64_t j = keys.first; j < keys.end; j++) top = fmax(top, score(&a, h, i, j));
            for (int64_t j = keys.first; j < keys.end; j++) {
                double p = exp(score(&a, h, i, j) - top);
                sum += p;
                for (int64_t d = 0; d < f->head_dim; d++)
                    AT(o, i, h * f->head_dim + d) += p * AT(a.v, j, h * f->kv_heads / f->heads * f->head_dim + d);
            }
            for (int64_t d = 0; d < f->head_dim; d++) AT(o, i, h * f->head_dim + d) /= sum;
            AT(lse, i, h) = top + log(sum);
        }
    mat_store(&f->o, o);
    mat_store(&f->lse, lse);
    mat_free(o), mat_free(lse), attn_free(&a);
    return ST_OK;
}

status attn_bwd_ref(struct stream *s, const struct attn_bwd_args *b)
{
    (void)s;
    const struct attn_fwd_args *f = &b->fwd;
    struct attn a = attn_load(f);
    struct mat o = mat_load(&f->o), lse = mat_load(&f->lse), d_o = mat_load(&b->d_o);
    struct mat dq = mat_zero(a.q.rows, a.q.cols), dk = mat_zero(a.k.rows, a.k.cols), dv = mat_zero(a.v.rows, a.v.cols);
    for (int64_t h = 0; h < f->heads; h++) {
        int64_t at = h * f->head_dim, kv = h * f->kv_heads / f->heads * f->head_dim;
        for (int64_t i = 0; i < o.rows; i++) {
            struct ref_keys keys = ref_keys_of(f, i);
            double delta = 0;
            for (int64_t d = 0; d < f->head_dim; d++) delta += AT(d_o, i, at + d) * AT(o, i, at + d);
            for (int64_t j = keys.first; j < keys.end; j++) {
                double capped = score(&a, h, i, j), p = exp(capped - AT(lse, i, h)), dp = 0;
                for (int64_t d = 0; d < f->head_dim; d++) {
                    AT(dv, j, kv + d) += p * AT(d_o, i, at + d);
                    dp += AT(d_o, i, at + d) * AT(a.v, j, kv + d);
                }
                double ds = p * (dp - delta) * (double)f->scale;
                if (f->cap != 0) ds *= 1 - capped * capped / ((double)f->cap * (double)f->cap);
                for (int64_t d = 0; d < f->head_dim; d++) {
                    AT(dq, i, at + d) += ds * AT(a.k, j, kv + d);
                    AT(dk, j, kv + d) += ds * AT(a.q, i, at + d);
                }
            }
        }
    }
    mat_store(&b->dq, dq), mat_store(&b->dk, dk), mat_store(&b->dv, dv);
    mat_free(o), mat_free(lse), mat_free(d_o), mat_free(dq), mat_free(dk), mat_free(dv), attn_free(&a);
    return ST_OK;
}

status soft_cap_ref(struct stream *s, const struct soft_cap_args *c)
{
    (void)s;
    struct mat z = mat_load(&c->z);
    for (int64_t i = 0; i < z.rows * z.cols; i++) z.v[i] = (double)c->cap * tanh(z.v[i] / (double)c->cap);
    mat_store(&c->z, z);
    mat_free(z);
    return ST_OK;
}

status loss_ref(struct stream *s, const struct loss_args *l)
{
    (void)s;
    struct mat z = mat_load(&l->z), loss = mat_zero(1, z.rows);
    double cap = (double)l->cap;
    for (int64_t i = 0; i < z.rows; i++) {
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < z.cols; j++) {
            if (cap != 0) AT(z, i, j) = cap * tanh(AT(z, i, j) / cap);
            top = fmax(top, AT(z, i, j));
        }
        for (int64_t j = 0; j < z.cols; j++) sum += exp(AT(z, i, j) - top);
        double lse = top + log(sum);
        loss.v[i] = lse - AT(z, i, l->labels[i]);
        for (int64_t j = 0; j < z.cols; j++) {
            double capped = AT(z, i, j), dz = exp(capped - lse) - (j == l->labels[i]);
            AT(z, i, j) = cap != 0 ? dz * (1 - capped * capped / (cap * cap)) : dz;
        }
    }
    mat_store(&l->loss, loss);
    if (!l->forward_only) mat_store(&l->z, z);
    mat_free(z), mat_free(loss);
    return ST_OK;
}
