/* block_steps.c — the kinds of steps that blocks are made of, forward and backward (block.h). */
#include <assert.h>

#include "worker/model/model.h"

static tensor slot(const struct pass *p, int64_t layer, int s) { return act(&p->m->acts, layer, s); }

static tensor gradient(const struct pass *p, int64_t layer, int s) { return block_gradient(p->m, layer, s); }

static bool flows(const struct pass *p, int64_t layer, int s) { return p->m->layers[layer].use.flows >> p->m->block->slot[s].of & 1; }

/* ---- norm ------------------------------------------------------------------------------------------------------------- */

/* [N, heads·D] as [N·heads, D], and the statistics [N, heads] as [N·heads]. */
static tensor per_head(tensor t, int64_t heads) { return heads == 1 ? t : tensor_2d(t.data, t.dt, t.dim[0] * heads, t.dim[1] / heads); }

static tensor statistics(tensor t) { return tensor_1d(t.data, t.dt, tensor_count(&t)); }

status step_norm_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want)
{
    struct model *m = p->m;
    int64_t heads = st->at.norm.heads, from = layer - st->at.norm.behind;
    int id = m->layers[layer].norm[st->norm];
    struct rmsnorm_fwd_args a = {.x = per_head(slot(p, layer, st->at.norm.in), heads),
                                 .y = per_head(slot(p, layer, st->at.norm.y), heads),
                                 .rstd = statistics(slot(p, layer, st->at.norm.rstd)),
                                 .eps = m->shape.eps,
                                 .unit_offset = m->shape.unit_offset};
    if (want & st->sum) {
        a.sum = a.x;
        a.x = slot(p, from, st->at.norm.base);
        a.delta = slot(p, from, st->at.norm.delta);
    }
    TRY(param_acquire(&m->params, p->s, id, &a.w));
    status done = op_rmsnorm_fwd(p->s, &a);
    param_done(&m->params, id);
    return done;
}

/* Of a sum, the gradient that is there already is joined by the norm's. */
status step_norm_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    struct model *m = p->m;
    int64_t heads = st->at.norm.heads;
    int id = m->layers[layer].norm[st->norm];
    struct rmsnorm_bwd_args a = {.dy = per_head(gradient(p, layer, st->at.norm.y), heads),
                                 .x = per_head(slot(p, layer, st->at.norm.in), heads),
                                 .dx = per_head(gradient(p, layer, st->at.norm.in), heads),
                                 .rstd = statistics(slot(p, layer, st->at.norm.rstd)),
                                 .unit_offset = m->shape.unit_offset};
    if (st->sum) a.residual = a.dx;
    return norm_bwd(p, id, &a);
}

/* ---- projection --------------------------------------------------------------------------------------------------------- */

static struct linear_io linear_io(const struct pass *p, int64_t layer, const struct step *st)
{
    int64_t rank = p->m->layers[layer].linear[st->linear].rank;
    struct linear_io io = {.rows = rows_from(p->batch->docs.rows, p->m->acts.first), .x = slot(p, layer, st->at.linear.x)};
    tensor h = slot(p, layer, st->at.linear.inner);
    if (rank) io.h = tensor_columns(&h, 0, rank);
    io.h_there = st->at.linear.inner_there;
    if (rank && st->at.linear.all >= 0) io.all = slot(p, layer, st->at.linear.all);
    return io;
}

status step_inner_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want)
{
    tensor x = slot(p, layer, st->at.inner.x);
    (void)want;
    for (int which = st->at.inner.last; which >= st->at.inner.first; which--) {
        const struct linear *l = &p->m->layers[layer].linear[which];
        if (!l->rank) continue;
        bool row = st->at.inner.row;
        TRY(linear_inner(p, l, x, slot(p, layer, row ? st->at.inner.h : p->m->block->inner[which]), row));
        if (row) break;
    }
    return ST_OK;
}

status step_linear_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want)
{
    struct linear_io io = linear_io(p, layer, st);
    if (want & st->out) io.y = slot(p, layer, st->at.linear.y);
    return linear_fwd(p, &p->m->layers[layer].linear[st->linear], &io);
}

status step_linear_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    struct linear_io io = linear_io(p, layer, st);
    io.dy = gradient(p, layer, st->at.linear.y);
    io.room = block_gradient_room(p->m, layer, st->at.linear.y, p->m->layers[layer].linear[st->linear].rank);
    if (flows(p, layer, st->at.linear.x)) io.dx = gradient(p, layer, st->at.linear.x);
    io.adds_dx = st->at.linear.adds_dx;
    return linear_bwd(p, &p->m->layers[layer].linear[st->linear], &io);
}

/* ---- rotation ----------------------------------------------------------------------------------------------------------- */

static status rotate(struct pass *p, int64_t layer, tensor q, tensor k, bool inverse)
{
    const struct model *m = p->m;
    const struct rope_table *rope = &m->rope[m->layers[layer].rope];
    return op_rope(p->s, &(struct rope_args){.q = q,
                                             .k = k,
                                             .cos = rope->cos,
                                             .sin = rope->sin,
                                             .heads = m->shape.heads,
                                             .kv_heads = m->shape.kv_heads,
                                             .head_dim = m->shape.head_dim,
                                             .positions = p->batch->docs.positions,
                                             .rows = p->batch->docs.rows,
                                             .inverse = inverse});
}

status step_rope_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want)
{
    assert(want == st->writes); /* in place: what is there is turned already */
    (void)want;
    return rotate(p, layer, slot(p, layer, st->at.rope.q), slot(p, layer, st->at.rope.k), false);
}

status step_rope_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    return rotate(p, layer, gradient(p, layer, st->at.rope.q), gradient(p, layer, st->at.rope.k), true);
}

/* ---- attention ---------------------------------------------------------------------------------------------------------- */

static struct attn_fwd_args attention(const struct pass *p, int64_t layer, const struct step *st)
{
    const struct model_shape *s = &p->m->shape;
    return (struct attn_fwd_args){
        .q = slot(p, layer, st->at.attn.q),
        .k = slot(p, layer, st->at.attn.k),
        .v = slot(p, layer, st->at.attn.v),
        .o = slot(p, layer, st->at.attn.o),
        .lse = slot(p, layer, st->at.attn.lse),
        .heads = s->heads,
        .kv_heads = s->kv_heads,
        .head_dim = s->head_dim,
        .window = p->m->layers[layer].window,
        .scale = s->attn_scale,
        .cap = s->attn_cap,
        .docs = p->batch->docs,
    };
}

status step_attn_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want)
{
    struct attn_fwd_args a = attention(p, layer, st);
    (void)want;
    TRY(kv_cache_put(&p->m->cache, p->s, layer, p->batch->cache_rows, &a.k, &a.v));
    a.key_start = p->batch->key_start;
    return op_attn_fwd(p->s, &a);
}

status step_attn_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    return op_attn_bwd(p->s, &(struct attn_bwd_args){.fwd = attention(p, layer, st),
                                                     .d_o = gradient(p, layer, st->at.attn.o),
                                                     .dq = gradient(p, layer, st->at.attn.q),
                                                     .dk = gradient(p, layer, st->at.attn.k),
                                                     .dv = gradient(p, layer, st->at.attn.v)});
}

/* ---- product ------------------------------------------------------------------------------------------------------------ */

status step_glu_fwd(struct pass *p, int64_t layer, const struct step *st, slot_set want)
{
    (void)want;
    return op_glu_fwd(p->s, &(struct glu_fwd_args){.gate = slot(p, layer, st->at.glu.gate),
                                                   .up = slot(p, layer, st->at.glu.up),
                                                   .h = slot(p, layer, st->at.glu.h),
                                                   .kind = p->m->shape.act});
}

status step_glu_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    return op_glu_bwd(p->s, &(struct glu_bwd_args){.gate = slot(p, layer, st->at.glu.gate),
                                                   .up = slot(p, layer, st->at.glu.up),
                                                   .dh = gradient(p, layer, st->at.glu.h),
                                                   .dgate = gradient(p, layer, st->at.glu.gate),
                                                   .dup = gradient(p, layer, st->at.glu.up),
                                                   .kind = p->m->shape.act});
}
