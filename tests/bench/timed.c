/* timed.c — linked into trimpot_timed beside the whole program: `device: cpu` is the CPU with a clock around every op. At
 * the end stderr shows where the time went:
 *
 *      op, shape of products    calls   seconds   share   achieved   limit   share of the limit
 *
 * Products and attention are counted in GFLOP/s (2·M·N·K; causal halves) against one large product of the same dtype
 * measured at the end in the same process; the rest in GB/s of what it must read and write, against a copy between buffers
 * larger than any cache. Time outside of ops (data, waits, metrics) is the last row. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/log.h"

enum { ROWS = 256 };

static struct backend timed;
static const struct backend *inner;
static double began;
static struct row {
    char name[64];
    double seconds, work; /* flop, or bytes */
    int64_t calls;
    enum { BYTES, FLOP_F32, FLOP_BF16 } unit;
} rows[ROWS];
static int n_rows;

static void note(const char *name, int unit, double work, double seconds)
{
    int i = 0;
    while (i < n_rows && strcmp(rows[i].name, name) != 0) i++;
    if (i == n_rows && n_rows < ROWS) snprintf(rows[n_rows++].name, sizeof rows[0].name, "%s", name);
    if (i == ROWS) return;
    rows[i].unit = unit;
    rows[i].work += work;
    rows[i].seconds += seconds;
    rows[i].calls++;
}

static double size(const tensor *t) { return t->data ? (double)tensor_count(t) * (double)dtype_bytes(t->dt) : 0.0; }

static double pairs(const struct docs *d) /* of a query and a key it sees; the window is not counted */
{
    double sum = 0.0;
    for (int64_t i = 0; i < d->n_docs; i++) {
        double n = d->start.host[i + 1] - d->start.host[i];
        sum += n * (n + 1.0) / 2.0;
    }
    return sum;
}

static double attention(const struct attn_fwd_args *a, double products)
{
    return 2.0 * products * (double)a->heads * (double)a->head_dim * pairs(&a->docs);
}

static void note_gemm(const struct gemm_args *g, double seconds)
{
    char name[64];
    int64_t k = g->a.dim[g->ta ? 0 : 1], k2 = g->a2.data ? g->a2.dim[1] : 0, n = 0;
    n += snprintf(name, sizeof name, "gemm %ld x %ld x %ld", (long)g->c.dim[0], (long)g->c.dim[1], (long)k);
    if (k2) n += snprintf(name + n, sizeof name - (size_t)n, "+%ld", (long)k2);
    snprintf(name + n, sizeof name - (size_t)n, " %s%s%s", g->ta ? "T" : "N", g->tb ? "T" : "N", g->beta != 0.0f ? " +=" : "");
    double work = 2.0 * (double)g->c.dim[0] * (double)g->c.dim[1] * (double)(k + k2);
    note(name, g->a.dt == DT_BF16 ? FLOP_BF16 : FLOP_F32, work, seconds);
}

static void note_op(const char *name, const void *args, double seconds)
{
#define IS(op, kind)                                                                                                                       \
    const struct kind##_args *a = args;                                                                                                    \
    if (strcmp(name, #op) == 0)
    {IS(gemm, gemm){note_gemm(a, seconds);
    return;
}
}
{IS(attn_fwd, attn_fwd){note(name, FLOP_F32, attention(a, 2), seconds);
return;
}
}
{
    IS(attn_bwd, attn_bwd)
    {
        note(name, FLOP_F32, attention(&a->fwd, 5), seconds);
        return;
    }
}
double bytes = 0.0;
{
    IS(glu_fwd, glu_fwd) bytes = 3 * size(&a->h);
}
{
    IS(glu_bwd, glu_bwd) bytes = 5 * size(&a->dh);
}
{
    IS(rmsnorm_fwd, rmsnorm_fwd) bytes = size(&a->x) + size(&a->delta) + size(&a->sum) + size(&a->y);
}
{
    IS(rmsnorm_bwd, rmsnorm_bwd) bytes = size(&a->x) + size(&a->dy) + size(&a->residual) + size(&a->dx);
}
{
    IS(rope, rope) bytes = 2 * (size(&a->q) + size(&a->k));
}
{
    IS(loss, loss) bytes = 2 * size(&a->z);
}
{
    IS(axpy, axpy) bytes = size(&a->x) + size(&a->y);
}
#undef IS
note(name, BYTES, bytes, seconds);
}

/* ---- limits: measured before the first op, with its threads and workspace ------------------------------------------- */

static double limit[3]; /* by unit, per second */

static double best(struct stream *s, int unit)
{
    enum { N = 2048, BYTES_COPIED = 256 << 20 };
    void *a = NULL, *b = NULL;
    if (inner->dev.alloc(MEM_HOST, BYTES_COPIED, &a) || inner->dev.alloc(MEM_HOST, BYTES_COPIED, &b)) exit(1);
    memset(a, 0, BYTES_COPIED);
    dtype dt = unit == FLOP_BF16 ? DT_BF16 : DT_F32;
    struct gemm_args g = {.a = tensor_2d(a, dt, N, N), .b = tensor_2d((char *)a + N * N * 4, dt, N, N), .alpha = 1.0f, .tb = true};
    g.c = tensor_2d(b, dt, N, N);
    double top = 0.0;
    for (int i = 0; i < 5; i++) {
        double from = clock_s();
        if (unit == BYTES ? inner->dev.copy(s, b, a, BYTES_COPIED) : inner->ops.gemm(s, &g)) exit(1);
        double rate = (unit == BYTES ? 2.0 * BYTES_COPIED : 2.0 * N * N * N) / (clock_s() - from);
        if (rate > top) top = rate;
    }
    inner->dev.free(MEM_HOST, a, BYTES_COPIED);
    inner->dev.free(MEM_HOST, b, BYTES_COPIED);
    return top;
}

static void find_limits(struct stream *s)
{
    double from = clock_s();
    for (int unit = 0; unit < 3 && s->workspace_bytes; unit++) limit[unit] = best(s, unit);
    began += clock_s() - from;
}

#define TIMED(name, args)                                                                                                                  \
    static status name##_timed(struct stream *s, const struct args##_args *a)                                                              \
    {                                                                                                                                      \
        if (!limit[FLOP_BF16]) find_limits(s);                                                                                             \
        double from = clock_s();                                                                                                           \
        status st = inner->ops.name(s, a);                                                                                                 \
        note_op(#name, a, clock_s() - from);                                                                                               \
        return st;                                                                                                                         \
    }
TRIMPOT_OPS(TIMED)
#define SLOT(name, args) .name = name##_timed,

static status open_timed(struct stream **out, int threads)
{
    TRY(inner->dev.stream_open(out, threads));
    (*out)->be = &timed;
    return ST_OK;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
    double x = ((const struct row *)a)->seconds, y = ((const struct row *)b)->seconds;
    return (x < y) - (x > y);
}

__attribute__((destructor)) static void show(void)
{
    double all = clock_s() - began, ops = 0.0;
    if (!n_rows) return;
    qsort(rows, (size_t)n_rows, sizeof *rows, by_time);
    fprintf(stderr, "\n%-40s %8s %9s %7s %9s %9s\n", "op", "calls", "seconds", "share", "achieved", "limit");
    for (int i = 0; i < n_rows; i++) ops += rows[i].seconds;
    for (int i = 0; i < n_rows; i++) {
        const struct row *r = &rows[i];
        fprintf(stderr, "%-40s %8ld %9.3f %6.1f%%", r->name, (long)r->calls, r->seconds, 100.0 * r->seconds / ops);
        if (r->work > 0.0 && limit[r->unit] > 0.0)
            fprintf(stderr, " %9.1f %9.1f G%s/s %5.0f%%", r->work / r->seconds * 1e-9, limit[r->unit] * 1e-9, r->unit ? "FLOP" : "B",
                    100.0 * r->work / r->seconds / limit[r->unit]);
        fprintf(stderr, "\n");
    }
    fprintf(stderr, "%-40s %8s %9.3f\n%-40s %8s %9.3f\n", "all ops", "", ops, "outside of ops, with the start", "", all - ops);
}

__attribute__((constructor)) static void put_the_clock_up(void)
{
    began = clock_s();
    inner = backend_host;
    timed = *inner;
    timed.ops = (struct ops){TRIMPOT_OPS(SLOT)};
    timed.dev.stream_open = open_timed;
    backend_host = &timed;
}
