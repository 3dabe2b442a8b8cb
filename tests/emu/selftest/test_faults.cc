/* test_faults.cc — what no GPU may do is told, with kernel, block, threads and source lines. */
#include "tests/emu/selftest/selftest.h"

#include <cstdlib>

static const std::string at(int line) { return std::string("test_faults.cc:") + std::to_string(line); }

#define LINE_BEFORE (__LINE__ - 1)

/* ---- rendezvous -------------------------------------------------------------------------------------------------------------- */

static __global__ void wrong_mask(void)
{
    if (threadIdx.x != 9) __syncwarp(0xfffffdffu);
    if (threadIdx.x == 9) __syncwarp(0xfffffdffu);
}
enum { WRONG_MASK = LINE_BEFORE - 1 };

TEST(a_mask_without_the_lane_that_calls)
{
    struct said s = said_by([] { return LAUNCH(wrong_mask, dim3(1, 2), 32, 0, NO_STREAM); });
    assert_fault(s, "emu: kernel wrong_mask, block (0,");
    assert_says(s, "__syncwarp: the mask fffffdff is without lane 9, which calls it");
    assert_says(s, "thread (9,0,0)");
    assert_says(s, at(WRONG_MASK).c_str());
}

static __global__ void different_primitives(unsigned *out)
{
    if (threadIdx.x < 20)
        out[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
    else
        out[threadIdx.x] = (unsigned)__any_sync(0xffffffffu, 1);
}
enum { ONE_PRIMITIVE = LINE_BEFORE - 3, OTHER_PRIMITIVE = LINE_BEFORE - 1 };

TEST(lanes_that_call_different_primitives)
{
    unsigned out[32];
    struct said s = said_by([&] { return LAUNCH(different_primitives, 1, 32, 0, NO_STREAM, out); });
    assert_fault(s, "threads of one rendezvous are at different places");
    assert_says(s, at(ONE_PRIMITIVE).c_str());
    assert_says(s, at(OTHER_PRIMITIVE).c_str());
    assert_says(s, "__ballot_sync: thread (");
    assert_says(s, "__any_sync: thread (");
}

static __global__ void divergent_barrier(void)
{
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __syncthreads();
}
enum { ONE_BARRIER = LINE_BEFORE - 3, OTHER_BARRIER = LINE_BEFORE - 1 };

TEST(a_barrier_in_divergent_code)
{
    struct said s = said_by([] { return LAUNCH(divergent_barrier, 1, 64, 0, NO_STREAM); });
    assert_fault(s, "threads of one rendezvous are at different places");
    assert_says(s, at(ONE_BARRIER).c_str());
    assert_says(s, at(OTHER_BARRIER).c_str());
}

static __global__ void deadlock(void)
{
    if (threadIdx.x == 35)
        __syncwarp();
    else
        __syncthreads();
}
enum { LONE_LANE = LINE_BEFORE - 3, THE_OTHERS = LINE_BEFORE - 1 };

TEST(a_block_in_which_every_thread_waits)
{
    struct said s = said_by([] { return LAUNCH(deadlock, 1, 64, 0, NO_STREAM); });
    assert_fault(s, "every thread waits");
    assert_says(s, "__syncthreads, with 63 of 64 threads");
    assert_says(s, "__syncwarp, warp 1, mask ffffffff, of which 00000008 came: first (35,0,0)");
    assert_says(s, at(LONE_LANE).c_str());
    assert_says(s, at(THE_OTHERS).c_str());
}

/* All but one have exited, and that one waits for a warp that is still there. */
static __global__ void left_alone(void)
{
    if (threadIdx.x == 1) __syncwarp(0x3);
    if (threadIdx.x == 0) __syncthreads();
}

TEST(a_deadlock_behind_exited_threads)
{
    struct said s = said_by([] { return LAUNCH(left_alone, 1, 96, 0, NO_STREAM); });
    assert_fault(s, "every thread waits");
    assert_says(s, "__syncthreads, with 1 of 2 threads");
}

/* A barrier is complete as soon as those that did not come have exited. */
static __global__ void early_exit(int *out)
{
    if (threadIdx.x % 3 == 0) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

TEST(exited_threads_do_not_hold_a_barrier)
{
    int out[96] = {};
    assert_ok(LAUNCH(early_exit, 1, 96, 0, NO_STREAM, out));
    for (int i = 0; i < 96; i++) assert_int_equal(out[i], i % 3 != 0);
}

/* ---- single threads ---------------------------------------------------------------------------------------------------------- */

static __global__ void crooked(const float4 *x, float4 *y) { y[threadIdx.x] = __ldg(x); }
enum { CROOKED = LINE_BEFORE };

TEST(a_vector_that_is_not_aligned)
{
    alignas(16) float x[8] = {};
    float4 y[1];
    struct said s = said_by([&] { return LAUNCH(crooked, 1, 1, 0, NO_STREAM, (const float4 *)(const void *)(x + 1), y); });
    assert_fault(s, "a vector of 16 bytes at");
    assert_says(s, at(CROOKED).c_str());
}

static __global__ void trap(void)
{
    if (threadIdx.x == 3) __trap();
}

TEST(a_trap_ends_the_grid_and_the_next_one_runs)
{
    int out[96] = {};
    for (int i = 0; i < 3; i++) {
        struct said s = said_by([] { return LAUNCH(trap, 100, 64, 0, NO_STREAM); });
        assert_fault(s, "__trap");
        assert_says(s, "thread (3,0,0)");
        assert_ok(LAUNCH(early_exit, 1, 96, 0, NO_STREAM, out));
    }
}

static __global__ void who_is_active(unsigned *out) { *out = __activemask(); }

TEST(active_masks_are_refused)
{
    unsigned out;
    struct said s = said_by([&] { return LAUNCH(who_is_active, 1, 32, 0, NO_STREAM, &out); });
    assert_fault(s, "__activemask");
}

/* ---- launches ---------------------------------------------------------------------------------------------------------------- */

static __global__ void nothing(void) {}

TEST(launches_that_no_device_takes)
{
    struct {
        dim3 grid, block;
        size_t shared;
        bool fits;
    } cases[] = {
        {1, 1, 0, true},
        {1, 1024, 227 << 10, true},
        {1, dim3(8, 8, 16), 0, true},
        {0, 32, 0, false},
        {1, 0, 0, false},
        {1, 1025, 0, false},
        {1, dim3(32, 33), 0, false},
        {1, dim3(1, 1, 65), 0, false},
        {dim3(1, 65536), 32, 0, false},
        {dim3(1, 1, 65536), 32, 0, false},
        {dim3(0x80000000u), 32, 0, false},
        {1, 32, (227 << 10) + 1, false},
    };
    for (auto &c : cases) {
        struct said s = said_by([&] { return LAUNCH(nothing, c.grid, c.block, c.shared, NO_STREAM); });
        assert_int_equal(s.code, c.fits ? cudaSuccess : cudaErrorInvalidConfiguration);
        assert_true(c.fits == s.text.empty());
    }
}

/* ---- races ------------------------------------------------------------------------------------------------------------------- */

template <bool BARRIER> static __global__ void turn_around(const int *x, int *y)
{
    __shared__ int s[64];
    s[threadIdx.x] = x[threadIdx.x];
    if (BARRIER) __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}

/* Of the next value, before all have read the last one. */
template <bool BARRIER> static __global__ void read_and_overwrite(int *y)
{
    __shared__ int s[64];
    int x = threadIdx.x;
    for (int i = 0; i < 3; i++) {
        s[threadIdx.x] = x;
        __syncthreads();
        x = s[(threadIdx.x + 1) % 64] + 1;
        if (BARRIER) __syncthreads();
    }
    y[threadIdx.x] = x;
}

/* One launch of one block is enough: 64 threads in random order leave a missing barrier no chance. */
TEST(a_missing_barrier_is_seen)
{
    int x[64], y[64], good;
    for (int i = 0; i < 64; i++) x[i] = i;
    for (int k = 0; k < 10; k++) {
        assert_ok(LAUNCH(turn_around<true>, 1, 64, 0, NO_STREAM, x, y));
        for (int i = 0; i < 64; i++) assert_int_equal(y[i], 63 - i);
        assert_ok(LAUNCH(read_and_overwrite<true>, 1, 64, 0, NO_STREAM, y));
        for (int i = 0; i < 64; i++) assert_int_equal(y[i], (i + 3) % 64 + 3);

        assert_ok(LAUNCH(turn_around<false>, 1, 64, 0, NO_STREAM, x, y));
        good = 0;
        for (int i = 0; i < 64; i++) good += y[i] == 63 - i;
        assert_int_not_equal(good, 64);
        assert_ok(LAUNCH(read_and_overwrite<false>, 1, 64, 0, NO_STREAM, y));
        good = 0;
        for (int i = 0; i < 64; i++) good += y[i] == (i + 3) % 64 + 3;
        assert_int_not_equal(good, 64);
    }
}

/* ---- sanitizers -------------------------------------------------------------------------------------------------------------- */

static __global__ void write_past_the_end(float *x, int n)
{
    __syncthreads();
    if ((int)threadIdx.x <= n) x[threadIdx.x] = 1.0f;
}
enum { PAST_THE_END = LINE_BEFORE - 1 };

void have_accident(void)
{
    float *x = (float *)malloc(40 * sizeof(float));
    (void)!LAUNCH(write_past_the_end, 2, 64, 0, NO_STREAM, x, 40);
    free(x);
}

TEST(address_sanitizer_sees_device_code)
{
#ifndef __SANITIZE_ADDRESS__
    skip();
#else
    std::string command = std::string(getenv("EMU_SELFTEST")) + " accident 2>&1", text;
    FILE *f = popen(command.c_str(), "r");
    assert_non_null(f);
    for (int c; (c = fgetc(f)) != EOF;) text += (char)c;
    assert_int_not_equal(pclose(f), 0);
    assert_non_null(strstr(text.c_str(), "heap-buffer-overflow"));
    assert_non_null(strstr(text.c_str(), at(PAST_THE_END).c_str()));
#endif
}
