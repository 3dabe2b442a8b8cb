/* Optimizers against PyTorch's numbers, and the roundings of what they store. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/philox.h"
#include "tests/kernels/golden/optim.h"
#include "tests/ref/kit.h"

static struct stream *s;
static uint32_t lcg_state;

/* As in make_golden.py. */
static double lcg_unit(void)
{
    lcg_state = lcg_state * 1664525u + 1013904223u;
    return ((double)(lcg_state >> 16) - 32768) / 32768;
}

struct recipe {
    const char *name;
    const double *f32, *f64;
    enum optim_kind kind;
    double lr, beta1, beta2, eps, wd;
    bool nesterov;
};

static const struct recipe recipes[] = {
    {"adamw", golden_adamw_f32, golden_adamw_f64, OPTIM_ADAMW, 1e-2, 0.9, 0.999, 1e-8, 0.1, false},
    {"adamw, large eps and lr", golden_adamw_small_eps_large_lr_f32, golden_adamw_small_eps_large_lr_f64, OPTIM_ADAMW, 0.125, 0.8, 0.95,
     1e-3, 0, false},
    {"adam", golden_adam_f32, golden_adam_f64, OPTIM_ADAM, 1e-2, 0.9, 0.999, 1e-8, 0.1, false},
    {"sgd", golden_sgd_f32, golden_sgd_f64, OPTIM_SGD, 1e-2, 0, 0, 0, 0.01, false},
    {"momentum", golden_momentum_f32, golden_momentum_f64, OPTIM_SGD, 1e-2, 0.9, 0.25, 0, 0.01, false},
    {"nesterov", golden_nesterov_f32, golden_nesterov_f64, OPTIM_SGD, 1e-2, 0.9, 0, 0, 0, true},
};

struct call {
    struct update_args u;
    struct step_scalars c;
    struct seg seg;
};

/* One tensor of n elements at `lo`, in the index from there on. */
static void one_tensor(struct call *x, int64_t lo, int64_t n)
{
    x->seg = (struct seg){lo, n, 0, 1, 1, 0};
    x->c.usable = 1;
    x->u.lo = lo;
    x->u.segs = (struct segs){&x->seg, &x->seg, 1};
    x->u.scalars = tensor_1d(&x->c, DT_F64, STEP_SCALARS);
}

/* Bias corrections are of the betas the kernel uses, which are f32: 1 − 0.999f is 1.3e-5 off 0.001. */
static void arguments(struct call *x, const struct recipe *r, int t)
{
    double b1 = (double)(float)r->beta1, b2 = (double)(float)r->beta2;
    x->u = (struct update_args){
        .kind = r->kind,
        .wd = (float)r->wd,
        .beta1 = (float)r->beta1,
        .beta2 = (float)r->beta2,
        .eps = (float)r->eps,
        .nesterov = r->nesterov,
    };
    x->c = (struct step_scalars){
        .gscale = 1,
        .lr = (double)(float)r->lr,
        .lw = (double)(float)(r->lr * r->wd),
        .rate = (double)(float)(r->lr / (1 - pow(b1, t))),
        .c2 = (double)(float)sqrt(1 - pow(b2, t)),
        .first = t == 1,
    };
}

static double distance(const float *w, const double *want)
{
    double error = 0, norm = 0;
    for (int i = 0; i < GOLDEN_N; i++) {
        error += ((double)w[i] - want[i]) * ((double)w[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(error / norm);
}

static void test_pytorch(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof recipes / sizeof recipes[0]; r++) {
        float w[GOLDEN_N], m[GOLDEN_N] = {0}, v[GOLDEN_N] = {0}, g[GOLDEN_N];
        lcg_state = 7;
        for (int i = 0; i < GOLDEN_N; i++) w[i] = (float)lcg_unit();
        for (int t = 1; t <= GOLDEN_STEPS; t++) {
            struct call x;
            struct update_args *u = &x.u;
            arguments(&x, &recipes[r], t);
            one_tensor(&x, 0, GOLDEN_N);
            for (int i = 0; i < GOLDEN_N; i++) g[i] = (float)lcg_unit();
            u->w = tensor_1d(w, DT_F32, GOLDEN_N), u->g = tensor_1d(g, DT_F32, GOLDEN_N);
            if (u->beta1 != 0) u->m = tensor_1d(m, DT_F32, GOLDEN_N);
            if (u->kind != OPTIM_SGD) u->v = tensor_1d(v, DT_F32, GOLDEN_N);
            assert_int_equal(op_update(s, u), ST_OK);
        }
        double exact = distance(w, recipes[r].f64), theirs = distance(w, recipes[r].f32);
        print_message("%-24s %.2e of float64, %.2e of PyTorch's float32\n", recipes[r].name, exact, theirs);
        if (!(exact <= 1e-6 && theirs <= 1e-6)) fail_msg("%s is too far from PyTorch", recipes[r].name);
    }
}

/* The exact bits of one SGD step: w − lr·g in f32, then each store rounds with its own 16-bit lane. */
static void test_stochastic_bits(void **state)
{
    (void)state;
    enum { N = 300, FLAT0 = 8 * 1000003 + 3 };
    bf16 w[N], m[N];
    float g[N];
    uint64_t key_w = rng_key(42, RNG_SR_WEIGHT, 0, 17), key_m = rng_key(42, RNG_SR_M, 0, 17);
    lcg_state = 5;
    for (int i = 0; i < N; i++) w[i] = bf16_round((float)lcg_unit()), g[i] = (float)lcg_unit(), m[i] = 0x7fc0;
    w[7] = 0x7f80, w[8] = 0xffc1, g[9] = INFINITY, g[10] = NAN; /* Inf and NaN pass through */
    bf16 want_w[N], want_m[N];
    for (int i = 0; i < N; i++) {
        int64_t e = FLAT0 + i;
        philox4 pw = philox(key_w, (uint64_t)e / 8, 0), pm = philox(key_m, (uint64_t)e / 8, 0);
        uint32_t lane = (uint32_t)(e % 8);
        want_m[i] = bf16_round_sr(g[i], pm.v[lane / 2] >> 16 * (lane % 2) & 0xffff);
        want_w[i] = bf16_round_sr(bf16_widen(w[i]) - 0.01f * g[i], pw.v[lane / 2] >> 16 * (lane % 2) & 0xffff);
    }
    struct call x = {.u = {.kind = OPTIM_SGD,
                           .w = tensor_1d(w, DT_BF16, N),
                           .g = tensor_1d(g, DT_F32, N),
                           .m = tensor_1d(m, DT_BF16, N),
                           .beta1 = 0.9f,
                           .sr = true,
                           .key_w = key_w,
                           .key_m = key_m},
                     .c = {.gscale = 1, .lr = (double)0.01f, .first = 1}};
    one_tensor(&x, FLAT0, N);
    assert_int_equal(op_update(s, &x.u), ST_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(m[i], want_m[i]);
        assert_int_equal(w[i], want_w[i]);
    }
}

/* ---- any range of the index gives the same bits ------------------------------------------------------------------------ */

enum { PAGES = 3, FLAT = PAGES * FLAT_PAGE + 300, N_SEGS = 6, N_PARTIALS = 8 };

/* A large tensor, small ones in the rest of its last page, a gap, one more large one. */
static const struct seg index_of[N_SEGS] = {
    {0, FLAT_PAGE + 77, 4, 1, 1, 0.5f},    {FLAT_PAGE + 256, 1000, 3, 1, 0, 2},    {FLAT_PAGE + 1280, 5, 7, 0.5f, 1, 1},
    {FLAT_PAGE + 1536, 30000, 6, 1, 1, 0}, {2 * FLAT_PAGE, FLAT_PAGE, 1, 1, 1, 3}, {3 * FLAT_PAGE, 290, 0, 2, 1, 0.25f},
};

struct vectors {
    float w[FLAT], g[FLAT], partial[N_PARTIALS];
    bf16 half[FLAT], m[FLAT], v[FLAT], work[FLAT];
};

static void begin_vectors(struct vectors *x)
{
    lcg_state = 3;
    memset(x, 0x7f, sizeof *x);
    for (int i = 0; i < FLAT; i++) {
        x->w[i] = (float)lcg_unit(), x->g[i] = (float)lcg_unit(), x->half[i] = bf16_round((float)lcg_unit());
        x->m[i] = x->v[i] = x->work[i] = 0;
    }
}

/* Adapters, f32 with working copies, and bf16 weights that round by chance, over [lo, hi). */
static void run_range(struct stream *on, struct vectors *x, int64_t lo, int64_t hi)
{
    struct call a;
    struct segs segs = {index_of, index_of, N_SEGS};
    struct sumsq_segs_args q = {tensor_1d(x->g + lo, DT_F32, hi - lo), tensor_1d(x->partial, DT_F32, N_PARTIALS), segs, lo};
    assert_int_equal(op_sumsq_segs(on, &q), ST_OK);
    arguments(&a, &recipes[0], 1);
    one_tensor(&a, 0, 0);
    a.u.segs = segs, a.u.lo = lo, a.u.sr = true, a.u.key_w = 1, a.u.key_m = 2, a.u.key_v = 3;
    a.u.g = q.g, a.u.w = tensor_1d(x->w + lo, DT_F32, hi - lo), a.u.work = tensor_1d(x->work + lo, DT_BF16, hi - lo);
    a.u.m = tensor_1d(x->m + lo, DT_BF16, hi - lo), a.u.v = tensor_1d(x->v + lo, DT_BF16, hi - lo);
    assert_int_equal(op_update(on, &a.u), ST_OK);
    arguments(&a, &recipes[3], 1);
    a.u.segs = segs, a.u.lo = lo, a.u.sr = true, a.u.key_w = 5, a.u.g = q.g, a.u.w = tensor_1d(x->half + lo, DT_BF16, hi - lo);
    a.u.scalars = tensor_1d(&a.c, DT_F64, STEP_SCALARS), a.c.usable = 1;
    assert_int_equal(op_update(on, &a.u), ST_OK);
}

static void expect_same(const struct vectors *a, const struct vectors *b, const char *how)
{
    if (memcmp(a, b, sizeof *a)) fail_msg("%s: other bits than in one call", how);
}

static void test_ranges(void **state)
{
    (void)state;
    static struct vectors whole, cut;
    begin_vectors(&whole);
    run_range(s, &whole, 0, FLAT);
    for (int threads = 1; threads <= 5; threads += 2) {
        struct stream *other;
        assert_int_equal(kit_stream_open(&backend_cpu, threads, &other), ST_OK);
        begin_vectors(&cut);
        run_range(other, &cut, 0, FLAT);
        expect_same(&whole, &cut, "threads");
        kit_stream_close(other);
    }
    for (int mask = 0; mask < 1 << PAGES; mask++) { /* cut at any page */
        int64_t lo = 0;
        begin_vectors(&cut);
        for (int p = 0; p < PAGES; p++) {
            if (!(mask >> p & 1)) continue;
            run_range(s, &cut, lo, (p + 1) * FLAT_PAGE);
            lo = (p + 1) * FLAT_PAGE;
        }
        run_range(s, &cut, lo, FLAT);
        expect_same(&whole, &cut, "pages");
    }
    begin_vectors(&cut); /* tensor by tensor, last first */
    for (int i = N_SEGS - 1; i >= 0; i--) run_range(s, &cut, index_of[i].at, index_of[i].at + index_of[i].count);
    expect_same(&whole, &cut, "tensors");
    for (int i = 0; i < N_PARTIALS; i++) assert_true((i == 2) == (f32_bits(whole.partial[i]) == 0x7f7f7f7f)); /* nobody's */
}

/* An update alone, elementwise, may be cut anywhere: once, and so often that no part is long enough for a loop of its layout's own. */
enum { ANY = 4096 + 77 };

struct held {
    float g[ANY], master[ANY];
    union {
        float f32[ANY];
        bf16 half[ANY];
    } w, m, v;
};

static void begin_held(struct held *x, dtype w)
{
    memset(x, 0, sizeof *x);
    lcg_state = 3;
    for (int i = 0; i < ANY; i++) {
        x->master[i] = (float)lcg_unit(), x->g[i] = (float)lcg_unit();
        if (w == DT_F32)
            x->w.f32[i] = x->master[i];
        else
            x->w.half[i] = bf16_round(x->master[i]);
    }
}

static tensor held_part(void *data, dtype dt, int first, int n) { return tensor_1d((char *)data + (size_t)first * dtype_bytes(dt), dt, n); }

static void test_cut_anywhere(void **state)
{
    (void)state;
    enum { LO = 65536 };
    static const struct {
        dtype w, states;
        bool master;
    } layouts[] = {{DT_F32, DT_F32, false}, {DT_BF16, DT_F32, true}, {DT_BF16, DT_F32, false}, {DT_BF16, DT_BF16, false}};
    static const int step[] = {ANY, 1024 + 5, 77};
    static struct held held[3];
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        for (int k = 0; k < 3; k++) {
            struct held *y = &held[k];
            begin_held(y, layouts[i].w);
            for (int first = 0; first < ANY; first += step[k]) {
                int n = ANY - first < step[k] ? ANY - first : step[k];
                struct call x;
                arguments(&x, &recipes[0], 1);
                one_tensor(&x, LO, ANY);
                x.u.lo = LO + first;
                x.u.w = held_part(&y->w, layouts[i].w, first, n), x.u.g = held_part(y->g, DT_F32, first, n);
                x.u.m = held_part(&y->m, layouts[i].states, first, n), x.u.v = held_part(&y->v, layouts[i].states, first, n);
                if (layouts[i].master) x.u.master = held_part(y->master, DT_F32, first, n);
                x.u.sr = true, x.u.key_w = 1, x.u.key_m = 2, x.u.key_v = 3;
                assert_int_equal(op_update(s, &x.u), ST_OK);
            }
            if (memcmp(&held[0], y, sizeof *y)) fail_msg("layout %zu: other bits by %d elements at a time", i, step[k]);
        }
}

/* What is not finite is seen wherever it is, and nothing moves then; a refusal in the backward lasts. */
static void test_judgement(void **state)
{
    (void)state;
    struct step_plan p = {.step = 3, .supervised = 8, .max_norm = 1, .applied = 2, .lr = 1, .lw = 1, .rate = {5, 6}, .c2 = {7, 8}};
    for (int bad = 0; bad < 5; bad++) {
        struct step_scalars c = {.applied = 3, .refused = bad == 4 ? 9 : 0};
        double losses[2] = {4, bad == 1 ? INFINITY : 4};
        float partial[2] = {32, bad == 2 ? NAN : bad == 3 ? INFINITY : 32}, w = 5, g = 1;
        struct step_decide_args d = {tensor_1d(&p, DT_F64, STEP_PLAN), tensor_1d(&c, DT_F64, STEP_SCALARS), tensor_2d(losses, DT_F64, 1, 2),
                                     tensor_1d(partial, DT_F32, 2)};
        assert_int_equal(op_step_decide(s, &d), ST_OK);
        assert_true(c.usable == !bad && c.applied == 3 + !bad && c.rate == 6 && c.c2 == 8 && c.first == 0);
        if (!bad) assert_true(c.loss == 1 && c.grad_norm == 1 && c.gscale == (double)(float)(1 / 1.000001 / 8));
        struct seg seg = {0, 1, 0, 1, 1, 0};
        struct update_args u = {
            .kind = OPTIM_SGD, .w = tensor_1d(&w, DT_F32, 1), .g = tensor_1d(&g, DT_F32, 1), .scalars = d.scalars, .segs = {&seg, &seg, 1}};
        assert_int_equal(op_update(s, &u), ST_OK);
        assert_true((w == 5) == (bad != 0));
    }
    struct step_scalars c = {0};
    float good[2] = {1, 2}, bad[2] = {1, NAN};
    struct step_admit_args a = {tensor_1d(&p, DT_F64, STEP_PLAN), tensor_1d(&c, DT_F64, STEP_SCALARS), tensor_1d(good, DT_F32, 2), 4};
    assert_int_equal(op_step_admit(s, &a), ST_OK);
    assert_true(c.usable == 1 && c.refused == 0 && c.gscale == 0.125 && c.applied == 0 && c.first == 1 && c.rate == 5);
    a.partial.data = bad, a.tensor = 6;
    assert_int_equal(op_step_admit(s, &a), ST_OK);
    p.step = 4, a.tensor = 2;
    assert_int_equal(op_step_admit(s, &a), ST_OK);
    a.partial.data = good;
    assert_int_equal(op_step_admit(s, &a), ST_OK);
    assert_true(c.usable == 0 && c.refused == 7 && c.refused_step == 3);
}

/* Unbiased. 1e5 draws of one value, through the op (w − 0·g), mean within 3e-5 relative + absolute
 * for values in [0, 100). The draws of a value are its own elements of the counter space. */
static void test_stochastic_law(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    static bf16 w[DRAWS];
    static float master_step[DRAWS];
    static const float values[] = {0, 1.0f / 3, 1.001f, 7.77f, 31.4159f, 99.9f};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        for (int j = 0; j < DRAWS; j++) w[j] = 0, master_step[j] = -values[i]; /* w = 0 − 1·(−x) */
        struct call a = {.u = {.kind = OPTIM_SGD,
                               .w = tensor_1d(w, DT_BF16, DRAWS),
                               .g = tensor_1d(master_step, DT_F32, DRAWS),
                               .sr = true,
                               .key_w = rng_key(1, RNG_SR_WEIGHT, 0, 1)},
                         .c = {.gscale = 1, .lr = 1}};
        one_tensor(&a, 0, DRAWS);
        assert_int_equal(op_update(s, &a.u), ST_OK);
        double mean = 0, x = (double)values[i];
        for (int j = 0; j < DRAWS; j++) {
            double y = (double)bf16_widen(w[j]);
            if (!(fabs(y - x) < ulp_of(DT_BF16, x))) fail_msg("%.9g rounded to %.9g", x, y);
            mean += y / DRAWS;
        }
        /* three standard deviations of a mean of DRAWS two-valued draws, one bf16 ulp apart, and what the spec asks */
        double allowed = 3e-5 + 3e-5 * x + 1.5 * ulp_of(DT_BF16, x) / sqrt(DRAWS);
        if (!(fabs(mean - x) <= allowed)) fail_msg("mean of %.9g is %.9g", x, mean);
    }
}

static int open_stream(void **state)
{
    (void)state;
    return kit_stream_open(&backend_cpu, 2, &s);
}

static int close_stream(void **state)
{
    (void)state;
    kit_stream_close(s);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pytorch),      cmocka_unit_test(test_stochastic_bits), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_cut_anywhere), cmocka_unit_test(test_judgement),       cmocka_unit_test(test_stochastic_law),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
