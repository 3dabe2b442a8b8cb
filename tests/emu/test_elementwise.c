/* Elementwise ops and sums over rows of the CUDA backend, beyond the table of cases: every value that an element may have, views that
 * begin anywhere, calls without rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "tests/ref/kit.h"

static struct stream *cpu, *emu;
static int failures;

static bool is_nan(const void *p, dtype dt)
{
    if (dt == DT_F32) return isnan(*(const float *)p);
    return dt == DT_BF16 && isnan(bf16_widen(*(const bf16 *)p));
}

/* A NaN is one, whatever its bits. */
static void same_bits(const struct kit *a, const struct kit *b, const char *what)
{
    for (int o = 0; o < a->n_outs; o++) {
        const tensor *x = &a->out[o].t, *y = &b->out[o].t;
        int64_t cols = x->dim[x->rank - 1], rows = cols ? tensor_count(x) / cols : 0;
        size_t size = dtype_bytes(x->dt);
        for (int64_t i = 0; i < rows * cols; i++) {
            const char *p = (const char *)x->data + (size_t)(i / cols * x->ld + i % cols) * size;
            const char *q = (const char *)y->data + (size_t)(i / cols * y->ld + i % cols) * size;
            if (!memcmp(p, q, size) || (is_nan(p, x->dt) && is_nan(q, x->dt))) continue;
            print_error("%s: %s[%lld, %lld] differs %s\n", kit_text(a), a->out[o].name, (long long)(i / cols), (long long)(i % cols), what);
            failures++;
            break;
        }
    }
}

/* ---- every value ---------------------------------------------------------------------------------------------------------------
 * All bf16 that are numbers, or 65536 f32 over all exponents: gates, their slopes and the soft cap must have the CPU's bits. */

enum { SIDE = 256 };

static tensor all_values(struct kit *k)
{
    tensor t = kit_act(k, SIDE, SIDE, 0);
    for (uint32_t i = 0; i < SIDE * SIDE; i++) {
        uint32_t bits = i << 16 | (k->value == DT_F32 ? i * 40503u & 0xffffu : 0);
        if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0;
        if (k->value == DT_F32)
            ((float *)t.data)[i] = f32_from_bits(bits);
        else
            ((bf16 *)t.data)[i] = (bf16)(bits >> 16);
    }
    return t;
}

static tensor of_ones(struct kit *k)
{
    tensor t = kit_act(k, SIDE, SIDE, 0);
    for (int i = 0; i < SIDE * SIDE; i++) {
        if (k->value == DT_F32)
            ((float *)t.data)[i] = 1;
        else
            ((bf16 *)t.data)[i] = bf16_round(1);
    }
    return t;
}

static void build_gate(struct kit *k, const int64_t *p)
{
    k->args.glu_bwd =
        (struct glu_bwd_args){all_values(k),      of_ones(k), of_ones(k), kit_act(k, SIDE, SIDE, 0), kit_act(k, SIDE, SIDE, 0),
                              (enum act_kind)p[0]};
    kit_output(k, "dgate", k->args.glu_bwd.dgate, k->value);
    kit_output(k, "dup", k->args.glu_bwd.dup, k->value);
}

static void build_cap(struct kit *k, const int64_t *p)
{
    k->args.soft_cap = (struct soft_cap_args){all_values(k), (float)p[0]};
    kit_output(k, "z", k->args.soft_cap.z, k->value);
}

static status run_gate(struct stream *s, const union op_args *a) { return op_glu_bwd(s, &a->glu_bwd); }
static status run_cap(struct stream *s, const union op_args *a) { return op_soft_cap(s, &a->soft_cap); }

static void test_all_values(void **state)
{
    (void)state;
    static const struct op_case all[] = {
        {"glu_bwd", {ACT_SILU}, run_gate, build_gate, NULL, "fb", false},
        {"glu_bwd", {ACT_GELU_TANH}, run_gate, build_gate, NULL, "fb", false},
        {"soft_cap", {30}, run_cap, build_cap, NULL, "fb", false},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int wide = 0; wide < 2; wide++) {
            struct kit a, b;
            kit_build(&a, &all[i], wide ? DT_F32 : DT_BF16, false, 0);
            kit_build(&b, &all[i], wide ? DT_F32 : DT_BF16, false, 0);
            assert_int_equal(kit_run(cpu, &a), ST_OK);
            if (kit_run(emu, &b)) fail_msg("%s: %s", kit_text(&b), status_message());
            same_bits(&a, &b, "between the CPU and the emulated device");
            kit_release(&a), kit_release(&b);
        }
    assert_int_equal(failures, 0);
}

/* ---- where views begin ---------------------------------------------------------------------------------------------------------
 * Dense; rows apart but whole packs of 16 bytes still; neither. */

static void test_views(void **state)
{
    (void)state;
    failures = 0;
    static const int64_t pads[] = {0, 8, 5};
    for (int i = 0; i < n_op_cases; i++) {
        if (op_cases[i].library) continue;
        for (const char *d = op_cases[i].dtypes; *d; d++) {
            struct kit k[3];
            for (int v = 0; v < 3; v++) {
                kit_build(&k[v], &op_cases[i], *d == 'f' ? DT_F32 : DT_BF16, false, pads[v]);
                if (kit_run(emu, &k[v])) fail_msg("%s: %s", kit_text(&k[v]), status_message());
                if (v) same_bits(&k[0], &k[v], v == 1 ? "with rows that are apart" : "with rows and vectors that begin anywhere");
            }
            for (int v = 0; v < 3; v++) kit_release(&k[v]);
        }
    }
    assert_int_equal(failures, 0);
}

/* ---- no rows -------------------------------------------------------------------------------------------------------------------
 * A launch without blocks is an error of CUDA's: an op without rows must launch none, and leave sums alone. */

static void test_no_rows(void **state)
{
    (void)state;
    enum { C = 16 };
    const struct device *dev = &emu->be->dev;
    void *memory, *pinned;
    assert_int_equal(dev->alloc(MEM_DEVICE, C * sizeof(float), &memory), ST_OK);
    assert_int_equal(dev->alloc(MEM_PINNED, C * sizeof(float), &pinned), ST_OK);
    float *ones = pinned;
    for (int i = 0; i < C; i++) ones[i] = 1;
    assert_int_equal(dev->copy(emu, memory, ones, C * sizeof *ones), ST_OK);
    tensor none = tensor_2d(NULL, DT_F32, 0, C), rows = tensor_1d(NULL, DT_F32, 0), w = tensor_1d(memory, DT_F32, C);
    tensor whole = tensor_2d(memory, DT_F32, 1, C), angles = tensor_2d(memory, DT_F32, 1, C / 2);
#define OK(call)                                                                                                                           \
    if (call) fail_msg("%s: %s", #call, status_message())
    OK(op_embed_fwd(emu, &(struct embed_args){whole, NULL, 0, none, 0}));
    OK(op_embed_bwd(emu, &(struct embed_args){whole, NULL, 0, none, 0}));
    OK(op_rmsnorm_fwd(emu, &(struct rmsnorm_fwd_args){.x = none, .w = w, .y = none, .rstd = rows, .eps = 1e-5f}));
    OK(op_rmsnorm_bwd(emu, &(struct rmsnorm_bwd_args){.dy = none, .x = none, .w = w, .rstd = rows, .dx = none, .dw = w}));
    OK(op_rope(emu, &(struct rope_args){.q = none, .cos = angles, .sin = angles, .heads = 1, .head_dim = C}));
    OK(op_glu_fwd(emu, &(struct glu_fwd_args){none, none, none, ACT_SILU}));
    OK(op_glu_bwd(emu, &(struct glu_bwd_args){none, none, none, none, none, ACT_SILU}));
    OK(op_loss(emu, &(struct loss_args){.z = none, .loss = rows}));
    OK(op_soft_cap(emu, &(struct soft_cap_args){none, 30}));
    OK(op_gather_rows(emu, &(struct rows_args){whole, none, NULL, 0}));
    OK(op_scatter_rows(emu, &(struct rows_args){none, whole, NULL, 0}));
    OK(op_dropout(emu, &(struct dropout_args){.x = none, .y = none, .plan = tensor_1d(memory, DT_F64, STEP_PLAN), .p = 0.5f}));
    OK(op_axpy(emu, &(struct axpy_args){.x = none, .y = none, .scale = 1}));
    OK(op_colsum(emu, &(struct colsum_args){none, w}));
    OK(op_row_dot(emu, &(struct row_dot_args){.x = none, .y = none, .out = rows}));
    OK(op_rescale_fwd(emu, &(struct rescale_fwd_args){.u = none, .y = none, .to = w, .from = w}));
    OK(op_rescale_bwd(emu, &(struct rescale_bwd_args){.dy = none, .u = none, .du = none, .to = w, .from = w, .d_to = w}));
    OK(dev->sync(emu, "no rows"));
    memset(pinned, 0, C * sizeof *ones);
    OK(dev->copy(emu, ones, memory, C * sizeof *ones));
    OK(dev->sync(emu, "no rows"));
    for (int i = 0; i < C; i++) assert_true(ones[i] == 1);
    OK(op_loss_sum(emu, &(struct loss_sum_args){rows, tensor_1d(memory, DT_F64, 1)}));
    OK(dev->copy(emu, pinned, memory, sizeof(double)));
    OK(dev->sync(emu, "no losses"));
    assert_true(*(double *)pinned == 0);
    dev->free(MEM_DEVICE, memory, C * sizeof(float)), dev->free(MEM_PINNED, pinned, C * sizeof(float));
}

int main(void)
{
    const struct backend *be;
    if (!backend_built("emu")) {
        printf("no emulated device: it is built where a CUDA toolkit is\n");
        return 77;
    }
    if (backend_load("emu", &(struct backend_place){0, 1}, &be) || kit_stream_open(be, 1, &emu) || kit_stream_open(&backend_cpu, 2, &cpu)) {
        fprintf(stderr, "%s\n", status_message());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_values),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_no_rows),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    kit_stream_close(emu), kit_stream_close(cpu);
    return failed;
}
