/* gemm.c — the matrix product on a GPU: which products and passes a call becomes.
 *
 *   A·B                 straight   one product of cuBLASLt's into C, with bias and beta·C in its epilogue
 *   [A|A2]·[B;B2]       straight   where A2 lies right behind A's columns and B2 right behind B's depth (one row of A and A2, one
 *                                  weight [W | s·B]: spec "K-augmentation"), one product of depth K + K2
 *   A·B + A2·B2         summed     C is f32: product, product with beta = 1. C is bf16: product into f32 rows in the workspace, and
 *                                  one pass of our own (gemm_plain.cu) that adds A2·B2, bias and beta·C, and rounds, once
 *   f32 with bf16, …    plain      our own kernel alone
 *
 * In bytes per element of C, beside the operands: straight writes 2; summed writes and reads 4 and then writes 2, in chunks of rows
 * of SUM_BYTES that a large L2 holds. A second product deeper than SKINNY is the library's as well: 8 more. Nothing that grows with
 * tokens is plain: activations, weights and working copies are of one dtype. */
#include "kernels/cuda/gemm_lt.h"

enum {
    SUM_BYTES = 32 << 20, /* of f32 rows in the workspace */
    TILE_ROWS = 128,      /* the library's: chunks are cut in multiples */
    SKINNY = 32,          /* a second product of this depth costs the last pass less than another pass would */
};

size_t gemm_cuda_workspace(const struct work_bounds *w)
{
    (void)w;
    return GEMM_LT_ALIGN + GEMM_LT_BYTES + SUM_BYTES;
}

static int64_t depth(const tensor *a, bool ta) { return a->data ? a->dim[ta ? 0 : 1] : 0; }

static const char *behind(const tensor *t, int64_t elements) { return (const char *)t->data + (size_t)elements * dtype_bytes(t->dt); }

/* A2·B2 becomes part of A·B where they lie like one matrix each. */
static void join(struct gemm_args *g)
{
    int64_t k = depth(&g->a, g->ta), k2 = depth(&g->a2, false);
    if (!k2 || g->ta || g->alpha != 1.0f || g->a2.dt != g->a.dt || g->b2.dt != g->b.dt) return;
    if (g->a2.ld != g->a.ld || g->b2.ld != g->b.ld) return;
    if (g->a2.data != behind(&g->a, k) || g->b2.data != behind(&g->b, g->tb ? k : k * g->b.ld)) return;
    g->a.dim[1] = k + k2;
    g->b.dim[g->tb ? 1 : 0] = k + k2;
    g->a2.data = g->b2.data = NULL;
}

/* C = alpha·op(A)·op(B) + bias + beta·C, by whom it may. */
static status product(struct stream *s, const struct gemm_args *g, void *workspace)
{
    bool done = false;
    if (gemm_lt_takes(g)) TRY(gemm_lt(s, g, workspace, &done));
    return done ? ST_OK : gemm_plain(s, g, NULL, 0);
}

/* Rows of C that are summed in f32 where `sum` is: C's own, when C is f32. */
static status summed(struct stream *s, const struct gemm_args *rows, tensor sum, void *workspace)
{
    bool in_place = sum.data == rows->c.data;
    struct gemm_args first = *rows, last = *rows;
    first.c = sum;
    first.a2 = first.b2 = first.bias = (tensor){0};
    if (!in_place) first.beta = 0;
    TRY(product(s, &first, workspace));
    if (depth(&rows->a2, false) > SKINNY) {
        struct gemm_args second = {.a = rows->a2, .b = rows->b2, .c = sum, .tb = rows->tb, .alpha = 1, .beta = 1};
        TRY(product(s, &second, workspace));
        last.a2 = last.b2 = (tensor){0};
    }
    if (in_place && !last.a2.data && !last.bias.data) return ST_OK;
    last.a = last.b = (tensor){0};
    if (in_place) last.beta = 0; /* sum holds it */
    return gemm_plain(s, &last, sum.data, sum.ld);
}

/* The columns of op(A) stay, its rows are [first, first + n). */
static tensor rows_of(const tensor *a, bool ta, int64_t first, int64_t n)
{
    return ta ? tensor_columns(a, first, n) : tensor_rows(a, first, n);
}

static status summed_in_chunks(struct stream *s, const struct gemm_args *g, float *room, void *workspace)
{
    int64_t m = g->c.dim[0], n = g->c.dim[1], ld = (n + 3) / 4 * 4; /* rows of 16 bytes */
    int64_t most = SUM_BYTES / (4 * ld);
    if (most < 1) FAIL(ST_SHAPE, "gemm: C is %s: a row of more than %d elements is not summed", tensor_text(&g->c), SUM_BYTES / 4);
    int64_t unit = most >= TILE_ROWS ? TILE_ROWS : most >= 8 ? 8 : 1;
    most -= most % unit;
    int64_t pieces = (m + most - 1) / most, step = ((m + pieces - 1) / pieces + unit - 1) / unit * unit;
    for (int64_t at = 0; at < m; at += step) {
        int64_t rows = m - at < step ? m - at : step;
        struct gemm_args part = *g;
        part.a = rows_of(&g->a, g->ta, at, rows);
        if (g->a2.data) part.a2 = tensor_rows(&g->a2, at, rows);
        part.c = tensor_rows(&g->c, at, rows);
        tensor sum = tensor_2d(room, DT_F32, rows, n);
        sum.ld = ld;
        TRY(summed(s, &part, sum, workspace));
    }
    return ST_OK;
}

status gemm_cuda(struct stream *s, const struct gemm_args *args)
{
    struct gemm_args g = *args;
    if (!g.c.dim[0] || !g.c.dim[1]) return ST_OK;
    join(&g);
    if (g.a.dt != g.b.dt || !depth(&g.a, g.ta)) return gemm_plain(s, &g, NULL, 0);
    char *room;
    TRY(stream_workspace(s, gemm_cuda_workspace(NULL), "gemm", (void **)&room));
    room += -(uintptr_t)room % GEMM_LT_ALIGN;
    if (gemm_lt_takes(&g)) return product(s, &g, room);
    if (g.c.dt == DT_F32) return summed(s, &g, g.c, room);
    return summed_in_chunks(s, &g, (float *)(void *)(room + GEMM_LT_BYTES), room);
}
