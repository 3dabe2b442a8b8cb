/* Every op of a backend against the float64 reference, through the front door. `test_ops` tests the CPU backend under the paranoid
 * wrapper, `test_ops NAME` the plugin of that name. TRIMPOT_TEST_OP: that op alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "tests/ref/kit.h"

static struct stream *reference, *tested;
static int failures;
static XXH64_hash_t bits; /* of all outputs: printed, for who compares runs */

static void run(struct stream *s, struct kit *k)
{
    status st = kit_run(s, k);
    if (!st) return;
    print_error("%s: %s\n", kit_text(k), status_message());
    failures++;
}

/* The share of the allowed error that was used, for the worst element of output `o`. */
static double compare(const struct kit *got, const struct kit *want, int o, struct mat bound)
{
    struct mat a = mat_load(&got->out[o].t), b = mat_load(&want->out[o].t);
    dtype dt = got->out[o].value;
    double worst = 0;
    for (int64_t i = 0; i < a.rows * a.cols; i++) {
        double allowed = bound.v[i] + (dt == DT_U8 ? 0 : ulp_of(dt, b.v[i])), error = fabs(a.v[i] - b.v[i]);
        if (!(error <= allowed)) {
            failures++;
            print_error("%s: %s[%lld, %lld] is %.9g, the reference %.9g: off by %.3g, allowed %.3g\n", kit_text(got), got->out[o].name,
                        (long long)(i / a.cols), (long long)(i % a.cols), a.v[i], b.v[i], error, allowed);
            break;
        }
        worst = fmax(worst, allowed > 0 ? error / allowed : 0);
    }
    mat_free(a), mat_free(b);
    return worst;
}

static void check_case(const struct op_case *c, dtype value, int64_t pad)
{
    struct kit got, want, in;
    struct mat bounds[KIT_OUTPUTS] = {{0}};
    kit_build(&got, c, value, false, pad);
    kit_build(&want, c, value, true, 0);
    kit_build(&in, c, value, true, 0);
    run(reference, &want);
    run(tested, &got);
    c->bound(&in, &want, bounds);
    double worst = 0;
    for (int o = 0; o < got.n_outs; o++) {
        const tensor *t = &got.out[o].t;
        bits = XXH3_64bits_withSeed(t->data, t->rank == 1 ? (size_t)t->dim[0] * dtype_bytes(t->dt) : 0, bits);
        for (int64_t r = 0; r < t->dim[0] && t->rank == 2; r++)
            bits = XXH3_64bits_withSeed((char *)t->data + (size_t)(r * t->ld) * dtype_bytes(t->dt), (size_t)t->dim[1] * dtype_bytes(t->dt),
                                        bits);
        worst = fmax(worst, compare(&got, &want, o, bounds[o]));
        mat_free(bounds[o]);
    }
    if (getenv("TRIMPOT_TEST_VERBOSE")) print_message("%5.3f  %s\n", worst, kit_text(&got));
    kit_release(&got), kit_release(&want), kit_release(&in);
}

/* One case of an op, with numbers of its own ("131 3 3 24 1"), in bf16: packed, misaligned, and with rows apart by whole vectors. */
static void check_numbers(const char *op, const char *numbers)
{
    int i = 0;
    while (i < n_op_cases && strcmp(op_cases[i].op, op)) i++;
    assert_true(i < n_op_cases);
    struct op_case mine = op_cases[i];
    char *end;
    for (int n = 0; n < KIT_PARAMS; n++, numbers = end) mine.p[n] = strtoll(numbers, &end, 10);
    for (int n = 0; n < 3; n++) check_case(&mine, DT_BF16, (const int64_t[]){0, 5, 8}[n]);
    assert_int_equal(failures, 0);
}

static void test_against_reference(void **state)
{
    (void)state;
    const char *only = getenv("TRIMPOT_TEST_OP"), *numbers = getenv("TRIMPOT_TEST_CASE");
    if (only && numbers) {
        check_numbers(only, numbers);
        return;
    }
    for (int i = 0; i < n_op_cases; i++)
        for (const char *d = op_cases[i].dtypes; *d; d++) {
            if (only && strcmp(only, op_cases[i].op)) continue;
            check_case(&op_cases[i], *d == 'f' ? DT_F32 : DT_BF16, 0);
            check_case(&op_cases[i], *d == 'f' ? DT_F32 : DT_BF16, 5);
        }
    assert_int_equal(failures, 0);
}

/* A hole in the table would only be found by whoever needs the op. */
static void test_no_slot_is_empty(void **state)
{
    (void)state;
    int missing = 0;
#define SLOT(name, args)                                                                                                                   \
    {                                                                                                                                      \
        bool found = tested->be->ops.name && backend_ref.ops.name;                                                                         \
        if (!found) print_error("%s is missing in a backend\n", #name);                                                                    \
        bool tested_here = false;                                                                                                          \
        for (int i = 0; i < n_op_cases; i++) tested_here |= !strcmp(op_cases[i].op, #name);                                                \
        if (!tested_here) print_error("%s has no case\n", #name);                                                                          \
        missing += !found + !tested_here;                                                                                                  \
    }
    TRIMPOT_OPS(SLOT)
    assert_int_equal(missing, 0);
}

int main(int argc, char **argv)
{
    const struct backend *be = NULL;
    status st = ST_OK;
    if (argc > 1)
        st = backend_load(argv[1], &(struct backend_place){0, 1}, &be);
    else
        be = paranoid_wrap(&backend_cpu);
    if (!st) st = kit_stream_open(&backend_ref, 1, &reference);
    if (!st) st = kit_stream_open(be, 2, &tested);
    if (st) {
        fprintf(stderr, "%s\n", status_message());
        return 1;
    }
    printf("%s\n", be->describe());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_slot_is_empty),
        cmocka_unit_test(test_against_reference),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("bits of all outputs: %016llx\n", (unsigned long long)bits);
    kit_stream_close(reference);
    kit_stream_close(tested);
    return failed;
}
