/* ops.c — the front door: shapes and dtypes are checked once here, for every backend, then the backend's loop runs.
 *
 * Each op has a table of rules, one per tensor. A rule names the dimensions with letters: equal letters must agree
 * within one call, whichever tensor (or scalar argument, see the bind functions) says the letter first. What letters
 * cannot say is checked by one small function per op. */
#include "kernels/ops.h"

#include <stdio.h>

#include "kernels/backend.h"
#include "kernels/quant_maps.h"

enum type {
    T_ACT, /* f32 or bf16, and all activations of the call agree */
    T_F32,
    T_F32_ACT, /* f32, or the dtype of the activations */
    T_STORE,   /* f32 or bf16, on its own */
    T_FLOAT,   /* f32, bf16 or f16, on its own */
    T_F64,
    T_U8,
};

struct rule {
    const char *name;
    size_t at;        /* offset of the tensor in the args */
    const char *dims; /* "NC": rank 2; "*E": any rank, dense, E elements in all; "?E": the same, strided rows allowed */
    enum type type;
    bool optional;  /* data == NULL means absent */
    size_t swapped; /* offset of a bool in the args that swaps the two dimensions; 0: none */
};

struct check {
    const char *op;
    bool f64;
    const void *args;
    struct {
        int64_t size;
        const char *owner;
        const tensor *tensor;
    } letter[26];
    const char *act_owner;
    const tensor *act;
};

typedef status bind_fn(struct check *c);
typedef status also_fn(const struct check *c, bool host);

static void bind_size(struct check *c, char letter, int64_t size, const char *owner)
{
    c->letter[letter - 'A'].size = size;
    c->letter[letter - 'A'].owner = owner;
}

static status match_letter(struct check *c, const struct rule *r, const tensor *t, char letter, int64_t size)
{
    int i = letter - 'A';
    if (!c->letter[i].owner) {
        bind_size(c, letter, size, r->name);
        c->letter[i].tensor = t;
    }
    if (c->letter[i].size == size) return ST_OK;
    if (c->letter[i].tensor)
        FAIL(ST_SHAPE, "%s: %s is %s but %s is %s: %c is %lld in one and %lld in the other", c->op, r->name, tensor_text(t),
             c->letter[i].owner, tensor_text(c->letter[i].tensor), letter, (long long)size, (long long)c->letter[i].size);
    FAIL(ST_SHAPE, "%s: %s is %s, but %s = %lld was expected where it has %lld", c->op, r->name, tensor_text(t), c->letter[i].owner,
         (long long)c->letter[i].size, (long long)size);
}

static bool dtype_allowed(const struct check *c, const struct rule *r, dtype dt)
{
    if (dt == DT_F64) return r->type == T_F64 || (c->f64 && r->type != T_U8);
    switch (r->type) {
    case T_F32:
        return dt == DT_F32;
    case T_U8:
        return dt == DT_U8;
    case T_F64:
        return false;
    case T_FLOAT:
        return dt == DT_F32 || dt == DT_BF16 || dt == DT_F16;
    case T_ACT:
    case T_F32_ACT:
    case T_STORE:
        return dt == DT_F32 || dt == DT_BF16;
    }
    return false;
}

static status check_dtype(struct check *c, const struct rule *r, const tensor *t)
{
    static const char *const wanted[] = {
        [T_ACT] = "f32 or bf16",
        [T_F32] = "f32",
        [T_F32_ACT] = "f32 or the activations' dtype",
        [T_STORE] = "f32 or bf16",
        [T_FLOAT] = "f32, bf16 or f16",
        [T_U8] = "u8",
        [T_F64] = "f64",
    };
    if (!dtype_allowed(c, r, t->dt)) FAIL(ST_SHAPE, "%s: %s is %s; its dtype must be %s", c->op, r->name, tensor_text(t), wanted[r->type]);
    if (r->type == T_ACT && !c->act) {
        c->act = t;
        c->act_owner = r->name;
    }
    bool differs = c->act && t->dt != c->act->dt;
    if (r->type == T_ACT ? differs : r->type == T_F32_ACT && differs && t->dt != DT_F32)
        FAIL(ST_SHAPE, "%s: %s is %s but %s is %s: their dtypes must agree", c->op, r->name, tensor_text(t), c->act_owner,
             tensor_text(c->act));
    return ST_OK;
}

static status check_shape(struct check *c, const struct rule *r, const tensor *t)
{
    bool flat = r->dims[0] == '*' || r->dims[0] == '?';
    int rank = flat ? t->rank : r->dims[1] ? 2 : 1;
    if (t->rank != rank || rank < 1 || rank > 4)
        FAIL(ST_SHAPE, "%s: %s is %s; it must have %d dimension%s", c->op, r->name, tensor_text(t), rank, rank == 1 ? "" : "s");
    for (int i = 0; i < rank; i++)
        if (t->dim[i] < 0) FAIL(ST_SHAPE, "%s: %s is %s: a negative dimension", c->op, r->name, tensor_text(t));
    bool dense = rank == 1 || t->ld == t->dim[rank - 1];
    if (rank > 1 && (t->ld < t->dim[rank - 1] || (!dense && (r->dims[0] == '*' || rank > 2))))
        FAIL(ST_SHAPE, "%s: %s is %s with rows %lld elements apart; they must be %s", c->op, r->name, tensor_text(t), (long long)t->ld,
             t->ld < t->dim[rank - 1] ? "at least as far apart as they are long" : "dense");
    int64_t count = tensor_count(t);
    if (!t->data && count) FAIL(ST_SHAPE, "%s: %s %s is missing (no data)", c->op, r->name, tensor_text(t));
    if (flat) return match_letter(c, r, t, r->dims[1], count);
    bool swap = r->swapped && *(const bool *)((const char *)c->args + r->swapped);
    for (int i = 0; i < rank; i++) TRY(match_letter(c, r, t, r->dims[i], t->dim[swap ? 1 - i : i]));
    return ST_OK;
}

static status check_rules(struct check *c, const struct rule *rules, int n, bind_fn *bind)
{
    if (bind) TRY(bind(c));
    for (int i = 0; i < n; i++) {
        const tensor *t = (const tensor *)((const char *)c->args + rules[i].at);
        if (rules[i].optional && !t->data) continue;
        TRY(check_dtype(c, &rules[i], t));
        TRY(check_shape(c, &rules[i], t));
    }
    return ST_OK;
}

/* ---- what letters cannot say ---------------------------------------------------------------------------------- */

static status expect_count(const struct check *c, const char *name, const tensor *t, int64_t want, const tensor *of)
{
    if (tensor_count(t) == want) return ST_OK;
    FAIL(ST_SHAPE, "%s: %s is %s; for %s it must have %lld elements", c->op, name, tensor_text(t), tensor_text(of), (long long)want);
}

/* Indices are read by the host only where the backend's tensors live there. */
static status check_indices(const struct check *c, const char *name, const int32_t *index, int64_t n, int64_t limit, bool host)
{
    if (n < 0 || (n && !index)) FAIL(ST_SHAPE, "%s: %s is missing (%lld wanted)", c->op, name, (long long)n);
    for (int64_t i = 0; host && i < n; i++)
        if (index[i] < 0 || index[i] >= limit)
            FAIL(ST_SHAPE, "%s: %s[%lld] is %d, outside [0, %lld)", c->op, name, (long long)i, index[i], (long long)limit);
    return ST_OK;
}

static status bind_docs(struct check *c, const struct docs *d)
{
    const int32_t *start = d->start.host;
    if (d->n_docs < 0 || d->n_tokens < 0 || !start || !d->start.dev)
        FAIL(ST_SHAPE, "%s: the documents of the micro-batch are missing", c->op);
    bind_size(c, 'N', d->n_tokens, "docs.n_tokens");
    if (start[0] != 0 || start[d->n_docs] != d->n_tokens)
        FAIL(ST_SHAPE, "%s: documents start at %d and end at %d, but hold %lld tokens", c->op, start[0], start[d->n_docs],
             (long long)d->n_tokens);
    for (int64_t i = 0; i < d->n_docs; i++) {
        int64_t tokens = (int64_t)start[i + 1] - start[i];
        if (tokens < 0 || tokens > d->longest)
            FAIL(ST_SHAPE, "%s: document %lld has %lld tokens, where none is to have more than %lld", c->op, (long long)i,
                 (long long)tokens, (long long)d->longest);
    }
    return ST_OK;
}

static status also_gemm(const struct check *c, bool host)
{
    (void)host;
    const struct gemm_args *g = c->args;
    if (g->beta != 0 && g->beta != 1) FAIL(ST_SHAPE, "%s: beta is %g; it must be 0 or 1", c->op, (double)g->beta);
    if (!g->a2.data != !g->b2.data)
        FAIL(ST_SHAPE, "%s: the second product needs both a2 (%s) and b2 (%s)", c->op, tensor_text(&g->a2), tensor_text(&g->b2));
    return ST_OK;
}

static status also_embed(const struct check *c, bool host)
{
    const struct embed_args *e = c->args;
    return check_indices(c, "ids", e->ids, e->n, e->table.dim[0], host);
}

static status bind_embed(struct check *c)
{
    bind_size(c, 'N', ((const struct embed_args *)c->args)->n, "n");
    return ST_OK;
}

static status also_rmsnorm_fwd(const struct check *c, bool host)
{
    (void)host;
    const struct rmsnorm_fwd_args *r = c->args;
    if (r->delta.data && !r->sum.data)
        FAIL(ST_SHAPE, "%s: delta is %s but sum, where x + delta goes, is absent", c->op, tensor_text(&r->delta));
    return ST_OK;
}

static status no_past(const struct check *c, const struct docs *d)
{
    if (d->past.host) FAIL(ST_SHAPE, "%s: documents that go on from earlier batches have no backward pass", c->op);
    return ST_OK;
}

static status bind_rope(struct check *c)
{
    const struct rope_args *r = c->args;
    bind_size(c, 'Q', r->heads * r->head_dim, "heads*head_dim");
    bind_size(c, 'K', r->kv_heads * r->head_dim, "kv_heads*head_dim");
    return ST_OK;
}

static status also_rope(const struct check *c, bool host)
{
    const struct rope_args *r = c->args;
    int64_t tokens = r->q.dim[0];
    if (2 * r->cos.dim[1] > r->head_dim)
        FAIL(ST_SHAPE, "%s: cos is %s, wider than half of a head of %lld channels", c->op, tensor_text(&r->cos), (long long)r->head_dim);
    if (r->positions > r->cos.dim[0])
        FAIL(ST_SHAPE, "%s: cos is %s but the longest document has %lld tokens", c->op, tensor_text(&r->cos), (long long)r->positions);
    return check_indices(c, "positions", r->rows.position, tokens, r->positions, host);
}

static status bind_heads(struct check *c, const struct attn_fwd_args *a)
{
    if (a->heads < 1 || a->kv_heads < 1 || a->head_dim < 1 || a->heads % a->kv_heads || a->window < 0)
        FAIL(ST_SHAPE,
             "%s: %lld heads over %lld kv heads of %lld channels, window %lld: heads must be a multiple of kv "
             "heads and the window not negative",
             c->op, (long long)a->heads, (long long)a->kv_heads, (long long)a->head_dim, (long long)a->window);
    bind_size(c, 'Q', a->heads * a->head_dim, "heads*head_dim");
    bind_size(c, 'K', a->kv_heads * a->head_dim, "kv_heads*head_dim");
    bind_size(c, 'H', a->heads, "heads");
    TRY(bind_docs(c, &a->docs));
    if (!a->key_start.host) bind_size(c, 'T', a->docs.n_tokens, "docs.n_tokens");
    return ST_OK;
}

static status bind_attn_fwd(struct check *c) { return bind_heads(c, c->args); }

static status also_attn_fwd(const struct check *c, bool host)
{
    (void)host;
    const struct attn_fwd_args *a = c->args;
    const struct docs *d = &a->docs;
    const int32_t *start = d->start.host, *past = d->past.host, *keys_at = a->key_start.host;
    if (past && !keys_at) FAIL(ST_SHAPE, "%s: documents have tokens of earlier batches, but no key_start says where", c->op);
    for (int64_t i = 0; keys_at && i < d->n_docs; i++) {
        int64_t before = past ? past[i] : 0, keys = before + start[i + 1] - start[i];
        if (before < 0 || keys_at[i] < 0 || keys_at[i] + keys > a->k.dim[0])
            FAIL(ST_SHAPE, "%s: document %lld has %lld keys (%lld of them past) from row %d on, but k is %s", c->op, (long long)i,
                 (long long)keys, (long long)before, keys_at[i], tensor_text(&a->k));
    }
    return ST_OK;
}

static status bind_attn_bwd(struct check *c)
{
    const struct attn_fwd_args *fwd = &((const struct attn_bwd_args *)c->args)->fwd;
    TRY(no_past(c, &fwd->docs));
    if (fwd->key_start.host) FAIL(ST_SHAPE, "%s: key_start is given, but a cache has no backward pass", c->op);
    return bind_heads(c, fwd);
}

static status also_loss(const struct check *c, bool host)
{
    const struct loss_args *l = c->args;
    return check_indices(c, "labels", l->labels, l->z.dim[0], l->z.dim[1], host);
}

static status also_soft_cap(const struct check *c, bool host)
{
    (void)host;
    const struct soft_cap_args *a = c->args;
    if (!(a->cap > 0)) FAIL(ST_SHAPE, "%s: cap is %g; it must be positive", c->op, (double)a->cap);
    return ST_OK;
}

static status check_rows(const struct check *c, const tensor *sparse, const tensor *packed, bool host)
{
    const struct rows_args *r = c->args;
    if (r->src.dt != r->dst.dt || r->n > packed->dim[0])
        FAIL(ST_SHAPE, "%s: src is %s but dst is %s for %lld rows: same dtype, and room for the rows, needed", c->op, tensor_text(&r->src),
             tensor_text(&r->dst), (long long)r->n);
    return check_indices(c, "rows", r->rows, r->n, sparse->dim[0], host);
}

static status also_gather(const struct check *c, bool host)
{
    const struct rows_args *r = c->args;
    return check_rows(c, &r->src, &r->dst, host);
}

static status also_scatter(const struct check *c, bool host)
{
    const struct rows_args *r = c->args;
    return check_rows(c, &r->dst, &r->src, host);
}

static status bind_dropout(struct check *c)
{
    const struct dropout_args *d = c->args;
    if (d->x.dim[0] && (!d->rows.position || !d->rows.sample)) FAIL(ST_SHAPE, "%s: the rows have no positions or sample numbers", c->op);
    if (!(d->p >= 0 && d->p < 1)) FAIL(ST_SHAPE, "%s: p is %g; it must be in [0, 1)", c->op, (double)d->p);
    return ST_OK;
}

static status also_dropout(const struct check *c, bool host)
{
    (void)host;
    const struct dropout_args *d = c->args;
    return expect_count(c, "plan", &d->plan, STEP_PLAN, &d->x);
}

static status also_axpy(const struct check *c, bool host)
{
    (void)host;
    const struct axpy_args *a = c->args;
    bool strided = (a->x.rank == 2 && a->x.ld != a->x.dim[1]) || (a->y.rank == 2 && a->y.ld != a->y.dim[1]);
    if (strided && (a->x.rank != a->y.rank || a->x.dim[0] != a->y.dim[0]))
        FAIL(ST_SHAPE, "%s: x is %s but y is %s: views with strided rows must have equal shapes", c->op, tensor_text(&a->x),
             tensor_text(&a->y));
    return ST_OK;
}

static status also_rescale_fwd(const struct check *c, bool host)
{
    (void)host;
    const struct rescale_fwd_args *r = c->args;
    TRY(expect_count(c, "to", &r->to, r->u.dim[r->by_row ? 0 : 1], &r->u));
    if (r->accumulate && r->bias.data)
        FAIL(ST_SHAPE, "%s: bias is %s, but what it accumulates on has its own", c->op, tensor_text(&r->bias));
    return ST_OK;
}

static status check_segs(const struct check *c, const struct segs *q, int64_t lo)
{
    if (lo < 0) FAIL(ST_SHAPE, "%s: lo is %lld, a negative index", c->op, (long long)lo);
    if (q->n < 0 || (q->n && (!q->host || !q->dev))) FAIL(ST_SHAPE, "%s: the table of segments is missing", c->op);
    for (int64_t i = 0, end = 0; i < q->n; i++) {
        const struct seg *x = &q->host[i];
        if (x->at < end || x->count < 0)
            FAIL(ST_SHAPE, "%s: segment %lld has %lld elements from %lld on, but those before end at %lld", c->op, (long long)i,
                 (long long)x->count, (long long)x->at, (long long)end);
        end = x->at + x->count;
    }
    return ST_OK;
}

static status check_merges(const struct check *c, const struct tree_sum_args *t)
{
    int64_t depth = 0, k = 0;
    for (; k < t->rows.dim[0]; k++) {
        depth += 1 - t->merges[k];
        if (depth < 1 || depth + t->merges[k] > TREE_SUM_OPEN) break;
    }
    if (depth != 1 || k < t->rows.dim[0])
        FAIL(ST_SHAPE, "%s: rows is %s; the merges leave %lld sums after %lld vectors, not one after all (and never more than %d)", c->op,
             tensor_text(&t->rows), (long long)depth, (long long)(k < t->rows.dim[0] ? k + 1 : k), TREE_SUM_OPEN);
    return ST_OK;
}

static status also_tree_sum(const struct check *c, bool host)
{
    (void)host;
    const struct tree_sum_args *t = c->args;
    if (t->rows.dim[0] < 1 || t->rows.dim[0] > TREE_SUM_NODES)
        FAIL(ST_SHAPE, "%s: rows is %s; 1 to %d vectors can be summed", c->op, tensor_text(&t->rows), TREE_SUM_NODES);
    if (t->first < 0 || t->n_mine < 0 || t->n_mine > TREE_SUM_MINE || t->first + t->n_mine > t->rows.dim[0])
        FAIL(ST_SHAPE, "%s: rows is %s; vectors %d to %d cannot be elsewhere (at most %d of them)", c->op, tensor_text(&t->rows), t->first,
             t->first + t->n_mine, TREE_SUM_MINE);
    for (int i = 0; i < t->n_mine; i++) {
        const tensor *v = &t->mine[i];
        if (v->rank != 1 || v->dt != t->rows.dt || v->dim[0] != t->rows.dim[1] || (!v->data && v->dim[0]))
            FAIL(ST_SHAPE, "%s: mine[%d] is %s%s, but rows is %s", c->op, i, tensor_text(v), v->data ? "" : " (no data)",
                 tensor_text(&t->rows));
    }
    return check_merges(c, t);
}

static bool cuts(const struct segs *q, int64_t at)
{
    int64_t i = segs_after(q->host, q->n, at);
    return at % FLAT_PAGE && i < q->n && q->host[i].at < at;
}

static status also_sumsq_segs(const struct check *c, bool host)
{
    (void)host;
    const struct sumsq_segs_args *a = c->args;
    const struct segs *q = &a->segs;
    int64_t lo = a->lo, hi = lo + tensor_count(&a->g);
    TRY(check_segs(c, q, lo));
    if (cuts(q, lo) || cuts(q, hi))
        FAIL(ST_SHAPE, "%s: elements %lld to %lld cut a segment within a page", c->op, (long long)lo, (long long)hi);
    for (int64_t i = segs_after(q->host, q->n, lo); i < q->n && q->host[i].at < hi; i++) {
        const struct seg *x = &q->host[i];
        int64_t last = x->partial + (x->at + x->count - 1) / FLAT_PAGE - x->at / FLAT_PAGE;
        if (x->count && (x->partial < 0 || last >= a->partial.dim[0]))
            FAIL(ST_SHAPE, "%s: partial is %s, but segment %lld has its partials at %lld to %lld", c->op, tensor_text(&a->partial),
                 (long long)i, (long long)x->partial, (long long)last);
    }
    return ST_OK;
}

static status also_loss_sum(const struct check *c, bool host)
{
    (void)host;
    const struct loss_sum_args *l = c->args;
    return expect_count(c, "out", &l->out, 1, &l->loss);
}

static status check_scalars(const struct check *c, const tensor *plan, const tensor *scalars)
{
    if (plan) TRY(expect_count(c, "plan", plan, STEP_PLAN, scalars));
    return expect_count(c, "scalars", scalars, STEP_SCALARS, scalars);
}

static status also_step_decide(const struct check *c, bool host)
{
    (void)host;
    const struct step_decide_args *d = c->args;
    return check_scalars(c, &d->plan, &d->scalars);
}

static status also_step_admit(const struct check *c, bool host)
{
    (void)host;
    const struct step_admit_args *d = c->args;
    if (d->tensor < 0) FAIL(ST_SHAPE, "%s: tensor is %lld, a negative number", c->op, (long long)d->tensor);
    return check_scalars(c, &d->plan, &d->scalars);
}

static status missing_states(const struct check *c, const tensor *m, const tensor *v)
{
    const struct update_args *u = c->args;
    FAIL(ST_SHAPE, "%s: w is %s but its optimizer states m %s, v %s are missing", c->op, tensor_text(&u->w), tensor_text(m),
         tensor_text(v));
}

/* Blocks are whole: where they begin, and where the range does. */
static status check_blocks(const struct check *c, const struct seg *x, int64_t number)
{
    const struct update_args *u = c->args;
    int64_t ends[] = {u->lo, u->lo + u->w.dim[0]};
    if (x->at % STATE_BLOCK || x->state % STATE_BLOCK)
        FAIL(ST_SHAPE, "%s: segment %lld has 8-bit states, but begins at %lld and its states at %lld: multiples of %d are needed", c->op,
             (long long)number, (long long)x->at, (long long)x->state, STATE_BLOCK);
    for (int i = 0; i < 2; i++)
        if (ends[i] > x->at && ends[i] < x->at + x->count && ends[i] % STATE_BLOCK)
            FAIL(ST_SHAPE, "%s: elements %lld to %lld cut a block of segment %lld", c->op, (long long)ends[0], (long long)ends[1],
                 (long long)number);
    return ST_OK;
}

static status check_states(const struct check *c, bool moments)
{
    const struct update_args *u = c->args;
    int64_t codes = u->m8.dim[0];
    bool absmax = u->m_absmax.data && (u->v_absmax.data || !moments);
    if (moments && !u->v8.data) return missing_states(c, &u->m8, &u->v8);
    if (!absmax || codes % STATE_BLOCK || u->m_absmax.dim[0] != codes / STATE_BLOCK)
        FAIL(ST_SHAPE, "%s: m8 is %s but m_absmax is %s: one for each %d is needed", c->op, tensor_text(&u->m8), tensor_text(&u->m_absmax),
             STATE_BLOCK);
    for (int64_t i = 0; i < u->segs.n; i++) {
        const struct seg *x = &u->segs.host[i];
        const tensor *at = x->eight ? &u->m8 : &u->m;
        if (!x->eight && (!u->m.data || (moments && !u->v.data))) return missing_states(c, &u->m, &u->v);
        if (x->state < 0 || x->state > at->dim[0] - x->count)
            FAIL(ST_SHAPE, "%s: %s is %s, but segment %lld has its states at %lld to %lld", c->op, x->eight ? "m8" : "m", tensor_text(at),
                 (long long)i, (long long)x->state, (long long)(x->state + x->count));
        if (x->eight) TRY(check_blocks(c, x, i));
    }
    return ST_OK;
}

static status also_update(const struct check *c, bool host)
{
    (void)host;
    const struct update_args *u = c->args;
    bool moments = u->kind != OPTIM_SGD;
    TRY(check_scalars(c, NULL, &u->scalars));
    TRY(check_segs(c, &u->segs, u->lo));
    if (u->m8.data) return check_states(c, moments);
    if ((!u->m.data && (moments || u->beta1 != 0)) || (!u->v.data && moments)) return missing_states(c, &u->m, &u->v);
    if (u->m.data) TRY(expect_count(c, "m", &u->m, u->w.dim[0], &u->w));
    for (int64_t i = 0; i < u->segs.n; i++)
        if (u->segs.host[i].eight) return missing_states(c, &u->m8, &u->v8);
    return ST_OK;
}

static status also_nf4(const struct check *c, bool host)
{
    (void)host;
    const struct nf4_args *q = c->args;
    struct nf4_sizes n = nf4_sizes(tensor_count(&q->w));
    TRY(expect_count(c, "codes", &q->codes, n.codes, &q->w));
    bool once = q->absmax.data != NULL, twice = q->absmax_q.data || q->nested.data || q->offset.data;
    if (once && twice) FAIL(ST_SHAPE, "%s: scales are given twice, in absmax (%s) and in absmax_q", c->op, tensor_text(&q->absmax));
    if (once) return expect_count(c, "absmax", &q->absmax, n.blocks, &q->w);
    TRY(expect_count(c, "absmax_q", &q->absmax_q, n.blocks, &q->w));
    TRY(expect_count(c, "nested", &q->nested, n.nested, &q->w));
    return expect_count(c, "offset", &q->offset, 1, &q->w);
}

static status also_nf4_quantize(const struct check *c, bool host)
{
    const struct nf4_args *q = c->args;
    if (q->absmax.data) FAIL(ST_SHAPE, "%s: absmax is %s; scales are quantised too", c->op, tensor_text(&q->absmax));
    return also_nf4(c, host);
}

static status also_init(const struct check *c, bool host)
{
    (void)host;
    const struct init_args *i = c->args;
    if (i->flat0 < 0) FAIL(ST_SHAPE, "%s: flat0 is %lld, a negative index", c->op, (long long)i->flat0);
    return ST_OK;
}

/* ---- one table per args type ---------------------------------------------------------------------------------- */

/* clang-format off */
#define R(args, member, dims, type, ...)                                                                               \
    {                                                                                                                  \
#member, offsetof(struct args##_args, member), dims, type, __VA_ARGS__                                         \
    }
#define OPTIONAL .optional = true

static const struct rule gemm_rules[] = {
    R(gemm, c, "MN", T_STORE),
    R(gemm, a, "MK", T_STORE, .swapped = offsetof(struct gemm_args, ta)),
    R(gemm, b, "KN", T_STORE, .swapped = offsetof(struct gemm_args, tb)),
    R(gemm, a2, "ML", T_STORE, OPTIONAL),
    R(gemm, b2, "LN", T_STORE, OPTIONAL, .swapped = offsetof(struct gemm_args, tb)),
    R(gemm, bias, "N", T_STORE, OPTIONAL),
};
static const struct rule embed_fwd_rules[] = {R(embed, table, "VC", T_STORE), R(embed, y, "NC", T_ACT)};
static const struct rule embed_bwd_rules[] = {R(embed, table, "VC", T_F32), R(embed, y, "NC", T_ACT)};
static const struct rule rmsnorm_fwd_rules[] = {
    R(rmsnorm_fwd, x, "NC", T_ACT), R(rmsnorm_fwd, delta, "NC", T_ACT, OPTIONAL), R(rmsnorm_fwd, w, "C", T_F32_ACT),
    R(rmsnorm_fwd, y, "NC", T_ACT), R(rmsnorm_fwd, sum, "NC", T_ACT, OPTIONAL),   R(rmsnorm_fwd, rstd, "N", T_F32),
};
static const struct rule rmsnorm_bwd_rules[] = {
    R(rmsnorm_bwd, x, "NC", T_ACT),           R(rmsnorm_bwd, dy, "NC", T_ACT),
    R(rmsnorm_bwd, w, "C", T_F32_ACT),        R(rmsnorm_bwd, rstd, "N", T_F32),
    R(rmsnorm_bwd, dx, "NC", T_ACT),          R(rmsnorm_bwd, residual, "NC", T_ACT, OPTIONAL),
    R(rmsnorm_bwd, dw, "C", T_F32, OPTIONAL),
};
static const struct rule rope_rules[] = {
    R(rope, q, "NQ", T_ACT),
    R(rope, k, "NK", T_ACT, OPTIONAL),
    R(rope, cos, "PD", T_F32),
    R(rope, sin, "PD", T_F32),
};
static const struct rule attn_fwd_rules[] = {
    R(attn_fwd, q, "NQ", T_ACT), R(attn_fwd, k, "TK", T_ACT),   R(attn_fwd, v, "TK", T_ACT),
    R(attn_fwd, o, "NQ", T_ACT), R(attn_fwd, lse, "NH", T_F32),
};
static const struct rule attn_bwd_rules[] = {
    R(attn_bwd, fwd.q, "NQ", T_ACT), R(attn_bwd, fwd.k, "NK", T_ACT),   R(attn_bwd, fwd.v, "NK", T_ACT),
    R(attn_bwd, fwd.o, "NQ", T_ACT), R(attn_bwd, fwd.lse, "NH", T_F32), R(attn_bwd, d_o, "NQ", T_ACT),
    R(attn_bwd, dq, "NQ", T_ACT),    R(attn_bwd, dk, "NK", T_ACT),      R(attn_bwd, dv, "NK", T_ACT),
};
static const struct rule glu_fwd_rules[] = {
    R(glu_fwd, gate, "NF", T_ACT),
    R(glu_fwd, up, "NF", T_ACT),
    R(glu_fwd, h, "NF", T_ACT),
};
static const struct rule glu_bwd_rules[] = {
    R(glu_bwd, gate, "NF", T_ACT),  R(glu_bwd, up, "NF", T_ACT),  R(glu_bwd, dh, "NF", T_ACT),
    R(glu_bwd, dgate, "NF", T_ACT), R(glu_bwd, dup, "NF", T_ACT),
};
static const struct rule loss_rules[] = {R(loss, z, "NV", T_ACT), R(loss, loss, "N", T_F32)};
static const struct rule soft_cap_rules[] = {R(soft_cap, z, "NV", T_ACT)};
static const struct rule rows_rules[] = {R(rows, src, "SC", T_FLOAT), R(rows, dst, "DC", T_FLOAT)};
static const struct rule dropout_rules[] = {R(dropout, x, "NC", T_ACT), R(dropout, y, "NC", T_ACT), R(dropout, plan, "A", T_F64)};
static const struct rule axpy_rules[] = {R(axpy, x, "?E", T_FLOAT), R(axpy, y, "?E", T_STORE)};
static const struct rule colsum_rules[] = {R(colsum, x, "NM", T_STORE), R(colsum, out, "M", T_F32)};
static const struct rule row_dot_rules[] = {
    R(row_dot, x, "MC", T_STORE), R(row_dot, y, "MC", T_STORE), R(row_dot, add, "M", T_F32, OPTIONAL), R(row_dot, out, "M", T_F32),
};
static const struct rule rescale_fwd_rules[] = {
    R(rescale_fwd, u, "NC", T_ACT), R(rescale_fwd, y, "NC", T_ACT), R(rescale_fwd, to, "L", T_F32), R(rescale_fwd, from, "L", T_F32),
    R(rescale_fwd, bias, "C", T_F32_ACT, OPTIONAL),
};
static const struct rule rescale_bwd_rules[] = {
    R(rescale_bwd, dy, "NC", T_ACT), R(rescale_bwd, u, "NC", T_ACT),  R(rescale_bwd, to, "C", T_F32), R(rescale_bwd, from, "C", T_F32),
    R(rescale_bwd, du, "NC", T_ACT), R(rescale_bwd, d_to, "C", T_F32),
};
static const struct rule tree_sum_rules[] = {R(tree_sum, rows, "KE", T_F32), R(tree_sum, out, "E", T_F32)};
static const struct rule loss_sum_rules[] = {R(loss_sum, loss, "N", T_F32), R(loss_sum, out, "*O", T_F64)};
static const struct rule sumsq_segs_rules[] = {R(sumsq_segs, g, "E", T_STORE), R(sumsq_segs, partial, "B", T_F32)};
static const struct rule step_decide_rules[] = {
    R(step_decide, plan, "A", T_F64), R(step_decide, scalars, "S", T_F64), R(step_decide, losses, "PM", T_F64),
    R(step_decide, partial, "B", T_F32),
};
static const struct rule step_admit_rules[] = {
    R(step_admit, plan, "A", T_F64), R(step_admit, scalars, "S", T_F64), R(step_admit, partial, "B", T_F32),
};
static const struct rule update_rules[] = {
    R(update, w, "E", T_STORE),           R(update, g, "E", T_STORE),           R(update, master, "E", T_F32, OPTIONAL),
    R(update, m, "Y", T_STORE, OPTIONAL), R(update, v, "Y", T_STORE, OPTIONAL), R(update, work, "E", T_STORE, OPTIONAL),
    R(update, scalars, "S", T_F64),       R(update, m8, "Q", T_U8, OPTIONAL),    R(update, v8, "Q", T_U8, OPTIONAL),
    R(update, m_absmax, "A", T_F32, OPTIONAL), R(update, v_absmax, "A", T_F32, OPTIONAL),
};
static const struct rule nf4_quantize_rules[] = {
    R(nf4, w, "*E", T_STORE), R(nf4, codes, "*A", T_U8), R(nf4, absmax_q, "*B", T_U8), R(nf4, nested, "*G", T_F32),
    R(nf4, offset, "*O", T_F32),
};
static const struct rule nf4_dequantize_rules[] = {
    R(nf4, w, "?E", T_STORE),
    R(nf4, codes, "*A", T_U8),
    R(nf4, absmax_q, "*B", T_U8, OPTIONAL),
    R(nf4, nested, "*G", T_F32, OPTIONAL),
    R(nf4, offset, "*O", T_F32, OPTIONAL),
    R(nf4, absmax, "*S", T_F32, OPTIONAL),
};
static const struct rule init_rules[] = {R(init, w, "*E", T_STORE)};

/* op, args type, rules, before, after */
#define OP_CHECKS(X)                                                                                                   \
    X(gemm, gemm, gemm_rules, NULL, also_gemm)                                                                         \
    X(embed_fwd, embed, embed_fwd_rules, bind_embed, also_embed)                                                       \
    X(embed_bwd, embed, embed_bwd_rules, bind_embed, also_embed)                                                       \
    X(rmsnorm_fwd, rmsnorm_fwd, rmsnorm_fwd_rules, NULL, also_rmsnorm_fwd)                                             \
    X(rmsnorm_bwd, rmsnorm_bwd, rmsnorm_bwd_rules, NULL, NULL)                                                         \
    X(rope, rope, rope_rules, bind_rope, also_rope)                                                                    \
    X(attn_fwd, attn_fwd, attn_fwd_rules, bind_attn_fwd, also_attn_fwd)                                                \
    X(attn_bwd, attn_bwd, attn_bwd_rules, bind_attn_bwd, NULL)                                                         \
    X(glu_fwd, glu_fwd, glu_fwd_rules, NULL, NULL)                                                                     \
    X(glu_bwd, glu_bwd, glu_bwd_rules, NULL, NULL)                                                                     \
    X(loss, loss, loss_rules, NULL, also_loss)                                                                         \
    X(soft_cap, soft_cap, soft_cap_rules, NULL, also_soft_cap)                                                         \
    X(gather_rows, rows, rows_rules, NULL, also_gather)                                                                \
    X(scatter_rows, rows, rows_rules, NULL, also_scatter)                                                              \
    X(dropout, dropout, dropout_rules, bind_dropout, also_dropout)                                                     \
    X(axpy, axpy, axpy_rules, NULL, also_axpy)                                                                         \
    X(colsum, colsum, colsum_rules, NULL, NULL)                                                                        \
    X(loss_sum, loss_sum, loss_sum_rules, NULL, also_loss_sum)                                                         \
    X(sumsq_segs, sumsq_segs, sumsq_segs_rules, NULL, also_sumsq_segs)                                                 \
    X(step_decide, step_decide, step_decide_rules, NULL, also_step_decide)                                             \
    X(step_admit, step_admit, step_admit_rules, NULL, also_step_admit)                                                 \
    X(update, update, update_rules, NULL, also_update)                                                                 \
    X(nf4_quantize, nf4, nf4_quantize_rules, NULL, also_nf4_quantize)                                                         \
    X(nf4_dequantize, nf4, nf4_dequantize_rules, NULL, also_nf4)                                                       \
    X(init, init, init_rules, NULL, also_init)                                                                         \
    X(tree_sum, tree_sum, tree_sum_rules, NULL, also_tree_sum)                                                         \
    X(row_dot, row_dot, row_dot_rules, NULL, NULL)                                                                     \
    X(rescale_fwd, rescale_fwd, rescale_fwd_rules, NULL, also_rescale_fwd)                                             \
    X(rescale_bwd, rescale_bwd, rescale_bwd_rules, NULL, NULL)
/* clang-format on */

/* Runs the checks of one call; the slots of the table are compared here too, so that a hole is a message. */
static status check(const struct stream *s, const char *op, bool have, const void *args, const struct rule *rules, int n_rules,
                    bind_fn *bind, also_fn *also)
{
    if (!have) FAIL(ST_NOT_BUILT, "%s: the %s backend has no such op", op, s->be->name);
    struct check c = {.op = op, .f64 = s->be->accepts_f64, .args = args};
    TRY(check_rules(&c, rules, n_rules, bind));
    return also ? also(&c, s->be->tensors_in == MEM_HOST) : ST_OK;
}

#define DOOR(name, args, rules, bind, also)                                                                                                \
    status op_##name(struct stream *s, const struct args##_args *a)                                                                        \
    {                                                                                                                                      \
        TRY(check(s, #name, s->be->ops.name != NULL, a, rules, (int)(sizeof rules / sizeof rules[0]), bind, also));                        \
        return s->be->ops.name(s, a);                                                                                                      \
    }
OP_CHECKS(DOOR)
