/* Matrix products of the CPU backend: against float64 sums, and bit for bit over numbers of threads, under every
 * instruction set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "tests/kernels/each_isa.h"

struct shape {
    int64_t m, n, k;
    bool ta, tb;
    int64_t k2; /* 0: no second product */
    char dt[4]; /* A, B, C: f or b */
    float alpha, beta;
    bool bias;
    int64_t pad; /* extra elements per row; odd values misalign rows */
};

static const struct shape shapes[] = {
    {1, 1, 1, 0, 0, 0, "fff", 1, 0, 0, 0},        {3, 5, 7, 0, 1, 0, "fff", 1, 0, 1, 1},
    {64, 96, 80, 0, 1, 16, "fff", 0.5f, 0, 1, 0}, {512, 128, 896, 0, 1, 16, "fff", 1, 0, 1, 0},
    {300, 896, 200, 0, 1, 8, "fff", 1, 1, 0, 0},  {257, 513, 130, 0, 0, 16, "fff", 1, 0, 0, 3},
    {512, 16, 896, 0, 1, 0, "fff", 2, 0, 0, 0},   {16, 896, 512, 1, 0, 0, "fff", 1, 1, 0, 0},
    {16, 130, 4000, 1, 0, 0, "fff", 1, 1, 0, 1},  {896, 16, 512, 1, 0, 0, "fff", 1, 1, 0, 0},
    {33, 40, 20000, 0, 0, 0, "fff", 1, 1, 0, 0},  {70, 50, 33000, 0, 0, 16, "fff", 1, 0, 1, 0},
    {1, 1000, 300, 0, 1, 0, "fff", 1, 0, 0, 0},   {300, 300, 600, 1, 0, 0, "fff", 1, 1, 0, 0},
    {128, 70, 90, 1, 1, 0, "fff", 1, 0, 0, 0},

    {1, 1, 1, 0, 0, 0, "bbb", 1, 0, 0, 0},        {3, 5, 7, 0, 1, 0, "bbb", 1, 0, 1, 1},
    {64, 96, 80, 0, 1, 16, "bbb", 0.5f, 0, 1, 0}, {512, 128, 896, 0, 1, 16, "bbb", 1, 0, 1, 0},
    {300, 896, 200, 0, 1, 8, "bbb", 1, 1, 0, 0},  {257, 513, 130, 0, 0, 16, "bbb", 1, 0, 0, 3},
    {512, 16, 896, 0, 1, 0, "bbb", 2, 0, 0, 0},   {16, 896, 512, 1, 0, 0, "bbf", 1, 1, 0, 0},
    {16, 130, 4000, 1, 0, 0, "bbf", 1, 1, 0, 1},  {896, 16, 512, 1, 0, 0, "bbf", 1, 1, 0, 0},
    {33, 40, 20000, 0, 0, 0, "bbb", 1, 0, 0, 0},  {70, 50, 33000, 0, 0, 16, "bbb", 1, 1, 1, 0},
    {8, 112, 63, 1, 0, 0, "bbf", 1, 0, 0, 0},     {16, 176, 63, 0, 1, 0, "bbf", 1, 0, 0, 0}, /* see AMX_ROWS */
    {1, 1000, 300, 0, 1, 0, "bbb", 1, 0, 0, 0},   {300, 300, 1100, 1, 0, 0, "bbf", 1, 1, 0, 0},
    {260, 300, 1100, 0, 1, 0, "bbb", 1, 0, 1, 0}, {128, 70, 90, 1, 1, 0, "bbb", 1, 0, 0, 0},

    {100, 90, 1000, 0, 1, 16, "fbf", 1, 0, 1, 0}, {100, 90, 1000, 0, 0, 0, "bff", 1, 1, 0, 5},
    {40, 600, 700, 1, 0, 0, "bfb", 1, 0, 0, 0},   {270, 530, 520, 0, 1, 7, "fbb", 1, 1, 1, 1},
};

static uint64_t state;

static float draw(void) /* uniform in (−1, 1), exact in f32 */
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((int64_t)(state >> 40) - (1 << 23)) * 0x1p-23f;
}

static tensor matrix(int64_t rows, int64_t cols, char dt, int64_t pad)
{
    tensor t = tensor_2d(NULL, dt == 'b' ? DT_BF16 : DT_F32, rows, cols);
    t.ld = cols + pad;
    size_t count = (size_t)(rows * t.ld + 1), size = dtype_bytes(t.dt);
    char *data = malloc(count * size + 64);
    assert_non_null(data);
    t.data = data + (pad % 2 ? size : 0); /* odd padding: not even the first element is aligned */
    for (int64_t i = 0; i < rows * t.ld; i++) {
        float x = draw();
        if (dt == 'b')
            ((bf16 *)t.data)[i] = bf16_round(x);
        else
            ((float *)t.data)[i] = x;
    }
    return t;
}

static void matrix_free(tensor *t, int64_t pad)
{
    if (t->data) free((char *)t->data - (pad % 2 ? dtype_bytes(t->dt) : 0));
}

static double at(const tensor *t, int64_t r, int64_t c)
{
    int64_t i = r * t->ld + c;
    return t->dt == DT_BF16 ? (double)bf16_widen(((const bf16 *)t->data)[i]) : (double)((const float *)t->data)[i];
}

static double ulp(double x, dtype dt)
{
    int e;
    frexp(x, &e);
    return ldexp(1.0, e - (dt == DT_BF16 ? 8 : 24));
}

static void run(const struct gemm_args *g, int threads)
{
    struct stream *s;
    struct work_bounds w = {.heads = 1, .kv_heads = 1, .head_dim = 1, .threads = threads};
    assert_int_equal(backend_cpu.dev.stream_open(&s, threads), ST_OK);
    assert_int_equal(backend_cpu.prepare(s, &w), ST_OK);
    assert_int_equal(backend_cpu.dev.alloc(MEM_HOST, s->workspace_bytes, &s->workspace), ST_OK);
    memset(s->workspace, 0xff, s->workspace_bytes); /* NaN: nothing may be read before it is written */
    status st = backend_cpu.ops.gemm(s, g);
    if (st) print_error("%s\n", status_message());
    assert_int_equal(st, ST_OK);
    backend_cpu.dev.free(MEM_HOST, s->workspace, s->workspace_bytes);
    backend_cpu.dev.stream_close(s);
}

/* Rows of C to check in full: all of a small one, else a few, with the last. */
static int64_t next_row(int64_t row, int64_t rows) { return rows <= 40 || row + 37 >= rows - 1 ? row + 1 : row + 37; }

static void compare(const struct shape *q, const struct gemm_args *g, const tensor *before)
{
    const tensor *c = &g->c;
    for (int64_t i = 0; i < q->m; i = next_row(i, q->m))
        for (int64_t j = 0; j < q->n; j++) {
            double sum = 0.0, size = 0.0;
            for (int64_t l = 0; l < q->k; l++) {
                double term = (double)q->alpha * (q->ta ? at(&g->a, l, i) : at(&g->a, i, l)) * (q->tb ? at(&g->b, j, l) : at(&g->b, l, j));
                sum += term;
                size += fabs(term);
            }
            for (int64_t l = 0; l < q->k2; l++) {
                double term = at(&g->a2, i, l) * (q->tb ? at(&g->b2, j, l) : at(&g->b2, l, j));
                sum += term;
                size += fabs(term);
            }
            double bias = q->bias ? ((const float *)g->bias.data)[j] : 0.0, old = q->beta != 0.0f ? at(before, i, j) : 0.0;
            sum += bias + old;
            size += fabs(bias) + fabs(old) + fabs(sum);
            /* Each of k additions errs by ≤ eps·|partial sum|, the partial sums of random terms grow like √k·rms, and
             * the errors have random signs: together about eps·k·rms ≈ eps·Σ|term|. Four times that, and one rounding.
             */
            double bound = 4.0 * 0x1p-24 * size + ulp(sum, c->dt);
            double got = at(c, i, j);
            if (!(fabs(got - sum) <= bound)) {
                print_error("C[%ld, %ld] = %.9g, want %.9g ± %.3g\n", (long)i, (long)j, got, sum, bound);
                fail();
            }
        }
}

static void check(const struct shape *q)
{
    state = (uint64_t)(q->m * 1000003 + q->n * 1009 + q->k);
    struct gemm_args g = {.ta = q->ta, .tb = q->tb, .alpha = q->alpha, .beta = q->beta};
    g.a = matrix(q->ta ? q->k : q->m, q->ta ? q->m : q->k, q->dt[0], q->pad);
    g.b = matrix(q->tb ? q->n : q->k, q->tb ? q->k : q->n, q->dt[1], q->pad);
    if (q->k2) {
        g.a2 = matrix(q->m, q->k2, q->dt[0], q->pad);
        g.b2 = matrix(q->tb ? q->n : q->k2, q->tb ? q->k2 : q->n, q->dt[1], q->pad);
    }
    tensor before = matrix(q->m, q->n, q->dt[2], q->pad), bias = matrix(1, q->n, 'f', 0), first = before;
    size_t bytes = (size_t)(q->m * before.ld) * dtype_bytes(before.dt);
    if (q->bias) g.bias = bias;
    first.data = NULL;
    for (int threads = 1; threads <= 4; threads++) {
        g.c = matrix(q->m, q->n, q->dt[2], q->pad);
        memcpy(g.c.data, before.data, bytes);
        if (q->beta == 0.0f) /* not read: NaN inside, and the padding must stay as it is */
            for (int64_t i = 0; i < q->m; i++)
                memset((char *)g.c.data + (size_t)(i * g.c.ld) * dtype_bytes(g.c.dt), 0xff, (size_t)q->n * dtype_bytes(g.c.dt));
        run(&g, threads);
        for (int64_t i = 0; i < q->m; i++)
            for (int64_t j = q->n; j < g.c.ld; j++) assert_true(at(&g.c, i, j) == at(&before, i, j));
        if (threads == 1) {
            compare(q, &g, &before);
            first = g.c;
        } else {
            if (memcmp(first.data, g.c.data, bytes)) {
                print_error("%d threads change the bits of %ldx%ldx%ld %s\n", threads, (long)q->m, (long)q->n, (long)q->k, q->dt);
                fail();
            }
            matrix_free(&g.c, q->pad);
        }
    }
    matrix_free(&first, q->pad);
    matrix_free(&before, q->pad);
    matrix_free(&bias, 0);
    matrix_free(&g.a, q->pad);
    matrix_free(&g.b, q->pad);
    matrix_free(&g.a2, q->pad);
    matrix_free(&g.b2, q->pad);
}

static void test_products(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(&shapes[i]);
}

/* The product of one-hot rows is exact, whatever the order of summation: rows of B, rounded once. */
static void test_exact(void **unused)
{
    (void)unused;
    for (int dt = 0; dt < 2; dt++) {
        int64_t m = 70, n = 90, k = 300;
        struct gemm_args g = {.alpha = 1.0f,
                              .a = matrix(m, k, "fb"[dt], 0),
                              .b = matrix(k, n, "fb"[dt], 0),
                              .c = matrix(m, n, "fb"[dt], 0)};
        memset(g.a.data, 0, (size_t)(m * k) * dtype_bytes(g.a.dt));
        for (int64_t i = 0; i < m; i++) {
            if (dt)
                ((bf16 *)g.a.data)[i * k + i * 3] = bf16_round(1.0f);
            else
                ((float *)g.a.data)[i * k + i * 3] = 1.0f;
        }
        run(&g, 2);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) assert_true(at(&g.c, i, j) == at(&g.b, i * 3, j));
        matrix_free(&g.a, 0);
        matrix_free(&g.b, 0);
        matrix_free(&g.c, 0);
    }
}

/* More tile shapes than the table of primitives keeps. */
static void test_many_shapes(void **unused)
{
    (void)unused;
    tensor a = matrix(40, 40, 'b', 0), b = matrix(40, 40, 'b', 0), c = matrix(40, 40, 'f', 0);
    for (int64_t m = 1; m <= 31; m++)
        for (int64_t n = 1; n <= 31; n++) {
            struct gemm_args g = {.alpha = 1.0f, .a = a, .b = b, .c = c};
            g.a.dim[0] = g.c.dim[0] = m;
            g.b.dim[1] = g.c.dim[1] = n;
            run(&g, 1);
            double want = 0.0;
            for (int64_t l = 0; l < 40; l++) want += at(&a, m - 1, l) * at(&b, l, n - 1);
            assert_true(fabs(at(&c, m - 1, n - 1) - want) < 1e-5);
        }
    matrix_free(&a, 0);
    matrix_free(&b, 0);
    matrix_free(&c, 0);
}

/* Too small a workspace is said, not written over. */
static void test_workspace(void **unused)
{
    (void)unused;
    float x[4] = {0};
    struct stream *s;
    struct gemm_args g = {.alpha = 1.0f, .a = tensor_2d(x, DT_F32, 2, 2), .b = tensor_2d(x, DT_F32, 2, 2), .c = tensor_2d(x, DT_F32, 2, 2)};
    assert_int_equal(backend_cpu.dev.stream_open(&s, 1), ST_OK);
    assert_int_equal(backend_cpu.ops.gemm(s, &g), ST_FAIL);
    assert_non_null(strstr(status_message(), "gemm needs"));
    backend_cpu.dev.stream_close(s);
}

static int group(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_many_shapes),
        cmocka_unit_test(test_workspace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    (void)argc;
    return each_isa(argv, group);
}
