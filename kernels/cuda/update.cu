/* update.cu — moves, per element, sizeof(w) + sizeof(master) + sizeof(m) + sizeof(v) twice, sizeof(g) and sizeof(work) once.
 *
 * One launch for a whole range of the flat index. A thread has the eight elements of one block of random numbers,
 *
 *   flat  |8q … 8q+7|      16-bit lane j of Philox(key, q) is element 8q + j's, for each of w, m and v
 *
 * and lanes of it that belong to no segment, or lie outside of the range, are left alone. */
#include "kernels/cuda/eight.h"

enum { THREADS = 128, BLOCKS = 5, ROUNDS = 8, PIECE = EIGHT * THREADS * ROUNDS }; /* BLOCKS: on a multiprocessor, without spills */

/* Lanes [from, to) of the eight elements from `flat` on. */
struct lanes {
    int64_t flat;
    int from, to;
};

static __device__ inline struct eight load(const tensor &t, const struct lanes &l, int64_t lo)
{
    if (!t.data) return {};
    return eight_load(t.data, t.dt, l.flat - lo, l.from, l.to);
}

/* Returns what was stored. */
static __device__ inline struct eight store(const tensor &t, const struct lanes &l, int64_t lo, const float value[EIGHT], bool chance,
                                            uint64_t key)
{
    struct eight x = {};
    if (chance) {
        philox4 r = philox(key, (uint64_t)l.flat / EIGHT, 0);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) eight_set(x, j, bf16_round_sr(value[j], r.v[j / 2] >> 16 * (j % 2) & 0xffff));
    } else {
        x = eight_narrow(t.dt, value);
    }
    eight_store(t.data, t.dt, l.flat - lo, l.from, l.to, x);
    return x;
}

static __device__ inline bool by_chance(const tensor &t) { return t.dt == DT_BF16; }

static __device__ inline void update_lanes(const struct update_args &u, const struct update_rates &r, float scale, const struct lanes &l)
{
    const tensor &value = u.master.data ? u.master : u.w;
    bool moved = u.m.data && !(r.kind == OPTIM_SGD && r.first);
    struct eight old_w = load(value, l, u.lo), old_g = load(u.g, l, u.lo), old_v = load(u.v, l, u.lo), old_m = {};
    if (moved) old_m = load(u.m, l, u.lo);
    float w[EIGHT], m[EIGHT], v[EIGHT];
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        optim_state st = {eight_value(old_w, value.dt, j), eight_value(old_m, u.m.dt, j), eight_value(old_v, u.v.dt, j)};
        float g = eight_value(old_g, u.g.dt, j) * r.gscale;
        st = r.kind == OPTIM_SGD ? formula_sgd(st, g, &r) : formula_adam(st, g, &r);
        w[j] = st.w, m[j] = st.m, v[j] = st.v;
    }
    if (r.kind != OPTIM_SGD) store(u.v, l, u.lo, v, by_chance(u.v), u.key_v);
    if (u.m.data) store(u.m, l, u.lo, m, by_chance(u.m), u.key_m);
    if (u.master.data) store(u.master, l, u.lo, w, false, 0);
    struct eight stored = store(u.w, l, u.lo, w, by_chance(u.w) && u.sr && !u.master.data, u.key_w);
    if (!u.work.data || scale == 0) return;
#pragma unroll
    for (int j = 0; j < EIGHT; j++) w[j] = formula_axpy(eight_value(stored, u.w.dt, j), vf_zero(), scale, false);
    store(u.work, l, u.lo, w, false, 0);
}

static __global__ void __launch_bounds__(THREADS, BLOCKS) update(const struct update_args u)
{
    __shared__ int64_t first;
    const struct step_scalars *c = (const struct step_scalars *)u.scalars.data;
    if (c->usable == 0) return;
    int64_t lo = u.lo, hi = lo + u.w.dim[0], piece = (lo / PIECE + blockIdx.x) * PIECE;
    if (threadIdx.x == 0) first = segs_after(u.segs.dev, u.segs.n, piece > lo ? piece : lo);
    __syncthreads();
    int64_t i = first;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t flat = piece + EIGHT * (int64_t)(round * THREADS + threadIdx.x);
        int64_t from = flat > lo ? flat : lo, to = flat + EIGHT < hi ? flat + EIGHT : hi;
        while (i < u.segs.n && u.segs.dev[i].at + u.segs.dev[i].count <= from) i++;
        for (int64_t k = i; k < u.segs.n && u.segs.dev[k].at < to; k++) {
            const struct seg q = u.segs.dev[k];
            int64_t end = q.at + q.count;
            struct lanes l = {flat, (int)((q.at > from ? q.at : from) - flat), (int)((end < to ? end : to) - flat)};
            if (l.from < l.to) update_lanes(u, formula_rates(&u, c, &q), q.scale, l);
        }
    }
}

status update_cuda(struct stream *s, const struct update_args *u)
{
    int64_t hi = u->lo + tensor_count(&u->w), pieces = (hi + PIECE - 1) / PIECE - u->lo / PIECE;
    if (!tensor_count(&u->w)) return ST_OK;
    struct update_args there = *u;
    there.segs.host = NULL;
    return LAUNCH(update, (unsigned)pieces, THREADS, 0, s, there);
}
