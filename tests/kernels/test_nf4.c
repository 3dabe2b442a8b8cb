/* NF4 with double quantisation against bitsandbytes, and the code books against their recipes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/quant_maps.h"
#include "tests/ref/kit.h"

enum { N = 64 * 260 + 10, CODES = (N + 1) / 2, BLOCKS = (N + 63) / 64, NESTED = (BLOCKS + 255) / 256 };

static struct stream *s;

static void test_maps(void **state)
{
    (void)state;
    assert_int_equal(kit_crc32(nf4_map, sizeof nf4_map), 0xc471f81a);
    assert_int_equal(kit_crc32(dynamic_map_signed, sizeof dynamic_map_signed), 0x1b137aeb);
    for (int i = 0; i < 15; i++) assert_true(nf4_threshold[i] == (float)(((double)nf4_map[i] + (double)nf4_map[i + 1]) / 2));
    assert_true(dynamic_map_signed[127] == 0 && dynamic_map_signed[255] == 1);
    for (int i = 0; i < 7; i++) { /* the dynamic map's recipe */
        int m = 1 << i;
        float h = (1 - 0.1f) / (float)m, edge[65];
        for (int k = 0; k <= m; k++) edge[k] = 2 * k < m + 1 ? fmaf(h, (float)k, 0.1f) : fmaf(-h, (float)(m - k), 1.0f);
        for (int k = 0; k < m; k++) {
            float value = (float)pow(10, i - 6) * ((edge[k] + edge[k + 1]) / 2);
            assert_true(dynamic_map_signed[127 + m + k] == value && dynamic_map_signed[127 - m - k] == -value);
        }
    }
}

static struct golden {
    uint8_t codes[CODES], absmax_q[BLOCKS];
    float nested[NESTED], offset;
    uint32_t crc_f32, crc_bf16;
} golden;

static struct nf4_args packed(void *w, dtype dt, struct golden *g)
{
    return (struct nf4_args){tensor_1d(w, dt, N), tensor_1d(g->codes, DT_U8, CODES), tensor_1d(g->absmax_q, DT_U8, BLOCKS),
                             tensor_1d(g->nested, DT_F32, NESTED), tensor_1d(&g->offset, DT_F32, 1)};
}

static void read_golden(void)
{
    FILE *f = fopen(TRIMPOT_SOURCE_DIR "/tests/kernels/golden/nf4.bin", "rb");
    assert_non_null(f);
    size_t got = fread(golden.codes, 1, CODES, f) + fread(golden.absmax_q, 1, BLOCKS, f) + fread(golden.nested, 1, 4 * NESTED, f) +
                 fread(&golden.offset, 1, 4, f) + fread(&golden.crc_f32, 1, 4, f) + fread(&golden.crc_bf16, 1, 4, f);
    fclose(f);
    assert_int_equal(got, CODES + BLOCKS + 4 * NESTED + 12);
}

/* As in make_golden.py. */
static void weights(float *w)
{
    uint32_t x = 11;
    for (int i = 0; i < N; i++) {
        int sum = 0;
        for (int j = 0; j < 4; j++) {
            x = x * 1664525u + 1013904223u;
            sum += (int)(x >> 16);
        }
        w[i] = (float)(sum - 131070) / 1048576;
    }
}

static void test_decode_is_bit_exact(void **state)
{
    (void)state;
    static float wide[N];
    static bf16 half[N];
    struct nf4_args q = packed(wide, DT_F32, &golden);
    assert_int_equal(op_nf4_dequantize(s, &q), ST_OK);
    assert_int_equal(kit_crc32(wide, sizeof wide), golden.crc_f32);
    q = packed(half, DT_BF16, &golden);
    assert_int_equal(op_nf4_dequantize(s, &q), ST_OK);
    assert_int_equal(kit_crc32(half, sizeof half), golden.crc_bf16);
}

static void test_encode_gives_their_codes(void **state)
{
    (void)state;
    static float w[N];
    static struct golden ours;
    weights(w);
    struct nf4_args q = packed(w, DT_F32, &ours);
    assert_int_equal(op_nf4_quantize(s, &q), ST_OK);
    assert_memory_equal(ours.codes, golden.codes, CODES);
    assert_true(fabsf(ours.offset - golden.offset) <=
                2 * (float)ulp_of(DT_F32, (double)golden.offset)); /* their mean's order is their own */
    for (int i = 0; i < NESTED; i++)
        assert_true(fabsf(ours.nested[i] - golden.nested[i]) <= 4 * (float)ulp_of(DT_F32, (double)golden.offset));
    int differ = 0;
    for (int b = 0; b < BLOCKS; b++) differ += ours.absmax_q[b] != golden.absmax_q[b];
    if (differ) fail_msg("%d of %d absmax codes differ", differ, BLOCKS);
}

/* From the bitsandbytes tests: mean |error| 0.0729 on N(0, 1) at block 64 with double quantisation. */
static void test_expected_error(void **state)
{
    (void)state;
    enum { BIG = 1 << 20 };
    float *w = malloc(BIG * sizeof *w), *back = malloc(BIG * sizeof *back);
    uint8_t *codes = malloc(BIG / 2), *absmax = malloc(BIG / 64);
    float nested[BIG / 64 / 256], offset;
    struct init_args init = {tensor_1d(w, DT_F32, BIG), 1, true, 77, 0};
    assert_int_equal(op_init(s, &init), ST_OK);
    struct nf4_args q = {tensor_1d(w, DT_F32, BIG), tensor_1d(codes, DT_U8, BIG / 2), tensor_1d(absmax, DT_U8, BIG / 64),
                         tensor_1d(nested, DT_F32, BIG / 64 / 256), tensor_1d(&offset, DT_F32, 1)};
    assert_int_equal(op_nf4_quantize(s, &q), ST_OK);
    q.w.data = back;
    assert_int_equal(op_nf4_dequantize(s, &q), ST_OK);
    double error = 0;
    for (int i = 0; i < BIG; i++) error += fabs((double)w[i] - (double)back[i]) / BIG;
    if (!(error > 0.0725 && error < 0.0733)) fail_msg("mean error %.5f", error);
    free(w), free(back), free(codes), free(absmax);
}

/* Zero blocks, a lone odd element, and blocks whose absmax all agree (nested scale 0). */
static void test_corners(void **state)
{
    (void)state;
    float w[129] = {0}, back[129], nested, offset;
    uint8_t codes[65], absmax[3];
    w[64] = -2, w[100] = 1, w[128] = 0.5f;
    struct nf4_args q = {tensor_1d(w, DT_F32, 129), tensor_1d(codes, DT_U8, 65), tensor_1d(absmax, DT_U8, 3), tensor_1d(&nested, DT_F32, 1),
                         tensor_1d(&offset, DT_F32, 1)};
    assert_int_equal(op_nf4_quantize(s, &q), ST_OK);
    for (int i = 0; i < 32; i++) assert_int_equal(codes[i], 0x77);
    assert_int_equal(codes[64], 0xf7); /* the missing element is a zero */
    q.w.data = back;
    assert_int_equal(op_nf4_dequantize(s, &q), ST_OK);
    for (int i = 0; i < 64; i++) assert_true(back[i] == 0);
    assert_true(fabsf(back[64] + 2) < 0.02f && fabsf(back[128] - 0.5f) < 0.02f && back[65] == 0);

    for (int i = 0; i < 129; i++) w[i] = i % 2 ? 0.25f : -0.25f;
    q.w.data = w;
    assert_int_equal(op_nf4_quantize(s, &q), ST_OK);
    assert_true(offset == 0.25f && nested == 0);
    q.w.data = back;
    assert_int_equal(op_nf4_dequantize(s, &q), ST_OK);
    assert_memory_equal(back, w, sizeof w);
}

static int open_stream(void **state)
{
    (void)state;
    read_golden();
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
        cmocka_unit_test(test_maps),
        cmocka_unit_test(test_decode_is_bit_exact),
        cmocka_unit_test(test_encode_gives_their_codes),
        cmocka_unit_test(test_expected_error),
        cmocka_unit_test(test_corners),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
