/* Bitwise invariances: the number of threads never changes a bit of any op, and the instruction set changes none of
 * the ops whose arithmetic is ours alone. `test_bits NAME`: nor does the plugin of that name, where no sum has an order of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ref/kit.h"

#define DECLARE(name, args) op_##name##_fn name##_cpu_avx2, name##_cpu_avx512;
TRIMPOT_OPS(DECLARE)

static int failures;

static void same_bits(const struct kit *a, const struct kit *b, const char *what)
{
    for (int o = 0; o < a->n_outs; o++) {
        const tensor *x = &a->out[o].t, *y = &b->out[o].t;
        int64_t cols = x->dim[x->rank - 1], rows = cols ? tensor_count(x) / cols : 0;
        size_t size = dtype_bytes(x->dt);
        for (int64_t i = 0; i < rows; i++)
            if (memcmp((char *)x->data + (size_t)(i * x->ld) * size, (char *)y->data + (size_t)(i * y->ld) * size, (size_t)cols * size)) {
                print_error("%s: %s row %lld differs %s\n", kit_text(a), a->out[o].name, (long long)i, what);
                failures++;
                break;
            }
    }
}

static dtype dtype_of(char letter) { return letter == 'f' ? DT_F32 : DT_BF16; }

static void test_threads(void **state)
{
    (void)state;
    struct stream *s[3];
    for (int t = 0; t < 3; t++) assert_int_equal(kit_stream_open(&backend_cpu, t + 1, &s[t]), ST_OK);
    for (int i = 0; i < n_op_cases; i++)
        for (const char *d = op_cases[i].dtypes; *d; d++) {
            struct kit k[3];
            for (int t = 0; t < 3; t++) {
                kit_build(&k[t], &op_cases[i], dtype_of(*d), false, 3);
                assert_int_equal(op_cases[i].run(s[t], &k[t].args), ST_OK);
                if (t) same_bits(&k[0], &k[t], t == 1 ? "between 1 and 2 threads" : "between 1 and 3 threads");
            }
            for (int t = 0; t < 3; t++) kit_release(&k[t]);
        }
    for (int t = 0; t < 3; t++) kit_stream_close(s[t]);
    assert_int_equal(failures, 0);
}

static status run_isa(struct stream *s, const struct kit *k, bool wide)
{
#define TRY_NAME(name, type)                                                                                                               \
    if (!strcmp(k->which->op, #name)) return (wide ? name##_cpu_avx512 : name##_cpu_avx2)(s, &k->args.name);
    TRIMPOT_OPS(TRY_NAME)
    return ST_FAIL;
}

static void test_instruction_sets(void **state)
{
    (void)state;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
        print_message("SKIPPED: this processor has no AVX-512 to compare AVX2 with\n");
        skip();
    }
    struct stream *s;
    assert_int_equal(kit_stream_open(&backend_cpu, 2, &s), ST_OK);
    for (int i = 0; i < n_op_cases; i++) {
        if (op_cases[i].library) continue;
        for (const char *d = op_cases[i].dtypes; *d; d++) {
            struct kit narrow, wide;
            kit_build(&narrow, &op_cases[i], dtype_of(*d), false, 0);
            kit_build(&wide, &op_cases[i], dtype_of(*d), false, 0);
            assert_int_equal(run_isa(s, &narrow, false), ST_OK);
            assert_int_equal(run_isa(s, &wide, true), ST_OK);
            same_bits(&narrow, &wide, "between AVX2 and AVX-512");
            kit_release(&narrow), kit_release(&wide);
        }
    }
    kit_stream_close(s);
    assert_int_equal(failures, 0);
}

static const char *plugin;

/* Elementwise ops, and sums whose order ops.h states or kernels/cuda keeps. */
static bool same_order(const char *op)
{
    static const char *const own[] = {"gemm", "rmsnorm_fwd", "rmsnorm_bwd", "attn_fwd",   "attn_bwd",
                                      "loss", "colsum",      "row_dot",     "rescale_bwd"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(op, own[i])) return false;
    return true;
}

static void test_plugin(void **state)
{
    (void)state;
    const char *only = getenv("TRIMPOT_TEST_OP");
    const struct backend *be;
    struct stream *cpu, *other;
    if (backend_load(plugin, &(struct backend_place){0, 1}, &be) || kit_stream_open(be, 2, &other)) fail_msg("%s", status_message());
    assert_int_equal(kit_stream_open(&backend_cpu, 2, &cpu), ST_OK);
    for (int i = 0; i < n_op_cases; i++)
        for (const char *d = op_cases[i].dtypes; *d; d++)
            for (int64_t pad = 0; pad <= 5; pad += 5) {
                if (!same_order(op_cases[i].op) || (only && strcmp(only, op_cases[i].op))) continue;
                struct kit a, b;
                kit_build(&a, &op_cases[i], dtype_of(*d), false, pad);
                kit_build(&b, &op_cases[i], dtype_of(*d), false, pad);
                assert_int_equal(kit_run(cpu, &a), ST_OK);
                if (kit_run(other, &b)) fail_msg("%s: %s", kit_text(&b), status_message());
                same_bits(&a, &b, "between the CPU and the plugin");
                kit_release(&a), kit_release(&b);
            }
    kit_stream_close(cpu), kit_stream_close(other);
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest across[] = {cmocka_unit_test(test_plugin)};
    if (argc > 1) {
        plugin = argv[1];
        return cmocka_run_group_tests(across, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_instruction_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
