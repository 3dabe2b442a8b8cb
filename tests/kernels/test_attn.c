/* Attention and the loss of the CPU backend: against textbook float64, and bit for bit over numbers of threads, under
 * every instruction set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "tests/kernels/each_isa.h"

static uint64_t state;

static double draw(void) /* uniform in (−1, 1) */
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (double)((int64_t)(state >> 40) - (1 << 23)) * 0x1p-23;
}

static void *take(size_t bytes)
{
    void *p = calloc(1, bytes + 8);
    assert_non_null(p);
    return p;
}

static double get(const tensor *t, int64_t r, int64_t c)
{
    int64_t i = r * t->ld + c;
    return t->dt == DT_BF16 ? (double)bf16_widen(((const bf16 *)t->data)[i]) : (double)((const float *)t->data)[i];
}

static tensor matrix(int64_t rows, int64_t cols, dtype dt, int64_t pad, double scale)
{
    tensor t = tensor_2d(NULL, dt, rows, cols);
    t.ld = cols + pad;
    t.data = take((size_t)(rows * t.ld) * dtype_bytes(dt));
    for (int64_t i = 0; i < rows * t.ld; i++) {
        float x = (float)(scale * draw());
        if (dt == DT_BF16)
            ((bf16 *)t.data)[i] = bf16_round(x);
        else
            ((float *)t.data)[i] = x;
    }
    return t;
}

static double ulp(double x, dtype dt)
{
    int e;
    frexp(x, &e);
    return fmax(ldexp(1.0, e - (dt == DT_BF16 ? 8 : 24)), dt == DT_BF16 ? 0x1p-133 : 0x1p-149);
}

static struct stream *stream_with(int threads, const struct work_bounds *w)
{
    struct stream *s;
    assert_int_equal(backend_cpu.dev.stream_open(&s, threads), ST_OK);
    assert_int_equal(backend_cpu.prepare(s, w), ST_OK);
    assert_int_equal(backend_cpu.dev.alloc(MEM_HOST, s->workspace_bytes, &s->workspace), ST_OK);
    memset(s->workspace, 0xff, s->workspace_bytes); /* NaN: nothing may be read before it is written */
    return s;
}

static void stream_done(struct stream *s)
{
    backend_cpu.dev.free(MEM_HOST, s->workspace, s->workspace_bytes);
    backend_cpu.dev.stream_close(s);
}

/* ---- attention ---------------------------------------------------------------------------------------------- */

struct attn_case {
    int32_t length[13]; /* of the documents; 0 ends */
    int64_t heads, kv_heads, head_dim, window;
    float cap;
    dtype dt;
    int64_t pad;
};

static const struct attn_case attn_cases[] = {
    {{1}, 1, 1, 8, 0, 0, DT_F32, 0},
    {{5, 1, 3}, 2, 1, 4, 0, 0, DT_F32, 1},
    {{64}, 2, 2, 16, 0, 0, DT_F32, 0},
    {{65, 127, 20}, 4, 2, 64, 0, 0, DT_F32, 0},
    {{200}, 14, 2, 64, 0, 0, DT_F32, 0},
    {{150, 33}, 4, 4, 20, 0, 0, DT_F32, 3},
    {{300, 30}, 4, 2, 32, 100, 0, DT_F32, 0},
    {{190}, 2, 1, 32, 1, 0, DT_F32, 0},
    {{170, 64}, 3, 1, 48, 64, 5.0f, DT_F32, 0},
    {{130}, 2, 1, 128, 0, 2.0f, DT_F32, 0},
    {{20, 31, 100, 7, 64, 65, 1, 2, 90, 40, 12, 55}, 4, 2, 64, 0, 0, DT_F32, 0},
    {{65, 127, 20}, 4, 2, 64, 0, 0, DT_BF16, 0},
    {{300}, 6, 2, 36, 90, 3.0f, DT_BF16, 5},
    {{20, 31, 100, 7, 64, 65, 1, 2, 90, 40, 12, 55}, 4, 2, 64, 0, 0, DT_BF16, 0},
};

struct attn_run {
    struct attn_bwd_args b;
    struct docs docs;
    int32_t start[16];
    struct work_bounds bounds;
};

static void attn_make(struct attn_run *r, const struct attn_case *q)
{
    memset(r, 0, sizeof *r);
    for (; q->length[r->docs.n_docs]; r->docs.n_docs++) {
        int64_t i = r->docs.n_docs;
        r->start[i + 1] = r->start[i] + q->length[i];
        if (q->length[i] > r->docs.longest) r->docs.longest = q->length[i];
    }
    int64_t n = r->docs.n_tokens = r->start[r->docs.n_docs], wide = q->heads * q->head_dim, kv = q->kv_heads * q->head_dim;
    r->docs.start = (struct ints){r->start, r->start};
    struct attn_fwd_args *f = &r->b.fwd;
    *f = (struct attn_fwd_args){.heads = q->heads,
                                .kv_heads = q->kv_heads,
                                .head_dim = q->head_dim,
                                .window = q->window,
                                .cap = q->cap,
                                .scale = 3.0f / (float)sqrt((double)q->head_dim),
                                .docs = r->docs};
    f->q = matrix(n, wide, q->dt, q->pad, 1.0);
    f->k = matrix(n, kv, q->dt, q->pad, 1.0);
    f->v = matrix(n, kv, q->dt, q->pad, 1.0);
    f->o = matrix(n, wide, q->dt, q->pad, 1.0);
    f->lse = matrix(n, q->heads, DT_F32, 0, 1.0);
    r->b.d_o = matrix(n, wide, q->dt, q->pad, 1.0);
    r->b.dq = matrix(n, wide, q->dt, q->pad, 1.0);
    r->b.dk = matrix(n, kv, q->dt, q->pad, 1.0);
    r->b.dv = matrix(n, kv, q->dt, q->pad, 1.0);
    r->bounds = (struct work_bounds){.dt = q->dt,
                                     .tokens = n,
                                     .doc_tokens = r->docs.longest,
                                     .width = wide,
                                     .ffn = 1,
                                     .heads = q->heads,
                                     .kv_heads = q->kv_heads,
                                     .head_dim = q->head_dim,
                                     .vocab = 1,
                                     .rank = 1,
                                     .head_rows = 1};
}

static void attn_free(struct attn_run *r)
{
    tensor *all[] = {&r->b.fwd.q, &r->b.fwd.k, &r->b.fwd.v, &r->b.fwd.o, &r->b.fwd.lse, &r->b.d_o, &r->b.dq, &r->b.dk, &r->b.dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->data);
}

/* What float64 makes of it: values and, per output, the sum of the magnitudes of the terms of each sum. */
struct truth {
    double *o, *lse, *dq, *dk, *dv, *o_size, *dq_size, *dk_size, *dv_size;
};

static double score(const struct attn_fwd_args *f, int64_t i, int64_t j, int64_t h, double *slope)
{
    int64_t d = f->head_dim, kvh = h * f->kv_heads / f->heads;
    double s = 0.0;
    for (int64_t c = 0; c < d; c++) s += get(&f->q, i, h * d + c) * get(&f->k, j, kvh * d + c);
    s *= (double)f->scale;
    *slope = 1.0;
    if (f->cap != 0.0f) {
        double t = tanh(s / (double)f->cap);
        *slope = 1.0 - t * t;
        s = (double)f->cap * t;
    }
    return s;
}

static void truth_row(const struct attn_run *r, struct truth *t, int64_t first, int64_t i, int64_t h)
{
    const struct attn_fwd_args *f = &r->b.fwd;
    int64_t d = f->head_dim, kvh = h * f->kv_heads / f->heads, wide = f->heads * d, kv = f->kv_heads * d;
    int64_t lo = f->window && i - f->window + 1 > first ? i - f->window + 1 : first;
    double *p = take((size_t)(i + 1 - lo) * 2 * sizeof *p), *slope = p + (i + 1 - lo), sum = 0.0, top = -1e300;
    for (int64_t j = lo; j <= i; j++) {
        p[j - lo] = score(f, i, j, h, &slope[j - lo]);
        top = fmax(top, p[j - lo]);
    }
    for (int64_t j = lo; j <= i; j++) sum += exp(p[j - lo] - top);
    double lse = t->lse[i * f->heads + h] = top + log(sum), delta = 0.0;
    for (int64_t j = lo; j <= i; j++) {
        p[j - lo] = exp(p[j - lo] - lse);
        for (int64_t c = 0; c < d; c++) {
            double term = p[j - lo] * get(&f->v, j, kvh * d + c);
            t->o[i * wide + h * d + c] += term;
            t->o_size[i * wide + h * d + c] += fabs(term);
        }
    }
    for (int64_t c = 0; c < d; c++) delta += t->o[i * wide + h * d + c] * get(&r->b.d_o, i, h * d + c);
    for (int64_t j = lo; j <= i; j++) {
        double dp = 0.0, dp_size = fabs(delta);
        for (int64_t c = 0; c < d; c++) {
            double term = get(&r->b.d_o, i, h * d + c) * get(&f->v, j, kvh * d + c);
            dp += term;
            dp_size += fabs(term);
        }
        double ds = (double)f->scale * p[j - lo] * (dp - delta) * slope[j - lo];
        double ds_size = (double)f->scale * p[j - lo] * dp_size;
        for (int64_t c = 0; c < d; c++) {
            double dvj = p[j - lo] * get(&r->b.d_o, i, h * d + c);
            t->dv[j * kv + kvh * d + c] += dvj;
            t->dv_size[j * kv + kvh * d + c] += fabs(dvj);
            t->dk[j * kv + kvh * d + c] += ds * get(&f->q, i, h * d + c);
            t->dk_size[j * kv + kvh * d + c] += ds_size;
            t->dq[i * wide + h * d + c] += ds * get(&f->k, j, kvh * d + c);
            t->dq_size[i * wide + h * d + c] += ds_size;
        }
    }
    free(p);
}

static void truth_make(const struct attn_run *r, struct truth *t)
{
    const struct attn_fwd_args *f = &r->b.fwd;
    int64_t n = r->docs.n_tokens, wide = n * f->heads * f->head_dim, kv = n * f->kv_heads * f->head_dim;
    double **wides[] = {&t->o, &t->o_size, &t->dq, &t->dq_size}, **kvs[] = {&t->dk, &t->dk_size, &t->dv, &t->dv_size};
    for (int i = 0; i < 4; i++) *wides[i] = take((size_t)wide * sizeof(double)), *kvs[i] = take((size_t)kv * sizeof(double));
    t->lse = take((size_t)(n * f->heads) * sizeof(double));
    for (int64_t doc = 0; doc < r->docs.n_docs; doc++)
        for (int64_t i = r->start[doc]; i < r->start[doc + 1]; i++)
            for (int64_t h = 0; h < f->heads; h++) truth_row(r, t, r->start[doc], i, h);
}

static void truth_free(struct truth *t)
{
    double *all[] = {t->o, t->lse, t->dq, t->dk, t->dv, t->o_size, t->dq_size, t->dk_size, t->dv_size};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* |got − want| ≤ eps·relative·size + one rounding. `relative` counts the f32 roundings that hit a term: its score (d
 * products, scaled: an error of eps·√d·|score| in the exponent), exp, lse, δ, and the sums. */
static void near(const char *what, const tensor *got, const double *want, const double *size, double relative)
{
    for (int64_t i = 0; i < got->dim[0]; i++)
        for (int64_t j = 0; j < got->dim[1]; j++) {
            double w = want[i * got->dim[1] + j], s = size ? size[i * got->dim[1] + j] : fabs(w) + 1.0;
            double bound = 0x1p-24 * relative * s + ulp(w, got->dt);
            if (!(fabs(get(got, i, j) - w) <= bound)) {
                print_error("%s[%ld, %ld] = %.9g, want %.9g ± %.3g\n", what, (long)i, (long)j, get(got, i, j), w, bound);
                fail();
            }
        }
}

static void same(const char *what, int threads, const tensor *a, const tensor *b)
{
    if (!memcmp(a->data, b->data, (size_t)(a->dim[0] * a->ld) * dtype_bytes(a->dt))) return;
    print_error("%s: %d threads change the bits\n", what, threads);
    fail();
}

static void attn_check(const struct attn_case *q)
{
    struct attn_run one;
    struct truth t;
    for (int threads = 1; threads <= 4; threads++) {
        struct attn_run r;
        state = 42;
        attn_make(&r, q);
        r.bounds.threads = threads;
        struct stream *s = stream_with(threads, &r.bounds);
        assert_int_equal(backend_cpu.ops.attn_fwd(s, &r.b.fwd), ST_OK);
        assert_int_equal(backend_cpu.ops.attn_bwd(s, &r.b), ST_OK);
        stream_done(s);
        if (threads == 1) {
            one = r;
            truth_make(&r, &t);
            double c = 16.0 + 2.0 * sqrt((double)q->head_dim) + (double)(q->cap != 0.0f ? 16.0f : 0.0f);
            if (q->dt == DT_BF16) c += 0x1p16; /* backward reads the rounded O: δ is off by half a bf16 ulp of it */
            near("o", &r.b.fwd.o, t.o, t.o_size, 16.0 + 2.0 * sqrt((double)q->head_dim));
            near("lse", &r.b.fwd.lse, t.lse, NULL, 16.0);
            near("dv", &r.b.dv, t.dv, t.dv_size, 16.0 + 2.0 * sqrt((double)q->head_dim));
            near("dk", &r.b.dk, t.dk, t.dk_size, c);
            near("dq", &r.b.dq, t.dq, t.dq_size, c);
            continue;
        }
        same("o", threads, &one.b.fwd.o, &r.b.fwd.o);
        same("lse", threads, &one.b.fwd.lse, &r.b.fwd.lse);
        same("dq", threads, &one.b.dq, &r.b.dq);
        same("dk", threads, &one.b.dk, &r.b.dk);
        same("dv", threads, &one.b.dv, &r.b.dv);
        attn_free(&r);
    }
    truth_free(&t);
    attn_free(&one);
}

static void test_attention(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof attn_cases / sizeof *attn_cases; i++) attn_check(&attn_cases[i]);
}

/* A document's result does not depend on its neighbours: laid end to end = alone, bit for bit. */
static void test_packing(void **unused)
{
    (void)unused;
    static const struct attn_case q = {{65, 127, 20}, 4, 2, 64, 0, 0, DT_F32, 0};
    struct attn_run r;
    state = 7;
    attn_make(&r, &q);
    r.bounds.threads = 2;
    struct stream *s = stream_with(2, &r.bounds);
    assert_int_equal(backend_cpu.ops.attn_fwd(s, &r.b.fwd), ST_OK);
    assert_int_equal(backend_cpu.ops.attn_bwd(s, &r.b), ST_OK);
    for (int64_t doc = 0; doc < r.docs.n_docs; doc++) {
        int32_t start[2] = {0, q.length[doc]};
        struct docs docs = {.n_docs = 1, .n_tokens = start[1], .longest = start[1], .start = {start, start}};
        struct attn_bwd_args b = r.b;
        tensor *in[] = {&b.fwd.q, &b.fwd.k, &b.fwd.v, &b.d_o}, *out[] = {&b.fwd.o, &b.fwd.lse, &b.dq, &b.dk, &b.dv};
        tensor packed[5];
        for (int i = 0; i < 4; i++) *in[i] = tensor_rows(in[i], r.start[doc], start[1]);
        for (int i = 0; i < 5; i++) {
            packed[i] = tensor_rows(out[i], r.start[doc], start[1]);
            *out[i] = matrix(start[1], out[i]->dim[1], DT_F32, 0, 1.0);
        }
        b.fwd.docs = docs;
        assert_int_equal(backend_cpu.ops.attn_fwd(s, &b.fwd), ST_OK);
        assert_int_equal(backend_cpu.ops.attn_bwd(s, &b), ST_OK);
        for (int i = 0; i < 5; i++) {
            same("alone", 2, out[i], &packed[i]);
            free(out[i]->data);
        }
    }
    stream_done(s);
    attn_free(&r);
}

/* ---- loss --------------------------------------------------------------------------------------------------- */

static void loss_check(int64_t n, int64_t v, float cap, dtype dt, double scale, bool forward_only)
{
    state = (uint64_t)(n * 31 + v);
    int32_t *labels = take((size_t)n * sizeof *labels);
    for (int64_t i = 0; i < n; i++) labels[i] = i == 0 ? (int32_t)v - 1 : (int32_t)((draw() + 1.0) / 2.0 * (double)v);
    uint64_t seed = state;
    tensor z = matrix(n, v, dt, 3, scale), dz1 = {0}, loss1 = {0};
    for (int threads = 1; threads <= 4; threads++) {
        state = seed;
        tensor dz = matrix(n, v, dt, 3, scale), loss = tensor_1d(take((size_t)n * 4), DT_F32, n);
        struct loss_args l = {.z = dz, .labels = labels, .loss = loss, .cap = cap, .forward_only = forward_only};
        struct work_bounds w = {.heads = 1, .kv_heads = 1, .head_dim = 1, .threads = threads};
        struct stream *s = stream_with(threads, &w);
        assert_int_equal(backend_cpu.ops.loss(s, &l), ST_OK);
        stream_done(s);
        if (threads > 1) {
            assert_memory_equal(loss.data, loss1.data, (size_t)n * 4);
            if (!forward_only) same("dz", threads, &dz1, &dz);
            free(dz.data);
            free(loss.data);
            continue;
        }
        dz1 = dz;
        loss1 = loss;
        for (int64_t i = 0; i < n; i++) {
            double top = -1e300, sum = 0.0, label = 0.0;
            for (int pass = 0; pass < 3; pass++)
                for (int64_t j = 0; j < v; j++) {
                    double x = get(&z, i, j), c = (double)cap;
                    double y = cap != 0.0f ? c * tanh(x / c) : x, slope = cap != 0.0f ? 1.0 - y * y / (c * c) : 1.0;
                    if (pass == 0) top = fmax(top, y);
                    if (pass == 1) sum += exp(y - top);
                    if (pass == 0 && j == labels[i]) label = y;
                    if (pass < 2 || forward_only) continue;
                    double p = exp(y - top) / sum, hit = j == labels[i], want = (p - hit) * slope;
                    /* lse and z each carry an ulp of their own size into the exponent; then exp and the products */
                    double bound = 0x1p-24 * (p * (8.0 + 4.0 * (fabs(top) + fabs(y))) + 4.0 * hit) + ulp(want, dt) +
                                   (cap != 0.0f ? 0x1p-21 * (p + hit) : 0.0);
                    if (!(fabs(get(&dz, i, j) - want) <= bound)) {
                        print_error("dz[%ld, %ld] = %.9g, want %.9g ± %.3g\n", (long)i, (long)j, get(&dz, i, j), want, bound);
                        fail();
                    }
                }
            double want = top + log(sum) - label, got = ((float *)loss.data)[i];
            assert_true(fabs(got - want) <= 0x1p-24 * (8.0 + 8.0 * (fabs(top) + fabs(label))));
        }
    }
    free(dz1.data);
    free(loss1.data);
    free(z.data);
    free(labels);
}

static void test_loss(void **unused)
{
    (void)unused;
    for (int dt = 0; dt < 2; dt++) {
        dtype type = dt ? DT_BF16 : DT_F32;
        loss_check(1, 1, 0, type, 1.0, false);
        loss_check(5, 7, 0, type, 4.0, false);
        loss_check(9, 5003, 0, type, 10.0, false);
        loss_check(9, 5003, 0, type, 10.0, true);
        loss_check(33, 2048, 30.0f, type, 50.0, false);
        loss_check(3, 4096, 0, type, 80.0, false);
    }
}

/* NaN in one row stays in that row. */
static void test_loss_nan(void **unused)
{
    (void)unused;
    tensor z = matrix(2, 100, DT_F32, 0, 1.0), loss = tensor_1d(take(8), DT_F32, 2);
    ((float *)z.data)[150] = NAN;
    int32_t labels[2] = {3, 4};
    struct work_bounds w = {.heads = 1, .kv_heads = 1, .head_dim = 1, .threads = 1};
    struct stream *s = stream_with(1, &w);
    assert_int_equal(backend_cpu.ops.loss(s, &(struct loss_args){.z = z, .labels = labels, .loss = loss}), ST_OK);
    stream_done(s);
    assert_true(isfinite(((float *)loss.data)[0]) && isnan(((float *)loss.data)[1]));
    assert_true(isfinite(((float *)z.data)[99]) && isnan(((float *)z.data)[100]));
    free(z.data);
    free(loss.data);
}

static int group(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_loss_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    (void)argc;
    return each_isa(argv, group);
}
