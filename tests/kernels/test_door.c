/* The front door refuses what ops.h does not allow, and says what it saw; the paranoid backend catches a backend that
 * breaks the contract. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/ref/kit.h"

static struct stream *s;

static const struct op_case *case_of(const char *op)
{
    for (int i = 0; i < n_op_cases; i++)
        if (!strcmp(op_cases[i].op, op) && op_cases[i].p[0] > 1) return &op_cases[i];
    fail_msg("no case of %s", op);
    return NULL;
}

/* Breaks one thing of a good call; the message must hold all the words. */
struct refusal {
    const char *op;
    void (*spoil)(union op_args *a);
    const char *words[4];
};

static const int32_t one_before[] = {0, 1, 0, 0, 0, 0, 0, 0};

static void have_past(struct docs *d) { d->past = (struct ints){one_before, one_before}; }

/* clang-format off */
#define SPOIL(name, ...)                                                                                               \
    static void name(union op_args *a) { __VA_ARGS__; }
SPOIL(gemm_inner, a->gemm.b.dim[1]++; a->gemm.b.ld++)
SPOIL(gemm_beta, a->gemm.beta = 0.5f)
SPOIL(gemm_half_pair, a->gemm.a2 = a->gemm.a)
SPOIL(gemm_rank, a->gemm.a.rank = 1)
SPOIL(gemm_dtype, a->gemm.a.dt = DT_I32)
SPOIL(gemm_no_data, a->gemm.b.data = NULL)
SPOIL(gemm_f64, a->gemm.a.dt = DT_F64)
SPOIL(embed_id, ((int32_t *)(uintptr_t)a->embed_fwd.ids)[3] = 11)
SPOIL(embed_negative_id, ((int32_t *)(uintptr_t)a->embed_bwd.ids)[0] = -1)
SPOIL(embed_count, a->embed_fwd.n++)
SPOIL(norm_width, a->rmsnorm_fwd.w.dim[0] = 36)
SPOIL(norm_mixed, a->rmsnorm_fwd.y.dt = DT_BF16)
SPOIL(norm_no_sum, a->rmsnorm_fwd.sum.data = NULL)
SPOIL(norm_rstd, a->rmsnorm_bwd.rstd.dt = DT_BF16)
SPOIL(rope_heads, a->rope.heads++)
SPOIL(rope_table, a->rope.cos.dim[0] = a->rope.sin.dim[0] = 4)
SPOIL(rope_wide, a->rope.head_dim = 7; a->rope.heads = 6)
SPOIL(rope_positions, a->rope.rows.position = NULL)
SPOIL(attn_groups, a->attn_fwd.kv_heads = 3)
SPOIL(attn_lse, a->attn_fwd.lse.dim[1] = 2; a->attn_fwd.lse.ld = 2)
SPOIL(attn_docs, a->attn_fwd.docs.start.host = NULL)
SPOIL(attn_tokens, a->attn_fwd.docs.n_tokens--)
SPOIL(attn_longest, a->attn_fwd.docs.longest = 9)
SPOIL(attn_no_cache, have_past(&a->attn_fwd.docs))
SPOIL(attn_cache_end, have_past(&a->attn_fwd.docs); a->attn_fwd.key_start = a->attn_fwd.docs.start; \
      a->attn_fwd.k.dim[0] = a->attn_fwd.v.dim[0] = 16)
SPOIL(attn_bwd_past, have_past(&a->attn_bwd.fwd.docs))
SPOIL(attn_bwd_dk, a->attn_bwd.dk.dim[0]--)
SPOIL(glu_up, a->glu_fwd.up.dim[0] = 64)
SPOIL(glu_ld, a->glu_bwd.dh.ld = 300)
SPOIL(loss_label, ((int32_t *)(uintptr_t)a->loss.labels)[2] = -100)
SPOIL(gather_row, ((int32_t *)(uintptr_t)a->gather_rows.rows)[1] = 41)
SPOIL(scatter_room, a->scatter_rows.n = 42)
SPOIL(scatter_dtype, a->scatter_rows.dst.dt = DT_BF16)
SPOIL(dropout_p, a->dropout.p = 1)
SPOIL(dropout_plan, a->dropout.plan.dim[0]--)
SPOIL(dropout_rows, a->dropout.rows.sample = NULL)
SPOIL(axpy_count, a->axpy.y.dim[1]--; a->axpy.y.ld--)
SPOIL(axpy_into_f16, a->axpy.y.dt = DT_F16)
SPOIL(colsum_out, a->colsum.out.dim[0] = 388)
SPOIL(row_dot_out, a->row_dot.out.dim[0] = 2)
SPOIL(rescale_rows, a->rescale_fwd.by_row = true)
SPOIL(rescale_bias, a->rescale_fwd.accumulate = true)
SPOIL(rescale_to, a->rescale_bwd.d_to.dt = DT_BF16)
SPOIL(sumsq_partials, a->sumsq_segs.partial.dim[0] = 5)
SPOIL(sumsq_cut, a->sumsq_segs.g.dim[0] = 3 * FLAT_PAGE + 300)
SPOIL(sumsq_order, ((struct seg *)(uintptr_t)a->sumsq_segs.segs.host)[2].at -= 256)
SPOIL(loss_sum_out, a->loss_sum.out.dt = DT_F32)
SPOIL(decide_plan, a->step_decide.plan.dim[0]--)
SPOIL(admit_scalars, a->step_admit.scalars.dim[0]++)
SPOIL(admit_number, a->step_admit.tensor = -1)
SPOIL(update_states, a->update.v.data = NULL)
SPOIL(update_length, a->update.g.dim[0]--)
SPOIL(update_flat, a->update.lo = -1)
SPOIL(update_table, a->update.segs.dev = NULL)
SPOIL(tree_mine, a->tree_sum.mine[0].dim[0] = 2)
SPOIL(tree_far, a->tree_sum.first = 2)
SPOIL(tree_merges, a->tree_sum.merges[0] = 1)
SPOIL(tree_out, a->tree_sum.out.dim[0] = 2)
SPOIL(nf4_codes, a->nf4_quantize.codes.dim[0]--)
SPOIL(nf4_nested, a->nf4_dequantize.nested.dim[0] = 2)
SPOIL(nf4_twice, a->nf4_dequantize.absmax = a->nf4_dequantize.nested)
SPOIL(nf4_once, a->nf4_dequantize.absmax = a->nf4_dequantize.nested; a->nf4_dequantize.absmax_q.data = NULL; \
      a->nf4_dequantize.nested.data = a->nf4_dequantize.offset.data = NULL)
SPOIL(nf4_quantised_once, a->nf4_quantize.absmax = a->nf4_quantize.nested)
SPOIL(init_dtype, a->init.w.dt = DT_U8)

static const struct refusal refusals[] = {
    {"gemm", gemm_inner, {"gemm: ", "b is [13, 6] f32", "a is [7, 5] f32"}},
    {"gemm", gemm_beta, {"beta is 0.5"}},
    {"gemm", gemm_half_pair, {"both a2 ([7, 5] f32) and b2"}},
    {"gemm", gemm_rank, {"a is [7] f32", "2 dimensions"}},
    {"gemm", gemm_dtype, {"a is [7, 5] i32", "f32 or bf16"}},
    {"gemm", gemm_no_data, {"b [13, 5] f32 is missing"}},
    {"gemm", gemm_f64, {"a is [7, 5] f64"}},
    {"embed_fwd", embed_id, {"embed_fwd: ids[3] is 11, outside [0, 11)"}},
    {"embed_bwd", embed_negative_id, {"embed_bwd: ids[0] is -1"}},
    {"embed_fwd", embed_count, {"y is [37, 67] f32", "n = 38"}},
    {"rmsnorm_fwd", norm_width, {"w is [36] f32", "x is [5, 37] f32"}},
    {"rmsnorm_fwd", norm_mixed, {"y is [5, 37] bf16", "x is [5, 37] f32", "dtypes must agree"}},
    {"rmsnorm_fwd", norm_no_sum, {"delta is [5, 37] f32 but sum"}},
    {"rmsnorm_bwd", norm_rstd, {"rstd is [5] bf16", "must be f32"}},
    {"rope", rope_heads, {"q is [29, 42] f32", "heads*head_dim = 56"}},
    {"rope", rope_table, {"cos is [4, 5] f32", "longest document"}},
    {"rope", rope_wide, {"cos is [23, 5] f32", "7 channels"}},
    {"rope", rope_positions, {"positions is missing (29 wanted)"}},
    {"attn_fwd", attn_docs, {"documents of the micro-batch are missing"}},
    {"attn_fwd", attn_tokens, {"hold 36 tokens"}},
    {"attn_fwd", attn_longest, {"none is to have more than 9", "document "}},
    {"attn_fwd", attn_groups, {"4 heads over 3 kv heads"}},
    {"attn_fwd", attn_lse, {"lse is [37, 2] f32", "heads = 4"}},
    {"attn_fwd", attn_no_cache, {"earlier batches", "key_start"}},
    {"attn_fwd", attn_cache_end, {"document 1 has 13 keys (1 of them past) from row 4 on", "k is [16, 32] f32"}},
    {"attn_bwd", attn_bwd_past, {"no backward pass"}},
    {"attn_bwd", attn_bwd_dk, {"dk is [36, 32] f32", "docs.n_tokens = 37"}},
    {"glu_fwd", glu_up, {"up is [64, 301] f32", "gate is [65, 301] f32"}},
    {"glu_bwd", glu_ld, {"dh is [65, 301] f32", "300 elements apart"}},
    {"loss", loss_label, {"labels[2] is -100, outside [0, 1009)"}},
    {"gather_rows", gather_row, {"rows[1] is 41"}},
    {"scatter_rows", scatter_room, {"42 rows"}},
    {"scatter_rows", scatter_dtype, {"src is [41, 515] f32", "dst is [97, 515] bf16"}},
    {"dropout", dropout_p, {"p is 1"}},
    {"dropout", dropout_plan, {"plan is [9] f64", "10 elements"}},
    {"dropout", dropout_rows, {"no positions or sample numbers"}},
    {"axpy", axpy_count, {"y is [37, 60] f32", "x is [37, 61] f32"}},
    {"axpy", axpy_into_f16, {"y is [37, 61] f16"}},
    {"colsum", colsum_out, {"out is [388] f32", "x is [131, 389] f32"}},
    {"row_dot", row_dot_out, {"out is [2] f32", "x is [131, 389] f32"}},
    {"rescale_fwd", rescale_rows, {"to is [61] f32", "[37, 61] f32", "37 elements"}},
    {"rescale_fwd", rescale_bias, {"bias is [61] f32"}},
    {"rescale_bwd", rescale_to, {"d_to is [389] bf16", "must be f32"}},
    {"sumsq_segs", sumsq_partials, {"partial is [5] f32", "segment 0", "8 to 10"}},
    {"sumsq_segs", sumsq_cut, {"elements 0 to 196908 cut a segment"}},
    {"sumsq_segs", sumsq_order, {"segment 2 has 1000 elements from 196608 on", "end at 196685"}},
    {"loss_sum", loss_sum_out, {"out is [1] f32", "must be f64"}},
    {"step_decide", decide_plan, {"plan is [9] f64", "10 elements"}},
    {"step_admit", admit_scalars, {"scalars is [13] f64", "12 elements"}},
    {"step_admit", admit_number, {"tensor is -1"}},
    {"update", update_states, {"optimizer states"}},
    {"update", update_length, {"g is [1030] f32", "w is [1031] f32"}},
    {"update", update_flat, {"lo is -1"}},
    {"update", update_table, {"table of segments is missing"}},
    {"tree_sum", tree_mine, {"mine[0] is [2] f32", "rows is [2, 1543] f32"}},
    {"tree_sum", tree_far, {"vectors 2 to 3 cannot be elsewhere"}},
    {"tree_sum", tree_merges, {"0 sums after 1 vectors"}},
    {"tree_sum", tree_out, {"out is [2] f32", "rows is [2, 1543] f32"}},
    {"nf4_quantize", nf4_codes, {"codes is [24739] u8", "24740 elements"}},
    {"nf4_dequantize", nf4_nested, {"nested is [2] f32", "3 elements"}},
    {"nf4_dequantize", nf4_twice, {"given twice", "absmax ([3] f32)"}},
    {"nf4_dequantize", nf4_once, {"absmax is [3] f32", "516 elements"}},
    {"nf4_quantize", nf4_quantised_once, {"absmax is [4] f32", "scales are quantised too"}},
    {"init", init_dtype, {"w is [20011] u8"}},
};
/* clang-format on */

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const struct refusal *r = &refusals[i];
        struct kit k;
        kit_build(&k, case_of(r->op), DT_F32, false, 0);
        r->spoil(&k.args);
        status st = k.which->run(s, &k.args);
        if (st != ST_SHAPE) fail_msg("%s, refusal %zu: status %d", r->op, i, st);
        for (int w = 0; w < 4 && r->words[w]; w++)
            if (!strstr(status_message(), r->words[w])) fail_msg("%s: \"%s\" lacks \"%s\"", r->op, status_message(), r->words[w]);
        kit_release(&k);
    }
}

/* A rank without a supervised token, or without a document, calls ops with nothing in them. */
static void test_nothing_to_do(void **state)
{
    (void)state;
    float w[8] = {0}, out[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    int32_t start[] = {0};
    struct step_plan plan = {0};
    struct docs none = {.start = {start, start}};
    tensor x = tensor_2d(NULL, DT_F32, 0, 8), flat = tensor_1d(NULL, DT_F32, 0), weight = tensor_2d(w, DT_F32, 1, 8);
    struct gemm_args gemm = {.a = x, .b = weight, .c = tensor_2d(NULL, DT_F32, 0, 1), .tb = true, .alpha = 1};
    struct embed_args embed = {weight, NULL, 0, x};
    struct rmsnorm_fwd_args norm = {.x = x, .w = tensor_1d(w, DT_F32, 8), .y = x, .rstd = flat};
    struct rope_args rope = {
        .q = x, .k = x, .cos = tensor_2d(w, DT_F32, 2, 4), .sin = tensor_2d(w, DT_F32, 2, 4), .heads = 1, .kv_heads = 1, .head_dim = 8};
    struct attn_fwd_args attn = {.q = x,
                                 .k = x,
                                 .v = x,
                                 .o = x,
                                 .lse = tensor_2d(NULL, DT_F32, 0, 1),
                                 .heads = 1,
                                 .kv_heads = 1,
                                 .head_dim = 8,
                                 .scale = 1,
                                 .docs = none};
    struct attn_bwd_args attn_bwd = {attn, x, x, x, x};
    struct glu_fwd_args glu = {x, x, x, ACT_SILU};
    struct loss_args loss = {x, NULL, flat, 0, false};
    struct rows_args rows = {weight, x, NULL, 0};
    struct dropout_args dropout = {.x = x, .y = x, .plan = tensor_1d(&plan, DT_F64, STEP_PLAN), .p = 0.5f};
    struct axpy_args axpy = {flat, flat, 1, true};
    struct colsum_args colsum = {x, tensor_1d(out, DT_F32, 8)};
    struct row_dot_args dot = {.x = x, .y = x, .out = flat};
    tensor lengths = tensor_1d(w, DT_F32, 8);
    struct rescale_fwd_args rescale = {.u = x, .y = x, .to = lengths, .from = lengths};
    struct rescale_bwd_args rescale_bwd = {.dy = x, .u = x, .du = x, .to = lengths, .from = lengths, .d_to = tensor_1d(out, DT_F32, 8)};
    struct sumsq_segs_args sumsq = {.g = flat, .partial = flat};
    assert_int_equal(op_gemm(s, &gemm), ST_OK);
    assert_int_equal(op_embed_fwd(s, &embed), ST_OK);
    assert_int_equal(op_embed_bwd(s, &embed), ST_OK);
    assert_int_equal(op_rmsnorm_fwd(s, &norm), ST_OK);
    assert_int_equal(op_rope(s, &rope), ST_OK);
    assert_int_equal(op_attn_fwd(s, &attn), ST_OK);
    assert_int_equal(op_attn_bwd(s, &attn_bwd), ST_OK);
    assert_int_equal(op_glu_fwd(s, &glu), ST_OK);
    assert_int_equal(op_loss(s, &loss), ST_OK);
    assert_int_equal(op_gather_rows(s, &rows), ST_OK);
    assert_int_equal(op_dropout(s, &dropout), ST_OK);
    assert_int_equal(op_axpy(s, &axpy), ST_OK);
    assert_int_equal(op_colsum(s, &colsum), ST_OK);
    assert_int_equal(op_row_dot(s, &dot), ST_OK);
    assert_int_equal(op_rescale_fwd(s, &rescale), ST_OK);
    assert_int_equal(op_rescale_bwd(s, &rescale_bwd), ST_OK);
    assert_int_equal(op_sumsq_segs(s, &sumsq), ST_OK);
    for (int i = 0; i < 8; i++) assert_true(out[i] == (float)(i + 1));
}

static void test_missing_slot(void **state)
{
    (void)state;
    struct backend hollow = backend_cpu;
    hollow.ops.rope = NULL;
    hollow.name = "hollow";
    struct stream h = {.be = &hollow, .threads = 1};
    struct kit k;
    kit_build(&k, case_of("rope"), DT_F32, false, 0);
    assert_int_equal(k.which->run(&h, &k.args), ST_NOT_BUILT);
    assert_string_equal(status_message(), "rope: the hollow backend has no such op");
    kit_release(&k);
}

/* ---- the paranoid backend, on backends with one bug each
 * -------------------------------------------------------------- */

static status lazy_glu(struct stream *st, const struct glu_fwd_args *g)
{
    struct glu_fwd_args part = *g;
    part.gate.dim[0]--, part.up.dim[0]--, part.h.dim[0]--;
    return backend_cpu.ops.glu_fwd(st, &part);
}

static status scribbling_glu(struct stream *st, const struct glu_fwd_args *g)
{
    TRY(backend_cpu.ops.glu_fwd(st, g));
    ((float *)g->up.data)[3] += 1;
    return ST_OK;
}

static status overrunning_glu(struct stream *st, const struct glu_fwd_args *g)
{
    TRY(backend_cpu.ops.glu_fwd(st, g));
    ((float *)g->h.data)[g->h.dim[1]] = 0;
    return ST_OK;
}

static void expect_caught(op_glu_fwd_fn *bug, bool alias, const char *words)
{
    struct backend buggy = backend_cpu;
    struct stream *p;
    struct kit k;
    if (bug) buggy.ops.glu_fwd = bug;
    assert_int_equal(kit_stream_open(paranoid_wrap(&buggy), 1, &p), ST_OK);
    kit_build(&k, case_of("glu_fwd"), DT_F32, false, 2);
    memset((float *)k.args.glu_fwd.h.data + k.args.glu_fwd.h.dim[1], 1, 8);
    if (alias) k.args.glu_fwd.h = k.args.glu_fwd.gate;
    status st = k.which->run(p, &k.args);
    if (words) {
        assert_int_equal(st, ST_FAIL);
        if (!strstr(status_message(), words)) fail_msg("\"%s\" lacks \"%s\"", status_message(), words);
    } else {
        assert_int_equal(st, ST_OK);
    }
    kit_release(&k);
    kit_stream_close(p);
}

static void test_paranoia(void **state)
{
    (void)state;
    expect_caught(NULL, false, NULL);
    expect_caught(lazy_glu, false, "glu_fwd left h[64, 0] unwritten");
    expect_caught(scribbling_glu, false, "glu_fwd changed its input up");
    expect_caught(overrunning_glu, false, "glu_fwd wrote between the rows of h");
    expect_caught(NULL, true, "glu_fwd: h overlaps gate");
}

static int open_stream(void **state)
{
    (void)state;
    return kit_stream_open(&backend_cpu, 1, &s);
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
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_nothing_to_do),
        cmocka_unit_test(test_missing_slot),
        cmocka_unit_test(test_paranoia),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
