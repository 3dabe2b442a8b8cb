/* block.c — one decoder block as a table of steps over named slots.
 *
 * Forward runs the steps in order; recomputation runs the same steps, only those whose results are missing; backward
 * runs them in reverse. No step knows why it runs, nor where its slots or parameters live. */
#include "worker/model/model.h"

enum slot {
    S_X,      /* residual stream into the block (carried: layer l writes x of l + 1) */
    S_N1, S_R1,
    S_Q, S_K, S_V, S_O, S_LSE,
    S_X2,     /* residual stream after attention */
    S_N2, S_R2,
    S_GATE, S_UP, S_HID,
    S_BRANCH, /* what a branch adds to the residual stream */
    S_LORA,   /* + LINEAR_*: x·Aᵀ of each adapter */
    S_COUNT = S_LORA + LINEAR_PER_LAYER,
};
const int block_slot_x = S_X;

#define BIT(slot) (1u << (slot))

/* reads, writes: slots of the forward step; saved: slots its backward reads (a projection reads its input only if
 * something there is trained). Recomputation follows from these three. */
struct step {
    const char *name;
    status (*fwd)(struct pass *p, int64_t layer, const struct step *step);
    status (*bwd)(struct pass *p, int64_t layer, const struct step *step);
    enum slot in, out, aux;   /* aux: statistics, or the second operand */
    int arg;                  /* LINEAR_*, or which norm */
    bool adds_dx;             /* backward adds to the gradient of `in` instead of writing it */
    uint32_t reads, writes, saved;
};

static tensor slot(const struct pass *p, int64_t layer, enum slot s) { return act(&p->m->acts, layer, (int)s); }

static tensor sized(const struct pass *p, tensor t) { return tensor_2d(t.data, t.dt, p->m->acts.tokens, t.ld); }

/* Where the gradient of a slot lives. Gate and up are overwritten by theirs: backward has no later use for them. */
static tensor gradient(const struct pass *p, int64_t layer, enum slot s)
{
    const struct model *m = p->m;
    switch (s) {
    case S_X: case S_X2: case S_BRANCH: return sized(p, m->d_x);
    case S_N1: case S_N2: return sized(p, m->d_n);
    case S_Q: return sized(p, m->d_q);
    case S_K: return sized(p, m->d_k);
    case S_V: return sized(p, m->d_v);
    case S_O: return sized(p, m->d_o);
    case S_HID: return sized(p, m->d_h);
    default: return slot(p, layer, s);
    }
}

/* Below the lowest block with something trained there is nothing more, unless the embedding is trained. */
static bool wants_dx(const struct pass *p, int64_t layer)
{
    return layer > p->m->lowest || param_is_trained(&p->m->params.p[p->m->embed]);
}

/* ---- steps -------------------------------------------------------------------------------------------------------- */

static int norm_param(const struct pass *p, int64_t layer, const struct step *st)
{
    return st->arg ? p->m->layers[layer].norm2 : p->m->layers[layer].norm1;
}

static status norm_fwd(struct pass *p, int64_t layer, const struct step *st)
{
    tensor w, rstd = slot(p, layer, st->aux);
    int id = norm_param(p, layer, st);
    TRY(param_acquire(&p->m->params, p->s, id, &w));
    status done = op_rmsnorm_fwd(p->s, &(struct rmsnorm_fwd_args){.x = slot(p, layer, st->in), .w = w,
                                 .y = slot(p, layer, st->out), .rstd = tensor_1d(rstd.data, rstd.dt, rstd.dim[0]),
                                 .eps = p->m->shape.eps});
    param_done(&p->m->params, id);
    return done;
}

static status norm_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    int id = norm_param(p, layer, st);
    tensor w, rstd = slot(p, layer, st->aux), d = gradient(p, layer, st->in);
    bool trained = param_is_trained(&p->m->params.p[id]), accumulate = false;
    if (st->in == S_X && !wants_dx(p, layer) && !trained) return ST_OK;
    struct rmsnorm_bwd_args a = {.dy = gradient(p, layer, st->out), .x = slot(p, layer, st->in), .residual = d, .dx = d,
                                 .rstd = tensor_1d(rstd.data, rstd.dt, rstd.dim[0])};
    if (trained) {
        a.dw = grad_acquire(p->sink, id, &accumulate);
        if (!accumulate) TRY(p->m->be->dev.zero(p->s, a.dw.data, (size_t)tensor_count(&a.dw) * dtype_bytes(a.dw.dt)));
    }
    TRY(param_acquire(&p->m->params, p->s, id, &w));
    a.w = w;
    TRY(op_rmsnorm_bwd(p->s, &a));
    param_done(&p->m->params, id);
    return trained ? grad_done(p->sink, id) : ST_OK;
}

/* The slot is as wide as the widest adapter of any layer; x·Aᵀ of this one lies densely at its start. */
static tensor lora_slot(const struct pass *p, int64_t layer, int linear)
{
    tensor h = slot(p, layer, S_LORA + linear);
    int64_t rank = p->m->layers[layer].linear[linear].rank;
    return rank ? tensor_2d(h.data, h.dt, h.dim[0], rank) : (tensor){0};
}

static status project_fwd(struct pass *p, int64_t layer, const struct step *st)
{
    const struct linear *l = &p->m->layers[layer].linear[st->arg];
    return linear_fwd(p, l, p->batch->docs.rows, slot(p, layer, st->in), lora_slot(p, layer, st->arg),
                      slot(p, layer, st->out), p->m->dropped);
}

static status project_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    const struct linear *l = &p->m->layers[layer].linear[st->arg];
    tensor dx = gradient(p, layer, st->in);
    if (st->in == S_N1 && !wants_dx(p, layer) && !param_is_trained(&p->m->params.p[p->m->layers[layer].norm1])) dx.data = NULL;
    return linear_bwd(p, l, p->batch->docs.rows, slot(p, layer, st->in), lora_slot(p, layer, st->arg),
                      gradient(p, layer, st->out), dx, st->adds_dx, p->m->lora_t, p->m->dropped);
}

static status rotate(struct pass *p, int64_t layer, tensor x, bool inverse)
{
    const struct model *m = p->m;
    const struct rope_table *rope = &m->rope[m->layers[layer].rope];
    return op_rope(p->s, &(struct rope_args){.x = x, .cos = rope->cos, .sin = rope->sin, .heads = x.dim[1] / m->shape.head_dim,
                                             .head_dim = m->shape.head_dim, .positions = p->batch->docs.positions,
                                             .rows = p->batch->docs.rows, .inverse = inverse});
}

static status rope_fwd(struct pass *p, int64_t layer, const struct step *st) { return rotate(p, layer, slot(p, layer, st->out), false); }
static status rope_bwd(struct pass *p, int64_t layer, const struct step *st) { return rotate(p, layer, gradient(p, layer, st->out), true); }

static struct attn_fwd_args attention(struct pass *p, int64_t layer)
{
    const struct model_shape *m = &p->m->shape;
    return (struct attn_fwd_args){
        .q = slot(p, layer, S_Q), .k = slot(p, layer, S_K), .v = slot(p, layer, S_V), .o = slot(p, layer, S_O),
        .lse = slot(p, layer, S_LSE), .heads = m->heads, .kv_heads = m->kv_heads, .head_dim = m->head_dim,
        .window = p->m->layers[layer].window, .scale = m->attn_scale, .docs = p->batch->docs,
    };
}

static status attn_fwd(struct pass *p, int64_t layer, const struct step *st)
{
    (void)st;
    struct attn_fwd_args a = attention(p, layer);
    TRY(kv_cache_put(&p->m->cache, p->s, layer, p->batch->cache_rows, &a.k, &a.v));
    a.key_start = p->batch->key_start;
    return op_attn_fwd(p->s, &a);
}

static status attn_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    (void)st;
    return op_attn_bwd(p->s, &(struct attn_bwd_args){.fwd = attention(p, layer), .d_o = gradient(p, layer, S_O),
                       .dq = gradient(p, layer, S_Q), .dk = gradient(p, layer, S_K), .dv = gradient(p, layer, S_V)});
}

static status glu_fwd(struct pass *p, int64_t layer, const struct step *st)
{
    return op_glu_fwd(p->s, &(struct glu_fwd_args){.gate = slot(p, layer, S_GATE), .up = slot(p, layer, S_UP),
                                                   .h = slot(p, layer, st->out), .kind = p->m->shape.act});
}

static status glu_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    tensor gate = slot(p, layer, S_GATE), up = slot(p, layer, S_UP);
    return op_glu_bwd(p->s, &(struct glu_bwd_args){.gate = gate, .up = up, .dh = gradient(p, layer, st->out), .dgate = gate,
                                                   .dup = up, .kind = p->m->shape.act});
}

/* out = in + branch; backward: the gradient passes to both, in the one buffer they share. */
static status add_fwd(struct pass *p, int64_t layer, const struct step *st)
{
    tensor x = slot(p, layer, st->in), sum = st->out == S_X ? slot(p, layer + 1, S_X) : slot(p, layer, st->out);
    tensor branch = slot(p, layer, S_BRANCH);
    TRY(p->m->be->dev.copy(p->s, sum.data, x.data, (size_t)tensor_count(&x) * dtype_bytes(x.dt)));
    return op_axpy(p->s, &(struct axpy_args){.x = branch, .y = sum, .scale = 1, .accumulate = true});
}

static status add_bwd(struct pass *p, int64_t layer, const struct step *st)
{
    (void)p, (void)layer, (void)st;
    return ST_OK;
}

#define NORM(name, x, n, rstd, which) \
    {name, norm_fwd, norm_bwd, x, n, rstd, which, false, BIT(x), BIT(n) | BIT(rstd), BIT(x) | BIT(rstd)}
#define PROJECT(name, x, y, linear, adds) \
    {name, project_fwd, project_bwd, x, y, x, linear, adds, BIT(x), BIT(y) | BIT(S_LORA + linear), BIT(x) | BIT(S_LORA + linear)}
#define ROPE(name, x) {name, rope_fwd, rope_bwd, x, x, x, 0, false, BIT(x), BIT(x), 0}
/* The x that add 2 writes belongs to the next layer and is always kept: nothing of this layer. */
#define ADD(name, x, sum, own) {name, add_fwd, add_bwd, x, sum, S_BRANCH, 0, false, BIT(x) | BIT(S_BRANCH), own, 0}

/* In backward, q, k, v are visited v first: the last step here writes the gradient of n1, the others add. */
static const struct step STEPS[] = {
    NORM("norm 1", S_X, S_N1, S_R1, 0),
    PROJECT("q", S_N1, S_Q, LINEAR_Q, true),
    PROJECT("k", S_N1, S_K, LINEAR_K, true),
    PROJECT("v", S_N1, S_V, LINEAR_V, false),
    ROPE("rope q", S_Q),
    ROPE("rope k", S_K),
    {"attention", attn_fwd, attn_bwd, S_Q, S_O, S_LSE, 0, false, BIT(S_Q) | BIT(S_K) | BIT(S_V), BIT(S_O) | BIT(S_LSE),
     BIT(S_Q) | BIT(S_K) | BIT(S_V) | BIT(S_O) | BIT(S_LSE)},
    PROJECT("o", S_O, S_BRANCH, LINEAR_O, false),
    ADD("add 1", S_X, S_X2, BIT(S_X2)),
    NORM("norm 2", S_X2, S_N2, S_R2, 1),
    PROJECT("gate", S_N2, S_GATE, LINEAR_GATE, true),
    PROJECT("up", S_N2, S_UP, LINEAR_UP, false),
    {"product", glu_fwd, glu_bwd, S_GATE, S_HID, S_UP, 0, false, BIT(S_GATE) | BIT(S_UP), BIT(S_HID), BIT(S_GATE) | BIT(S_UP)},
    PROJECT("down", S_HID, S_BRANCH, LINEAR_DOWN, false),
    ADD("add 2", S_X2, S_X, 0),
};
enum { N_STEPS = sizeof STEPS / sizeof *STEPS };

/* ---- slots ---------------------------------------------------------------------------------------------------------- */

static uint32_t saved(const struct model *m, int64_t layer, const struct step *st)
{
    if (st->bwd != project_bwd || linear_needs_input(m, &m->layers[layer].linear[st->arg])) return st->saved;
    return st->saved & ~BIT(st->in);
}

static int64_t largest_rank(const struct model *m, int linear)
{
    int64_t most = 0;
    for (int64_t l = 0; l < m->shape.layers; l++)
        if (m->layers[l].linear[linear].rank > most) most = m->layers[l].linear[linear].rank;
    return most;
}

int block_slots(const struct model *m, struct act_slot *out)
{
    const struct model_shape *s = &m->shape;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const enum act_rung products = ACT_RUNG_PRODUCTS, block = ACT_RUNG_BLOCK;
    const struct act_slot table[S_COUNT] = {
        [S_X] = {"x (block input)", s->width, m->act, block, true},
        [S_N1] = {"norm 1", s->width, m->act, products},  [S_R1] = {"norm 1 statistics", 1, m->stat, block},
        [S_Q] = {"q", q, m->act, block},                  [S_K] = {"k", kv, m->act, block},
        [S_V] = {"v", kv, m->act, block},                 [S_O] = {"attention output", q, m->act, block},
        [S_LSE] = {"attention statistics", s->heads, m->stat, block},
        [S_X2] = {"x after attention", s->width, m->act, block},
        [S_N2] = {"norm 2", s->width, m->act, products},  [S_R2] = {"norm 2 statistics", 1, m->stat, block},
        [S_GATE] = {"gate", s->ffn, m->act, block},       [S_UP] = {"up", s->ffn, m->act, block},
        [S_HID] = {"product", s->ffn, m->act, products},
        [S_BRANCH] = {"branch", s->width, m->act, ACT_RUNG_NONE},
    };
    for (int i = 0; i < S_COUNT; i++) out[i] = table[i];
    for (int i = 0; i < LINEAR_PER_LAYER; i++)
        out[S_LORA + i] = (struct act_slot){"adapter x·Aᵀ", largest_rank(m, i), m->act, block};
    return S_COUNT;
}

/* ---- running --------------------------------------------------------------------------------------------------------- */

static status run(struct pass *p, int64_t layer, const struct step *st)
{
    TRY(st->fwd(p, layer, st));
    act_written(&p->m->acts, layer, st->writes);
    return ST_OK;
}

status block_fwd(struct pass *p, int64_t layer)
{
    for (int i = 0; i < N_STEPS; i++) TRY(run(p, layer, &STEPS[i]));
    return ST_OK;
}

/* Runs again the steps whose results backward needs and the store no longer has, and what those steps read. */
static status recompute(struct pass *p, int64_t layer)
{
    uint32_t missing = act_missing(&p->m->acts, layer), need = 0;
    bool again[N_STEPS];
    for (int i = 0; i < N_STEPS; i++) need |= saved(p->m, layer, &STEPS[i]);
    need &= missing;
    for (int i = N_STEPS - 1; i >= 0; i--) {
        again[i] = (STEPS[i].writes & need) != 0;
        if (again[i]) need |= STEPS[i].reads & missing;
    }
    for (int i = 0; i < N_STEPS; i++)
        if (again[i]) TRY(run(p, layer, &STEPS[i]));
    return ST_OK;
}

status block_bwd(struct pass *p, int64_t layer)
{
    TRY(recompute(p, layer));
    for (int i = N_STEPS - 1; i >= 0; i--) TRY(STEPS[i].bwd(p, layer, &STEPS[i]));
    return ST_OK;
}
