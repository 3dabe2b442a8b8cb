/* elem.h — what the elementwise loops of the CPU backend share: sums in a fixed order, views of rows, thread counts.
 *
 * Bits depend on neither the threads nor the instruction set: elements are independent, and every sum runs over 32
 * interleaved partial sums (element i goes to sum i mod 32), whatever the vector width, which are added by halves. */
#ifndef TRIMPOT_CPU_ELEM_H
#define TRIMPOT_CPU_ELEM_H

#include "kernels/base/team.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

enum { SUM_LANES = 32, SUM_PARTS = SUM_LANES / VW };

typedef struct {
    vf part[SUM_PARTS];
} lanes;

static inline float lanes_total(lanes a)
{
    float x[SUM_LANES];
    for (int p = 0; p < SUM_PARTS; p++) vf_store(x + p * VW, a.part[p]);
    for (int half = SUM_LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

/* for (int64_t i …) over n elements in steps of VW, `p` = the partial sum the vector at `i` belongs to. */
#define FOR_LANES(i, p, n)                                                                                                                 \
    for (int64_t i##_base = 0; i##_base < (n); i##_base += SUM_LANES)                                                                      \
        for (int64_t i = i##_base, p = 0; p < SUM_PARTS && i < (n); p++, i += VW)

/* x rounded to the storage dtype, as it will be read back. */
static inline vf vec_rounded(dtype dt, vf x)
{
    if (dt == DT_F32) return x;
    return vf_widen_epi16(vf_narrow_epi16(x));
}

/* A row of a view, and its element size hidden. An absent tensor has no rows. */
static inline void *row_of(const tensor *t, int64_t row)
{
    return t->data ? (char *)t->data + (size_t)(row * t->ld) * dtype_bytes(t->dt) : NULL;
}

/* Threads worth waking for so many elements. */
static inline int elem_threads(const struct stream *s, int64_t elements) { return elements < 16384 ? 1 : s->threads; }

/* out[c] += Σ_rows of term(row, c), for ops that reduce over rows: columns are shared out in tiles, rows are summed
 * 64 at a time, and block sums are added in row order. */
enum { COLUMN_TILE = 128, ROW_BLOCK = 64 };
typedef vf column_term_fn(const void *ctx, int64_t row, int64_t column, int64_t columns);

struct column_sums {
    int64_t rows, columns;
    float *out;
    const void *ctx;
    column_term_fn *term;
};

static inline void column_tile(const void *arg, int64_t tile)
{
    const struct column_sums *s = arg;
    int64_t c0 = tile * COLUMN_TILE, c1 = c0 + COLUMN_TILE < s->columns ? c0 + COLUMN_TILE : s->columns;
    vf total[COLUMN_TILE / VW];
    for (int j = 0; j < COLUMN_TILE / VW; j++) total[j] = vf_zero();
    for (int64_t r0 = 0; r0 < s->rows; r0 += ROW_BLOCK) {
        int64_t r1 = r0 + ROW_BLOCK < s->rows ? r0 + ROW_BLOCK : s->rows;
        vf block[COLUMN_TILE / VW];
        for (int j = 0; j < COLUMN_TILE / VW; j++) block[j] = vf_zero();
        for (int64_t r = r0; r < r1; r++)
            for (int64_t c = c0; c < c1; c += VW) block[(c - c0) / VW] += s->term(s->ctx, r, c, s->columns);
        for (int j = 0; j < COLUMN_TILE / VW; j++) total[j] += block[j];
    }
    for (int64_t c = c0; c < c1; c += VW)
        vec_store(s->out, DT_F32, c, s->columns, vec_load(s->out, DT_F32, c, s->columns) + total[(c - c0) / VW]);
}

static inline void column_sums(int threads, int64_t rows, int64_t columns, float *out, const void *ctx, column_term_fn *term)
{
    struct column_sums s = {rows, columns, out, ctx, term};
    team_for(threads, (columns + COLUMN_TILE - 1) / COLUMN_TILE, column_tile, &s);
}

#endif
