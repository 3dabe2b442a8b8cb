/* block_build.c — from a model's shape to its tables of slots and steps; the one place where a fact about the block is said. */
#include <assert.h>

#include "worker/model/model.h"

/* ---- rows --------------------------------------------------------------------------------------------------------- */

static slot_set bit(const struct block *b, int slot) { return slot < 0 ? 0 : (slot_set)1 << b->slot[slot].of; }

static int add_grad(struct block *b, const char *name, int64_t width)
{
    assert(b->n_grads < BLOCK_MAX_GRADS);
    b->grads[b->n_grads].name = name;
    b->grads[b->n_grads].width = width;
    return b->n_grads++;
}

/* from: the rung that recomputes it; ACT_RUNG_NONE: what no backward reads, never kept. */
static int add_slot(struct block *b, const char *name, int64_t width, dtype dt, enum act_rung from, int grad)
{
    int slot = b->n_slots++;
    assert(slot < ACT_MAX_SLOTS);
    b->slot[slot] = (struct act_slot){.name = name, .width = width, .dt = dt, .from = from, .of = slot};
    b->grad[slot] = grad;
    return slot;
}

static int add_columns(struct block *b, int owner, int64_t column, int64_t width)
{
    int slot = add_slot(b, b->slot[owner].name, width, b->slot[owner].dt, b->slot[owner].from, b->grad[owner]);
    b->slot[slot].of = owner;
    b->slot[slot].column = column;
    return slot;
}

static struct step *add_step(struct block *b, struct step st)
{
    assert(b->n_steps < BLOCK_MAX_STEPS);
    b->step[b->n_steps] = st;
    return &b->step[b->n_steps++];
}

/* ---- kinds of steps: what they read and write follows from their slots ------------------------------------------------ */

#define RUN(kind) .fwd = step_##kind##_fwd, .bwd = step_##kind##_bwd

static struct step *norm(struct block *b, const char *name, int which, int in, int y, int rstd)
{
    return add_step(b, (struct step){.name = name,
                                     RUN(norm),
                                     .linear = -1,
                                     .norm = which,
                                     .at.norm = {.in = in, .y = y, .rstd = rstd, .base = -1, .delta = -1, .heads = 1},
                                     .reads = bit(b, in),
                                     .writes = bit(b, y) | bit(b, rstd),
                                     .saved = bit(b, in) | bit(b, rstd),
                                     .out = bit(b, y)});
}

/* A norm of the residual stream, which first adds what a branch leaves. */
static void norm_sum(struct block *b, const char *name, int which, int in, int y, int rstd, int base, int delta, bool behind)
{
    struct step *st = norm(b, name, which, in, y, rstd);
    st->at.norm.base = base;
    st->at.norm.delta = delta;
    st->at.norm.behind = behind;
    st->sum = bit(b, in);
    st->writes |= st->sum;
    st->terms = behind ? 0 : bit(b, base) | bit(b, delta);
}

static void norm_heads(struct block *b, const char *name, int which, int in, int y, int rstd)
{
    norm(b, name, which, in, y, rstd)->at.norm.heads = b->slot[rstd].width;
}

/* The rung that recomputes what a projection writes: where its norm or product is there again, or all of the block. */
static enum act_rung rung_of(int linear)
{
    static const enum act_rung RUNG[LINEAR_PER_LAYER] = {
        [LINEAR_Q] = ACT_RUNG_INPUTS, [LINEAR_K] = ACT_RUNG_INPUTS, [LINEAR_V] = ACT_RUNG_INPUTS,   [LINEAR_O] = ACT_RUNG_BLOCK,
        [LINEAR_GATE] = ACT_RUNG_FFN, [LINEAR_UP] = ACT_RUNG_FFN,   [LINEAR_DOWN] = ACT_RUNG_BLOCK,
    };
    return RUNG[linear];
}

static int add_inner(struct block *b, const struct model *m, int linear, int64_t width)
{
    return add_slot(b, "adapter x·Aᵀ", width, m->act, rung_of(linear), GRAD_SELF);
}

enum { ROOM = 64 }; /* elements: rows stay as aligned as they were */

static int64_t room_for(int64_t cols) { return (cols + ROOM - 1) / ROOM * ROOM; }

/* Before the projections that read x, of which `first` is the first: the slots of their x·Aᵀ, each as wide as the largest rank
 * of any layer (a narrower one is its first columns), and the step that makes all of them where they are one product or lie
 * behind x. */
static void adapters(struct block *b, const struct model *m, int x, int first)
{
    int last = first;
    while (last + 1 < LINEAR_PER_LAYER && linear_first(last + 1) == first) last++;
    bool row;
    int members = linears_alike(m, first, last, &row), all = -1;
    bool joined = members && m->params.joins;
    int64_t column = 0, width = 0;
    for (int which = first; which <= last; which++) width += linear_largest_rank(m, which);
    if (joined) {
        b->slot[x].room = room_for(width);
        all = add_columns(b, x, b->slot[x].width, width);
    } else if (members > 1 && row) {
        all = add_inner(b, m, first, width);
    }
    for (int which = last; which >= first; which--) { /* as the A's lie */
        int64_t rank = linear_largest_rank(m, which);
        b->inner[which] =
            all < 0 || !rank ? add_inner(b, m, which, rank) : add_columns(b, b->slot[all].of, b->slot[all].column + column, rank);
        b->all[which] = joined ? all : -1;
        b->column[which] = column;
        column += rank;
    }
    if (all < 0) return;
    while (!linear_largest_rank(m, last)) last--;
    add_step(b, (struct step){.name = "adapters",
                              .fwd = step_inner_fwd,
                              .linear = -1,
                              .norm = -1,
                              .at.inner = {.x = x, .h = all, .first = first, .last = last, .row = row},
                              .reads = bit(b, x),
                              .writes = bit(b, all)});
}

static void widen(int64_t *room, int64_t rank)
{
    if (room_for(rank) > *room) *room = room_for(rank);
}

/* Where dy of a joined projection has dy·s·B behind it. Rows of q, k and v are as far apart as those of their gradients: of what
 * attention reads and writes backward it asks that (kernels/cuda/attention.c). */
static void leave_room(struct block *b, int which, int y, int64_t rank)
{
    if (b->grad[y] == GRAD_SELF || linear_first(which) == LINEAR_Q) widen(&b->slot[y].room, rank);
    if (b->grad[y] != GRAD_SELF) widen(&b->grads[b->grad[y]].room, rank);
}

static void linear(struct block *b, const struct model *m, const char *name, int which, int x, int y, bool adds_dx)
{
    int inner = b->inner[which];
    bool there = b->slot[inner].of != inner;                                    /* columns: `adapters` has made them */
    bool normed = m->shape.qk_norm && (which == LINEAR_Q || which == LINEAR_K); /* head by head: rows without room */
    if (b->all[which] >= 0 && !normed) leave_room(b, which, y, linear_largest_rank(m, which));
    add_step(b, (struct step){.name = name,
                              RUN(linear),
                              .linear = which,
                              .norm = -1,
                              .at.linear = {.x = x, .y = y, .inner = inner, .all = b->all[which], .adds_dx = adds_dx, .inner_there = there},
                              .reads = bit(b, x) | (there ? bit(b, inner) : 0),
                              .writes = bit(b, y) | (there ? 0 : bit(b, inner)),
                              .saved = bit(b, x) | bit(b, inner),
                              .out = bit(b, y)});
}

static void rope(struct block *b, int q, int k)
{
    slot_set both = bit(b, q) | bit(b, k);
    add_step(
        b,
        (struct step){
            .name = "rope", RUN(rope), .linear = -1, .norm = -1, .at.rope = {.q = q, .k = k}, .reads = both, .writes = both, .out = both});
}

static void attention(struct block *b, int q, int k, int v, int o, int lse)
{
    slot_set qkv = bit(b, q) | bit(b, k) | bit(b, v), made = bit(b, o) | bit(b, lse);
    add_step(b, (struct step){.name = "attention",
                              RUN(attn),
                              .linear = -1,
                              .norm = -1,
                              .at.attn = {.q = q, .k = k, .v = v, .o = o, .lse = lse},
                              .reads = qkv,
                              .writes = made,
                              .saved = qkv | made,
                              .out = bit(b, o)});
}

static void product(struct block *b, int gate, int up, int h)
{
    slot_set both = bit(b, gate) | bit(b, up);
    add_step(b, (struct step){.name = "product",
                              RUN(glu),
                              .linear = -1,
                              .norm = -1,
                              .at.glu = {.gate = gate, .up = up, .h = h},
                              .reads = both,
                              .writes = bit(b, h),
                              .saved = both,
                              .out = bit(b, h)});
}

/* ---- the block ------------------------------------------------------------------------------------------------------- */

struct heads {
    int q, k, v;
};

/* q, k, v as attention reads them. In backward v comes first: it writes the gradient of n1, the others add. */
static struct heads project_heads(struct block *b, const struct model *m, int n1)
{
    const struct model_shape *s = &m->shape;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    struct heads h;
    adapters(b, m, n1, LINEAR_Q);
    if (s->fused_qkv) {
        int all = add_slot(b, "q, k, v", q + 2 * kv, m->act, rung_of(LINEAR_Q), add_grad(b, "gradient of q, k, v", q + 2 * kv));
        linear(b, m, "q, k, v", LINEAR_Q, n1, all, false);
        h.q = add_columns(b, all, 0, q);
        h.k = add_columns(b, all, q, kv);
        h.v = add_columns(b, all, q + kv, kv);
        return h;
    }
    h.q = add_slot(b, "q", q, m->act, rung_of(LINEAR_Q), add_grad(b, "gradient of q", q));
    h.k = add_slot(b, "k", kv, m->act, rung_of(LINEAR_K), add_grad(b, "gradient of k", kv));
    h.v = add_slot(b, "v", kv, m->act, rung_of(LINEAR_V), add_grad(b, "gradient of v", kv));
    linear(b, m, "q", LINEAR_Q, n1, h.q, true);
    linear(b, m, "k", LINEAR_K, n1, h.k, true);
    linear(b, m, "v", LINEAR_V, n1, h.v, false);
    return h;
}

/* Normed and turned: what is cheap to repeat, like norms everywhere. */
static int normed_heads(struct block *b, const struct model *m, const char *name, int which, int x, int64_t heads)
{
    int y = add_slot(b, name, b->slot[x].width, m->act, ACT_RUNG_PRODUCTS, b->grad[x]);
    int rstd = add_slot(b, "statistics of q, k norms", heads, m->stat, ACT_RUNG_INPUTS, GRAD_SELF);
    norm_heads(b, name, which, x, y, rstd);
    return y;
}

static int attention_branch(struct block *b, const struct model *m, int n1)
{
    const struct model_shape *s = &m->shape;
    int64_t q = s->heads * s->head_dim;
    struct heads h = project_heads(b, m, n1);
    if (s->qk_norm) {
        h.q = normed_heads(b, m, "q, normed", NORM_Q, h.q, s->heads);
        h.k = normed_heads(b, m, "k, normed", NORM_K, h.k, s->kv_heads);
    }
    rope(b, h.q, h.k);
    int o = add_slot(b, "attention output", q, m->act, ACT_RUNG_BLOCK, add_grad(b, "gradient of attention output", q));
    int lse = add_slot(b, "attention statistics", s->heads, m->stat, ACT_RUNG_BLOCK, GRAD_SELF);
    attention(b, h.q, h.k, h.v, o, lse);
    return o;
}

static int mlp_branch(struct block *b, const struct model *m, int n2)
{
    const struct model_shape *s = &m->shape;
    int gate, up;
    adapters(b, m, n2, LINEAR_GATE);
    if (s->fused_gate_up) {
        int both = add_slot(b, "gate, up", 2 * s->ffn, m->act, rung_of(LINEAR_GATE), GRAD_SELF);
        linear(b, m, "gate, up", LINEAR_GATE, n2, both, false);
        gate = add_columns(b, both, 0, s->ffn);
        up = add_columns(b, both, s->ffn, s->ffn);
    } else {
        gate = add_slot(b, "gate", s->ffn, m->act, rung_of(LINEAR_GATE), GRAD_SELF);
        up = add_slot(b, "up", s->ffn, m->act, rung_of(LINEAR_UP), GRAD_SELF);
        linear(b, m, "gate", LINEAR_GATE, n2, gate, true);
        linear(b, m, "up", LINEAR_UP, n2, up, false);
    }
    int hid = add_slot(b, "product", s->ffn, m->act, ACT_RUNG_PRODUCTS, add_grad(b, "gradient of product", s->ffn));
    product(b, gate, up, hid);
    return hid;
}

/* The projection that ends a branch, and what the residual stream adds of it: itself, or its norm. */
static void branch_end(struct block *b, const struct model *m, const char *name, int which, int from, int post, int d_n)
{
    int64_t c = m->shape.width;
    adapters(b, m, from, which);
    if (!m->shape.post_norms) {
        linear(b, m, name, which, from, b->delta, false);
        return;
    }
    int raw = add_slot(b, "branch before its norm", c, m->act, ACT_RUNG_BLOCK, d_n);
    int rstd = add_slot(b, "branch norm statistics", 1, m->stat, ACT_RUNG_BLOCK, GRAD_SELF);
    linear(b, m, name, which, from, raw, false);
    norm(b, "branch norm", post, raw, b->delta, rstd);
}

/* The steps first … end are walked tile by tile: what no other step touches lives as long as that, and so does its gradient. */
static void walk_tiled(struct block *b, int first, int end)
{
    slot_set inside = 0, outside = 0;
    for (int i = 0; i < b->n_steps; i++) {
        const struct step *st = &b->step[i];
        *(i >= first && i < end ? &inside : &outside) |= st->reads | st->writes | st->saved | st->terms;
    }
    b->tiled.first = first;
    b->tiled.end = end;
    b->tiled.slots = inside & ~outside;
    for (int g = 0; g < b->n_grads; g++) b->grads[g].tiled = true;
    for (int i = 0; i < b->n_slots; i++) {
        b->slot[i].tiled = b->tiled.slots & bit(b, i);
        if (b->grad[i] >= 0 && !b->slot[i].tiled) b->grads[b->grad[i]].tiled = false;
    }
}

status block_build(const struct model *m, struct block *b)
{
    const struct model_shape *s = &m->shape;
    *b = (struct block){0};
    if (s->fused_qkv && s->qk_norm)
        FAIL(ST_NOT_BUILT, "norms of q and k where q, k and v are one tensor: no family has them, and they are not built");
    int d_x = add_grad(b, "gradient of x", s->width), d_n = add_grad(b, "gradient of norms", s->width);
    assert(d_x == GRAD_X);
    b->x = add_slot(b, "x (block input)", s->width, m->act, ACT_RUNG_FORWARD, d_x);
    int n1 = add_slot(b, "norm 1", s->width, m->act, ACT_RUNG_PRODUCTS, d_n);
    int r1 = add_slot(b, "norm 1 statistics", 1, m->stat, ACT_RUNG_BLOCK, GRAD_SELF);
    b->x2 = add_slot(b, "x after attention", s->width, m->act, ACT_RUNG_BLOCK, d_x);
    int n2 = add_slot(b, "norm 2", s->width, m->act, ACT_RUNG_PRODUCTS, d_n);
    int r2 = add_slot(b, "norm 2 statistics", 1, m->stat, ACT_RUNG_BLOCK, GRAD_SELF);
    b->delta = add_slot(b, "branch", s->width, m->act, ACT_RUNG_NONE, d_x);

    norm_sum(b, "norm 1", NORM_1, b->x, n1, r1, b->x2, b->delta, true);
    branch_end(b, m, "o", LINEAR_O, attention_branch(b, m, n1), NORM_POST_1, d_n);
    norm_sum(b, "norm 2", NORM_2, b->x2, n2, r2, b->x, b->delta, false);
    int first = b->n_steps;
    branch_end(b, m, "down", LINEAR_DOWN, mlp_branch(b, m, n2), NORM_POST_2, d_n);
    if (m->plan.acts.tile) walk_tiled(b, first, b->n_steps - s->post_norms); /* the norm behind it sees all of the branch */
    return ST_OK;
}

/* ---- what concerns one layer --------------------------------------------------------------------------------------------- */

static bool trains(const struct model *m, int64_t layer, const struct step *st)
{
    const struct layer *l = &m->layers[layer];
    if (st->norm >= 0) return param_is_trained(&m->params.p[l->norm[st->norm]]);
    return st->linear >= 0 && linear_is_trained(m, &l->linear[st->linear]);
}

/* A projection reads its input only for the gradients of its weight and adapter, and x·Aᵀ only where there is one. */
static slot_set saved_of(const struct model *m, int64_t layer, const struct step *st)
{
    if (st->linear < 0) return st->saved;
    const struct linear *l = &m->layers[layer].linear[st->linear];
    return st->saved & ~(linear_needs_input(m, l) ? 0 : st->reads) & ~(l->rank ? 0 : st->writes & ~st->out);
}

struct block_use block_use_of(const struct model *m, int64_t layer)
{
    const struct block *b = m->block;
    struct block_use u = {0};
    /* Below the lowest layer with something trained there is nothing more, unless the embedding is trained. */
    if (layer > m->lowest || param_is_trained(&m->params.p[m->embed])) u.flows |= bit(b, b->x);
    for (int i = 0; i < b->n_steps; i++) {
        const struct step *st = &b->step[i];
        bool in = u.flows & (st->reads | st->terms);
        if (in) u.flows |= st->sum;
        if (in || trains(m, layer, st)) u.flows |= st->out;
        if (u.flows & st->out) u.needs |= saved_of(m, layer, st);
    }
    return u;
}
