/* head.c — final norm, projection and loss over the supervised rows, in chunks: logits of a whole batch never exist.
 *
 *   rows of a chunk:  x = x2 + branch of the last block → n = norm(x) → z = n·Wᵀ → loss, dz in z
 *                     dn = dz·W, dW += dzᵀ·n → dx → rows of d_x */
#include "worker/model/model.h"

struct chunk {
    const int32_t *rows, *labels;
    struct rows_at at;
    int64_t n;
};

static tensor part(tensor t, int64_t n) { return t.rank == 1 ? tensor_1d(t.data, t.dt, n) : tensor_2d(t.data, t.dt, n, t.ld); }

static status norm_rows(struct pass *p, const struct chunk *c)
{
    struct model *m = p->m;
    struct rmsnorm_fwd_args a = {.x = part(m->head_x, c->n),
                                 .delta = part(m->head_delta, c->n),
                                 .y = part(m->head_n, c->n),
                                 .rstd = part(m->head_rstd, c->n),
                                 .eps = m->shape.eps,
                                 .unit_offset = m->shape.unit_offset};
    tensor x, delta;
    block_out(m, &x, &delta);
    TRY(op_gather_rows(p->s, &(struct rows_args){.src = x, .dst = a.x, .rows = c->rows, .n = c->n}));
    TRY(op_gather_rows(p->s, &(struct rows_args){.src = delta, .dst = a.delta, .rows = c->rows, .n = c->n}));
    a.sum = a.x;
    TRY(param_acquire(&m->params, p->s, m->final_norm, &a.w));
    TRY(op_rmsnorm_fwd(p->s, &a));
    param_done(&m->params, m->final_norm);
    return ST_OK;
}

static struct linear_io head_io(const struct model *m, const struct chunk *c)
{
    return (struct linear_io){.rows = c->at, .x = part(m->head_n, c->n), .h = part(m->head_lora, c->n)};
}

static status project(struct pass *p, const struct chunk *c)
{
    struct linear_io io = head_io(p->m, c);
    io.y = part(p->m->head_z, c->n);
    TRY(norm_rows(p, c));
    return linear_fwd(p, &p->m->head, &io);
}

static status chunk_bwd(struct pass *p, const struct chunk *c)
{
    struct model *m = p->m;
    struct linear_io io = head_io(m, c);
    io.dy = part(m->head_z, c->n);
    io.dx = part(m->head_dn, c->n);
    TRY(linear_bwd(p, &m->head, &io));
    TRY(norm_bwd(p, m->final_norm,
                 &(struct rmsnorm_bwd_args){.dy = io.dx,
                                            .x = part(m->head_x, c->n),
                                            .dx = io.dx,
                                            .rstd = part(m->head_rstd, c->n),
                                            .unit_offset = m->shape.unit_offset}));
    return op_scatter_rows(p->s, &(struct rows_args){.src = io.dx, .dst = block_dx(m), .rows = c->rows, .n = c->n});
}

status head_loss(struct pass *p, tensor sum)
{
    struct model *m = p->m;
    const struct batch *b = p->batch;
    tensor d_x = block_dx(m);
    if (p->sink) TRY(m->be->dev.zero(p->s, d_x.data, (size_t)(d_x.dim[0] * d_x.ld) * dtype_bytes(d_x.dt)));
    for (int64_t first = 0; first < b->supervised; first += m->plan.head_rows) {
        struct chunk c = {.rows = b->rows + first,
                          .labels = b->labels + first,
                          .at = rows_from(b->rows_at, first),
                          .n = b->supervised - first};
        if (c.n > m->plan.head_rows) c.n = m->plan.head_rows;
        TRY(project(p, &c));
        tensor loss = tensor_1d((char *)m->loss.data + (size_t)first * dtype_bytes(m->loss.dt), m->loss.dt, c.n);
        TRY(op_loss(p->s,
                    &(struct loss_args){
                        .z = part(m->head_z, c.n), .labels = c.labels, .loss = loss, .cap = m->shape.head_cap, .forward_only = !p->sink}));
        p->more = first + c.n < b->supervised;
        if (p->sink) TRY(chunk_bwd(p, &c));
    }
    p->more = false;
    return op_loss_sum(p->s, &(struct loss_sum_args){.loss = part(m->loss, b->supervised), .out = sum});
}

status model_logits(struct pass *p, const int32_t *rows, int64_t n, tensor *logits)
{
    struct model *m = p->m;
    struct chunk c = {.rows = rows, .n = n};
    TRY(project(p, &c));
    if (m->shape.head_cap != 0) TRY(op_soft_cap(p->s, &(struct soft_cap_args){.z = part(m->head_z, n), .cap = m->shape.head_cap}));
    *logits = part(m->head_z, n);
    return ST_OK;
}
