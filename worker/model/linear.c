#include "worker/model/model.h"

#include "kernels/base/philox.h"

static bool has_adapter(const struct linear *l) { return l->a >= 0; }

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

int64_t linear_largest_rank(const struct model *m, int which)
{
    int64_t most = 0;
    for (int64_t l = 0; l < m->shape.layers; l++)
        if (m->layers[l].linear[which].rank > most) most = m->layers[l].linear[which].rank;
    return most;
}

int linears_alike(const struct model *m, int first, int last, bool *row)
{
    int members = 0;
    *row = true;
    for (int64_t l = 0; l < m->shape.layers; l++) {
        members = 0;
        for (int which = last, id = -1; which >= first; which--) {
            const struct linear *x = &m->layers[l].linear[which];
            int64_t rank = linear_largest_rank(m, which);
            if (!rank) continue;
            if (x->rank != rank) return 0;
            if (members++ && x->a != id) *row = false;
            id = m->params.p[x->a].next;
        }
    }
    return m->plan.dropout <= 0 ? members : 0;
}

status linear_inner(struct pass *p, const struct linear *l, tensor x, tensor h, bool row)
{
    struct param_store *ps = &p->m->params;
    tensor a;
    TRY(row ? param_acquire_row(ps, p->s, l->a, &a) : param_acquire(ps, p->s, l->a, &a));
    TRY(op_gemm(p->s, &(struct gemm_args){.a = x, .b = a, .c = h, .tb = true, .alpha = 1}));
    param_done(ps, l->a);
    return ST_OK;
}

/* h = drop(x)·Aᵀ */
static status adapter_in(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    tensor in;
    TRY(dropped_input(p, l, io, &in));
    return linear_inner(p, l, in, io->h, false);
}

/* y = in·Wᵀ + h·(s·B)ᵀ, and the bias when `biased`. */
static status project(struct pass *p, const struct linear *l, const struct linear_io *io, tensor in, tensor y, bool biased)
{
    struct param_store *ps = &p->m->params;
    struct gemm_args product = {.a = in, .c = y, .tb = true, .alpha = 1};
    biased = biased && l->bias >= 0;
    if (has_adapter(l)) {
        TRY(param_acquire(ps, p->s, l->b, &product.b2));
        product.a2 = io->h;
        if (io->all.data) {
            tensor under;
            param_joined(ps, l->w, &product.b2, &under);
            product.a2 = io->all;
        }
    }
    if (biased) TRY(param_acquire(ps, p->s, l->bias, &product.bias));
    TRY(param_acquire(ps, p->s, l->w, &product.b));
    TRY(op_gemm(p->s, &product));
    param_done(ps, l->w);
    if (biased) param_done(ps, l->bias);
    if (has_adapter(l)) param_done(ps, l->b);
    return ST_OK;
}

/* u of the contract; in `y` where nothing is dropped, for y = (m/N)⊙u + b then. */
static status before_magnitude(struct pass *p, const struct linear *l, const struct linear_io *io, tensor u)
{
    tensor in;
    TRY(dropped_input(p, l, io, &in));
    return project(p, l, io, in, u, false);
}

static status magnitude_fwd(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    struct param_store *ps = &p->m->params;
    struct rescale_fwd_args r = {
        .u = io->y, .y = io->y, .to = ps->p[l->magnitude].value, .from = l->lengths->now, .accumulate = drops(p, l)};
    tensor behind;
    TRY(magnitude_lengths(p->m, p->s, l));
    if (r.accumulate) {
        TRY(project(p, l, io, io->x, io->y, true));
        r.u = magnitude_room(p->m, l, io->y.dim[0], &behind);
    }
    TRY(before_magnitude(p, l, io, r.u));
    bool biased = l->bias >= 0 && !r.accumulate;
    if (biased) TRY(param_acquire(ps, p->s, l->bias, &r.bias));
    TRY(op_rescale_fwd(p->s, &r));
    if (biased) param_done(ps, l->bias);
    return ST_OK;
}

status linear_fwd(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    if (has_adapter(l) && !io->h_there) TRY(adapter_in(p, l, io));
    if (!io->y.data) return ST_OK;
    return l->magnitude >= 0 ? magnitude_fwd(p, l, io) : project(p, l, io, io->x, io->y, true);
}

/* gradient (+)= alpha·aᵀ·b, and alpha·also·b where that is. */
static status put_product(struct pass *p, int param, tensor a, tensor also, tensor b, float alpha)
{
    bool accumulate;
    struct gemm_args g = {.a = a, .b = b, .c = grad_acquire(p->sink, param, &accumulate), .ta = true, .alpha = alpha};
    g.beta = accumulate ? 1 : 0;
    TRY(op_gemm(p->s, &g));
    if (also.data) {
        g.a = also;
        g.beta = 1;
        TRY(op_gemm(p->s, &g));
    }
    return p->more ? ST_OK : grad_done(p->sink, param);
}

/* B's gradient of an adapter on some of the rows: what is outside of its parts stays zero, and so does B there. */
static status put_parts(struct pass *p, const struct linear *l, tensor dy, tensor h)
{
    int64_t rank = l->rank / l->parts;
    tensor g;
    TRY(grad_acquire_zeroed(p->sink, l->b, &g));
    for (int i = 0; i < l->parts; i++) {
        tensor rows = tensor_2d((char *)g.data + (size_t)(l->part[i].first * g.ld) * dtype_bytes(g.dt), g.dt, l->part[i].rows, g.dim[1]);
        TRY(op_gemm(p->s, &(struct gemm_args){.a = tensor_columns(&dy, l->part[i].first, l->part[i].rows),
                                              .b = tensor_columns(&h, i * rank, rank),
                                              .c = tensor_columns(&rows, i * rank, rank),
                                              .ta = true,
                                              .alpha = l->scale,
                                              .beta = 1}));
    }
    return p->more ? ST_OK : grad_done(p->sink, l->b);
}

static status put_bias(struct pass *p, int param, tensor dy)
{
    tensor g;
    TRY(grad_acquire_zeroed(p->sink, param, &g));
    TRY(op_colsum(p->s, &(struct colsum_args){.x = dy, .out = g}));
    return p->more ? ST_OK : grad_done(p->sink, param);
}

/* What backward goes on with: dy, that of u (`also`) where u has another input than y, and dy·s·B of both. */
struct flow {
    tensor dy, also, t;
};

/* dx += drop'(t·A + also·W): the mask forbids fusing with dy·W. */
static status dropped_dx(struct pass *p, const struct linear *l, const struct linear_io *io, const struct flow *f, tensor a, tensor w)
{
    struct dropout_args d = dropout(p, l, io);
    struct gemm_args product = {.a = f->t, .b = a, .c = dropped_room(p, &io->dx), .alpha = 1};
    if (f->also.data) {
        product.a2 = product.a;
        product.b2 = a;
        product.a = f->also;
        product.b = w;
    }
    d.x = product.c;
    d.y = io->dx;
    d.accumulate = true;
    TRY(op_gemm(p->s, &product));
    return op_dropout(p->s, &d);
}

/* dx (+)= dy·W + t·A */
static status input_gradient(struct pass *p, const struct linear *l, const struct linear_io *io, const struct flow *f)
{
    struct param_store *ps = &p->m->params;
    struct gemm_args product = {.a = f->dy, .c = io->dx, .alpha = 1, .beta = io->adds_dx ? 1 : 0};
    tensor a = {0};
    if (has_adapter(l)) TRY(param_acquire(ps, p->s, l->a, &a));
    if (has_adapter(l) && !drops(p, l)) {
        tensor beside, under;
        param_joined(ps, l->w, &beside, &under);
        product.a2 = f->t;
        product.b2 = under.data ? under : a;
    }
    TRY(param_acquire(ps, p->s, l->w, &product.b));
    TRY(op_gemm(p->s, &product));
    if (drops(p, l)) TRY(dropped_dx(p, l, io, f, a, product.b));
    param_done(ps, l->w);
    if (has_adapter(l)) param_done(ps, l->a);
    return ST_OK;
}

/* The magnitude's gradient, from u, which nobody keeps: a product again, for as much memory as one projection's output. From here on
 * dy is that of u, or where something is dropped stays and has (m/N − 1)⊙dy beside it. Puts: nothing reads the magnitude any more. */
static status magnitude_bwd(struct pass *p, const struct linear *l, const struct linear_io *io, struct flow *f, tensor *room)
{
    struct rescale_bwd_args r = {.dy = io->dy,
                                 .to = p->m->params.p[l->magnitude].value,
                                 .from = l->lengths->now,
                                 .accumulate = drops(p, l)};
    r.u = r.du = magnitude_room(p->m, l, io->dy.dim[0], room);
    TRY(before_magnitude(p, l, io, r.u));
    TRY(grad_acquire_zeroed(p->sink, l->magnitude, &r.d_to));
    TRY(op_rescale_bwd(p->s, &r));
    *(r.accumulate ? &f->also : &f->dy) = r.du;
    return p->more ? ST_OK : grad_done(p->sink, l->magnitude);
}

/* t = dy·s·B, of all that flows into u. */
static status adapter_out(struct pass *p, const struct linear *l, struct flow *f, tensor room)
{
    struct gemm_args product = {.a = f->dy, .a2 = f->also, .alpha = 1};
    f->t = product.c = room.data ? room : tensor_2d(p->m->lora_t.data, p->m->lora_t.dt, f->dy.dim[0], l->rank);
    TRY(param_acquire(&p->m->params, p->s, l->b, &product.b));
    if (f->also.data) product.b2 = product.b;
    TRY(op_gemm(p->s, &product));
    param_done(&p->m->params, l->b);
    return ST_OK;
}

/* Everything that reads a parameter comes before its gradient is put: with optimizer_in_bwd, putting steps it. */
status linear_bwd(struct pass *p, const struct linear *l, const struct linear_io *io)
{
    struct param_store *ps = &p->m->params;
    struct flow f = {.dy = io->dy};
    tensor room = io->room;
    if (l->magnitude >= 0) TRY(magnitude_bwd(p, l, io, &f, &room));
    if (has_adapter(l)) TRY(adapter_out(p, l, &f, room));
    if (io->dx.data) TRY(input_gradient(p, l, io, &f));
    if (has_adapter(l)) {
        tensor in;
        TRY(dropped_input(p, l, io, &in));
        TRY(l->parts ? put_parts(p, l, f.dy, io->h) : put_product(p, l->b, f.dy, f.also, io->h, l->scale));
        TRY(put_product(p, l->a, f.t, (tensor){0}, in, 1));
    }
    if (param_is_trained(&ps->p[l->w])) TRY(put_product(p, l->w, io->dy, (tensor){0}, io->x, 1));
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
