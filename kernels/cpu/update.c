/* update.c — the optimizer's step over a range of the flat index, cut into pieces that know nothing of each other.
 *
 *   piece (8192 elements, a thread's) → the segments in it → chunks of as many elements as one fill of random numbers covers
 *
 * 8-bit states of a block, two chunks, are decoded into two short vectors, stepped there, and coded again. */
#include <stdalign.h>

#include "kernels/cpu/elem.h"
#include "kernels/cpu/random.h"
#include "kernels/formulas.h"
#include "kernels/quant_maps.h"

enum { CHUNK = PHILOX_HALVES, PIECE = 64 * CHUNK };

/* One vector of the update, stored element by element: f32, bf16 to nearest, or bf16 by chance. */
struct form {
    uint8_t dt; /* dtype */
    bool chance;
};

struct store {
    void *data;
    struct form form;
    int64_t at; /* the element of the index that it begins with */
    uint64_t key;
    uint32_t words[PHILOX_WORDS + VW];
};

/* The lanes of a store from element `flat` on. */
static void *lanes_of(const struct store *st, int64_t flat)
{
    return st->data ? (char *)st->data + (size_t)(flat - st->at) * dtype_bytes(st->form.dt) : NULL;
}

static const void *part_of(const tensor *t, int64_t first) { return t->data ? (char *)t->data + (size_t)first * dtype_bytes(t->dt) : NULL; }

static inline void store_lanes(const struct store *st, struct form form, void *to, int64_t i, int64_t n, int64_t skip, vf x)
{
    if (!form.chance) {
        vec_store(to, form.dt, i, n, x);
        return;
    }
    vf_store_sr((bf16 *)to + i, n - i, x, philox_halves(st->words) + skip + i);
}

/* What codes of m, or of v, stand for (quant_maps.h). */
struct code_book {
    const float *map;
    const struct quant_bytes *bytes; /* NULL: the map is read as floats */
    const uint32_t *cells;
};

struct update {
    const struct update_args *u;
    struct store w, m, v;
    struct code_book m_book, v_book;
};

/* What a chunk's loop asks again for every vector. Bytes, so that two compare as memory. */
struct layout {
    uint8_t g, old; /* dtypes; old: of the weight that is read, the master's or w's */
    struct form w, m, v;
    bool sgd, m_read, m_kept, master, work;
};

static struct layout layout_of(const struct update *x, const struct update_rates *r, float scale)
{
    const struct update_args *u = x->u;
    bool sgd = r->kind == OPTIM_SGD;
    return (struct layout){.g = u->g.dt,
                           .old = u->master.data ? u->master.dt : u->w.dt,
                           .w = x->w.form,
                           .m = x->m.form,
                           .v = x->v.form,
                           .sgd = sgd,
                           .m_read = x->m.data && !(sgd && r->first),
                           .m_kept = x->m.data,
                           .master = u->master.data,
                           .work = u->work.data && scale != 0};
}

/* What the loop reads a block later: memory would wait while codes are read and written. (Not inlined, gcc drops the call.) */
static inline __attribute__((always_inline)) void ahead(const void *p, dtype dt, int64_t i)
{
    _mm_prefetch((const char *)((uintptr_t)p + (uintptr_t)(i + STATE_BLOCK) * (dt == DT_F32 ? 4 : 2)), _MM_HINT_T0);
}

/* Elements [flat, flat + n) of the index, n ≤ CHUNK and within one fill: `skip` = lanes of its first block that belong to the
 * elements before. */
static inline __attribute__((always_inline)) void step_chunk(const struct update *x, const struct update_rates *rates, float scale,
                                                             int64_t flat, int64_t n, struct layout k)
{
    const struct update_rates copy = *rates, *r = &copy; /* no store of a loop can change it */
    const struct update_args *u = x->u;
    int64_t first = flat - u->lo, skip = flat % 8;
    const void *old = part_of(k.master ? &u->master : &u->w, first), *gradient = part_of(&u->g, first);
    void *w = lanes_of(&x->w, flat), *m = lanes_of(&x->m, flat), *v = lanes_of(&x->v, flat);
    void *master = (void *)(uintptr_t)part_of(&u->master, first), *work = (void *)(uintptr_t)part_of(&u->work, first);
    for (int64_t i = 0; i < n; i += VW) {
        ahead(old, k.old, i);
        ahead(gradient, k.g, i);
        optim_state st = {.w = vec_load(old, k.old, i, n)};
        vf g = vec_load(gradient, k.g, i, n) * vf_set(r->gscale);
        if (k.m_read) st.m = vec_load(m, k.m.dt, i, n);
        if (k.sgd) {
            st = formula_sgd(st, g, r);
        } else {
            st.v = vec_load(v, k.v.dt, i, n);
            st = formula_adam(st, g, r);
            store_lanes(&x->v, k.v, v, i, n, skip, st.v);
        }
        if (k.m_kept) store_lanes(&x->m, k.m, m, i, n, skip, st.m);
        if (k.master) vec_store(master, DT_F32, i, n, st.w);
        store_lanes(&x->w, k.w, w, i, n, skip, st.w);
        if (k.work) {
            vf stored = k.w.dt == DT_F32 ? st.w : vec_load(w, k.w.dt, i, n);
            vec_store(work, u->work.dt, i, n, formula_axpy(stored, vf_zero(), scale, false));
        }
    }
}

/* A loop that asks nothing takes half the time: there is one for whole chunks of each layout that Adam mostly has. */
static const struct layout all_f32 = {.m_read = true, .m_kept = true};
static const struct layout with_masters = {.w = {DT_BF16, false}, .m_read = true, .m_kept = true, .master = true};
static const struct layout by_chance = {.old = DT_BF16, .w = {DT_BF16, true}, .m_read = true, .m_kept = true};
static const struct layout all_by_chance = {
    .old = DT_BF16, .w = {DT_BF16, true}, .m = {DT_BF16, true}, .v = {DT_BF16, true}, .m_read = true, .m_kept = true};

static bool same(const struct layout *a, const struct layout *b) { return !memcmp(a, b, sizeof *a); }

static void update_chunk(struct update *x, const struct update_rates *r, float scale, int64_t flat, int64_t n)
{
    struct store *stores[] = {&x->w, &x->m, &x->v};
    for (int k = 0; k < 3; k++)
        if (stores[k]->form.chance) philox_fill(stores[k]->key, (uint64_t)flat / 8, 0, stores[k]->words);
    struct layout k = layout_of(x, r, scale);
    bool whole = n == CHUNK;
    if (whole && same(&k, &all_f32))
        step_chunk(x, r, scale, flat, CHUNK, all_f32);
    else if (whole && same(&k, &with_masters))
        step_chunk(x, r, scale, flat, CHUNK, with_masters);
    else if (whole && same(&k, &by_chance))
        step_chunk(x, r, scale, flat, CHUNK, by_chance);
    else if (whole && same(&k, &all_by_chance))
        step_chunk(x, r, scale, flat, CHUNK, all_by_chance);
    else
        step_chunk(x, r, scale, flat, n, k);
}

static void update_chunks(struct update *x, const struct update_rates *r, float scale, int64_t at, int64_t end)
{
    for (int64_t next; at < end; at = next) {
        next = (at / CHUNK + 1) * CHUNK < end ? (at / CHUNK + 1) * CHUNK : end;
        update_chunk(x, r, scale, at, next - at);
    }
}

/* ---- 8-bit states: blocks begin where fills do --------------------------------------------------------------------- */

/* Of a block, with zeros where it has no elements. Four maxima grow side by side. */
static inline float block_absmax(const float x[STATE_BLOCK])
{
    enum { TOPS = 4 };
    vf top[TOPS];
    for (int k = 0; k < TOPS; k++) top[k] = vf_abs(vf_load(x + k * VW));
    for (int i = TOPS * VW; i < STATE_BLOCK; i += TOPS * VW)
        for (int k = 0; k < TOPS; k++) top[k] = vf_max(top[k], vf_abs(vf_load(x + i + k * VW)));
    return vf_top(vf_max(vf_max(top[0], top[1]), vf_max(top[2], top[3])));
}

static inline void store_codes(uint8_t *to, int64_t n, const uint8_t codes[STATE_BLOCK])
{
    if (n == STATE_BLOCK)
        memcpy(to, codes, STATE_BLOCK);
    else
        memcpy(to, codes, (size_t)n);
}

/* Cells are found a pass before they are looked up: long enough for a core with vectors of 8 to have the indices in memory by then,
 * short enough for one with vectors of 16 to divide for the next pass while it gathers for this (that by llvm-mca, not by a run). */
enum { PASS = 1024 / VW };

static inline void find_cells(const float x[PASS], vf divisor, float y[PASS], uint16_t cell[PASS])
{
    for (int i = 0; i < PASS; i += 2 * VW) {
        vf a = vf_load(x + i) / divisor, b = vf_load(x + i + VW) / divisor;
        vf_store(y + i, a);
        vf_store(y + i + VW, b);
        vi_store_u16(cell + i, formula_cell(a), formula_cell(b));
    }
}

static inline __attribute__((always_inline)) void encode(const float x[STATE_BLOCK], float absmax, bool negative,
                                                         const struct code_book *book, int64_t n, uint8_t *to)
{
    uint8_t codes[STATE_BLOCK];
    for (int from = 0; from < STATE_BLOCK; from += PASS) {
        float y[PASS];
        uint16_t cell[PASS];
        find_cells(x + from, vf_set(formula_divisor(absmax)), y, cell);
        for (int i = 0; i < PASS; i += 4 * VW) {
            vi code[4];
            for (int k = 0; k < 4; k++) {
                int at = i + k * VW;
                code[k] = formula_thresholds(vi_at(book->cells, cell + at), vf_load(y + at));
                if (negative) code[k] = formula_code_signed(vf_load(x + from + at), code[k]);
            }
            vi_store_u8(codes + from + i, code);
        }
    }
    store_codes(to, n, codes);
}

#ifdef __AVX512F__
/* 64 codes at a time: of each of the four bytes two tables of 128, and the code's highest bit says which. Codes are put where the
 * unpacking, which goes by sixteen bytes, leaves floats in order. A third less time than gathering; the same bits. */
__attribute__((target("avx512vbmi"))) static void decode_bytes(const uint8_t *codes, const struct quant_bytes *map, float absmax,
                                                               float to[STATE_BLOCK])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 scale = _mm512_set1_ps(absmax);
    for (int i = 0; i < STATE_BLOCK; i += 64) {
        __m512i code = _mm512_permutexvar_epi32(order, _mm512_loadu_si512(codes + i)), byte[4], part[4];
        __mmask64 high = _mm512_movepi8_mask(code);
        for (int b = 0; b < 4; b++) {
            const uint8_t *t = map->at[b];
            __m512i below = _mm512_permutex2var_epi8(_mm512_loadu_si512(t), code, _mm512_loadu_si512(t + 64));
            __m512i above = _mm512_permutex2var_epi8(_mm512_loadu_si512(t + 128), code, _mm512_loadu_si512(t + 192));
            byte[b] = _mm512_mask_blend_epi8(high, below, above);
        }
        __m512i low[2] = {_mm512_unpacklo_epi8(byte[0], byte[1]), _mm512_unpackhi_epi8(byte[0], byte[1])};
        __m512i top[2] = {_mm512_unpacklo_epi8(byte[2], byte[3]), _mm512_unpackhi_epi8(byte[2], byte[3])};
        for (int h = 0; h < 2; h++) {
            part[2 * h] = _mm512_unpacklo_epi16(low[h], top[h]);
            part[2 * h + 1] = _mm512_unpackhi_epi16(low[h], top[h]);
        }
        for (int k = 0; k < 4; k++) _mm512_store_ps(to + i + 16 * k, _mm512_mul_ps(_mm512_castsi512_ps(part[k]), scale));
    }
}
#endif

/* Codes behind the last one of a tensor are of nothing, but are there. */
static inline void decode(const uint8_t *codes, const struct code_book *book, float absmax, float to[STATE_BLOCK])
{
#ifdef __AVX512F__
    if (book->bytes) {
        decode_bytes(codes, book->bytes, absmax, to);
        return;
    }
#endif
    for (int i = 0; i < STATE_BLOCK; i += VW) vf_store(to + i, formula_state(vf_at(book->map, codes + i), absmax));
}

/* Not as a whole: its random numbers are not used, and long. */
static void keep(struct store *st, void *data, dtype dt, int64_t at) { st->data = data, st->form = (struct form){dt, false}, st->at = at; }

static void update_block(struct update *x, const struct update_rates *r, const struct seg *seg, int64_t at, int64_t n)
{
    const struct update_args *u = x->u;
    int64_t first = seg->state + at - seg->at, block = first / STATE_BLOCK;
    uint8_t *m = (uint8_t *)u->m8.data + first, *v = u->v8.data ? (uint8_t *)u->v8.data + first : NULL;
    float *m_absmax = (float *)u->m_absmax.data + block, *v_absmax = v ? (float *)u->v_absmax.data + block : NULL;
    alignas(64) float of_m[STATE_BLOCK], of_v[STATE_BLOCK];
    decode(m, &x->m_book, *m_absmax, of_m);
    if (v) decode(v, &x->v_book, *v_absmax, of_v);
    keep(&x->m, of_m, DT_F32, at);
    keep(&x->v, of_v, DT_F32, at);
    for (int64_t i = n; i < STATE_BLOCK; i++) of_m[i] = of_v[i] = 0;
    update_chunks(x, r, seg->scale, at, at + n);
    float top_m = block_absmax(of_m), top_v = v ? block_absmax(of_v) : 0;
    *m_absmax = top_m;
    encode(of_m, top_m, true, &x->m_book, n, m);
    if (!v) return;
    *v_absmax = top_v;
    encode(of_v, top_v, false, &x->v_book, n, v);
}

static void update_seg(struct update *x, const struct update_rates *r, const struct seg *seg, int64_t at, int64_t end)
{
    const struct update_args *u = x->u;
    if (u->m8.data && seg->eight) {
        for (int64_t n; at < end; at += n) {
            n = end - at < STATE_BLOCK ? end - at : STATE_BLOCK;
            update_block(x, r, seg, at, n);
        }
        return;
    }
    if (u->m8.data) {
        keep(&x->m, u->m.data, u->m.dt, seg->at - seg->state);
        keep(&x->v, u->v.data, u->v.dt, seg->at - seg->state);
    }
    update_chunks(x, r, seg->scale, at, end);
}

static void update_range(struct update *x, const struct step_scalars *c, int64_t lo, int64_t hi)
{
    const struct segs *q = &x->u->segs;
    for (int64_t i = segs_after(q->dev, q->n, lo); i < q->n && q->dev[i].at < hi; i++) {
        const struct seg *seg = &q->dev[i];
        struct update_rates r = formula_rates(x->u, c, seg);
        int64_t end = seg->at + seg->count < hi ? seg->at + seg->count : hi;
        update_seg(x, &r, seg, seg->at > lo ? seg->at : lo, end);
    }
}

static struct store in_range(const struct update_args *u, const tensor *t, bool chance, uint64_t key)
{
    return (struct store){.data = t->data, .form = {t->dt, chance && t->data && t->dt == DT_BF16}, .at = u->lo, .key = key};
}

static void update_piece(const void *arg, int64_t index)
{
    const struct update_args *u = arg;
    int64_t lo = u->lo, hi = lo + tensor_count(&u->w), p = lo / PIECE + index;
    bool vbmi = cpu_has_vbmi();
    struct update x = {.u = u,
                       .w = in_range(u, &u->w, u->sr && !u->master.data, u->key_w),
                       .m = in_range(u, &u->m, true, u->key_m),
                       .v = in_range(u, &u->v, true, u->key_v),
                       .m_book = {dynamic_map_signed, vbmi ? quant_bytes_signed() : NULL, quant_cells_signed()},
                       .v_book = {dynamic_map_unsigned, vbmi ? quant_bytes_unsigned() : NULL, quant_cells_unsigned()}};
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
