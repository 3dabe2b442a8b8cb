/* races.cc — two threads of a grid touch one byte, one of them writes, and nothing orders them: told with both source lines, whatever
 * order the fibers happened to take.
 *
 * What orders: a barrier of the block, all its threads; __syncwarp, the lanes of its mask (a shuffle or vote does not: CUDA promises
 * nothing of memory there). Blocks are not ordered at all, but that one that did an atomic operation is taken to have seen what came
 * before it. Time within a block is (epoch: barriers so far; clock: of a lane, ticks at each __syncwarp).
 *
 * The compiler's calls are those of ThreadSanitizer's interface (gcc -fsanitize=thread); its runtime is not linked. */
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <dlfcn.h>

#include <cuda_runtime.h>

#include "tests/emu/block.h"
#include "tests/emu/races/races.h"

enum { PAGE = 4096, PAGES = 512 /* of cells that are kept from grid to grid */ };

/* Of one byte: the last write, and who read it since the last barrier. */
struct cell {
    uint32_t w_block, w_epoch, w_clock, w_at;
    uint32_t r_block, r_epoch, r_clock, r_at;
    uint32_t r_warps, r_lanes; /* lanes: of the last warp */
    uint32_t r_before;         /* another block that read it */
    uint16_t w_thread, r_thread;
};

static struct {
    std::recursive_mutex lock;
    std::unordered_map<uintptr_t, std::unique_ptr<struct cell[]>> pages;
    uintptr_t last_page;
    struct cell *last;
    struct block *block; /* that runs; nullptr: none */
    const char *code;    /* where this module lies: accesses are kept as distances from it */
    uint32_t number;     /* of the block, never used again */
    uint32_t first;      /* of the grid's blocks */
    uint32_t epoch;
    bool acquired; /* did an atomic operation */
    uint32_t clock[EMU_MAX_THREADS];
    uint32_t seen[EMU_MAX_THREADS][32]; /* the clock of each lane of its warp, as far as a thread knows */
} races;

/* ---- time -------------------------------------------------------------------------------------------------------------------- */

void races_begin_grid(void)
{
    races.lock.lock();
    if (races.pages.size() > PAGES) races.pages.clear();
    races.last_page = 0;
    races.first = races.number + 1;
    Dl_info info;
    if (!races.code && dladdr((const void *)&races_begin_grid, &info)) races.code = (const char *)info.dli_fbase;
}

void races_end_grid(void)
{
    races.block = nullptr;
    races.lock.unlock();
}

void races_begin_block(struct block *b)
{
    races.block = b;
    races.number++;
    races.epoch = 0;
    races.acquired = false;
    for (int i = 0; i < b->thread_count; i++) races.clock[i] = 1;
    memset(races.seen, 0, sizeof races.seen[0] * (size_t)b->thread_count);
}

void races_barrier(void) { races.epoch++; }

void races_syncwarp(int warp, uint32_t members)
{
    uint32_t joint[32] = {};
    for (uint32_t left = members; left; left &= left - 1) {
        int lane = __builtin_ctz(left), thread = warp * 32 + lane;
        races.seen[thread][lane] = races.clock[thread];
        for (int i = 0; i < 32; i++) joint[i] = races.seen[thread][i] > joint[i] ? races.seen[thread][i] : joint[i];
    }
    for (uint32_t left = members; left; left &= left - 1) {
        int thread = warp * 32 + __builtin_ctz(left);
        memcpy(races.seen[thread], joint, sizeof joint);
        races.clock[thread]++;
    }
}

/* ---- messages ---------------------------------------------------------------------------------------------------------------- */

/* "kernels/cuda/nf4.cu:77", by addr2line where that is installed. */
static void say_line(uint32_t at)
{
    Dl_info info;
    char command[600], line[300] = "";
    if (!races.code || !dladdr(races.code, &info)) return;
    snprintf(command, sizeof command, "addr2line -e '%s' 0x%x 2>/dev/null", info.dli_fname, at - 1);
    FILE *f = popen(command, "r");
    if (f && fgets(line, sizeof line, f)) line[strcspn(line, " \n")] = 0;
    if (f) pclose(f);
    fprintf(stderr, "%s\n", *line ? line : "(no addr2line)");
}

static void say_access(const char *what, uint32_t block, int thread, uint32_t at)
{
    fprintf(stderr, "  %s by ", what);
    if (block == races.number) {
        uint3 i = races.block->threads[thread].index;
        fprintf(stderr, "thread (%u,%u,%u) at ", i.x, i.y, i.z);
    } else
        fprintf(stderr, "a thread of another block at ");
    say_line(at);
}

[[noreturn]] static void fault(const char *p, const char *other, uint32_t block, int thread, uint32_t other_at, bool write, uint32_t at)
{
    struct block *b = races.block;
    if (emu_fault_begins(b)) {
        bool shared =
            (p >= b->shared && p < b->shared + b->shared_bytes) || (p >= (char *)b->dynamic && p < (char *)b->dynamic + EMU_MAX_SHARED);
        fprintf(stderr, "a race on %s memory: nothing orders\n", shared ? "shared" : "global");
        say_access(other, block, thread, other_at);
        say_access(write ? "a write" : "a read", races.number, b->current, at);
    }
    emu_leave_block(b);
}

/* ---- accesses ---------------------------------------------------------------------------------------------------------------- */

static struct cell *cell_of(uintptr_t p)
{
    uintptr_t page = p / PAGE;
    if (page != races.last_page) {
        auto &cells = races.pages[page];
        if (!cells) cells.reset(new struct cell[PAGE]());
        races.last_page = page;
        races.last = cells.get();
    }
    return &races.last[p % PAGE];
}

/* Whether a thread of this block did that before what the running thread now does. */
static bool ordered(int thread, uint32_t epoch, uint32_t clock)
{
    int me = races.block->current;
    if (epoch < races.epoch || thread == me) return true;
    return thread / 32 == me / 32 && races.seen[me][thread % 32] >= clock;
}

/* Of this grid, another block, and not behind an atomic operation. Shared memory is each block's own. */
static bool foreign(uint32_t block, bool shared) { return !shared && block >= races.first && block != races.number && !races.acquired; }

static void touch_byte(const char *p, bool write, bool shared, uint32_t at)
{
    struct cell *c = cell_of((uintptr_t)p);
    int me = races.block->current, warp = me / 32;
    if (foreign(c->w_block, shared) || (c->w_block == races.number && !ordered(c->w_thread, c->w_epoch, c->w_clock)))
        fault(p, "a write", c->w_block, c->w_thread, c->w_at, write, at);
    bool read_now = c->r_block == races.number && c->r_epoch == races.epoch;
    if (write) {
        if (foreign(c->r_block, shared)) fault(p, "a read", c->r_block, c->r_thread, c->r_at, write, at);
        if (foreign(c->r_before, shared)) fault(p, "a read", c->r_before, c->r_thread, c->r_at, write, at);
        if (read_now && c->r_warps & ~(1u << warp)) fault(p, "a read", c->r_block, c->r_thread, c->r_at, write, at);
        for (uint32_t left = read_now ? c->r_lanes : 0; left; left &= left - 1)
            if (!ordered(warp * 32 + __builtin_ctz(left), c->r_epoch, c->r_clock))
                fault(p, "a read", c->r_block, c->r_thread, c->r_at, write, at);
        c->w_block = races.number, c->w_epoch = races.epoch, c->w_clock = races.clock[me], c->w_at = at, c->w_thread = (uint16_t)me;
        return;
    }
    if (!read_now) {
        if (c->r_block != races.number) c->r_before = c->r_block;
        c->r_block = races.number, c->r_epoch = races.epoch, c->r_warps = c->r_lanes = 0;
        c->r_clock = 0;
    }
    if (c->r_warps != 1u << warp) c->r_lanes = 0;
    c->r_warps |= 1u << warp;
    c->r_lanes |= 1u << me % 32;
    if (races.clock[me] > c->r_clock) c->r_clock = races.clock[me];
    c->r_at = at, c->r_thread = (uint16_t)me;
}

static void touch(const char *p, size_t n, bool write, const void *pc)
{
    struct block *b = races.block;
    if (!b || b != emu_block()) return; /* the host's accesses */
    if (p >= b->stacks_from && p < b->stacks_to) return;
    if (p >= (char *)b->here && p < (char *)(b->here + 1)) return;
    bool shared =
        (p >= b->shared && p < b->shared + b->shared_bytes) || (p >= (char *)b->dynamic && p < (char *)b->dynamic + EMU_MAX_SHARED);
    uint32_t at = (uint32_t)((const char *)pc - races.code);
    for (size_t i = 0; i < n; i++) touch_byte(p + i, write, shared, at);
}

void races_touch(const void *p, size_t n, bool write) { touch((const char *)p, n, write, __builtin_return_address(0)); }

extern "C" {
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
#define ACCESS(bytes)                                                                                                                      \
    void __tsan_read##bytes(void *p) { touch((char *)p, bytes, false, __builtin_return_address(0)); }                                      \
    void __tsan_write##bytes(void *p) { touch((char *)p, bytes, true, __builtin_return_address(0)); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, size_t n) { touch((char *)p, n, false, __builtin_return_address(0)); }
void __tsan_write_range(void *p, size_t n) { touch((char *)p, n, true, __builtin_return_address(0)); }

/* Atomic operations conflict with nothing, and order what comes after them. */
#define ATOMIC_FETCH(bits, op)                                                                                                             \
    uint##bits##_t __tsan_atomic##bits##_fetch_##op(volatile uint##bits##_t *p, uint##bits##_t v, int)                                     \
    {                                                                                                                                      \
        races.acquired = true;                                                                                                             \
        return __atomic_fetch_##op(p, v, __ATOMIC_SEQ_CST);                                                                                \
    }
#define ATOMIC(bits)                                                                                                                       \
    ATOMIC_FETCH(bits, add)                                                                                                                \
    ATOMIC_FETCH(bits, sub)                                                                                                                \
    ATOMIC_FETCH(bits, and)                                                                                                                \
    ATOMIC_FETCH(bits, or)                                                                                                                 \
    ATOMIC_FETCH(bits, xor)                                                                                                                \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }      \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }      \
    uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t *p, uint##bits##_t v, int)                                       \
    {                                                                                                                                      \
        races.acquired = true;                                                                                                             \
        return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                                                \
    }                                                                                                                                      \
    bool __tsan_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t *p, uint##bits##_t *old, uint##bits##_t v, int, int)        \
    {                                                                                                                                      \
        races.acquired = true;                                                                                                             \
        return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                          \
    }
ATOMIC(32)
ATOMIC(64)
void __tsan_atomic_thread_fence(int) {}
}
