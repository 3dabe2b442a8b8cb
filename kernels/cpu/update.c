/* update.c — the optimizer's step over a range of the flat index, cut into pieces that know nothing of each other.
 *
 *   piece (8192 elements, a thread's) → the segments in it → chunks of as many elements as one fill of random numbers covers */
#include "kernels/cpu/elem.h"
#include "kernels/cpu/random.h"
#include "kernels/formulas.h"

enum { CHUNK = PHILOX_HALVES, PIECE = 64 * CHUNK };

/* One vector of the update, stored element by element: f32, bf16 to nearest, or bf16 by chance. */
struct store {
    const tensor *t;
    bool chance;
    uint64_t key;
    uint32_t words[PHILOX_WORDS + VW];
};

static void store_lanes(struct store *st, int64_t first, int64_t i, int64_t n, int64_t skip, vf x)
{
    if (!st->chance) {
        vec_store(st->t->data, st->t->dt, first + i, first + n, x);
        return;
    }
    vf_store_sr((bf16 *)st->t->data + first + i, n - i, x, philox_halves(st->words) + skip + i);
}

struct update {
    const struct update_args *u;
    struct store w, m, v;
};

/* Elements [flat, flat + n) of the index, n ≤ CHUNK and within one fill: `skip` = lanes of its first block that belong to the
 * elements before. The vectors begin at element u->lo. */
static void update_chunk(struct update *x, const struct update_rates *r, float scale, int64_t flat, int64_t n)
{
    const struct update_args *u = x->u;
    struct store *stores[] = {&x->w, &x->m, &x->v};
    int64_t first = flat - u->lo, skip = flat % 8, end = first + n;
    for (int k = 0; k < 3; k++)
        if (stores[k]->chance) philox_fill(stores[k]->key, (uint64_t)flat / 8, 0, stores[k]->words);
    const tensor *value = u->master.data ? &u->master : &u->w;
    for (int64_t i = 0; i < n; i += VW) {
        int64_t e = first + i;
        optim_state st = {.w = vec_load(value->data, value->dt, e, end)};
        vf g = vec_load(u->g.data, u->g.dt, e, end) * vf_set(r->gscale);
        if (u->m.data && !(r->kind == OPTIM_SGD && r->first)) st.m = vec_load(u->m.data, u->m.dt, e, end);
        if (r->kind == OPTIM_SGD) {
            st = formula_sgd(st, g, r);
        } else {
            st.v = vec_load(u->v.data, u->v.dt, e, end);
            st = formula_adam(st, g, r);
            store_lanes(&x->v, first, i, n, skip, st.v);
        }
        if (u->m.data) store_lanes(&x->m, first, i, n, skip, st.m);
        if (u->master.data) vec_store(u->master.data, DT_F32, e, end, st.w);
        store_lanes(&x->w, first, i, n, skip, st.w);
        if (u->work.data && scale != 0) {
            vf stored = u->w.dt == DT_F32 ? st.w : vec_load(u->w.data, u->w.dt, e, end);
            vec_store(u->work.data, u->work.dt, e, end, formula_axpy(stored, vf_zero(), scale, false));
        }
    }
}

static void update_range(struct update *x, const struct step_scalars *c, int64_t from, int64_t to)
{
    const struct segs *q = &x->u->segs;
    for (int64_t i = segs_after(q->dev, q->n, from); i < q->n && q->dev[i].at < to; i++) {
        const struct seg *seg = &q->dev[i];
        struct update_rates r = formula_rates(x->u, c, seg);
        int64_t end = seg->at + seg->count < to ? seg->at + seg->count : to;
        for (int64_t at = seg->at > from ? seg->at : from, next; at < end; at = next) {
            next = (at / CHUNK + 1) * CHUNK < end ? (at / CHUNK + 1) * CHUNK : end;
            update_chunk(x, &r, seg->scale, at, next - at);
        }
    }
}

static bool by_chance(const tensor *t) { return t->data && t->dt == DT_BF16; }

static void update_piece(const void *arg, int64_t index)
{
    const struct update_args *u = arg;
    int64_t lo = u->lo, hi = lo + tensor_count(&u->w), p = lo / PIECE + index;
    struct update x = {u,
                       {&u->w, by_chance(&u->w) && u->sr && !u->master.data, u->key_w, {0}},
                       {&u->m, by_chance(&u->m), u->key_m, {0}},
                       {&u->v, by_chance(&u->v), u->key_v, {0}}};
    update_range(&x, u->scalars.data, p * PIECE > lo ? p * PIECE : lo, (p + 1) * PIECE < hi ? (p + 1) * PIECE : hi);
}

status CPU_FN(update)(struct stream *s, const struct update_args *u)
{
    const struct step_scalars *c = u->scalars.data;
    int64_t n = tensor_count(&u->w), pieces = (u->lo + n + PIECE - 1) / PIECE - u->lo / PIECE;
    if (c->usable == 0) return ST_OK;
    team_for(elem_threads(s, n), pieces, update_piece, u);
    return ST_OK;
}
