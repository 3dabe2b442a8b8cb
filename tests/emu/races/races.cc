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
    const void *runs_on; /* the OS thread that runs it, by its thread pointer, which is quicker to ask for than emu_block() */
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
    races.runs_on = nullptr;
    races.lock.unlock();
}

void races_begin_block(struct block *b)
{
    races.block = b;
    races.runs_on = __builtin_thread_pointer();
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

/* One access: what of it is the same for each byte. */
struct access {
    uint32_t number, first, epoch, clock, lane_bit, warp_bit, at;
    int me, warp;
    bool acquired, shared, write;
};

static struct cell *page_of(uintptr_t page)
{
    if (page != races.last_page) {
        auto &cells = races.pages[page];
        if (!cells) cells.reset(new struct cell[PAGE]());
        races.last_page = page;
        races.last = cells.get();
    }
    return races.last;
}

/* Whether a thread of this block did that before what the running thread now does. */
static bool ordered(const struct access *a, int thread, uint32_t epoch, uint32_t clock)
{
    if (epoch < a->epoch || thread == a->me) return true;
    return thread / 32 == a->warp && races.seen[a->me][thread % 32] >= clock;
}

/* Of this grid, another block, and not behind an atomic operation. Shared memory is each block's own. */
static bool foreign(const struct access *a, uint32_t block)
{
    return !a->shared && block >= a->first && block != a->number && !a->acquired;
}

static inline void touch_byte(const struct access *a, struct cell *c, const char *p)
{
    if (foreign(a, c->w_block) || (c->w_block == a->number && !ordered(a, c->w_thread, c->w_epoch, c->w_clock)))
        fault(p, "a write", c->w_block, c->w_thread, c->w_at, a->write, a->at);
    bool read_now = c->r_block == a->number && c->r_epoch == a->epoch;
    if (a->write) {
        if (foreign(a, c->r_block)) fault(p, "a read", c->r_block, c->r_thread, c->r_at, true, a->at);
        if (foreign(a, c->r_before)) fault(p, "a read", c->r_before, c->r_thread, c->r_at, true, a->at);
        if (read_now && c->r_warps & ~a->warp_bit) fault(p, "a read", c->r_block, c->r_thread, c->r_at, true, a->at);
        for (uint32_t left = read_now ? c->r_lanes : 0; left; left &= left - 1)
            if (!ordered(a, a->warp * 32 + __builtin_ctz(left), c->r_epoch, c->r_clock))
                fault(p, "a read", c->r_block, c->r_thread, c->r_at, true, a->at);
        c->w_block = a->number, c->w_epoch = a->epoch, c->w_clock = a->clock, c->w_at = a->at, c->w_thread = (uint16_t)a->me;
        return;
    }
    if (!read_now) {
        if (c->r_block != a->number) c->r_before = c->r_block;
        c->r_block = a->number, c->r_epoch = a->epoch, c->r_warps = c->r_lanes = 0;
        c->r_clock = 0;
    }
    if (c->r_warps != a->warp_bit) c->r_lanes = 0;
    c->r_warps |= a->warp_bit;
    c->r_lanes |= a->lane_bit;
    if (a->clock > c->r_clock) c->r_clock = a->clock;
    c->r_at = a->at, c->r_thread = (uint16_t)a->me;
}

static void touch(const char *p, size_t n, bool write, const void *pc)
{
    if (races.runs_on != __builtin_thread_pointer()) return; /* the host's accesses */
    struct block *b = races.block;
    if (p >= b->stacks_from && p < b->stacks_to) return;
    if (p >= (char *)b->here && p < (char *)(b->here + 1)) return;
    int me = b->current;
    /* By value: what is written to cells does not make it be read again. */
    const struct access a = {.number = races.number,
                             .first = races.first,
                             .epoch = races.epoch,
                             .clock = races.clock[me],
                             .lane_bit = 1u << me % 32,
                             .warp_bit = 1u << me / 32,
                             .at = (uint32_t)((const char *)pc - races.code),
                             .me = me,
                             .warp = me / 32,
                             .acquired = races.acquired,
                             .shared = (p >= b->shared && p < b->shared + b->shared_bytes) ||
                                       (p >= (char *)b->dynamic && p < (char *)b->dynamic + EMU_MAX_SHARED),
                             .write = write};
    while (n) {
        size_t in_page = (uintptr_t)p % PAGE, part = n < PAGE - in_page ? n : PAGE - in_page;
        struct cell *c = page_of((uintptr_t)p / PAGE) + in_page;
        for (size_t i = 0; i < part; i++) touch_byte(&a, c + i, p + i);
        p += part;
        n -= part;
    }
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
