#include "worker/model/model.h"

#include "kernels/base/philox.h"

static bool has_adapter(const struct linear *l) { return l->lora_a >= 0; }

static bool drops(const struct pass *p, const struct linear *l) { return has_adapter(l) && p->plan.data && l->dropout > 0; }

static struct dropout_args dropout(const struct pass *p, const struct linear *l, const struct linear_io *io)
{
    return (struct dropout_args){.p = l->dropout, .rows = io->rows, .plan = p->plan, .base = rng_base(p->seed, RNG_DROPOUT, l->site)};
}

static tensor dropped_room(const struct pass *p, const tensor *x) { return tensor_2d(p->m->dropped.data, x->dt, x->dim[0], x->dim[1]); }

/* drop(x), recomputed from the counter wherever it is needed; without dropout x itself. */
static status dropped_input(struct pass *p, const struct linear *l, const struct linear_io *io, tensor *out)
{
    *out = io->x;
    if (!drops(p, l)) return ST_OK;
    struct dropout_args d = dropout(p, l, io);
    d.x = io->x;
    d.y = *out = dropped_room(p, &io->x);
    return op_dropout(p->s, &d);
}

bool linear_needs_input(const struct model *m, const struct linear *l) { return has_adapter(l) || param_is_trained(&m->params.p[l->w]); }

bool linear_is_trained(const struct model *m, const struct linear *l)
{
    return linear_needs_input(m, l) || (l->bias >= 0 && param_is_trained(&m->params.p[l->bias]));
}

/* h = drop(x)·Aᵀ */
static status adapter_in(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    tensor in, a;
    TRY(dropped_input(p, l, io, &in));
    TRY(param_acquire(&p->m->params, p->s, l->lora_a, &a));
    TRY(op_gemm(p->s, &(struct gemm_args){.a = in, .b = a, .c = io->h, .tb = true, .alpha = 1}));
    param_done(&p->m->params, l->lora_a);
    return ST_OK;
}

status linear_fwd(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    struct param_store *ps = &p->m->params;
    struct gemm_args product = {.a = io->x, .c = io->y, .tb = true, .alpha = 1};
    if (has_adapter(l) && !io->h_there) TRY(adapter_in(p, l, io));
    if (!io->y.data) return ST_OK;
    if (has_adapter(l)) {
        TRY(param_acquire(ps, p->s, l->lora_b, &product.b2));
        product.a2 = io->h;
        if (io->all.data) {
            tensor under;
            param_joined(ps, l->w, &product.b2, &under);
            product.a2 = io->all;
        }
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
    tensor g;
    TRY(grad_acquire_zeroed(p->sink, param, &g));
    TRY(op_colsum(p->s, &(struct colsum_args){.x = dy, .out = g}));
    return p->more ? ST_OK : grad_done(p->sink, param);
}

/* dx += drop'(t·A): the mask forbids fusing with dy·W. */
static status dropped_dx(struct pass *p, const struct linear *l, const struct linear_io *io, tensor t, tensor a)
{
    struct dropout_args d = dropout(p, l, io);
    d.x = dropped_room(p, &io->dx);
    d.y = io->dx;
    d.accumulate = true;
    TRY(op_gemm(p->s, &(struct gemm_args){.a = t, .b = a, .c = d.x, .alpha = 1}));
    return op_dropout(p->s, &d);
}

/* dx (+)= dy·W + t·A */
static status input_gradient(struct pass *p, const struct linear *l, const struct linear_io *io, tensor t)
{
    struct param_store *ps = &p->m->params;
    struct gemm_args product = {.a = io->dy, .c = io->dx, .alpha = 1, .beta = io->adds_dx ? 1 : 0};
    tensor a = {0};
    if (has_adapter(l)) TRY(param_acquire(ps, p->s, l->lora_a, &a));
    if (has_adapter(l) && !drops(p, l)) {
        tensor beside, under;
        param_joined(ps, l->w, &beside, &under);
        product.a2 = t;
        product.b2 = under.data ? under : a;
    }
    TRY(param_acquire(ps, p->s, l->w, &product.b));
    TRY(op_gemm(p->s, &product));
    param_done(ps, l->w);
    if (drops(p, l)) TRY(dropped_dx(p, l, io, t, a));
    if (has_adapter(l)) param_done(ps, l->lora_a);
    return ST_OK;
}

/* Everything that reads a parameter comes before any gradient is put: with optimizer_in_bwd, putting steps it. */
status linear_bwd(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    struct param_store *ps = &p->m->params;
    tensor t = {0};
    if (has_adapter(l)) {
        tensor b;
        t = io->room.data ? io->room : tensor_2d(p->m->lora_t.data, p->m->lora_t.dt, io->dy.dim[0], l->rank);
        TRY(param_acquire(ps, p->s, l->lora_b, &b));
        TRY(op_gemm(p->s, &(struct gemm_args){.a = io->dy, .b = b, .c = t, .alpha = 1}));
        param_done(ps, l->lora_b);
    }
    if (io->dx.data) TRY(input_gradient(p, l, io, t));
    if (has_adapter(l)) {
        tensor in;
        TRY(dropped_input(p, l, io, &in));
        TRY(put_product(p, l->lora_b, io->dy, io->h, l->scale));
        TRY(put_product(p, l->lora_a, t, in, 1));
    }
    if (param_is_trained(&ps->p[l->w])) TRY(put_product(p, l->w, io->dy, io->x, 1));
    if (l->bias >= 0 && param_is_trained(&ps->p[l->bias])) TRY(put_bias(p, l->bias, io->dy));
    return ST_OK;
}

status norm_bwd(struct pass *p, int id, struct rmsnorm_bwd_args *a)
{
    struct param_store *ps = &p->m->params;
    bool trained = param_is_trained(&ps->p[id]);
    if (trained) TRY(grad_acquire_zeroed(p->sink, id, &a->dw));
    TRY(param_acquire(ps, p->s, id, &a->w));
    TRY(op_rmsnorm_bwd(p->s, a));
    param_done(ps, id);
    return trained && !p->more ? grad_done(p->sink, id) : ST_OK;
}
