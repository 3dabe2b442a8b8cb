/* test_races.cc — the detector of races: what is one, with its lines, and what is none; compiled as the kernels are that it watches. */
#include "tests/emu/selftest/test_threads.cc" /* none of which has a race */

static std::string at(int line) { return std::string("test_races.cc:") + std::to_string(line); }

#define LINE_BEFORE (__LINE__ - 1)

static struct said raced(const std::function<cudaError_t()> &launch)
{
    struct said s = said_by(launch);
    assert_fault(s, "a race on ");
    return s;
}

/* One value, written by one thread and read by all: right in any order if it was there before. */
template <bool BARRIER> static __global__ void tell_all(int *out, int value)
{
    __shared__ int told;
    if (threadIdx.x == 0) told = value;
    if (BARRIER) __syncthreads();
    out[threadIdx.x] = told;
}
enum { TOLD = LINE_BEFORE - 3, READ = LINE_BEFORE - 1 };

TEST(a_read_that_no_barrier_orders)
{
    int out[64];
    assert_ok(LAUNCH(tell_all<true>, 1, 64, 0, NO_STREAM, out, 3));
    struct said s = raced([&] { return LAUNCH(tell_all<false>, 1, 64, 0, NO_STREAM, out, 3); });
    assert_says(s, "a race on shared memory");
    if (!strstr(s.text.c_str(), "(no addr2line)")) {
        assert_says(s, at(TOLD).c_str());
        assert_says(s, at(READ).c_str());
    }
}

/* A scratch that is used twice: the second writer has to wait for the last reader of the first. */
template <bool BARRIER> static __global__ void sum_twice(int *out)
{
    __shared__ int scratch[2];
    for (int round = 0; round < 2; round++) {
        if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = round;
        __syncthreads();
        out[round * 64 + threadIdx.x] = scratch[0] + scratch[1];
        if (BARRIER) __syncthreads();
    }
}

TEST(a_write_behind_reads)
{
    int out[128];
    assert_ok(LAUNCH(sum_twice<true>, 1, 64, 0, NO_STREAM, out));
    raced([&] { return LAUNCH(sum_twice<false>, 1, 64, 0, NO_STREAM, out); });
}

/* __syncwarp orders the memory of its lanes, a shuffle does not. */
enum ordering { BY_SYNCWARP, BY_HALVES, BY_SHUFFLE, BY_OTHER_HALF };
static __global__ void turn_a_warp(int *out, int how)
{
    DYNAMIC_SHARED(int, s);
    int i = threadIdx.x, half = i / 16;
    s[i] = i;
    if (how == BY_SYNCWARP) __syncwarp();
    if (how == BY_HALVES || how == BY_OTHER_HALF) __syncwarp(half ? 0xffff0000u : 0x0000ffffu);
    if (how == BY_SHUFFLE) i += __shfl_xor_sync(0xffffffffu, 0, 1);
    out[i] = s[how == BY_HALVES ? i ^ 15 : i ^ 31];
}

TEST(what_orders_lanes)
{
    int out[32];
    assert_ok(LAUNCH(turn_a_warp, 1, 32, 128, NO_STREAM, out, BY_SYNCWARP));
    assert_ok(LAUNCH(turn_a_warp, 1, 32, 128, NO_STREAM, out, BY_HALVES));
    raced([&] { return LAUNCH(turn_a_warp, 1, 32, 128, NO_STREAM, out, BY_SHUFFLE); });
    raced([&] { return LAUNCH(turn_a_warp, 1, 32, 128, NO_STREAM, out, BY_OTHER_HALF); });
}

/* Blocks: neighbours that write one element both, to the byte; and a sum over what others wrote, behind a ticket or not. */
static __global__ void overlap(unsigned char *out, int by)
{
    int first = (int)blockIdx.x * by;
    for (int i = threadIdx.x; i < 8; i += blockDim.x) out[first + i] = 1;
}

template <bool TICKET> static __global__ void last_sums(int *parts, int *sums, int *tickets)
{
    if (threadIdx.x == 0) parts[blockIdx.x] = (int)blockIdx.x;
    __threadfence();
    if (threadIdx.x || (TICKET && atomicAdd(tickets, 1) != (int)gridDim.x - 1)) return;
    int x = 0;
    for (unsigned i = 0; i < gridDim.x; i++) x += parts[i];
    sums[TICKET ? 0 : blockIdx.x] = x;
}

TEST(blocks)
{
    unsigned char out[64];
    int parts[4] = {}, sums[4] = {}, tickets = 0;
    assert_ok(LAUNCH(overlap, 4, 4, 0, NO_STREAM, out, 8));
    struct said s = raced([&] { return LAUNCH(overlap, 4, 4, 0, NO_STREAM, out, 7); });
    assert_says(s, "a race on global memory");
    assert_says(s, "by a thread of another block");
    assert_ok(LAUNCH(last_sums<true>, 4, 32, 0, NO_STREAM, parts, sums, &tickets));
    assert_int_equal(sums[0], 6);
    raced([&] { return LAUNCH(last_sums<false>, 4, 32, 0, NO_STREAM, parts, sums, &tickets); });
}

/* A copy into a buffer that others may still read. */
static __global__ void refill(const int4 *x, int *out, int barrier)
{
    __shared__ int4 s[32];
    for (int round = 0; round < 2; round++) {
        emu_cp_async(&s[threadIdx.x], x + threadIdx.x, 16);
        emu_cp_async_commit();
        emu_cp_async_wait(0);
        __syncthreads();
        out[threadIdx.x] = s[31 - threadIdx.x].x;
        if (barrier) __syncthreads();
    }
}

TEST(copies_behind_the_threads_backs)
{
    std::vector<int4> x(32);
    int out[32];
    assert_ok(LAUNCH(refill, 1, 32, 0, NO_STREAM, x.data(), out, 1));
    raced([&] { return LAUNCH(refill, 1, 32, 0, NO_STREAM, x.data(), out, 0); });
}
