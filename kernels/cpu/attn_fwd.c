/* attn_fwd.c — attention forward, flash scheme: per block of queries one walk over the keys, running maximum and sum.
 *
 * A unit of work is (document, kv head, block of queries): every key block is transposed once and used by all query
 * heads of the group. Units are independent, so threads do not matter; scores and P stay f32 in bf16 mode. */
#include "kernels/cpu/attn.h"

#include <math.h>

#include "kernels/base/team.h"

struct unit {
    const struct attn_fwd_args *a;
    int64_t q_row0, k_row0, tokens; /* the document: rows where its position 0 is or would be; its end */
    int64_t kv_head, q0, queries;   /* q0: a position */
};

struct room {
    float *kt, *v, *s; /* [D, 64], [64, D], [64, 64] */
    float *q, *o;      /* [group][64, D] */
    float *top, *sum;  /* [group][64] */
};

static size_t room_floats(int64_t d, int64_t group)
{
    int64_t wide = attn_pad(d);
    return (size_t)(ATTN_BLOCK * (2 * wide + ATTN_BLOCK) + group * ATTN_BLOCK * (2 * wide + 2));
}

static struct room room_at(float *base, int64_t d, int64_t group)
{
    int64_t block = ATTN_BLOCK * attn_pad(d);
    struct room r = {.kt = base};
    r.v = r.kt + block;
    r.s = r.v + block;
    r.q = r.s + ATTN_BLOCK * ATTN_BLOCK;
    r.o = r.q + group * block;
    r.top = r.o + group * block;
    r.sum = r.top + group * ATTN_BLOCK;
    return r;
}

/* One row of scores, scaled, capped and masked in place: its largest. */
static inline __attribute__((always_inline)) float score_row(const struct attn_fwd_args *a, float *s, int64_t n, struct span seen)
{
    vf high = vf_set(ATTN_MASKED);
    for (int64_t j = 0; j < n; j += VW) {
        vf x = attn_mask(attn_score(vf_load(s + j), a->scale, a->cap), j, seen);
        vf_store(s + j, x);
        high = vf_max(x, high);
    }
    return vf_top(high);
}

/* … and its probabilities relative to `top`: their sum. */
static inline __attribute__((always_inline)) float exp_row(float *s, int64_t n, float top)
{
    vf total = vf_zero(), m = vf_set(top);
    for (int64_t j = 0; j < n; j += VW) {
        vf p = vf_exp(vf_load(s + j) - m);
        vf_store(s + j, p);
        total = total + p;
    }
    return vf_sum(total);
}

/* m rows of scores → probabilities relative to the running maxima. What stands in o and sum is scaled down to them. Row by row each
 * step would wait for the one before it (sums across lanes, a branch on a maximum); here all rows take one step, then the next. A whole
 * block's rows have a length that the compiler knows. */
static void softmax_rows(const struct unit *u, float *s, int64_t m, int64_t n, int64_t first, int64_t keys, float *top, float *sum,
                         float *o)
{
    const struct attn_fwd_args *a = u->a;
    int64_t wide = attn_pad(a->head_dim);
    float high[ATTN_BLOCK], keep[ATTN_BLOCK];
    for (int64_t i = 0; i < m; i++) {
        struct span seen = attn_span(first + i, keys, a->window);
        high[i] = n == ATTN_BLOCK ? score_row(a, s + i * ATTN_BLOCK, ATTN_BLOCK, seen) : score_row(a, s + i * ATTN_BLOCK, n, seen);
    }
    for (int64_t i = 0; i < m; i += VW) {
        vf old = vec_load(top, DT_F32, i, m), new = vf_max(vec_load(high, DT_F32, i, m), old);
        vec_store(keep, DT_F32, i, m, vf_exp(old - new));
        vec_store(top, DT_F32, i, m, new);
    }
    for (int64_t i = 0; i < m; i++) {
        float added = n == ATTN_BLOCK ? exp_row(s + i * ATTN_BLOCK, ATTN_BLOCK, top[i]) : exp_row(s + i * ATTN_BLOCK, n, top[i]);
        sum[i] = sum[i] * keep[i] + added;
        for (int64_t j = 0; j < wide; j += VW) vf_store(o + i * wide + j, vf_load(o + i * wide + j) * vf_set(keep[i]));
    }
}

/* Adds keys [k0, k0 + keys) to head h of the unit. */
static void add_keys(const struct unit *u, const struct room *r, int64_t h, struct rows q, struct rows v, int64_t k0, int64_t keys)
{
    const struct attn_fwd_args *a = u->a;
    int64_t wide = attn_pad(a->head_dim), slab = attn_slab(u->q0, u->queries, k0);
    float *o = r->o + h * ATTN_BLOCK * wide, *top = r->top + h * ATTN_BLOCK, *sum = r->sum + h * ATTN_BLOCK;
    struct rows kt = {r->kt, ATTN_BLOCK};
    for (int64_t i0 = 0; i0 < u->queries; i0 += slab) {
        int64_t m = attn_min(slab, u->queries - i0), reach = attn_min(keys, u->q0 + i0 + m - k0);
        int64_t n = attn_pad(reach);
        if (reach <= 0) continue;
        attn_mm(m, n, a->head_dim, (struct left){q.data + i0 * q.ld, q.ld, 1}, kt, r->s, ATTN_BLOCK, false);
        softmax_rows(u, r->s, m, n, u->q0 + i0 - k0, keys, top + i0, sum + i0, o + i0 * wide);
        attn_mm(m, wide, reach, (struct left){r->s, ATTN_BLOCK, 1}, v, o + i0 * wide, wide, true);
    }
}

static void unit_finish(const struct unit *u, const struct room *r, int64_t h, int64_t head)
{
    const struct attn_fwd_args *a = u->a;
    int64_t wide = attn_pad(a->head_dim);
    for (int64_t i = 0; i < u->queries; i++) {
        int64_t row = u->q_row0 + u->q0 + i;
        const float *o = r->o + (h * ATTN_BLOCK + i) * wide;
        float sum = r->sum[h * ATTN_BLOCK + i];
        void *out = (void *)attn_at(&a->o, row, head * a->head_dim);
        for (int64_t d = 0; d < a->head_dim; d += VW) vec_store(out, a->o.dt, d, a->head_dim, vf_load(o + d) / vf_set(sum));
        ((float *)a->lse.data)[row * a->lse.ld + head] = r->top[h * ATTN_BLOCK + i] + logf(sum);
    }
}

static void unit_run(const struct unit *u, const struct room *r)
{
    const struct attn_fwd_args *a = u->a;
    int64_t group = a->heads / a->kv_heads, d = a->head_dim, wide = attn_pad(d), block = ATTN_BLOCK * wide;
    for (int64_t i = 0; i < group * ATTN_BLOCK; i++) r->top[i] = ATTN_MASKED, r->sum[i] = 0.0f;
    memset(r->o, 0, (size_t)(group * block) * sizeof *r->o);
    for (int64_t k0 = attn_first_key(u->q0, a->window); k0 < u->q0 + u->queries; k0 += ATTN_BLOCK) {
        int64_t keys = attn_min(ATTN_BLOCK, u->tokens - k0);
        attn_transposed(&a->k, u->k_row0 + k0, keys, u->kv_head * d, d, r->kt);
        struct rows v = attn_rows(&a->v, u->k_row0 + k0, keys, u->kv_head * d, d, r->v);
        for (int64_t h = 0; h < group; h++) {
            int64_t head = u->kv_head * group + h;
            struct rows q = attn_rows(&a->q, u->q_row0 + u->q0, u->queries, head * d, d, r->q + h * block);
            add_keys(u, r, h, q, v, k0, keys);
        }
    }
    for (int64_t h = 0; h < group; h++) unit_finish(u, r, h, u->kv_head * group + h);
}

static int64_t blocks_of(int64_t tokens) { return (tokens + ATTN_BLOCK - 1) / ATTN_BLOCK; }

struct plan {
    const struct attn_fwd_args *a;
    float *rooms; /* one per thread */
    size_t room;
    int64_t group, most; /* query heads per kv head, blocks of the longest document */
};

/* The last blocks of queries are the dearest: first. */
static void run_unit(const void *arg, int64_t at)
{
    const struct plan *p = arg;
    const struct attn_fwd_args *a = p->a;
    const struct docs *docs = &a->docs;
    int64_t doc = at / a->kv_heads % docs->n_docs, block = p->most - 1 - at / (a->kv_heads * docs->n_docs);
    int64_t past = docs->past.dev ? docs->past.dev[doc] : 0, start = docs->start.dev[doc];
    struct unit u = {.a = a,
                     .q_row0 = start - past,
                     .k_row0 = a->key_start.dev ? a->key_start.dev[doc] : start,
                     .tokens = past + docs->start.dev[doc + 1] - start,
                     .kv_head = at % a->kv_heads,
                     .q0 = past + block * ATTN_BLOCK};
    u.queries = attn_min(ATTN_BLOCK, u.tokens - u.q0);
    if (u.queries <= 0) return;
    struct room r = room_at(p->rooms + (size_t)team_rank() * p->room, a->head_dim, p->group);
    unit_run(&u, &r);
}

status CPU_FN(attn_fwd)(struct stream *s, const struct attn_fwd_args *a)
{
    struct plan p = {.a = a, .group = a->heads / a->kv_heads, .most = blocks_of(a->docs.longest)};
    p.room = cpu_pad(room_floats(a->head_dim, p.group) * sizeof(float)) / sizeof(float);
    void *workspace;
    TRY(stream_workspace(s, (size_t)s->threads * p.room * sizeof(float), "attn_fwd", &workspace));
    p.rooms = workspace;
    team_each(s->threads, a->docs.n_docs * a->kv_heads * p.most, run_unit, &p);
    return ST_OK;
}

size_t CPU_FN(attn_fwd_workspace)(const struct work_bounds *w)
{
    return (size_t)w->threads * cpu_pad(room_floats(w->head_dim, w->heads / w->kv_heads) * sizeof(float));
}
