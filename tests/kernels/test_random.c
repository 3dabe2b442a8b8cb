/* Philox's known answers, the vector form of it, and dropout masks that depend on nothing but their counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/philox.h"
#include "tests/ref/kit.h"

static struct stream *s;

/* Known answers of the paper's code. */
static void test_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint64_t key, low, high;
        uint32_t want[4];
    } answers[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        philox4 p = philox(answers[i].key, answers[i].low, answers[i].high);
        uint32_t r[4];
        ref_philox(answers[i].key, answers[i].low, answers[i].high, r);
        assert_memory_equal(p.v, answers[i].want, sizeof p.v);
        assert_memory_equal(r, answers[i].want, sizeof r);
    }
    assert_true(rng_mix(0) == 0xe220a8397b1dcdafull);
    assert_true(rng_key(1, RNG_DROPOUT, 2, 3) == rng_mix(rng_mix(1) ^ (1ull << 56 | 2ull << 32 | 3)));
}

/* Uniform init shows every word of the vector Philox; the range crosses 2^32 blocks, where the counter carries. */
static void test_vector_form(void **state)
{
    (void)state;
    enum { N = 1000 };
    float w[N];
    static const int64_t starts[] = {0, 1, 4 * ((1ll << 32) - 40) + 3, 4 * ((1ll << 32) + 5)};
    for (size_t k = 0; k < sizeof starts / sizeof starts[0]; k++) {
        struct init_args a = {tensor_1d(w, DT_F32, N), 1, false, 0xdeadbeefcafef00dull, starts[k]};
        assert_int_equal(op_init(s, &a), ST_OK);
        for (int i = 0; i < N; i++) {
            uint64_t e = (uint64_t)(starts[k] + i);
            uint32_t word = philox(a.key, e / 4, 0).v[e % 4];
            assert_true(w[i] == (float)((double)(word >> 9) * 0x1p-22 + 0x1p-23 - 1));
        }
    }
}

static struct step_plan plan; /* of step 0 */
static const tensor first = {.data = &plan, .dt = DT_F64, .rank = 1, .dim = {STEP_PLAN}, .ld = STEP_PLAN};

/* Documents dropped out together, in another order, or alone: each keeps its own mask. */
static void test_mask_does_not_know_the_packing(void **state)
{
    (void)state;
    enum { C = 37, A = 11, B = 6 };
    float x[(A + B) * C], together[(A + B) * C], swapped[(A + B) * C], alone[B * C];
    for (int i = 0; i < (A + B) * C; i++) x[i] = (float)(i + 1);
    int32_t position[2 * A + 2 * B]; /* a, b, a: any two neighbours lie side by side */
    int64_t sample[2 * A + 2 * B];
    for (int i = 0; i < 2 * A + B; i++) {
        bool b = i >= A && i < A + B;
        position[i] = i < A ? i : b ? i - A : i - A - B;
        sample[i] = b ? 1ll << 33 : 5;
    }
    struct rows_at all = {position, sample};
    struct dropout_args d = {
        .x = tensor_2d(x, DT_F32, A + B, C), .y = tensor_2d(together, DT_F32, A + B, C), .plan = first, .p = 0.5f, .base = 3, .rows = all};
    assert_int_equal(op_dropout(s, &d), ST_OK);
    float moved[(A + B) * C];
    memcpy(moved, x + A * C, sizeof(float) * B * C);
    memcpy(moved + B * C, x, sizeof(float) * A * C);
    d.x.data = moved, d.y.data = swapped, d.rows = rows_from(all, A);
    assert_int_equal(op_dropout(s, &d), ST_OK);
    d.x = tensor_2d(x + A * C, DT_F32, B, C), d.y = tensor_2d(alone, DT_F32, B, C), d.rows = rows_from(all, A);
    assert_int_equal(op_dropout(s, &d), ST_OK);
    assert_memory_equal(together, swapped + B * C, sizeof(float) * A * C);
    assert_memory_equal(together + A * C, swapped, sizeof(float) * B * C);
    assert_memory_equal(alone, swapped, sizeof(float) * B * C);
    assert_memory_not_equal(together, x, sizeof x);
}

/* The step is read where the plan lies, when the op runs: the masks of steps are those of the keys that rng_key says. */
static void test_mask_of_a_step(void **state)
{
    (void)state;
    enum { C = 40, SITE = 0xabcdef };
    static const double steps[] = {0, 1, 77, 4294967295.0};
    float x[C], y[C];
    int32_t position[1] = {3};
    int64_t sample[1] = {11};
    struct step_plan now = {0};
    struct dropout_args d = {.x = tensor_2d(x, DT_F32, 1, C),
                             .y = tensor_2d(y, DT_F32, 1, C),
                             .plan = tensor_1d(&now, DT_F64, STEP_PLAN),
                             .p = 0.5f,
                             .base = rng_base(99, RNG_DROPOUT, SITE),
                             .rows = {position, sample}};
    for (int i = 0; i < C; i++) x[i] = 1;
    for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
        uint64_t key = rng_key(99, RNG_DROPOUT, SITE, (uint32_t)steps[k]);
        now.step = steps[k];
        assert_int_equal(op_dropout(s, &d), ST_OK);
        for (int c = 0; c < C; c++) {
            uint64_t e = 3 * C + (uint64_t)c;
            assert_true(y[c] == (philox(key, e / 4, 11).v[e % 4] >= 1u << 31 ? 2.0f : 0.0f));
        }
    }
}

static void test_rate(void **state)
{
    (void)state;
    enum { ROWS = 400, C = 500 };
    float *x = malloc(sizeof(float) * ROWS * C);
    for (int i = 0; i < ROWS * C; i++) x[i] = 1;
    int32_t position[ROWS];
    int64_t sample[ROWS];
    for (int i = 0; i < ROWS; i++) {
        position[i] = i;
        sample[i] = 9;
    }
    struct dropout_args d = {.x = tensor_2d(x, DT_F32, ROWS, C),
                             .y = tensor_2d(x, DT_F32, ROWS, C),
                             .plan = first,
                             .p = 0.1f,
                             .base = 8,
                             .rows = {position, sample}};
    assert_int_equal(op_dropout(s, &d), ST_OK);
    int dropped = 0;
    for (int i = 0; i < ROWS * C; i++) {
        dropped += x[i] == 0;
        assert_true(x[i] == 0 || x[i] == (float)(1 / (1 - (double)0.1f)));
    }
    assert_in_range(dropped, 20000 - 500, 20000 + 500); /* σ = 134 */
    free(x);
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
        cmocka_unit_test(test_known_answers),  cmocka_unit_test(test_vector_form), cmocka_unit_test(test_mask_does_not_know_the_packing),
        cmocka_unit_test(test_mask_of_a_step), cmocka_unit_test(test_rate),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
