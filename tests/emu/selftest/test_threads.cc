/* test_threads.cc — what threads are told, share and exchange. */
#include "tests/emu/selftest/selftest.h"

/* ---- places ------------------------------------------------------------------------------------------------------------------ */

static __global__ void number(unsigned *out)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    atomicAdd(&out[block * blockDim.x * blockDim.y * blockDim.z + thread], 1u);
}

TEST(every_thread_of_every_block_runs_once)
{
    std::vector<unsigned> out(2 * 3 * 5 * 4 * 7 * 2);
    assert_ok(LAUNCH(number, dim3(2, 3, 5), dim3(4, 7, 2), 0, NO_STREAM, out.data()));
    for (unsigned n : out) assert_int_equal(n, 1);
}

/* Arguments are those of the launch, converted to what the kernel takes. */
template <class T, int N> static __global__ void fill(T *out, int64_t n, float value)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = (T)(value * N);
}

TEST(arguments_are_converted)
{
    std::vector<double> out(70);
    assert_ok(LAUNCH((fill<double, 2>), 3, 32, 0, NO_STREAM, out.data(), 70, 1.25));
    for (double x : out) assert_true(x == 2.5);
}

/* ---- sums -------------------------------------------------------------------------------------------------------------------- */

static __device__ float warp_sum(float x)
{
    for (int by = 16; by; by /= 2) x += __shfl_xor_sync(0xffffffffu, x, by);
    return x;
}

static __global__ void rmsnorm(const float *x, float *y, int cols)
{
    __shared__ float scratch[32];
    const float *row = x + (size_t)blockIdx.x * cols;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x) sum += row[c] * row[c];
    sum = warp_sum(sum);
    if (lane == 0) scratch[warp] = sum;
    __syncthreads();
    sum = warp_sum(lane < (int)blockDim.x / 32 ? scratch[lane] : 0.0f);
    float scale = 1.0f / sqrtf(sum / (float)cols + 1e-6f);
    for (int c = threadIdx.x; c < cols; c += blockDim.x) y[(size_t)blockIdx.x * cols + c] = row[c] * scale;
}

static float tree(const float *x, int n) { return n == 1 ? x[0] : tree(x, n / 2) + tree(x + n / 2, n / 2); }

/* The same sum, serially: halves of halves of lanes commute pairwise, so the butterfly's bits are a tree's over lanes in bit order. */
static float by_lanes(const float *x)
{
    float turned[32];
    for (int i = 0; i < 32; i++) turned[(i & 1) << 4 | (i & 2) << 2 | (i & 4) | (i & 8) >> 2 | i >> 4] = x[i];
    return tree(turned, 32);
}

TEST(a_block_reduction_is_the_serial_sum_bit_for_bit)
{
    enum { ROWS = 37, COLS = 300, THREADS = 128 };
    std::vector<float> x(ROWS * COLS), y(ROWS * COLS), wanted(ROWS * COLS);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f;
    for (int r = 0; r < ROWS; r++) {
        float sums[THREADS] = {}, warps[32] = {};
        for (int c = 0; c < COLS; c++) sums[c % THREADS] += x[r * COLS + c] * x[r * COLS + c];
        for (int w = 0; w < THREADS / 32; w++) warps[w] = by_lanes(sums + 32 * w);
        float scale = 1.0f / sqrtf(by_lanes(warps) / (float)COLS + 1e-6f);
        for (int c = 0; c < COLS; c++) wanted[r * COLS + c] = x[r * COLS + c] * scale;
    }
    for (int order = 0; order < 5; order++) { /* every launch draws another one */
        assert_ok(LAUNCH(rmsnorm, ROWS, THREADS, 0, NO_STREAM, x.data(), y.data(), COLS));
        assert_memory_equal(y.data(), wanted.data(), y.size() * sizeof(float));
    }
}

/* ---- shuffles and votes ------------------------------------------------------------------------------------------------------ */

template <class T> static __global__ void shuffle(T *out, int kind, int by, int width)
{
    int lane = threadIdx.x;
    T x = (T)(lane + 100);
    if (kind == 0) x = __shfl_sync(0xffffffffu, x, by, width);
    if (kind == 1) x = __shfl_up_sync(0xffffffffu, x, by, width);
    if (kind == 2) x = __shfl_down_sync(0xffffffffu, x, by, width);
    if (kind == 3) x = __shfl_xor_sync(0xffffffffu, x, by, width);
    out[lane] = x;
}

/* As the programming guide words it: sections of `width` lanes, a lane outside of them leaves the value as it is. */
static int shuffled_from(int kind, int lane, int by, int width)
{
    int section = lane / width * width, in = lane % width;
    if (kind == 0) return section + by % width;
    if (kind == 1) return in - by < 0 ? lane : lane - by;
    if (kind == 2) return in + by >= width ? lane : lane + by;
    return (lane ^ by) >= section + width ? lane : lane ^ by;
}

template <class T> static void check_shuffles(void)
{
    T out[32];
    for (int kind = 0; kind < 4; kind++)
        for (int width = 2; width <= 32; width *= 2)
            for (int by = 0; by < 32; by++) {
                assert_ok(LAUNCH(shuffle<T>, 1, 32, 0, NO_STREAM, out, kind, by, width));
                for (int lane = 0; lane < 32; lane++) assert_true(out[lane] == (T)(shuffled_from(kind, lane, by, width) + 100));
            }
}

TEST(shuffles_of_four_bytes) { check_shuffles<float>(); }
TEST(shuffles_of_eight_bytes) { check_shuffles<double>(); }

static __global__ void votes(unsigned *out)
{
    int lane = threadIdx.x;
    out[lane] = __ballot_sync(0xffffffffu, lane % 3 == 0);
    out[32 + lane] = (unsigned)(__any_sync(0xffffffffu, lane == 7) * 100 + __any_sync(0xffffffffu, 0) * 10 +
                                __all_sync(0xffffffffu, lane < 32) + __all_sync(0xffffffffu, lane != 5) * 1000);
    unsigned mine = lane < 12 ? 0x00000fffu : 0xfffff000u; /* two parts of the warp, beside each other */
    out[64 + lane] = __ballot_sync(mine, lane % 2);
}

TEST(votes_of_warps_and_of_parts)
{
    unsigned out[96];
    assert_ok(LAUNCH(votes, 1, 32, 0, NO_STREAM, out));
    for (int lane = 0; lane < 32; lane++) {
        assert_int_equal(out[lane], 0x49249249u);
        assert_int_equal(out[32 + lane], 101);
        assert_int_equal(out[64 + lane], lane < 12 ? 0xaaau : 0xaaaaa000u);
    }
}

/* A lane that has exited is not waited for, and what is read from it is poison. */
static __global__ void half_a_warp(float *out)
{
    int lane = threadIdx.x;
    if (lane >= 16) return;
    out[lane] = __shfl_down_sync(0xffffffffu, (float)lane, 1);
    __syncthreads();
    out[16 + lane] = __shfl_xor_sync(0xffffffffu, (float)lane, 1);
}

TEST(exited_lanes_are_not_waited_for)
{
    float out[32];
    assert_ok(LAUNCH(half_a_warp, 1, 32, 0, NO_STREAM, out));
    for (int lane = 0; lane < 15; lane++) assert_true(out[lane] == (float)(lane + 1));
    assert_true(std::isnan(out[15]));
    for (int lane = 0; lane < 16; lane++) assert_true(out[16 + lane] == (float)(lane ^ 1));
}

static __global__ void counted_barriers(int *out)
{
    int i = threadIdx.x;
    int count = __syncthreads_count(i % 5 == 0), any = __syncthreads_or(i == 77), none = __syncthreads_or(0);
    int all = __syncthreads_and(i >= 0), not_all = __syncthreads_and(i != 3);
    out[i] = count * 16 + any * 8 + none * 4 + all * 2 + not_all;
}

TEST(barriers_that_count)
{
    int out[100];
    assert_ok(LAUNCH(counted_barriers, 1, 100, 0, NO_STREAM, out));
    for (int x : out) assert_int_equal(x, 20 * 16 + 8 + 2);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static __global__ void shared_is_fresh(unsigned *wrong)
{
    __shared__ unsigned fixed[50];
    DYNAMIC_SHARED(unsigned, sized);
    for (int i = threadIdx.x; i < 50; i += blockDim.x)
        if (fixed[i] != 0xffffffffu || sized[i] != 0xffffffffu) atomicAdd(wrong, 1u);
    __syncthreads();
    for (int i = threadIdx.x; i < 50; i += blockDim.x) fixed[i] = sized[i] = i;
}

static thread_local int kept_by_the_host = 4711;

TEST(shared_memory_is_poisoned_for_each_block)
{
    unsigned wrong = 0;
    assert_ok(LAUNCH(shared_is_fresh, 200, 32, 50 * sizeof(unsigned), NO_STREAM, &wrong));
    assert_int_equal(wrong, 0);
    assert_int_equal(kept_by_the_host, 4711);
}

static __global__ void atomics(int *sum, unsigned *largest, unsigned long long *wide, int *smallest, unsigned *once, unsigned *bits)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(sum, i % 7 - 3);
    atomicMax(largest, (unsigned)(i * 7919 % 10007));
    atomicMin(smallest, -i);
    atomicAdd(wide, 1ull << 33);
    if (atomicCAS(once, 0u, 1u) == 0) atomicAdd(once, 10u);
    atomicOr(bits, 1u << i % 32);
    atomicAnd(bits, ~0u);
    atomicXor(bits, 0u);
}

TEST(atomics_of_many_blocks)
{
    int sum = 0, smallest = 0, wanted = 0;
    unsigned largest = 0, once = 0, bits = 0, most = 0;
    unsigned long long wide = 0;
    assert_ok(LAUNCH(atomics, 64, 256, 0, NO_STREAM, &sum, &largest, &wide, &smallest, &once, &bits));
    for (int i = 0; i < 64 * 256; i++) {
        wanted += i % 7 - 3;
        unsigned x = (unsigned)(i * 7919 % 10007);
        most = x > most ? x : most;
    }
    assert_int_equal(sum, wanted);
    assert_int_equal(largest, most);
    assert_int_equal(smallest, -(64 * 256 - 1));
    assert_true(wide == 64ull * 256 << 33);
    assert_int_equal(once, 11);
    assert_int_equal(bits, ~0u);
}

/* ---- orders ------------------------------------------------------------------------------------------------------------------ */

static __global__ void take_numbers(int *next, int *thread_order, int *block_order, int *next_block)
{
    if (blockIdx.x == 0) thread_order[atomicAdd(next, 1)] = threadIdx.x;
    __syncthreads();
    if (threadIdx.x == 0) block_order[atomicAdd(next_block, 1)] = blockIdx.x;
}

TEST(orders_are_drawn_anew)
{
    int threads[2][64], blocks[2][64];
    for (int i = 0; i < 2; i++) {
        int next = 0, next_block = 0;
        assert_ok(LAUNCH(take_numbers, 64, 64, 0, NO_STREAM, &next, threads[i], blocks[i], &next_block));
    }
    assert_memory_not_equal(threads[0], threads[1], sizeof threads[0]);
    assert_memory_not_equal(blocks[0], blocks[1], sizeof blocks[0]);
}

/* ---- small functions --------------------------------------------------------------------------------------------------------- */

TEST(bits_and_bytes)
{
    assert_int_equal(__byte_perm(0x33221100u, 0x77665544u, 0x7531u), 0x77553311u);
    assert_int_equal(__byte_perm(0x80u, 0, 0x0008u), 0x808080ffu);
    assert_int_equal(__funnelshift_l(0x80000001u, 0x00000010u, 4), 0x00000108u);
    assert_int_equal(__funnelshift_r(0x80000001u, 0x00000010u, 4), 0x08000000u);
    assert_int_equal(__brev(0x00000013u), 0xc8000000u);
    assert_int_equal(__clz(0), 32);
    assert_int_equal(__clz(1), 31);
    assert_int_equal(__ffs(0x50), 5);
    assert_int_equal(__umulhi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
    assert_int_equal(__float_as_uint(-0.0f), 0x80000000u);
    assert_int_equal(max(3, 5l), 5);
    assert_int_equal(min(-3, 5), -3);
}
