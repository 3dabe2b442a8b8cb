/* gemm.c — matrix products: a fixed grid of tiles of C, each computed on one thread by oneDNN.
 *
 *        ┌────────┬────────┬──┐   The grid depends on M, N, K alone, never on the number of threads: with its own
 *      M │ tile   │        │  │   threading oneDNN would split K or the tile by thread count, and so change the bits.
 *        ├────────┼────────┼──┤   Tiles are handed out down the columns: neighbours in time share a panel of B.
 *        └────────┴────────┴──┘   Few tiles and a long K: K is cut as well, and the parts are added in order.
 *                  N
 *
 * A tile is summed in f32, in place when C is f32: bias and old C first, then A·B, then A2·B2; one rounding at the end.
 * bf16 × bf16 goes to oneDNN as it is where the machine can multiply bf16; else, and for mixed pairs, blocks of both
 * operands are widened to f32 just before they are used. */
#include "kernels/cpu/gemm.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdatomic.h>

#include "kernels/base/team.h"

/* Large tiles are fast: oneDNN packs both operands of a tile anew, and multiplies without packing, ten percent slower,
 * when 1/rows + 1/columns is large. Small ones keep more cores busy. The numbers come from bench_gemm on AVX2 and
 * AVX-512 cores. */
enum {
    LONG_K = 4096, /* from here on K is cut rather than the tile */
    LONG_UNITS = 4,
    FEW_TILES = 8, /* fewer are narrowed to … */
    NARROW_N = 256,
    SHRINK_ABOVE_FLOP = 8000000, /* a tile with less work than this is not cut further */
};

struct grid {
    int64_t tm, tn, rows, cols; /* tile size, tiles down and across */
    int64_t splits, k_step;
};

struct product {
    tensor a, b;
    bool ta, tb, bf16; /* bf16: oneDNN takes the operands as they are */
    float alpha;
    int64_t k;
};

struct job {
    const struct gemm_args *g;
    const struct panel_fns *fns;
    struct grid grid;
    struct product first, second;
    float *parts;  /* [splits][M, N], when K is split */
    char *scratch; /* per thread: A block | B block | C tile | oneDNN's */
    atomic_int *failed;
};

/* ---- the grid ----------------------------------------------------------------------------------------------- */

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* The width of equal pieces of n, each at most `most`, in multiples of `unit`. */
static int64_t cut(int64_t n, int64_t most, int64_t unit)
{
    int64_t pieces = (n + most - 1) / most, width = (n + pieces - 1) / pieces;
    return min64((width + unit - 1) / unit * unit, n);
}

static void grid_count(struct grid *d, int64_t m, int64_t n)
{
    d->rows = (m + d->tm - 1) / d->tm;
    d->cols = (n + d->tn - 1) / d->tn;
}

static struct grid grid_long(int64_t m, int64_t n, int64_t k)
{
    struct grid d = {.tm = cut(m, TILE_M, 32), .tn = cut(n, TILE_WIDE, 16)};
    grid_count(&d, m, n);
    d.splits = LONG_UNITS / (d.rows * d.cols);
    if (d.splits < 2) return d;
    d.k_step = cut(k, (k + d.splits - 1) / d.splits, 64);
    d.splits = (k + d.k_step - 1) / d.k_step;
    return d;
}

static struct grid grid_of(int64_t m, int64_t n, int64_t k, bool ta)
{
    struct grid d;
    if (k >= LONG_K && (d = grid_long(m, n, k)).splits > 1) return d;
    d = (struct grid){.tm = cut(m, TILE_M, 32), .tn = cut(n, ta ? TILE_WIDE : TILE_N, 16), .splits = 1, .k_step = k};
    double column = 2.0 * (double)k * (double)d.tm;
    grid_count(&d, m, n);
    if (d.rows * d.cols < FEW_TILES && column * (double)d.tn > SHRINK_ABOVE_FLOP) d.tn = cut(n, NARROW_N, 16);
    grid_count(&d, m, n);
    if (d.rows * d.cols < FEW_TILES / 2 && column * (double)d.tn > SHRINK_ABOVE_FLOP) d.tm = cut(m, TILE_M / 2, 32);
    grid_count(&d, m, n);
    return d;
}

/* ---- one tile ----------------------------------------------------------------------------------------------- */

static void *corner(const tensor *t, int64_t row, int64_t col)
{
    return (char *)t->data + (size_t)(row * t->ld + col) * dtype_bytes(t->dt);
}

enum {
    WIDE_PAD = 16, /* floats behind a widened row: oneDNN packs down columns, and powers of two would share a set of the cache */
    A_BLOCK = (TILE_M + WIDE_PAD) * (TILE_K + WIDE_PAD) * 4,
    B_BLOCK = (TILE_WIDE + WIDE_PAD) * (TILE_K + WIDE_PAD) * 4,
    C_BLOCK = TILE_M * TILE_WIDE * 4,
    SCRATCH = A_BLOCK + B_BLOCK + C_BLOCK + GEMM_BF16_SCRATCH,
};

static char *thread_scratch(const struct job *j) { return j->scratch + (size_t)team_rank() * SCRATCH; }

struct operand {
    const float *data;
    int64_t ld;
};

/* Block [outer range, k range] of an operand, as f32: in place, or widened into `room`. */
static struct operand block(const struct job *j, const tensor *t, bool k_is_row, int64_t at, int64_t n, int64_t k0, int64_t kk, float *room)
{
    const void *data = k_is_row ? corner(t, k0, at) : corner(t, at, k0);
    if (t->dt == DT_F32) return (struct operand){data, t->ld};
    int64_t rows = k_is_row ? kk : n, cols = k_is_row ? n : kk, ld = cols + WIDE_PAD;
    j->fns->widen(data, t->ld, rows, cols, room, ld);
    return (struct operand){room, ld};
}

/* oneDNN 2.6.3's AMX kernels use a tile they have not configured for some shapes of few rows (8 × 112 with k = 63 is
 * one; none of 24 rows or more was found in 36,000): such tiles are widened. They are thin, so little is lost. */
enum { AMX_ROWS = 32 };

/* t = product over k in [k0, k0 + kk) (+ t when accumulate). Returns oneDNN's status. */
static int tile_product(const struct job *j, const struct product *p, const struct tile *t, int64_t m0, int64_t n0, int64_t k0, int64_t kk,
                        bool accumulate)
{
    char *scratch = thread_scratch(j);
    if (p->bf16 && t->rows >= AMX_ROWS) {
        struct bf16_product q = {t->rows, t->cols, kk, p->a.ld, p->b.ld, t->ld, p->ta, p->tb, accumulate, p->alpha};
        const void *a = p->ta ? corner(&p->a, k0, m0) : corner(&p->a, m0, k0);
        const void *b = p->tb ? corner(&p->b, n0, k0) : corner(&p->b, k0, n0);
        return gemm_bf16_run(&q, a, b, t->data, scratch + A_BLOCK + B_BLOCK + C_BLOCK);
    }
    int64_t step = p->a.dt == DT_F32 && p->b.dt == DT_F32 ? kk : TILE_K;
    for (int64_t at = 0; at < kk; at += step, accumulate = true) {
        int64_t deep = min64(step, kk - at);
        struct operand a = block(j, &p->a, p->ta, m0, t->rows, k0 + at, deep, (float *)scratch);
        struct operand b = block(j, &p->b, !p->tb, n0, t->cols, k0 + at, deep, (float *)(scratch + A_BLOCK));
        int failed = dnnl_sgemm(p->ta ? 'T' : 'N', p->tb ? 'T' : 'N', t->rows, t->cols, deep, p->alpha, a.data, a.ld, b.data, b.ld,
                                accumulate ? 1.0f : 0.0f, t->data, t->ld);
        if (failed) return failed;
    }
    return 0;
}

static tensor c_at(const struct job *j, int64_t m0, int64_t n0)
{
    tensor c = j->g->c;
    c.data = corner(&j->g->c, m0, n0);
    return c;
}

static int tile_made(const struct job *j, int64_t unit)
{
    const struct gemm_args *g = j->g;
    const struct grid *d = &j->grid;
    int64_t m = g->c.dim[0], n = g->c.dim[1], split = unit / (d->rows * d->cols);
    int64_t m0 = unit % d->rows * d->tm, n0 = unit / d->rows % d->cols * d->tn, k0 = split * d->k_step;
    struct tile t = {.rows = min64(d->tm, m - m0), .cols = min64(d->tn, n - n0)};
    tensor c = c_at(j, m0, n0), bias = g->bias, none = {0};
    if (j->parts) {
        t.data = j->parts + split * m * n + m0 * n + n0;
        t.ld = n;
    } else if (c.dt == DT_F32) {
        t.data = c.data;
        t.ld = c.ld;
    } else {
        t.data = (float *)(thread_scratch(j) + A_BLOCK + B_BLOCK);
        t.ld = t.cols;
    }
    bool read_c = g->beta != 0.0f && split == 0, add_bias = bias.data && split == 0;
    if (add_bias) bias.data = (char *)bias.data + (size_t)n0 * dtype_bytes(bias.dt);
    if (add_bias || (read_c && t.data != c.data)) j->fns->begin(&t, read_c ? &c : &none, add_bias ? &bias : &none);
    int64_t deep = min64(d->k_step, j->first.k - k0);
    int failed = tile_product(j, &j->first, &t, m0, n0, k0, deep, read_c || add_bias);
    if (!failed && j->second.k && split == 0) failed = tile_product(j, &j->second, &t, m0, n0, 0, j->second.k, true);
    if (!failed && !j->parts && t.data != c.data) j->fns->end(&t, 1, 0, &c);
    return failed;
}

static void tile_run(const void *arg, int64_t unit)
{
    const struct job *j = arg;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* else oneDNN would start threads of its own */
    int failed = tile_made(j, unit);
    omp_set_num_threads(threads);
    if (failed) atomic_store(j->failed, failed);
}

static void tile_join(const void *arg, int64_t unit)
{
    const struct job *j = arg;
    const struct grid *d = &j->grid;
    int64_t m = j->g->c.dim[0], n = j->g->c.dim[1];
    int64_t m0 = unit % d->rows * d->tm, n0 = unit / d->rows * d->tn;
    struct tile t = {j->parts + m0 * n + n0, n, min64(d->tm, m - m0), min64(d->tn, n - n0)};
    tensor c = c_at(j, m0, n0);
    j->fns->end(&t, (int)d->splits, m * n, &c);
}

/* ---- the op ------------------------------------------------------------------------------------------------- */

static struct product product_of(const tensor *a, const tensor *b, bool ta, bool tb, float alpha)
{
    struct product p = {.a = *a, .b = *b, .ta = ta, .tb = tb, .alpha = alpha};
    if (!a->data) return p;
    p.k = a->dim[ta ? 0 : 1];
    p.bf16 = a->dt == DT_BF16 && b->dt == DT_BF16 && gemm_cpu_has_bf16();
    return p;
}

status gemm_cpu(struct stream *s, const struct gemm_args *g, const struct panel_fns *fns)
{
    int64_t m = g->c.dim[0], n = g->c.dim[1];
    if (!m || !n) return ST_OK;
    struct job j = {.g = g, .fns = fns};
    j.first = product_of(&g->a, &g->b, g->ta, g->tb, g->alpha);
    j.second = product_of(&g->a2, &g->b2, false, g->tb, 1.0f);
    j.grid = grid_of(m, n, j.first.k, g->ta);
    int64_t tiles = j.grid.rows * j.grid.cols, units = tiles * j.grid.splits;
    int threads = (int)min64(s->threads, units);
    size_t scratch = (size_t)threads * SCRATCH;
    size_t parts = j.grid.splits > 1 ? (size_t)(j.grid.splits * m * n) * sizeof(float) : 0;
    void *workspace;
    TRY(stream_workspace(s, scratch + parts, "gemm", &workspace));
    j.scratch = workspace;
    if (parts) j.parts = (float *)(j.scratch + scratch);

    atomic_int failed = 0;
    j.failed = &failed;
    gemm_bf16_enter();
    team_each(threads, units, tile_run, &j);
    if (j.parts) team_each(threads, tiles, tile_join, &j);
    gemm_bf16_leave();
    if (failed)
        FAIL(ST_FAIL, "gemm: oneDNN failed with status %d for C %s, A %s, B %s", failed, tensor_text(&g->c), tensor_text(&g->a),
             tensor_text(&g->b));
    return ST_OK;
}

/* Every thread's scratch, and the parts of a split K, which together are never more than LONG_UNITS wide tiles. */
size_t gemm_cpu_workspace(const struct work_bounds *w) { return (size_t)w->threads * SCRATCH + (size_t)LONG_UNITS * C_BLOCK; }

/* Seen from outside (a counting malloc under dnnl_sgemm, bench shapes): packed panels of up to 1.7 MB a thread with
 * AVX-512 and 1.2 MB with AVX2, 4 MB of kernels compiled once; a bf16 primitive takes about 130 KB with its code, and gemm_bf16.c keeps 256 of them. */
size_t cpu_library_scratch_bytes(const struct work_bounds *w)
{
    enum { PANELS = 2 << 20, KERNELS = 4 << 20, PRIMITIVES = 34 << 20 };
    bool primitives = w->dt == DT_BF16 && gemm_cpu_has_bf16();
    return (size_t)w->threads * PANELS + KERNELS + (primitives ? PRIMITIVES : 0);
}
