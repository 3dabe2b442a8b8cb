/* The matrix product of the CUDA backend on the emulated device: how many products of the library's and passes of our own a call
 * becomes, and that it is right all the same; chunks, algorithms that were timed, failures. What every backend must compute is in
 * tests/ref/cases.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "kernels/base/file.h"
#include "kernels/base/philox.h"

/* ---- the plugin, watched: its calls of these two arrive here first, and are passed on -------------------------------------- */

static int products, plains;
static void *plugin;

static void *its(const char *name)
{
    void *at = dlsym(plugin, name);
    assert_non_null(at);
    return at;
}

enum { ALGO = 64, TAKEN = 0, INVALID = 7 };  /* bytes of an algorithm; CUBLAS_STATUS_… */
static unsigned char used[ALGO], slow[ALGO]; /* the last algorithm; one that takes its time */
static bool slowing, probing, careless;

typedef int matmul_fn(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *, void *, void *,
                      void *, const void *, void *, size_t, void *);
matmul_fn cublasLtMatmul;
int cublasLtMatmul(void *lt, void *desc, const void *alpha, const void *a, void *al, const void *b, void *bl, const void *beta,
                   const void *c, void *cl, void *d, void *dl, const void *algo, void *workspace, size_t bytes, void *stream)
{
    matmul_fn *f = (matmul_fn *)its("cublasLtMatmul");
    products++;
    memcpy(used, algo, ALGO);
    if (probing) { /* what the library would not take, the emulated one does not either, and nothing is queued */
        char none[ALGO] = {0};
        const char *odd = (const char *)a + 2;
        char *odd_d = (char *)d + 2;
        assert_int_equal(f(lt, desc, alpha, odd, al, b, bl, beta, c, cl, d, dl, algo, workspace, bytes, stream), INVALID);
        assert_int_equal(f(lt, desc, alpha, a, al, b, bl, beta, c, cl, odd_d, dl, algo, workspace, bytes, stream), INVALID);
        assert_int_equal(f(lt, desc, alpha, a, bl, b, al, beta, c, cl, d, dl, algo, workspace, bytes, stream), INVALID);
        assert_int_equal(f(lt, desc, alpha, a, al, b, bl, beta, c, cl, d, dl, none, workspace, bytes, stream), INVALID);
        assert_int_equal(f(lt, desc, alpha, a, al, b, bl, beta, c, cl, d, dl, algo, workspace, 64, stream), INVALID);
        assert_int_equal(f(lt, desc, alpha, a, al, b, bl, beta, c, cl, d, dl, algo, (char *)workspace + 4, bytes, stream), INVALID);
    }
    for (int i = 0; slowing && !memcmp(slow, algo, ALGO) && i < 30; i++)
        assert_int_equal(f(lt, desc, alpha, a, al, b, bl, beta, c, cl, d, dl, algo, workspace, bytes, stream), TAKEN);
    return f(lt, desc, alpha, a, al, b, bl, beta, c, cl, d, dl, algo, workspace, bytes, stream);
}

typedef int prefer_fn(void *, int, const void *, size_t);
prefer_fn cublasLtMatmulPreferenceSetAttribute;
int cublasLtMatmulPreferenceSetAttribute(void *p, int attribute, const void *value, size_t bytes)
{
    enum { REDUCTION_SCHEME_MASK = 3 };
    return careless && attribute == REDUCTION_SCHEME_MASK
               ? TAKEN
               : ((prefer_fn *)its("cublasLtMatmulPreferenceSetAttribute"))(p, attribute, value, bytes);
}

typedef status plain_fn(struct stream *s, const struct gemm_args *g, const float *sum, int64_t sum_ld);
plain_fn gemm_plain;
status gemm_plain(struct stream *s, const struct gemm_args *g, const float *sum, int64_t sum_ld)
{
    plains++;
    return ((plain_fn *)its("gemm_plain"))(s, g, sum, sum_ld);
}

/* ---- the device -------------------------------------------------------------------------------------------------------------- */

static const struct backend *be;
static struct stream *s;

static void ok(status st)
{
    if (st) print_error("%s\n", status_message());
    assert_int_equal(st, ST_OK);
}

static void stream_open(void)
{
    struct work_bounds w = {.heads = 1, .kv_heads = 1, .head_dim = 1, .threads = 1};
    ok(be->dev.stream_open(&s, 1));
    ok(be->prepare(s, &w));
    ok(be->dev.alloc(MEM_DEVICE, s->workspace_bytes, &s->workspace));
}

static void stream_close(void)
{
    be->dev.free(MEM_DEVICE, s->workspace, s->workspace_bytes);
    be->dev.stream_close(s);
}

static void stream_anew(void)
{
    stream_close();
    stream_open();
}

static void device_open(void)
{
    ok(backend_load("emu", &(struct backend_place){0, 1}, &be));
    plugin = dlopen("trimpot_emu.so", RTLD_NOW | RTLD_NOLOAD);
    if (!plugin) { /* loaded by its path */
        char path[4096];
        ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
        assert_true(n > 0);
        path[n] = 0;
        strcpy(strrchr(path, '/'), "/trimpot_emu.so");
        plugin = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    }
    assert_non_null(plugin);
    stream_open();
}

/* ---- matrices ---------------------------------------------------------------------------------------------------------------- */

static uint64_t state;

struct matrix {
    tensor t;   /* on the device */
    char *host; /* pinned */
    size_t bytes;
};

static struct matrix matrix(int64_t rows, int64_t cols, char type, int64_t pad)
{
    struct matrix x = {.t = tensor_2d(NULL, type == 'b' ? DT_BF16 : DT_F32, rows, cols)};
    size_t size = dtype_bytes(x.t.dt), before = pad % 2 ? size : 0; /* odd padding: not even the first element is aligned */
    x.t.ld = cols + pad;
    x.bytes = (size_t)(rows * x.t.ld) * size + before + 16;
    void *device;
    ok(be->dev.alloc(MEM_PINNED, x.bytes, (void **)&x.host));
    ok(be->dev.alloc(MEM_DEVICE, x.bytes, &device));
    for (size_t i = 0; i < x.bytes / size; i++) {
        float v = (float)((int64_t)(rng_mix(state++) >> 40) - (1 << 23)) * 0x1p-23f;
        if (size == 2)
            ((bf16 *)(void *)x.host)[i] = bf16_round(v);
        else
            ((float *)(void *)x.host)[i] = v;
    }
    ok(be->dev.copy(s, device, x.host, x.bytes));
    ok(be->dev.sync(s, "matrix"));
    x.t.data = (char *)device + before;
    return x;
}

static char *twin(const struct matrix *x)
{
    return x->host + (x->t.ld > x->t.dim[1] && (x->t.ld - x->t.dim[1]) % 2 ? dtype_bytes(x->t.dt) : 0);
}

static void release(struct matrix *x)
{
    if (!x->host) return;
    be->dev.free(MEM_DEVICE, (char *)x->t.data - (twin(x) - x->host), x->bytes);
    be->dev.free(MEM_PINNED, x->host, x->bytes);
}

static void fetch(struct matrix *x)
{
    ok(be->dev.copy(s, x->host, (char *)x->t.data - (twin(x) - x->host), x->bytes));
    ok(be->dev.sync(s, "fetch"));
}

static double at(const struct matrix *x, int64_t row, int64_t col)
{
    int64_t i = row * x->t.ld + col;
    return x->t.dt == DT_BF16 ? (double)bf16_widen(((const bf16 *)(void *)twin(x))[i]) : (double)((const float *)(void *)twin(x))[i];
}

/* ---- one call ---------------------------------------------------------------------------------------------------------------- */

enum { TA = 1, TB = 2, BETA = 4, JOINED = 8, HALF = 16 }; /* HALF: alpha = 1/2 */

struct shape {
    const char *what;
    int64_t m, n, k, k2;
    const char *types; /* A, B, C, bias: f, b, or - for none */
    int flags;
    int64_t pad; /* extra elements per row; odd values misalign everything */
    int products, plains;
};

struct operands {
    struct matrix a, b, a2, b2, c, bias;
    struct gemm_args g;
};

static struct operands operands(const struct shape *q)
{
    bool ta = q->flags & TA, tb = q->flags & TB, joined = q->flags & JOINED;
    struct operands x = {.g = {.ta = ta, .tb = tb, .alpha = q->flags & HALF ? 0.5f : 1, .beta = q->flags & BETA ? 1 : 0}};
    struct gemm_args *g = &x.g;
    state = (uint64_t)(q->m * 1000003 + q->n * 1009 + q->k);
    int64_t deep = joined ? q->k + q->k2 : q->k;
    x.a = matrix(ta ? deep : q->m, ta ? q->m : deep, q->types[0], q->pad);
    x.b = matrix(tb ? q->n : deep, tb ? deep : q->n, q->types[1], q->pad);
    x.c = matrix(q->m, q->n, q->types[2], q->pad);
    g->a = x.a.t, g->b = x.b.t, g->c = x.c.t;
    if (joined) {
        g->a = tensor_columns(&x.a.t, 0, q->k), g->a2 = tensor_columns(&x.a.t, q->k, q->k2);
        g->b = tb ? tensor_columns(&x.b.t, 0, q->k) : tensor_rows(&x.b.t, 0, q->k);
        g->b2 = tb ? tensor_columns(&x.b.t, q->k, q->k2) : tensor_rows(&x.b.t, q->k, q->k2);
    } else if (q->k2) {
        x.a2 = matrix(q->m, q->k2, q->types[0], q->pad);
        x.b2 = matrix(tb ? q->n : q->k2, tb ? q->k2 : q->n, q->types[1], q->pad);
        g->a2 = x.a2.t, g->b2 = x.b2.t;
    }
    if (q->types[3] == '-') return x;
    x.bias = matrix(1, q->n, q->types[3], 0);
    g->bias = tensor_1d(x.bias.t.data, x.bias.t.dt, q->n);
    return x;
}

static void operands_release(struct operands *x)
{
    struct matrix *all[] = {&x->a, &x->b, &x->a2, &x->b2, &x->c, &x->bias};
    for (int i = 0; i < 6; i++) release(all[i]);
}

static void add_term(double term, double *sum, double *size)
{
    *sum += term;
    *size += fabs(term);
}

static double ulp(double x, dtype dt)
{
    int e;
    frexp(x, &e);
    return ldexp(1.0, e - (dt == DT_BF16 ? 8 : 24));
}

/* Of element (i, j), whose old value was `old`: the bound is that of tests/kernels/test_gemm.c. */
static void judge(const struct shape *q, const struct operands *x, int64_t i, int64_t j, double old)
{
    bool ta = q->flags & TA, tb = q->flags & TB, joined = q->flags & JOINED;
    double sum = 0, size = 0, alpha = (double)x->g.alpha;
    for (int64_t l = 0; l < q->k + (joined ? q->k2 : 0); l++)
        add_term((l < q->k ? alpha : 1) * (ta ? at(&x->a, l, i) : at(&x->a, i, l)) * (tb ? at(&x->b, j, l) : at(&x->b, l, j)), &sum, &size);
    for (int64_t l = 0; x->a2.host && l < q->k2; l++) add_term(at(&x->a2, i, l) * (tb ? at(&x->b2, j, l) : at(&x->b2, l, j)), &sum, &size);
    if (x->bias.host) add_term(at(&x->bias, 0, j), &sum, &size);
    if (q->flags & BETA) add_term(old, &sum, &size);
    double got = at(&x->c, i, j), bound = 4 * 0x1p-24 * (size + fabs(sum)) + ulp(sum, x->c.t.dt);
    if (!(fabs(got - sum) <= bound)) fail_msg("%s: C[%ld, %ld] = %.9g, want %.9g ± %.3g", q->what, (long)i, (long)j, got, sum, bound);
}

static int64_t next_row(int64_t row, int64_t rows) { return rows <= 50 || row + 31 >= rows - 1 ? row + 1 : row + 31; }

static void check(const struct shape *q)
{
    struct operands x = operands(q);
    char *before = malloc(x.c.bytes);
    memcpy(before, x.c.host, x.c.bytes);
    struct matrix old = x.c;
    old.host = before;
    products = plains = 0;
    ok(op_gemm(s, &x.g));
    ok(be->dev.sync(s, "gemm"));
    if (products != q->products || plains != q->plains)
        fail_msg("%s: %d products and %d passes of our own, not %d and %d", q->what, products, plains, q->products, q->plains);
    fetch(&x.c);
    for (int64_t i = 0; i < q->m; i = next_row(i, q->m))
        for (int64_t j = 0; j < q->n; j++) judge(q, &x, i, j, at(&old, i, j));
    for (int64_t i = 0; i + 1 < q->m; i++) /* what lies between the rows stays */
        for (int64_t j = q->n; j < x.c.t.ld; j++) assert_true(at(&x.c, i, j) == at(&old, i, j));
    free(before);
    operands_release(&x);
}

static const struct shape shapes[] = {
    {"plain product", 70, 96, 48, 0, "bbb-", TB, 0, 1, 0},
    {"no transposes", 70, 96, 48, 0, "bbb-", 0, 8, 1, 0},
    {"both", 72, 96, 48, 0, "bbb-", TA | TB, 0, 1, 0},
    {"weight gradient", 72, 40, 130, 0, "bbf-", TA | BETA | HALF, 0, 1, 0},
    {"sums of bf16", 72, 40, 64, 0, "bbb-", BETA, 0, 1, 0},
    {"bias in the epilogue", 33, 40, 64, 0, "bbbb", TB | BETA, 0, 1, 0},
    {"f32", 35, 37, 61, 0, "ffff", TB, 3, 1, 0},
    {"long K", 24, 40, 5000, 0, "bbb-", TB, 0, 1, 0},
    {"one row", 1, 300, 64, 0, "bbb-", TB, 0, 1, 0},
    {"joined", 45, 136, 128, 16, "bbbb", TB | JOINED, 48, 1, 0},
    {"joined rows", 45, 136, 128, 24, "bbb-", JOINED | BETA, 0, 1, 0},
    {"joined f32", 45, 33, 30, 5, "fff-", TB | JOINED, 0, 1, 0},
    {"joined, but scaled", 45, 136, 128, 16, "bbb-", TB | JOINED | HALF, 48, 1, 1},
    {"apart", 45, 136, 128, 16, "bbbb", TB, 0, 1, 1},
    {"apart, summed", 45, 136, 128, 32, "bbb-", BETA | HALF, 0, 1, 1},
    {"apart and deep", 45, 136, 128, 40, "bbb-", TB | BETA, 0, 2, 1},
    {"apart into f32", 45, 136, 128, 16, "bbf-", TB | BETA, 0, 1, 1},
    {"deep into f32", 45, 136, 128, 40, "fff-", TB | BETA, 0, 2, 0},
    {"deep into f32, bias", 45, 136, 128, 40, "bbfb", TB, 0, 2, 1},
    {"other bias", 45, 136, 128, 0, "bbbf", TB | BETA, 0, 1, 1},
    {"f32 to bf16", 45, 136, 128, 0, "ffb-", TB, 0, 1, 1},
    {"mixed", 45, 136, 128, 7, "fbbf", TB | BETA, 0, 0, 1},
    {"mixed", 45, 67, 31, 0, "bff-", TA | HALF, 5, 0, 1},
    {"no depth", 20, 30, 0, 0, "bbbf", TB | BETA, 0, 0, 1},
    {"odd view", 45, 67, 31, 0, "bbbf", TB | BETA, 1, 0, 2},
    {"odd view", 45, 67, 31, 0, "bbf-", TA | HALF, 5, 0, 1},
    {"odd view, second product", 45, 67, 31, 9, "bbb-", TB, 5, 0, 2},
    {"view of four bytes", 44, 66, 30, 0, "bbb-", TB, 2, 1, 0},
    {"chunks", 140, 65000, 8, 4, "bbbf", TB | BETA, 0, 2, 2},
    {"chunks of columns", 140, 65000, 8, 0, "bbbf", TA, 0, 2, 2},
    {"chunks of few rows", 130, 66000, 8, 0, "bbbf", 0, 0, 2, 2},
};

static void test_routes(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(&shapes[i]);
}

/* More calls than are remembered, twice; each has rows of C of its own. */
static void test_many_calls(void **unused)
{
    (void)unused;
    enum { CALLS = 800, M = 40, N = 20, K = 9 };
    struct shape q = {"many", M, N, K, 0, "fff-", TB, 0, 1, 0};
    struct operands x = operands(&q);
    struct matrix all = matrix(2 * CALLS * M, N, 'f', 0);
    for (int i = 0; i < 2 * CALLS; i++) {
        struct gemm_args g = x.g;
        g.a.dim[0] = g.c.dim[0] = i % M + 1;
        g.b.dim[0] = g.c.dim[1] = i % CALLS / M + 1;
        g.c.data = tensor_rows(&all.t, (int64_t)i * M, 1).data;
        ok(op_gemm(s, &g));
    }
    fetch(&all);
    struct operands part = x;
    for (int i = 0; i < 2 * CALLS; i++) {
        part.c.host = all.host + (size_t)(i * M * N) * sizeof(float);
        for (int m = 0; m <= i % M; m++)
            for (int n = 0; n <= i % CALLS / M; n++) judge(&q, &part, m, n, 0);
    }
    release(&all);
    operands_release(&x);
}

/* ---- algorithms that were timed ---------------------------------------------------------------------------------------------- */

/* C of one call on a stream of its own, as bytes. */
static void result_of(const struct shape *q, char *out, size_t bytes)
{
    stream_anew();
    struct operands x = operands(q);
    ok(op_gemm(s, &x.g));
    ok(be->dev.sync(s, "gemm"));
    fetch(&x.c);
    assert_true(bytes <= x.c.bytes);
    memcpy(out, x.c.host, bytes);
    operands_release(&x);
}

static void hex(const unsigned char *bytes, char *text)
{
    for (int i = 0; i < ALGO; i++) sprintf(text + 2 * i, "%02x", bytes[i]);
}

static void test_choices(void **unused)
{
    (void)unused;
    enum { BYTES = 40 * 36 * 4 };
    static const struct shape q = {"choices", 40, 36, 1000, 0, "bbf-", TB, 0, 1, 0};
    char path[] = "/tmp/choices_XXXXXX", plain[BYTES], other[BYTES], name[2 * ALGO + 1], *text, *now;
    size_t bytes, again;
    close(mkstemp(path));
    result_of(&q, plain, BYTES);
    memcpy(slow, used, ALGO); /* so that another one is the fastest */
    slowing = true;
    setenv("TRIMPOT_GEMM_TIME", path, 1);
    products = 0;
    result_of(&q, other, BYTES);
    slowing = false;
    assert_true(products > 10);            /* candidates were run … */
    assert_memory_equal(used, slow, ALGO); /* … and the first of them counts */
    assert_memory_equal(plain, other, BYTES);
    products = 0;
    result_of(&q, other, BYTES);
    assert_int_equal(products, 1); /* the file has it */
    unsetenv("TRIMPOT_GEMM_TIME");

    ok(file_read(path, 1 << 20, &text, &bytes));
    assert_ptr_equal(strchr(text, '\n'), text + bytes - 1);
    setenv("TRIMPOT_GEMM_CHOICES", path, 1);
    result_of(&(struct shape){"choices", 39, 36, 992, 0, "bbf-", TB, 0, 1, 0}, other, 1); /* a neighbour */
    hex(used, name);
    assert_non_null(strstr(text, name));
    result_of(&q, other, BYTES);
    hex(used, name);
    assert_non_null(strstr(text, name));
    assert_memory_not_equal(used, slow, ALGO);
    result_of(&(struct shape){"choices", 60, 36, 1000, 0, "bbf-", TB, 0, 1, 0}, other, 1); /* not in the file */
    hex(used, name);
    assert_null(strstr(text, name));
    ok(file_read(path, 1 << 20, &now, &again));
    assert_string_equal(text, now); /* never written */
    free(now);

    text[bytes / 2] ^= 1; /* torn, and of another machine: passed over, with a warning */
    ok(file_replace(path, text, bytes));
    result_of(&q, other, BYTES);
    assert_memory_equal(plain, other, BYTES);
    unsetenv("TRIMPOT_GEMM_CHOICES");
    stream_anew();
    free(text);
    unlink(path);
}

static void test_choices_that_are_not_there(void **unused)
{
    (void)unused;
    struct operands x = operands(&shapes[0]);
    stream_anew();
    setenv("TRIMPOT_GEMM_CHOICES", "/nowhere/choices", 1);
    assert_int_equal(op_gemm(s, &x.g), ST_IO);
    assert_non_null(strstr(status_message(), "/nowhere/choices"));
    unsetenv("TRIMPOT_GEMM_CHOICES");
    stream_anew();
    operands_release(&x);
}

/* Timing waits for the device and takes memory: never while a graph is captured, though this shape has no choice yet. (The stream's
 * handle is there: kernels/cuda/README.md, "Graphs".) */
static void test_not_timed_in_a_graph(void **unused)
{
    (void)unused;
    typedef int begin_fn(void *, int);
    typedef int end_fn(void *, void **);
    typedef int destroy_fn(void *);
    struct operands x = operands(&shapes[0]), other = operands(&shapes[1]);
    char path[] = "/tmp/choices_XXXXXX";
    void *graph;
    close(mkstemp(path));
    stream_anew();
    setenv("TRIMPOT_GEMM_TIME", path, 1);
    products = 0;
    ok(op_gemm(s, &other.g));
    assert_in_range(products, 2, 1000);
    void *on = ((struct {
                   struct stream base;
                   void *on;
               } *)(void *)s)
                   ->on;
    assert_int_equal(((begin_fn *)its("cudaStreamBeginCapture"))(on, 1), 0);
    products = 0;
    ok(op_gemm(s, &x.g));
    assert_int_equal(products, 1);
    assert_int_equal(((end_fn *)its("cudaStreamEndCapture"))(on, &graph), 0);
    ((destroy_fn *)its("cudaGraphDestroy"))(graph);
    unsetenv("TRIMPOT_GEMM_TIME");
    stream_anew();
    unlink(path);
    operands_release(&x);
    operands_release(&other);
}

/* ---- the emulated library is no more lenient than the real one ------------------------------------------------------------------ */

static void test_what_is_refused(void **unused)
{
    (void)unused;
    probing = true;
    check(&(struct shape){"long K", 24, 40, 5000, 0, "bbb-", TB, 0, 1, 0}); /* whose parts need a workspace */
    probing = false;
}

/* How many of eight equal calls differ from the first. */
static int differ(void)
{
    enum { BYTES = 40 * 36 * 4 };
    static const struct shape q = {"repeated", 40, 36, 1000, 0, "bbf-", TB, 0, 1, 0};
    char first[BYTES], next[BYTES];
    int n = 0;
    result_of(&q, first, BYTES);
    for (int i = 0; i < 7; i++) {
        result_of(&q, next, BYTES);
        n += memcmp(first, next, BYTES) != 0;
    }
    return n;
}

static void test_sums_in_place_would_be_seen(void **unused)
{
    (void)unused;
    assert_int_equal(differ(), 0);
    careless = true; /* the mask of reductions never arrives */
    assert_true(differ() > 0);
    careless = false;
}

/* ---- failures ------------------------------------------------------------------------------------------------------------------ */

static void test_too_little_workspace(void **unused)
{
    (void)unused;
    struct operands x = operands(&shapes[0]);
    size_t bytes = s->workspace_bytes;
    s->workspace_bytes = 1 << 20;
    assert_int_equal(op_gemm(s, &x.g), ST_FAIL);
    assert_non_null(strstr(status_message(), "gemm"));
    s->workspace_bytes = bytes;
    operands_release(&x);
}

/* In a process of its own: the device stays broken. */
static void test_launch_fails(void **unused)
{
    (void)unused;
    int how;
    pid_t child = fork();
    if (!child) {
        setenv("TRIMPOT_EMU_FAIL", "launch:1", 1);
        if (backend_load("emu", &(struct backend_place){0, 1}, &be)) _exit(1);
        device_open();
        struct operands x = operands(&shapes[0]);
        status st = op_gemm(s, &x.g);
        if (st != ST_DEVICE || !strstr(status_message(), "cublasLtMatmul")) fprintf(stderr, "%d: %s\n", st, status_message());
        _exit(st == ST_DEVICE && strstr(status_message(), "cublasLtMatmul") ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(WIFEXITED(how) ? WEXITSTATUS(how) : 100, 0);
}

static int open_once(void **unused)
{
    (void)unused;
    device_open();
    return 0;
}

static int close_once(void **unused)
{
    (void)unused;
    stream_close();
    return 0;
}

int main(void)
{
    static const struct CMUnitTest first[] = {cmocka_unit_test(test_launch_fails)};
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_many_calls),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_choices_that_are_not_there),
        cmocka_unit_test(test_not_timed_in_a_graph),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_sums_in_place_would_be_seen),
        cmocka_unit_test(test_too_little_workspace),
    };
    if (!backend_built("emu")) return 77;
    int failed = cmocka_run_group_tests(first, NULL, NULL);
    return failed + cmocka_run_group_tests(tests, open_once, close_once);
}
