#include "worker/model/model.h"

#include "kernels/base/philox.h"

static bool has_adapter(const struct linear *l) { return l->lora_a >= 0; }

static bool drops(const struct pass *p, const struct linear *l) { return p->dropout && l->dropout > 0; }

/* drop(x), recomputed from the counter wherever it is needed; without dropout x itself. */
static status dropped_input(struct pass *p, const struct linear *l, struct rows_at rows, tensor x, tensor buffer, tensor *out)
{
    *out = x;
    if (!drops(p, l)) return ST_OK;
    *out = tensor_2d(buffer.data, x.dt, x.dim[0], x.dim[1]);
    return op_dropout(p->s, &(struct dropout_args){.x = x, .y = *out, .p = l->dropout, .rows = rows,
                                                   .key = rng_key(p->seed, RNG_DROPOUT, l->site, p->step)});
}

bool linear_needs_input(const struct model *m, const struct linear *l)
{
    return has_adapter(l) || param_is_trained(&m->params.p[l->w]);
}

status linear_fwd(struct pass *p, const struct linear *l, struct rows_at rows, tensor x, tensor h, tensor y, tensor dropped)
{
    struct param_store *ps = &p->m->params;
    struct gemm_args product = {.a = x, .c = y, .tb = true, .alpha = 1};
    if (has_adapter(l)) {
        tensor in, a, b;
        TRY(dropped_input(p, l, rows, x, dropped, &in));
        TRY(param_acquire(ps, p->s, l->lora_a, &a));
        TRY(op_gemm(p->s, &(struct gemm_args){.a = in, .b = a, .c = h, .tb = true, .alpha = 1}));
        param_done(ps, l->lora_a);
        TRY(param_acquire(ps, p->s, l->lora_b, &b));
        product.a2 = h;
        product.b2 = b;
    }
    if (l->bias >= 0) TRY(param_acquire(ps, p->s, l->bias, &product.bias));
    TRY(param_acquire(ps, p->s, l->w, &product.b));
    TRY(op_gemm(p->s, &product));
    param_done(ps, l->w);
    if (l->bias >= 0) param_done(ps, l->bias);
    if (has_adapter(l)) param_done(ps, l->lora_b);
    return ST_OK;
}

/* gradient (+)= alpha·aᵀ·b */
static status put_product(struct pass *p, int param, tensor a, tensor b, float alpha)
{
    bool accumulate;
    tensor g = grad_acquire(p->sink, param, &accumulate);
    TRY(op_gemm(p->s, &(struct gemm_args){.a = a, .b = b, .c = g, .ta = true, .alpha = alpha, .beta = accumulate ? 1 : 0}));
    return p->more ? ST_OK : grad_done(p->sink, param);
}

static status put_bias(struct pass *p, int param, tensor dy)
{
    bool accumulate;
    tensor g = grad_acquire(p->sink, param, &accumulate);
    if (!accumulate) TRY(p->m->be->dev.zero(p->s, g.data, (size_t)tensor_count(&g) * dtype_bytes(g.dt)));
    TRY(op_colsum(p->s, &(struct colsum_args){.x = dy, .out = g}));
    return p->more ? ST_OK : grad_done(p->sink, param);
}

/* dx += drop'(t·A): the mask forbids fusing with dy·W. */
static status dropped_dx(struct pass *p, const struct linear *l, struct rows_at rows, tensor t, tensor a, tensor dx, tensor dropped)
{
    tensor part = tensor_2d(dropped.data, dx.dt, dx.dim[0], dx.dim[1]);
    TRY(op_gemm(p->s, &(struct gemm_args){.a = t, .b = a, .c = part, .alpha = 1}));
    return op_dropout(p->s, &(struct dropout_args){.x = part, .y = dx, .p = l->dropout, .rows = rows, .accumulate = true,
                                                   .key = rng_key(p->seed, RNG_DROPOUT, l->site, p->step)});
}

/* dx (+)= dy·W + t·A */
static status input_gradient(struct pass *p, const struct linear *l, struct rows_at rows, tensor dy, tensor t, tensor dx,
                             bool accumulate, tensor dropped)
{
    struct param_store *ps = &p->m->params;
    struct gemm_args product = {.a = dy, .c = dx, .alpha = 1, .beta = accumulate ? 1 : 0};
    tensor a = {0};
    if (has_adapter(l)) TRY(param_acquire(ps, p->s, l->lora_a, &a));
    if (has_adapter(l) && !drops(p, l)) {
        product.a2 = t;
        product.b2 = a;
    }
    TRY(param_acquire(ps, p->s, l->w, &product.b));
    TRY(op_gemm(p->s, &product));
    param_done(ps, l->w);
    if (drops(p, l) && has_adapter(l)) TRY(dropped_dx(p, l, rows, t, a, dx, dropped));
    if (has_adapter(l)) param_done(ps, l->lora_a);
    return ST_OK;
}

/* Everything that reads a parameter comes before any gradient is put: with optimizer_in_bwd, putting steps it. */
status linear_bwd(struct pass *p, const struct linear *l, struct rows_at rows, tensor x, tensor h, tensor dy, tensor dx,
                  bool accumulate, tensor t, tensor dropped)
{
    struct param_store *ps = &p->m->params;
    if (has_adapter(l)) {
        tensor b;
        t = tensor_2d(t.data, t.dt, dy.dim[0], l->rank);
        TRY(param_acquire(ps, p->s, l->lora_b, &b));
        TRY(op_gemm(p->s, &(struct gemm_args){.a = dy, .b = b, .c = t, .alpha = 1}));
        param_done(ps, l->lora_b);
    }
    if (dx.data) TRY(input_gradient(p, l, rows, dy, t, dx, accumulate, dropped));
    if (has_adapter(l)) {
        tensor in;
        TRY(dropped_input(p, l, rows, x, dropped, &in));
        TRY(put_product(p, l->lora_b, dy, h, l->scale));
        TRY(put_product(p, l->lora_a, t, in, 1));
    }
    if (param_is_trained(&ps->p[l->w])) TRY(put_product(p, l->w, dy, x, 1));
    if (l->bias >= 0 && param_is_trained(&ps->p[l->bias])) TRY(put_bias(p, l->bias, dy));
    return ST_OK;
}
