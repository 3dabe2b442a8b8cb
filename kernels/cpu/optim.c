#include "kernels/cpu/elem.h"
#include "kernels/cpu/random.h"
#include "kernels/formulas.h"

/* One tensor of the update, stored element by element: f32, bf16 to nearest, or bf16 by chance. */
struct store {
    const tensor *t;
    bool chance;
    uint64_t key;
    uint32_t words[PHILOX_WORDS + VW];
};

/* Elements [first, first + n) of the flat tensors, n ≤ CHUNK; `skip` = lanes of the first Philox block that belong to
 * the elements before. */
enum { CHUNK = PHILOX_HALVES, CHUNKS = 16 };

static void store_lanes(struct store *st, int64_t first, int64_t i, int64_t n, int64_t skip, vf x)
{
    if (!st->chance) {
        vec_store(st->t->data, st->t->dt, first + i, first + n, x);
        return;
    }
    vf_store_sr((bf16 *)st->t->data + first + i, n - i, x, philox_halves(st->words) + skip + i);
}

static void update_chunk(const struct optim_args *o, struct store *w, struct store *m, struct store *v, int64_t first,
                         int64_t n)
{
    struct store *stores[] = {w, m, v};
    int64_t flat = o->flat0 + first, skip = flat % 8, end = first + n;
    for (int k = 0; k < 3; k++)
        if (stores[k]->chance) philox_fill(stores[k]->key, (uint64_t)flat / 8, 0, stores[k]->words);
    const tensor *value = o->master.data ? &o->master : &o->w;
    for (int64_t i = 0; i < n; i += VW) {
        int64_t e = first + i;
        optim_state st = {.w = vec_load(value->data, value->dt, e, end)};
        vf g = vec_load(o->g.data, o->g.dt, e, end) * vf_set(o->gscale);
        if (o->m.data && !(o->kind == OPTIM_SGD && o->first)) st.m = vec_load(o->m.data, o->m.dt, e, end);
        if (o->kind == OPTIM_SGD) {
            st = formula_sgd(st, g, o);
        } else {
            st.v = vec_load(o->v.data, o->v.dt, e, end);
            st = formula_adam(st, g, o);
            store_lanes(v, first, i, n, skip, st.v);
        }
        if (o->m.data) store_lanes(m, first, i, n, skip, st.m);
        if (o->master.data) vec_store(o->master.data, DT_F32, e, end, st.w);
        store_lanes(w, first, i, n, skip, st.w);
    }
}

static bool by_chance(const tensor *t) { return t->data && t->dt == DT_BF16; }

/* One fill of random words must cover a chunk. */
static int64_t chunk_of(const struct optim_args *o) { return o->flat0 % 8 ? CHUNK - 8 : CHUNK; }

static void update_chunks(const void *arg, int64_t i)
{
    const struct optim_args *o = arg;
    int64_t n = tensor_count(&o->w), chunk = chunk_of(o), end = (i + 1) * CHUNKS * chunk < n ? (i + 1) * CHUNKS * chunk : n;
    struct store w = {&o->w, by_chance(&o->w) && o->sr && !o->master.data, o->key_w, {0}};
    struct store m = {&o->m, by_chance(&o->m), o->key_m, {0}}, v = {&o->v, by_chance(&o->v), o->key_v, {0}};
    for (int64_t at = i * CHUNKS * chunk; at < end; at += chunk)
        update_chunk(o, &w, &m, &v, at, end - at < chunk ? end - at : chunk);
}

status CPU_FN(optim)(struct stream *s, const struct optim_args *o)
{
    int64_t n = tensor_count(&o->w), most = CHUNKS * chunk_of(o);
    team_for(elem_threads(s, n), (n + most - 1) / most, update_chunks, o);
    return ST_OK;
}
