/* attn_bwd.c — attention backward, flash scheme: P and dS are made again from lse, block by block.
 *
 *      δ = rowsum(dO∘O);  P = exp(S − lse);  dS = scale·P∘(dP − δ)(·cap);  dV = Pᵀ·dO;  dK = dSᵀ·Q;  dQ = dS·K
 *
 * Two ways through the same blocks, in the same order for every element, hence with the same bits:
 *  joint  (document, kv head) is one unit: keys ascending, heads ascending, queries ascending; dQ collects in f32.
 *         5 products per block.
 *  apart  (document, kv head, key block) for dK and dV, then (document, kv head, query block) for dQ. 7 products, but
 *         as many units as there are blocks, and no buffer as long as the document.
 * The choice is by how evenly the units fill the threads; it may depend on their number because the bits do not. */
#include "kernels/cpu/attn.h"

#include "kernels/base/team.h"

enum { JOINT_FLOATS = 2 << 20 }; /* the largest dQ buffer of a thread; longer documents go apart */

struct unit {
    const struct attn_bwd_args *b;
    const float *delta; /* [N, H] */
    int64_t row0, tokens, kv_head, group;
};

struct room {
    float *kt, *vt;     /* [D, 64] of the key block */
    float *k, *q, *d_o; /* [64, D]: widened copies where the tensor itself will not do */
    float *p, *ds;      /* [64, 64] */
    float *dk, *dv;     /* [64, D] */
    float *dq;          /* joint: [group][tokens, D]; apart: [group][64, D] */
};

static size_t room_floats(int64_t d, int64_t dq_floats) { return (size_t)(ATTN_BLOCK * (7 * attn_pad(d) + 2 * ATTN_BLOCK) + dq_floats); }

static struct room room_at(float *base, int64_t d)
{
    int64_t block = ATTN_BLOCK * attn_pad(d), square = ATTN_BLOCK * ATTN_BLOCK;
    struct room r = {.kt = base, .vt = base + block, .k = base + 2 * block, .q = base + 3 * block};
    r.d_o = base + 4 * block;
    r.dk = base + 5 * block;
    r.dv = base + 6 * block;
    r.p = base + 7 * block;
    r.ds = r.p + square;
    r.dq = r.ds + square;
    return r;
}

static int64_t dq_floats(int64_t tokens, int64_t group, int64_t d) { return tokens * group * attn_pad(d); }

static bool joint_fits(const struct docs *docs, int64_t group, int64_t d) { return dq_floats(docs->longest, group, d) <= JOINT_FLOATS; }

/* ---- one block ---------------------------------------------------------------------------------------------- */

struct keys {
    int64_t k0, n;
    struct rows k; /* natural; r->kt and r->vt hold the transposed ones */
};

static struct keys keys_load(const struct unit *u, const struct room *r, int64_t k0)
{
    const struct attn_fwd_args *f = &u->b->fwd;
    struct keys ks = {k0, attn_min(ATTN_BLOCK, u->tokens - k0), {0}};
    int64_t col = u->kv_head * f->head_dim;
    attn_transposed(&f->k, u->row0 + k0, ks.n, col, f->head_dim, r->kt);
    attn_transposed(&f->v, u->row0 + k0, ks.n, col, f->head_dim, r->vt);
    ks.k = attn_rows(&f->k, u->row0 + k0, ks.n, col, f->head_dim, r->k);
    return ks;
}

struct queries {
    int64_t q0, n, head;
    struct rows q, d_o;
};

static struct queries queries_load(const struct unit *u, const struct room *r, int64_t q0, int64_t head)
{
    const struct attn_fwd_args *f = &u->b->fwd;
    struct queries qs = {q0, attn_min(ATTN_BLOCK, u->tokens - q0), head, {0}, {0}};
    qs.q = attn_rows(&f->q, u->row0 + q0, qs.n, head * f->head_dim, f->head_dim, r->q);
    qs.d_o = attn_rows(&u->b->d_o, u->row0 + q0, qs.n, head * f->head_dim, f->head_dim, r->d_o);
    return qs;
}

/* Scores s and dP of one row → P and dS in their place. */
static inline __attribute__((always_inline)) void grad_row(const struct attn_fwd_args *f, float *s, float *dp, int64_t n, struct span seen,
                                                           float lse, float delta)
{
    for (int64_t j = 0; j < n; j += VW) {
        vf score = attn_score(vf_load(s + j), f->scale, f->cap);
        vf p = vf_exp(attn_mask(score, j, seen) - vf_set(lse));
        vf ds = p * (vf_load(dp + j) - vf_set(delta)) * vf_set(f->scale);
        if (f->cap != 0.0f) {
            vf t = score / vf_set(f->cap);
            ds = ds * (vf_set(1.0f) - t * t);
        }
        vf_store(s + j, p);
        vf_store(dp + j, ds);
    }
}

/* r->p and r->ds of one block of queries and keys. Rows are whole up to `reach` of their slab and zero behind. */
static void block_grads(const struct unit *u, const struct room *r, const struct queries *qs, const struct keys *ks)
{
    const struct attn_fwd_args *f = &u->b->fwd;
    struct rows kt = {r->kt, ATTN_BLOCK}, vt = {r->vt, ATTN_BLOCK};
    int64_t slab = attn_slab(qs->q0, qs->n, ks->k0), width = attn_pad(ks->n);
    for (int64_t i0 = 0; i0 < qs->n; i0 += slab) {
        int64_t m = attn_min(slab, qs->n - i0), reach = attn_min(ks->n, qs->q0 + i0 + m - ks->k0);
        int64_t n = reach > 0 ? attn_pad(reach) : 0;
        float *p = r->p + i0 * ATTN_BLOCK, *ds = r->ds + i0 * ATTN_BLOCK;
        attn_mm(m, n, f->head_dim, (struct left){qs->q.data + i0 * qs->q.ld, qs->q.ld, 1}, kt, p, ATTN_BLOCK, false);
        attn_mm(m, n, f->head_dim, (struct left){qs->d_o.data + i0 * qs->d_o.ld, qs->d_o.ld, 1}, vt, ds, ATTN_BLOCK, false);
        for (int64_t i = 0; i < m; i++) {
            int64_t token = qs->q0 + i0 + i, row = u->row0 + token;
            float lse = ((const float *)f->lse.data)[row * f->lse.ld + qs->head];
            float delta = u->delta[row * f->heads + qs->head];
            struct span seen = attn_span(token - ks->k0, ks->n, f->window);
            if (n == ATTN_BLOCK) { /* a length that the compiler knows */
                grad_row(f, p + i * ATTN_BLOCK, ds + i * ATTN_BLOCK, ATTN_BLOCK, seen, lse, delta);
                continue;
            }
            grad_row(f, p + i * ATTN_BLOCK, ds + i * ATTN_BLOCK, n, seen, lse, delta);
            memset(p + i * ATTN_BLOCK + n, 0, (size_t)(width - n) * sizeof *p);
            memset(ds + i * ATTN_BLOCK + n, 0, (size_t)(width - n) * sizeof *ds);
        }
    }
}

/* dV += Pᵀ·dO, dK += dSᵀ·Q. A slab's rows are skipped for keys none of them can see. */
static void add_to_keys(const struct unit *u, const struct room *r, const struct queries *qs, const struct keys *ks)
{
    int64_t wide = attn_pad(u->b->fwd.head_dim);
    struct left pt = {r->p, 1, ATTN_BLOCK}, dst = {r->ds, 1, ATTN_BLOCK};
    attn_mm(ks->n, wide, qs->n, pt, qs->d_o, r->dv, wide, true);
    attn_mm(ks->n, wide, qs->n, dst, qs->q, r->dk, wide, true);
}

static void add_to_queries(const struct unit *u, const struct room *r, const struct queries *qs, const struct keys *ks, float *dq)
{
    int64_t wide = attn_pad(u->b->fwd.head_dim);
    attn_mm(qs->n, wide, ks->n, (struct left){r->ds, ATTN_BLOCK, 1}, ks->k, dq, wide, true);
}

static void rows_out(const tensor *t, int64_t row, int64_t n, int64_t col, int64_t d, const float *from)
{
    for (int64_t r = 0; r < n; r++) {
        void *out = (void *)attn_at(t, row + r, col);
        for (int64_t i = 0; i < d; i += VW) vec_store(out, t->dt, i, d, vf_load(from + r * attn_pad(d) + i));
    }
}

/* ---- units -------------------------------------------------------------------------------------------------- */

/* Queries that see any of the keys [k0, k0 + n): [k0, this). */
static int64_t queries_end(const struct unit *u, int64_t k0, int64_t n)
{
    int64_t window = u->b->fwd.window;
    return window ? attn_min(u->tokens, k0 + n + window - 1) : u->tokens;
}

/* dK and dV of one key block; dQ too when `dq` ([group][tokens, D]) is given. */
static void keys_run(const struct unit *u, const struct room *r, int64_t k0, float *dq)
{
    const struct attn_bwd_args *b = u->b;
    int64_t d = b->fwd.head_dim, wide = attn_pad(d);
    struct keys ks = keys_load(u, r, k0);
    memset(r->dk, 0, (size_t)(ks.n * wide) * sizeof *r->dk);
    memset(r->dv, 0, (size_t)(ks.n * wide) * sizeof *r->dv);
    for (int64_t h = 0; h < u->group; h++)
        for (int64_t q0 = k0; q0 < queries_end(u, k0, ks.n); q0 += ATTN_BLOCK) {
            struct queries qs = queries_load(u, r, q0, u->kv_head * u->group + h);
            block_grads(u, r, &qs, &ks);
            add_to_keys(u, r, &qs, &ks);
            if (dq) add_to_queries(u, r, &qs, &ks, dq + (h * u->tokens + q0) * wide);
        }
    rows_out(&b->dk, u->row0 + k0, ks.n, u->kv_head * d, d, r->dk);
    rows_out(&b->dv, u->row0 + k0, ks.n, u->kv_head * d, d, r->dv);
}

static void joint_run(const struct unit *u, const struct room *r)
{
    int64_t d = u->b->fwd.head_dim, wide = attn_pad(d);
    memset(r->dq, 0, (size_t)dq_floats(u->tokens, u->group, d) * sizeof *r->dq);
    for (int64_t k0 = 0; k0 < u->tokens; k0 += ATTN_BLOCK) keys_run(u, r, k0, r->dq);
    for (int64_t h = 0; h < u->group; h++)
        rows_out(&u->b->dq, u->row0, u->tokens, (u->kv_head * u->group + h) * d, d, r->dq + h * u->tokens * wide);
}

static void queries_run(const struct unit *u, const struct room *r, int64_t q0)
{
    const struct attn_fwd_args *f = &u->b->fwd;
    int64_t d = f->head_dim, block = ATTN_BLOCK * attn_pad(d), n = attn_min(ATTN_BLOCK, u->tokens - q0);
    memset(r->dq, 0, (size_t)(u->group * block) * sizeof *r->dq);
    for (int64_t k0 = attn_first_key(q0, f->window); k0 < q0 + n; k0 += ATTN_BLOCK) {
        struct keys ks = keys_load(u, r, k0);
        for (int64_t h = 0; h < u->group; h++) {
            struct queries qs = queries_load(u, r, q0, u->kv_head * u->group + h);
            block_grads(u, r, &qs, &ks);
            add_to_queries(u, r, &qs, &ks, r->dq + h * block);
        }
    }
    for (int64_t h = 0; h < u->group; h++) rows_out(&u->b->dq, u->row0 + q0, n, (u->kv_head * u->group + h) * d, d, r->dq + h * block);
}

/* ---- the op ------------------------------------------------------------------------------------------------- */

struct plan {
    struct stream *s;
    const struct attn_bwd_args *b;
    float *delta, *rooms; /* rooms: one per thread */
    size_t room;
    int64_t group, most; /* query heads per kv head, blocks of the longest document */
};

static void delta_row(const void *arg, int64_t row)
{
    const struct plan *p = arg;
    const struct attn_bwd_args *b = p->b;
    const struct attn_fwd_args *f = &b->fwd;
    for (int64_t h = 0; h < f->heads; h++) {
        const void *o = attn_at(&f->o, row, h * f->head_dim), *d_o = attn_at(&b->d_o, row, h * f->head_dim);
        vf sum = vf_zero();
        for (int64_t i = 0; i < f->head_dim; i += VW)
            sum = vf_fma(vec_load(o, f->o.dt, i, f->head_dim), vec_load(d_o, b->d_o.dt, i, f->head_dim), sum);
        p->delta[row * f->heads + h] = vf_sum(sum);
    }
}

static struct unit unit_of(const struct plan *p, int64_t at)
{
    const struct attn_fwd_args *f = &p->b->fwd;
    const struct docs *docs = &f->docs;
    int64_t doc = at / f->kv_heads % docs->n_docs;
    return (struct unit){p->b, p->delta, docs->start.dev[doc], docs->start.dev[doc + 1] - docs->start.dev[doc], at % f->kv_heads, p->group};
}

static struct room my_room(const struct plan *p) { return room_at(p->rooms + (size_t)team_rank() * p->room, p->b->fwd.head_dim); }

static bool even_enough(const struct plan *p)
{
    const struct docs *docs = &p->b->fwd.docs;
    double work = 0.0, longest = (double)docs->longest * (double)docs->longest;
    for (int64_t i = 0; i < docs->n_docs; i++) {
        double tokens = docs->start.dev[i + 1] - docs->start.dev[i];
        work += tokens * tokens * (double)p->b->fwd.kv_heads;
    }
    double share = work / p->s->threads;
    return 5.0 * (longest > share ? longest : share) <= 7.0 * share;
}

static int64_t heads_of(const struct plan *p) { return p->b->fwd.docs.n_docs * p->b->fwd.kv_heads; }

static void run_joint(const void *arg, int64_t at)
{
    const struct plan *p = arg;
    struct unit u = unit_of(p, at);
    struct room r = my_room(p);
    joint_run(&u, &r);
}

/* The dearest first: early keys, late queries. */
static void run_apart(const void *arg, int64_t at)
{
    const struct plan *p = arg;
    int64_t heads = heads_of(p), units = heads * p->most, block = at % units / heads;
    struct unit u = unit_of(p, at % heads);
    struct room r = my_room(p);
    if (at < units && block * ATTN_BLOCK < u.tokens)
        keys_run(&u, &r, block * ATTN_BLOCK, NULL);
    else if (at >= units && (p->most - 1 - block) * ATTN_BLOCK < u.tokens)
        queries_run(&u, &r, (p->most - 1 - block) * ATTN_BLOCK);
}

status CPU_FN(attn_bwd)(struct stream *s, const struct attn_bwd_args *b)
{
    const struct attn_fwd_args *f = &b->fwd;
    int64_t group = f->heads / f->kv_heads;
    struct plan p = {s, b, NULL, NULL, 0, group, (f->docs.longest + ATTN_BLOCK - 1) / ATTN_BLOCK};
    bool joint = joint_fits(&f->docs, group, f->head_dim) && even_enough(&p);
    p.room = room_floats(f->head_dim, dq_floats(joint ? f->docs.longest : ATTN_BLOCK, group, f->head_dim));
    p.room = cpu_pad(p.room * sizeof(float)) / sizeof(float);
    size_t deltas = cpu_pad((size_t)(f->q.dim[0] * f->heads) * sizeof(float));
    void *workspace;
    TRY(stream_workspace(s, deltas + (size_t)s->threads * p.room * sizeof(float), "attn_bwd", &workspace));
    p.delta = workspace;
    p.rooms = (float *)((char *)workspace + deltas);
    team_for(s->threads, f->q.dim[0], delta_row, &p);
    if (joint)
        team_each(s->threads, heads_of(&p), run_joint, &p);
    else
        team_each(s->threads, 2 * heads_of(&p) * p.most, run_apart, &p);
    return ST_OK;
}

size_t CPU_FN(attn_bwd_workspace)(const struct work_bounds *w)
{
    int64_t group = w->heads / w->kv_heads, apart = dq_floats(ATTN_BLOCK, group, w->head_dim);
    int64_t joint = attn_min(dq_floats(w->doc_tokens, group, w->head_dim), JOINT_FLOATS);
    size_t room = cpu_pad(room_floats(w->head_dim, attn_max(joint, apart)) * sizeof(float));
    return cpu_pad((size_t)(w->tokens * w->heads) * sizeof(float)) + (size_t)w->threads * room;
}
