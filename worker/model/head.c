/* head.c — final norm, projection and loss over the supervised rows, in chunks: logits of a whole batch never exist.
 *
 *   rows of a chunk:  x → n = norm(x) → z = n·Wᵀ → loss, dz in z → dn = dz·W, dW += dzᵀ·n → dx → rows of d_x */
#include "worker/model/model.h"

struct chunk { const int32_t *rows, *labels; struct rows_at at; int64_t n; };

static tensor part(tensor t, int64_t n) { return t.rank == 1 ? tensor_1d(t.data, t.dt, n) : tensor_2d(t.data, t.dt, n, t.ld); }

static status project(struct pass *p, tensor x, const struct chunk *c)
{
    struct model *m = p->m;
    tensor w, hx = part(m->head_x, c->n), hn = part(m->head_n, c->n);
    TRY(op_gather_rows(p->s, &(struct rows_args){.src = x, .dst = hx, .rows = c->rows, .n = c->n}));
    TRY(param_acquire(&m->params, p->s, m->final_norm, &w));
    TRY(op_rmsnorm_fwd(p->s, &(struct rmsnorm_fwd_args){.x = hx, .w = w, .y = hn, .rstd = part(m->head_rstd, c->n), .eps = m->shape.eps}));
    param_done(&m->params, m->final_norm);
    return linear_fwd(p, &m->head, c->at, hn, part(m->head_lora, c->n), part(m->head_z, c->n), m->dropped);
}

static status chunk_bwd(struct pass *p, const struct chunk *c)
{
    struct model *m = p->m;
    tensor w, dn = part(m->head_dn, c->n), d_x = tensor_2d(m->d_x.data, m->d_x.dt, m->acts.tokens, m->d_x.ld);
    TRY(linear_bwd(p, &m->head, c->at, part(m->head_n, c->n), part(m->head_lora, c->n), part(m->head_z, c->n), dn, false, m->lora_t,
                   m->dropped));
    bool trained = param_is_trained(&m->params.p[m->final_norm]), accumulate;
    struct rmsnorm_bwd_args a = {.dy = dn, .x = part(m->head_x, c->n), .rstd = part(m->head_rstd, c->n), .dx = dn};
    if (trained) {
        a.dw = grad_acquire(p->sink, m->final_norm, &accumulate);
        if (!accumulate) TRY(m->be->dev.zero(p->s, a.dw.data, (size_t)tensor_count(&a.dw) * dtype_bytes(a.dw.dt)));
    }
    TRY(param_acquire(&m->params, p->s, m->final_norm, &w));
    a.w = w;
    TRY(op_rmsnorm_bwd(p->s, &a));
    param_done(&m->params, m->final_norm);
    if (trained && !p->more) TRY(grad_done(p->sink, m->final_norm));
    return op_scatter_rows(p->s, &(struct rows_args){.src = dn, .dst = d_x, .rows = c->rows, .n = c->n});
}

static double sum_losses(tensor loss)
{
    double sum = 0;
    for (int64_t i = 0; i < loss.dim[0]; i++) sum += loss.dt == DT_F64 ? ((double *)loss.data)[i] : (double)((float *)loss.data)[i];
    return sum;
}

status head_loss(struct pass *p, tensor x, double *loss_sum)
{
    struct model *m = p->m;
    const struct batch *b = p->batch;
    if (p->sink) TRY(m->be->dev.zero(p->s, m->d_x.data, (size_t)(m->acts.tokens * m->d_x.ld) * dtype_bytes(m->d_x.dt)));
    for (int64_t first = 0; first < b->supervised; first += m->plan.head_rows) {
        struct chunk c = {.rows = b->rows + first, .labels = b->labels + first, .at = rows_from(b->rows_at, first), .n = b->supervised - first};
        if (c.n > m->plan.head_rows) c.n = m->plan.head_rows;
        TRY(project(p, x, &c));
        tensor loss = tensor_1d((char *)m->loss.data + (size_t)first * dtype_bytes(m->loss.dt), m->loss.dt, c.n);
        TRY(op_loss(p->s, &(struct loss_args){.z = part(m->head_z, c.n), .labels = c.labels, .loss = loss, .forward_only = !p->sink}));
        p->more = first + c.n < b->supervised;
        if (p->sink) TRY(chunk_bwd(p, &c));
    }
    p->more = false;
    TRY(m->be->dev.sync(p->s, "loss"));
    *loss_sum = sum_losses(part(m->loss, b->supervised));
    return ST_OK;
}

status model_logits(struct pass *p, const int32_t *rows, int64_t n, tensor *logits)
{
    struct model *m = p->m;
    struct chunk c = {.rows = rows, .n = n};
    TRY(project(p, act(&m->acts, m->shape.layers, block_slot_x), &c));
    *logits = part(m->head_z, n);
    return ST_OK;
}
