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
    {"adamw, large eps and lr", golden_adamw_small_eps_large_lr_f32, golden_adamw_small_eps_large_lr_f64, OPTIM_ADAMW,
     0.125, 0.8, 0.95, 1e-3, 0, false},
    {"adam", golden_adam_f32, golden_adam_f64, OPTIM_ADAM, 1e-2, 0.9, 0.999, 1e-8, 0.1, false},
    {"sgd", golden_sgd_f32, golden_sgd_f64, OPTIM_SGD, 1e-2, 0, 0, 0, 0.01, false},
    {"momentum", golden_momentum_f32, golden_momentum_f64, OPTIM_SGD, 1e-2, 0.9, 0.25, 0, 0.01, false},
    {"nesterov", golden_nesterov_f32, golden_nesterov_f64, OPTIM_SGD, 1e-2, 0.9, 0, 0, 0, true},
};

/* Bias corrections are of the betas the kernel uses, which are f32: 1 − 0.999f is 1.3e-5 off 0.001. */
static struct optim_args arguments(const struct recipe *r, int t)
{
    double b1 = (double)(float)r->beta1, b2 = (double)(float)r->beta2;
    return (struct optim_args){
        .kind = r->kind,
        .gscale = 1,
        .lr = (float)r->lr,
        .wd = (float)r->wd,
        .beta1 = (float)r->beta1,
        .beta2 = (float)r->beta2,
        .eps = (float)r->eps,
        .lw = (float)(r->lr * r->wd),
        .step = (float)(r->lr / (1 - pow(b1, t))),
        .c2 = (float)sqrt(1 - pow(b2, t)),
        .nesterov = r->nesterov,
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
            struct optim_args o = arguments(&recipes[r], t);
            for (int i = 0; i < GOLDEN_N; i++) g[i] = (float)lcg_unit();
            o.w = tensor_1d(w, DT_F32, GOLDEN_N), o.g = tensor_1d(g, DT_F32, GOLDEN_N);
            if (o.beta1 != 0) o.m = tensor_1d(m, DT_F32, GOLDEN_N);
            if (o.kind != OPTIM_SGD) o.v = tensor_1d(v, DT_F32, GOLDEN_N);
            assert_int_equal(op_optim(s, &o), ST_OK);
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
    uint64_t key_w = rng_key(42, RNG_SR_WEIGHT, 3, 17), key_m = rng_key(42, RNG_SR_M, 3, 17);
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
    struct optim_args o = {.kind = OPTIM_SGD,
                           .w = tensor_1d(w, DT_BF16, N),
                           .g = tensor_1d(g, DT_F32, N),
                           .m = tensor_1d(m, DT_BF16, N),
                           .gscale = 1,
                           .lr = 0.01f,
                           .beta1 = 0.9f,
                           .first = true,
                           .sr = true,
                           .key_w = key_w,
                           .key_m = key_m,
                           .flat0 = FLAT0};
    assert_int_equal(op_optim(s, &o), ST_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(m[i], want_m[i]);
        assert_int_equal(w[i], want_w[i]);
    }
}

/* A tensor stepped in one call, or in two shards at their own flat0: the same bits. */
static void test_sharding(void **state)
{
    (void)state;
    enum { N = 4096 + 77, CUT = 1024 + 5 };
    bf16 w[2][N], m[2][N], v[2][N];
    float g[N];
    lcg_state = 3;
    for (int i = 0; i < N; i++) {
        w[0][i] = w[1][i] = bf16_round((float)lcg_unit());
        m[0][i] = m[1][i] = v[0][i] = v[1][i] = 0;
        g[i] = (float)lcg_unit();
    }
    for (int part = 0; part < 3; part++) {
        int which = part > 0, first = part == 2 ? CUT : 0, end = part == 1 ? CUT : N;
        struct optim_args o = arguments(&recipes[0], 1);
        o.w = tensor_1d(w[which] + first, DT_BF16, end - first), o.g = tensor_1d(g + first, DT_F32, end - first);
        o.m = tensor_1d(m[which] + first, DT_BF16, end - first),
        o.v = tensor_1d(v[which] + first, DT_BF16, end - first);
        o.sr = true, o.key_w = 1, o.key_m = 2, o.key_v = 3, o.flat0 = 65536 + first;
        assert_int_equal(op_optim(s, &o), ST_OK);
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
    assert_memory_equal(m[0], m[1], sizeof m[0]);
    assert_memory_equal(v[0], v[1], sizeof v[0]);
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
        struct optim_args o = {.kind = OPTIM_SGD,
                               .w = tensor_1d(w, DT_BF16, DRAWS),
                               .g = tensor_1d(master_step, DT_F32, DRAWS),
                               .gscale = 1,
                               .lr = 1,
                               .sr = true,
                               .key_w = rng_key(1, RNG_SR_WEIGHT, 0, 1)};
        assert_int_equal(op_optim(s, &o), ST_OK);
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
        cmocka_unit_test(test_pytorch),
        cmocka_unit_test(test_stochastic_bits),
        cmocka_unit_test(test_sharding),
        cmocka_unit_test(test_stochastic_law),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
