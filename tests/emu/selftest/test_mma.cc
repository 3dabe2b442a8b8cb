/* test_mma.cc — asynchronous copies, fragments and their products, against plain loops. */
#include "tests/emu/selftest/selftest.h"

typedef __nv_bfloat16 half_float;

/* C [16, 8] += A [16, 16]·B [16, 8], all through shared memory, as attention does it. */
static __global__ void product(const half_float *a, const half_float *b, float *c)
{
    __shared__ __align__(16) half_float sa[16][24], sb[16][8];
    int lane = threadIdx.x, g = lane / 4, t = lane % 4 * 2;
    emu_cp_async(&sa[lane % 16][lane / 16 * 8], a + lane % 16 * 16 + lane / 16 * 8, 16);
    emu_cp_async(&sb[lane % 16][0], b + lane % 16 * 8, 16);
    emu_cp_async_commit();
    emu_cp_async_wait(0);
    __syncwarp();
    unsigned ra[4], rb[4];
    float rc[4];
    for (int i = 0; i < 4; i++) rc[i] = c[(g + i / 2 * 8) * 8 + t + i % 2];
    emu_ldmatrix(ra, &sa[lane % 16][lane / 16 * 8], false);
    emu_ldmatrix(rb, &sb[lane % 16][0], true);
    emu_mma(rc, ra, rb[0], rb[1]);
    for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + t + i % 2] = rc[i];
}

TEST(mma_is_the_plain_product)
{
    half_float a[16 * 16], b[16 * 8];
    float c[16 * 8], wanted[16 * 8];
    for (int i = 0; i < 16 * 16; i++) a[i] = __float2bfloat16((float)(i * 37 % 101 - 50) / 16.0f);
    for (int i = 0; i < 16 * 8; i++) b[i] = __float2bfloat16((float)(i * 53 % 97 - 48) / 8.0f);
    for (int i = 0; i < 16 * 8; i++) c[i] = wanted[i] = (float)(i % 7);
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++)
            for (int k = 0; k < 16; k++)
                wanted[row * 8 + column] += __bfloat162float(a[row * 16 + k]) * __bfloat162float(b[k * 8 + column]);
    assert_ok(LAUNCH(product, 1, 32, 0, NO_STREAM, a, b, c));
    for (int i = 0; i < 16 * 8; i++) assert_true(c[i] == wanted[i]);
}

/* Every element of four matrices, where the ISA's picture says it goes. */
static __global__ void load_matrices(const uint16_t *x, unsigned *out, bool transposed)
{
    __shared__ __align__(16) uint16_t s[4][8][8];
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) s[i / 64][i / 8 % 8][i % 8] = x[i];
    __syncwarp();
    unsigned r[4];
    emu_ldmatrix(r, s[lane / 8][lane % 8], transposed);
    for (int i = 0; i < 4; i++) out[i * 32 + lane] = r[i];
}

TEST(ldmatrix_puts_elements_where_the_isa_says)
{
    uint16_t x[256];
    unsigned out[128];
    for (int i = 0; i < 256; i++) x[i] = (uint16_t)i;
    for (int transposed = 0; transposed < 2; transposed++) {
        assert_ok(LAUNCH(load_matrices, 1, 32, 0, NO_STREAM, x, out, transposed != 0));
        for (int m = 0; m < 4; m++)
            for (int row = 0; row < 8; row++)
                for (int column = 0; column < 8; column++) {
                    int lane = transposed ? column * 4 + row / 2 : row * 4 + column / 2, upper = transposed ? row % 2 : column % 2;
                    assert_int_equal(out[m * 32 + lane] >> 16 * upper & 0xffff, m * 64 + row * 8 + column);
                }
    }
}

/* ---- copies that nobody waited for ------------------------------------------------------------------------------------------- */

enum copying { WELL, WITHOUT_WAIT, WITHOUT_COMMIT, ONE_TOO_FEW };

/* Two groups of a copy each; `how` says which mistake. */
static __global__ void copy_through(const int4 *x, int4 *y, int how, int bytes)
{
    __shared__ int4 s[2][32];
    int i = threadIdx.x;
    for (int group = 0; group < 2; group++) {
        emu_cp_async(&s[group][i], x + group * 32 + i, bytes);
        if (how != WITHOUT_COMMIT) emu_cp_async_commit();
    }
    if (how != WITHOUT_WAIT) emu_cp_async_wait(how == ONE_TOO_FEW);
    __syncthreads();
    for (int group = 0; group < 2; group++) y[group * 32 + i] = s[group][31 - i];
}

static int wrong_after(const std::vector<int4> &x, int how)
{
    std::vector<int4> y(64);
    int wrong = 0;
    assert_ok(LAUNCH(copy_through, 1, 32, 0, NO_STREAM, x.data(), y.data(), how, 16));
    for (int i = 0; i < 64; i++) wrong += y[(size_t)i].z != x[(size_t)(i / 32 * 32 + 31 - i % 32)].z;
    return wrong;
}

TEST(copies_arrive_when_they_are_waited_for)
{
    std::vector<int4> x(64);
    for (int i = 0; i < 64; i++) x[(size_t)i] = make_int4(i, i + 1, i + 2, i + 3);
    assert_int_equal(wrong_after(x, WELL), 0);
    assert_int_not_equal(wrong_after(x, WITHOUT_WAIT), 0);
    assert_int_not_equal(wrong_after(x, WITHOUT_COMMIT), 0);
    assert_in_range(wrong_after(x, ONE_TOO_FEW), 1, 32); /* of the last group */
}

TEST(a_short_copy_is_filled_with_zeros)
{
    std::vector<int4> x(64, make_int4(1, 2, 3, 4)), y(64);
    assert_ok(LAUNCH(copy_through, 1, 32, 0, NO_STREAM, x.data(), y.data(), WELL, 4));
    for (const int4 &v : y) assert_true(v.x == 1 && v.y == 0 && v.z == 0 && v.w == 0);
}

static __global__ void crooked_copy(const char *x)
{
    __shared__ __align__(16) char s[32];
    emu_cp_async(s, x + 4, 16);
}

static __global__ void part_of_a_warp(void)
{
    unsigned a[4] = {};
    float c[4] = {};
    if (threadIdx.x != 4) emu_mma(c, a, 0, 0);
}

TEST(faults_of_copies_and_products)
{
    alignas(16) char x[32] = {};
    struct said s = said_by([&] { return LAUNCH(crooked_copy, 1, 1, 0, NO_STREAM, x); });
    assert_fault(s, "not aligned");
    s = said_by([] { return LAUNCH(part_of_a_warp, 1, 32, 0, NO_STREAM); });
    assert_fault(s, "mma.m16n8k16: ");
    s = said_by([] { return LAUNCH(part_of_a_warp, 1, 31, 0, NO_STREAM); });
    assert_fault(s, "of the warp only lanes 7fffffff are left");
}
