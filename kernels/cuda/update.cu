/* update.cu — moves, per element, sizeof(w) + sizeof(master) + sizeof(m) + sizeof(v) twice, sizeof(g) and sizeof(work) once; a state of
 * 8 bits is 1 + 4/256 bytes.
 *
 * One launch for a whole range of the flat index. A thread has the eight elements of one block of random numbers,
 *
 *   flat  |8q … 8q+7|      16-bit lane j of Philox(key, q) is element 8q + j's, for each of w, m and v
 *
 * and lanes of it that belong to no segment, or lie outside of the range, are left alone. A block of 8-bit states is a warp's. */
#include "kernels/cuda/eight.h"

#define QUANT_TABLE(name, count) static __device__ const float device_##name[count]
#include "kernels/quant_tables.h"

static __device__ const struct quant_cells device_cells[2] = {quant_cells_of(dynamic_thresholds_magnitude, DYNAMIC_MAGNITUDES),
                                                              quant_cells_of(dynamic_thresholds_unsigned, DYNAMIC_UNSIGNED)};

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

/* The states of eight elements, as they lay or as they are decoded. */
struct states {
    struct eight m, v;
    dtype m_dt, v_dt;
};

/* Weights, and what is stored beside them; m and v become the new states. */
static __device__ inline void step(const struct update_args &u, const struct update_rates &r, float scale, const struct lanes &l,
                                   const struct states &old, float m[EIGHT], float v[EIGHT])
{
    const tensor &value = u.master.data ? u.master : u.w;
    struct eight old_w = load(value, l, u.lo), old_g = load(u.g, l, u.lo);
    float w[EIGHT];
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        optim_state st = {eight_value(old_w, value.dt, j), eight_value(old.m, old.m_dt, j), eight_value(old.v, old.v_dt, j)};
        float g = eight_value(old_g, u.g.dt, j) * r.gscale;
        st = r.kind == OPTIM_SGD ? formula_sgd(st, g, &r) : formula_adam(st, g, &r);
        w[j] = st.w, m[j] = st.m, v[j] = st.v;
    }
    if (u.master.data) store(u.master, l, u.lo, w, false, 0);
    struct eight stored = store(u.w, l, u.lo, w, by_chance(u.w) && u.sr && !u.master.data, u.key_w);
    if (!u.work.data || scale == 0) return;
#pragma unroll
    for (int j = 0; j < EIGHT; j++) w[j] = formula_axpy(eight_value(stored, u.w.dt, j), vf_zero(), scale, false);
    store(u.work, l, u.lo, w, false, 0);
}

/* m and v begin with element `at` of the index. */
static __device__ inline void update_lanes(const struct update_args &u, const struct update_rates &r, float scale, const struct lanes &l,
                                           int64_t at)
{
    bool moved = u.m.data && !(r.kind == OPTIM_SGD && r.first);
    struct states old = {{}, load(u.v, l, at), u.m.dt, u.v.dt};
    if (moved) old.m = load(u.m, l, at);
    float m[EIGHT], v[EIGHT];
    step(u, r, scale, l, old, m, v);
    if (r.kind != OPTIM_SGD) store(u.v, l, at, v, by_chance(u.v), u.key_v);
    if (u.m.data) store(u.m, l, at, m, by_chance(u.m), u.key_m);
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
            if (l.from < l.to) update_lanes(u, formula_rates(&u, c, &q), q.scale, l, u.lo);
        }
    }
}

/* ---- 8-bit states ------------------------------------------------------------------------------------------------ */

enum { CODED_THREADS = 256, CODED_ROUNDS = 8, CODED_PIECE = (int)EIGHT * (int)CODED_THREADS * (int)CODED_ROUNDS };
static_assert((int)WARP * (int)EIGHT == (int)STATE_BLOCK, "a block is a warp's");

struct code_book {
    float map[STATE_BLOCK]; /* of 256 codes */
    uint32_t cells[QUANT_CELLS + 1];
};

/* Eight codes of a block, all of which are there. */
static __device__ inline struct eight decode(const uint8_t *codes, const struct code_book &book, float absmax)
{
    uint32_t word[2] = {0, 0};
    if ((uintptr_t)codes % 8 == 0) {
        uint2 both = *(const uint2 *)codes;
        word[0] = both.x, word[1] = both.y;
    } else {
#pragma unroll
        for (int j = 0; j < EIGHT; j++) word[j / 4] |= (uint32_t)codes[j] << 8 * (j % 4);
    }
    struct eight x = {};
#pragma unroll
    for (int j = 0; j < EIGHT; j++) x.word[j] = f32_bits(formula_state(book.map[word[j / 4] >> 8 * (j % 4) & 0xff], absmax));
    return x;
}

/* The first n of the thread's eight; what the others hold does not count. Returns the block's absmax. */
static __device__ inline float encode(const float x[EIGHT], int n, bool negative, const struct code_book &book, uint8_t *codes)
{
    float top = 0;
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        if (j < n) top = vf_max(top, vf_abs(x[j]));
    float absmax = warp_max(top), divisor = formula_divisor(absmax);
    uint32_t word[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        vf y = x[j] / divisor;
        vi above = formula_thresholds((vi)book.cells[formula_cell(y)], y), code = negative ? formula_code_signed(x[j], above) : above;
        word[j / 4] |= (uint32_t)code << 8 * (j % 4);
    }
    if (n == EIGHT && (uintptr_t)codes % 8 == 0) {
        *(uint2 *)codes = make_uint2(word[0], word[1]);
        return absmax;
    }
#pragma unroll
    for (int j = 0; j < EIGHT; j++)
        if (j < n) codes[j] = (uint8_t)(word[j / 4] >> 8 * (j % 4));
    return absmax;
}

/* By all lanes of a warp, of which this one has [0, l.to) of its eight. */
static __device__ inline void update_block(const struct update_args &u, const struct update_rates &r, const struct seg &q,
                                           const struct lanes &l, const struct code_book books[2])
{
    int64_t first = q.state + l.flat - q.at, block = first / STATE_BLOCK;
    uint8_t *m8 = (uint8_t *)u.m8.data + first, *v8 = (uint8_t *)u.v8.data + first;
    float *m_absmax = (float *)u.m_absmax.data + block, *v_absmax = (float *)u.v_absmax.data + block;
    struct states old = {decode(m8, books[0], *m_absmax), {}, DT_F32, DT_F32};
    if (r.kind != OPTIM_SGD) old.v = decode(v8, books[1], *v_absmax);
    float m[EIGHT], v[EIGHT];
    step(u, r, q.scale, l, old, m, v);
    float absmax = encode(m, l.to, true, books[0], m8);
    __syncwarp(); /* all have read the old ones */
    if (threadIdx.x % WARP == 0) *m_absmax = absmax;
    if (r.kind == OPTIM_SGD) return;
    absmax = encode(v, l.to, false, books[1], v8);
    if (threadIdx.x % WARP == 0) *v_absmax = absmax;
}

static __device__ inline int lane_of(int64_t at) { return at < 0 ? 0 : at > EIGHT ? (int)EIGHT : (int)at; }

/* A warp goes through segments together, 256 elements at a time. */
static __global__ void __launch_bounds__(CODED_THREADS) update_coded(const struct update_args u)
{
    __shared__ struct code_book books[2];
    __shared__ int64_t first;
    const struct step_scalars *c = (const struct step_scalars *)u.scalars.data;
    if (c->usable == 0) return;
    int64_t lo = u.lo, hi = lo + u.w.dim[0], piece = (lo / CODED_PIECE + blockIdx.x) * CODED_PIECE;
    books[0].map[threadIdx.x] = device_dynamic_map_signed[threadIdx.x];
    books[1].map[threadIdx.x] = device_dynamic_map_unsigned[threadIdx.x];
    for (int i = threadIdx.x; i <= QUANT_CELLS; i += CODED_THREADS) {
        books[0].cells[i] = device_cells[0].at[i];
        books[1].cells[i] = device_cells[1].at[i];
    }
    if (threadIdx.x == 0) first = segs_after(u.segs.dev, u.segs.n, piece > lo ? piece : lo);
    __syncthreads();
    int64_t i = first;
    for (int round = 0; round < CODED_ROUNDS; round++) {
        int64_t flat = piece + EIGHT * (int64_t)(round * CODED_THREADS + threadIdx.x), block = flat - flat % STATE_BLOCK;
        int64_t from = block > lo ? block : lo, to = block + STATE_BLOCK < hi ? block + STATE_BLOCK : hi;
        while (i < u.segs.n && u.segs.dev[i].at + u.segs.dev[i].count <= from) i++;
        for (int64_t k = i; k < u.segs.n && u.segs.dev[k].at < to; k++) {
            const struct seg q = u.segs.dev[k];
            int64_t begin = q.at > from ? q.at : from, end = q.at + q.count < to ? q.at + q.count : to;
            struct lanes l = {flat, lane_of(begin - flat), lane_of(end - flat)};
            struct update_rates r = formula_rates(&u, c, &q);
            if (q.eight && begin < end) {
                update_block(u, r, q, l, books);
            } else if (l.from < l.to) {
                update_lanes(u, r, q.scale, l, q.at - q.state);
            }
        }
    }
}

static status launch_coded(struct stream *s, const struct update_args &u, int64_t hi)
{
    int64_t pieces = (hi + CODED_PIECE - 1) / CODED_PIECE - u.lo / CODED_PIECE;
    return LAUNCH(update_coded, (unsigned)pieces, CODED_THREADS, 0, s, u);
}

status update_cuda(struct stream *s, const struct update_args *u)
{
    int64_t hi = u->lo + tensor_count(&u->w), pieces = (hi + PIECE - 1) / PIECE - u->lo / PIECE;
    if (!tensor_count(&u->w)) return ST_OK;
    struct update_args there = *u;
    there.segs.host = NULL;
    if (u->m8.data) return launch_coded(s, there, hi);
    return LAUNCH(update, (unsigned)pieces, THREADS, 0, s, there);
}
