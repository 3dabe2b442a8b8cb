/* grid.cc — a grid, block by block: every thread of a block a fiber, every rendezvous a switch to another one.
 *
 *     emu_grid ── hands the grid to the crew: OS threads that take blocks in random order
 *       run_block ── poisons what the block shares, then switches to a fiber
 *         fiber_main ── takes any thread that can go on: runs one that has not begun, or switches to where one waits
 *           emu_barrier, emu_meet ── whoever completes the rendezvous makes all of it ready; everyone then takes any ready thread
 *
 * A thread that never meets others therefore costs no switch: its stack runs the next one. */
#include <cstdarg>
#include <cstdlib>

#include <link.h>
#include <pthread.h>

#include <cuda_runtime.h>

#include "tests/emu/block.h"
#include "tests/emu/races/races.h"

__thread struct emu_here emu_here;
static __thread struct block *block; /* of this OS thread */

/* ---- random orders ----------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

static long environment(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, nullptr, 10) : otherwise;
}

uint64_t emu_random(enum emu_purpose purpose)
{
    static const uint64_t seed = mix((uint64_t)environment("TRIMPOT_EMU_SEED", 1));
    static uint64_t drawn[EMU_PURPOSES];
    return mix(mix(seed ^ (uint64_t)purpose << 56) + __atomic_fetch_add(&drawn[purpose], 1, __ATOMIC_RELAXED));
}

struct block *emu_block(void) { return block; }

uint32_t emu_below(struct block *b, uint32_t n)
{
    b->random = b->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((b->random >> 32) * n >> 32);
}

/* ---- faults ------------------------------------------------------------------------------------------------------------------ */

static void say_thread(const char *word, const struct thread *t)
{
    fprintf(stderr, "%s (%u,%u,%u)", word, t->index.x, t->index.y, t->index.z);
}

static void say_place(const char *word, emu_where w, const struct thread *t)
{
    say_thread(word, t);
    fprintf(stderr, " at %s:%u\n", w.file_name(), (unsigned)w.line());
}

/* The first fault of a grid is told; the others are its echo. */
bool emu_fault_begins(struct block *b)
{
    if (__atomic_exchange_n(&b->grid->failed, 1, __ATOMIC_RELAXED)) return false;
    fprintf(stderr, "emu: kernel %s, block (%u,%u,%u): ", b->grid->kernel, emu_here.block.x, emu_here.block.y, emu_here.block.z);
    return true;
}

/* Ends the block from within one of its threads: nothing of it is ever switched to again. */
[[noreturn]] void emu_leave_block(struct block *b)
{
    b->broken = true;
    fiber_switch(b->running, &b->home);
    abort();
}

[[noreturn]] void emu_fault(emu_where where, const char *fmt, ...)
{
    struct block *b = block;
    if (emu_fault_begins(b)) {
        va_list list;
        va_start(list, fmt);
        vfprintf(stderr, fmt, list);
        va_end(list);
        say_place("\n  thread", where, &b->threads[b->current]);
    }
    emu_leave_block(b);
}

static bool same_place(const struct place *a, const char *what, emu_where w)
{
    if (!memcmp(&a->where, &w, sizeof w)) return a->what == what;
    return a->what == what && a->where.line() == w.line() && a->where.column() == w.column() &&
           (a->where.file_name() == w.file_name() || !strcmp(a->where.file_name(), w.file_name()));
}

[[noreturn]] static void fault_between(struct block *b, const struct place *first, const char *what, emu_where where)
{
    if (emu_fault_begins(b)) {
        fprintf(stderr, "threads of one rendezvous are at different places\n  %s: ", first->what);
        say_place("thread", first->where, &b->threads[first->thread]);
        fprintf(stderr, "  %s: ", what);
        say_place("thread", where, &b->threads[b->current]);
    }
    emu_leave_block(b);
}

/* Nobody can go on, and not all are done. */
static void tell_deadlock(struct block *b)
{
    if (!emu_fault_begins(b)) return;
    fprintf(stderr, "every thread waits\n");
    if (b->barrier_came) {
        fprintf(stderr, "  %s, with %d of %d threads: ", b->barrier.what, b->barrier_came, b->live);
        say_place("first", b->barrier.where, &b->threads[b->barrier.thread]);
    }
    for (int w = 0; w < b->warp_count; w++) {
        for (int i = 0; i < b->warps[w].meetings; i++) {
            struct meeting *m = &b->warps[w].meeting[i];
            fprintf(stderr, "  %s, warp %d, mask %08x, of which %08x came: ", m->place.what, w, m->mask, m->came);
            say_place("first", m->place.where, &b->threads[m->place.thread]);
        }
    }
}

[[noreturn]] static void leave_in_deadlock(struct block *b)
{
    tell_deadlock(b);
    emu_leave_block(b);
}

/* ---- who runs next ----------------------------------------------------------------------------------------------------------- */

static void make_ready(struct block *b, int thread) { b->ready[b->ready_count++] = (uint16_t)thread; }

/* Any ready thread, or −1. In half of the blocks, one of those that became ready last, so that a warp runs far ahead of others.
 * Whose turn is next is drawn one turn ahead: by then its stack is in the cache. */
static inline int take_ready(struct block *b)
{
    if (!b->ready_count) return -1;
    uint32_t n = (uint32_t)b->ready_count, at = b->drawn < n ? b->drawn : n - 1;
    int thread = b->ready[at];
    b->ready[at] = b->ready[--n];
    b->ready_count = (int)n;
    uint32_t from = b->newest_first && n > 32 ? n - 32 : 0;
    b->drawn = from + emu_below(b, n - from);
    struct fiber *f = b->threads[b->ready[b->drawn]].on;
    if (f) __builtin_prefetch(f->sp);
    return thread;
}

static inline void stand_in(struct block *b, int thread)
{
    b->current = thread;
    b->here->thread = b->threads[thread].index;
}

static void thread_ends(struct block *b);
static void fiber_main(void);

static struct fiber *free_stack(struct block *b)
{
    if (b->free_count) return b->free_stacks[--b->free_count];
    struct fiber *f = &b->stacks[b->stack_count];
    fiber_open(f, b->stacks_from, (unsigned)b->stack_count++, fiber_main);
    return f;
}

/* Leaves the running stack for `thread`, which waits on another or has not begun. */
static inline void go_to(struct block *b, int thread)
{
    struct thread *t = &b->threads[thread];
    struct fiber *from = b->running;
    if (!t->on) t->on = free_stack(b);
    b->running = t->on;
    b->next = thread;
    fiber_switch(from, t->on);
}

/* What every stack does: it is switched to with a thread to begin (block->next). */
static void fiber_main(void)
{
    fiber_entered();
    struct block *b = block;
    struct fiber *mine = b->running;
    for (int thread = b->next;;) {
        stand_in(b, thread);
        b->threads[thread].on = mine;
        (*b->grid->thread)();
        thread_ends(b);
        thread = take_ready(b);
        if (thread >= 0 && !b->threads[thread].on) continue;
        b->free_stacks[b->free_count++] = mine;
        if (thread >= 0)
            go_to(b, thread);
        else
            fiber_switch(mine, &b->home);
        thread = b->next; /* back, because this stack was free */
    }
}

/* The running thread waits: another goes on, until somebody has made this one ready and its turn comes. */
static inline void wait_turn(struct block *b)
{
    int me = b->current, next = take_ready(b);
    if (next < 0) leave_in_deadlock(b);
    if (next != me) go_to(b, next);
    stand_in(b, me);
}

/* ---- rendezvous -------------------------------------------------------------------------------------------------------------- */

static void open_barrier(struct block *b)
{
    races_barrier();
    b->counts = {b->barrier_came, b->barrier_set};
    b->barrier_came = b->barrier_set = 0;
    for (int i = 0; i < b->thread_count; i++) {
        if (!b->threads[i].at_barrier) continue;
        b->threads[i].at_barrier = false;
        make_ready(b, i);
    }
}

struct emu_counts emu_barrier(const char *what, bool predicate, emu_where where)
{
    struct block *b = block;
    if (!b->barrier_came)
        b->barrier = {what, where, b->current};
    else if (!same_place(&b->barrier, what, where))
        fault_between(b, &b->barrier, what, where);
    b->threads[b->current].at_barrier = true;
    b->barrier_came++;
    b->barrier_set += predicate;
    if (b->barrier_came == b->live) open_barrier(b);
    wait_turn(b);
    return b->counts;
}

static void hold_meeting(struct block *b, int w, struct meeting *m)
{
    struct warp *warp = &b->warps[w];
    if (!strcmp(m->place.what, "__syncwarp")) races_syncwarp(w, m->came);
    m->finish(m->came, warp->frames);
    for (uint32_t left = m->came; left; left &= left - 1) make_ready(b, w * 32 + __builtin_ctz(left));
    *m = warp->meeting[--warp->meetings];
}

static void meet(const char *what, uint32_t mask, bool whole, emu_finish *finish, void *frame, emu_where where)
{
    struct block *b = block;
    int w = b->current / 32, lane = b->current % 32;
    struct warp *warp = &b->warps[w];
    if (!(mask >> lane & 1)) emu_fault(where, "%s: the mask %08x is without lane %d, which calls it", what, mask, lane);
    if (whole && warp->alive != mask) emu_fault(where, "%s: of the warp only lanes %08x are left", what, warp->alive);
    struct meeting *m = warp->meeting, *end = m + warp->meetings;
    while (m < end && m->mask != mask) m++;
    if (m == end) {
        *m = {.place = {what, where, b->current}, .mask = mask, .came = 0, .whole = whole, .finish = finish};
        warp->meetings++;
    } else if (!same_place(&m->place, what, where) || m->finish != finish)
        fault_between(b, &m->place, what, where);
    warp->frames[lane] = frame;
    m->came |= 1u << lane;
    if (m->came == (mask & warp->alive)) hold_meeting(b, w, m);
    wait_turn(b);
}

void emu_meet(const char *what, uint32_t mask, emu_finish *finish, void *frame, emu_where where)
{
    meet(what, mask, false, finish, frame, where);
}

void emu_meet_whole(const char *what, emu_finish *finish, void *frame, emu_where where)
{
    meet(what, 0xffffffffu, true, finish, frame, where);
}

/* Nobody waits for a thread that has ended. */
static void thread_ends(struct block *b)
{
    int w = b->current / 32;
    struct warp *warp = &b->warps[w];
    b->live--;
    warp->alive &= ~(1u << b->current % 32);
    for (int i = warp->meetings; i-- > 0;) {
        struct place *p = &warp->meeting[i].place;
        if (warp->meeting[i].whole) emu_fault(p->where, "%s: this thread has ended, but the whole warp has to come", p->what);
        if (warp->meeting[i].came == (warp->meeting[i].mask & warp->alive)) hold_meeting(b, w, &warp->meeting[i]);
    }
    if (b->barrier_came && b->barrier_came == b->live) open_barrier(b);
}

/* ---- a block ----------------------------------------------------------------------------------------------------------------- */

/* The static shared variables of all kernels are thread-local variables of this module (emu_threads.h): its whole thread-local segment,
 * but what this file keeps there. */
static int find_shared(struct dl_phdr_info *info, size_t, void *out)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        char *at = (char *)info->dlpi_tls_data;
        if (p->p_type != PT_TLS || !at || (char *)&block < at || (char *)&block >= at + p->p_memsz) continue;
        struct block *b = (struct block *)out;
        b->shared = at;
        b->shared_bytes = p->p_memsz;
        return 1;
    }
    return 0;
}

static void poison_shared(struct block *b)
{
    struct emu_here here = emu_here;
    memset(b->shared, EMU_POISON, b->shared_bytes);
    emu_here = here;
    block = b;
    memset(b->dynamic, EMU_POISON, b->grid->shared_bytes);
}

static void begin_threads(struct block *b)
{
    dim3 size = b->grid->block;
    b->thread_count = b->live = (int)(size.x * size.y * size.z);
    b->warp_count = (b->thread_count + 31) / 32;
    b->ready_count = 0;
    for (int i = 0; i < b->thread_count; i++) {
        unsigned u = (unsigned)i;
        b->threads[i] = {.index = {u % size.x, u / size.x % size.y, u / size.x / size.y}, .at_barrier = false, .on = nullptr};
        make_ready(b, i);
    }
    for (int w = 0; w < b->warp_count; w++) {
        int lanes = b->thread_count - w * 32;
        b->warps[w].alive = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
        b->warps[w].meetings = 0;
    }
    b->barrier_came = b->barrier_set = 0;
    for (int i = 0; i < b->thread_count && b->copying; i++) {
        b->copies[i].list.clear();
        b->copies[i].groups = 0;
    }
    b->copying = false;
}

/* Of threads that will never go on. */
static void forget_stacks(struct block *b)
{
    b->free_count = 0;
    for (int i = 0; i < b->stack_count; i++) {
        fiber_reset(&b->stacks[i], (unsigned)i, fiber_main);
        b->free_stacks[b->free_count++] = &b->stacks[i];
    }
}

static void run_block(struct block *b, uint64_t number)
{
    dim3 size = b->grid->grid;
    emu_here.block = {(unsigned)(number % size.x), (unsigned)(number / size.x % size.y), (unsigned)(number / size.x / size.y)};
    emu_here.block_dim = {b->grid->block.x, b->grid->block.y, b->grid->block.z};
    emu_here.grid_dim = {size.x, size.y, size.z};
    emu_here.dynamic = b->dynamic;
    b->random = mix(b->grid->seed + number);
    b->newest_first = b->random & 1;
    poison_shared(b);
    begin_threads(b);
    races_begin_block(b);
    b->running = &b->home;
    b->broken = false;
    go_to(b, take_ready(b));
    if (!b->broken && b->live) tell_deadlock(b); /* the last to run ended, and nobody is ready */
    if (b->live) forget_stacks(b);
}

/* ---- the crew ---------------------------------------------------------------------------------------------------------------- */

enum { WORTH_A_CREW = 4096 }; /* threads: waking another OS thread costs as much as some hundred of them */

/* OS threads that help the caller of emu_grid with a large grid, one grid at a time. */
static struct {
    pthread_mutex_t one_grid, lock;
    pthread_cond_t work, done;
    struct grid *grid;
    uint64_t round; /* of grids */
    int size, busy;
} crew = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, nullptr, 0, 0, 0};

static struct block *block_of_this_thread(void)
{
    if (block) return block;
    struct block *b = block = new struct block();
    b->here = &emu_here;
    b->dynamic = (unsigned char *)aligned_alloc(128, EMU_MAX_SHARED);
    fiber_of_thread(&b->home);
    size_t bytes;
    b->stacks_from = fiber_arena(EMU_MAX_THREADS, &bytes);
    b->stacks_to = b->stacks_from + bytes;
    dl_iterate_phdr(find_shared, b);
    b->kept = (char *)malloc(b->shared_bytes);
    return b;
}

/* Blocks in random order: number·step + start, step and the count without common factor. What else this OS thread keeps beside the
 * shared variables is as it was when this returns. */
static void run_blocks(struct grid *g)
{
    struct block *b = block_of_this_thread();
    b->grid = g;
    memcpy(b->kept, b->shared, b->shared_bytes);
    for (;;) {
        uint64_t i = __atomic_fetch_add(&g->taken, 1, __ATOMIC_RELAXED);
        if (i >= g->blocks || __atomic_load_n(&g->failed, __ATOMIC_RELAXED)) break;
        run_block(b, (uint64_t)(((unsigned __int128)i * g->step + g->start) % g->blocks));
    }
    memcpy(b->shared, b->kept, b->shared_bytes);
}

static void *crew_main(void *)
{
    pthread_mutex_lock(&crew.lock);
    for (uint64_t seen = 0;;) {
        while (crew.round == seen) pthread_cond_wait(&crew.work, &crew.lock);
        seen = crew.round;
        struct grid *g = crew.grid;
        pthread_mutex_unlock(&crew.lock);
        run_blocks(g);
        pthread_mutex_lock(&crew.lock);
        if (!--crew.busy) pthread_cond_signal(&crew.done);
    }
    return nullptr;
}

static void run_with_crew(struct grid *g)
{
    static const int wanted = RACES_ARE_SOUGHT ? 0 : (int)environment("TRIMPOT_EMU_THREADS", 2) - 1;
    pthread_mutex_lock(&crew.lock);
    for (pthread_t id; crew.size < wanted && !pthread_create(&id, nullptr, crew_main, nullptr); crew.size++) pthread_detach(id);
    crew.grid = g;
    crew.round++;
    crew.busy = crew.size;
    pthread_cond_broadcast(&crew.work);
    pthread_mutex_unlock(&crew.lock);
    run_blocks(g);
    pthread_mutex_lock(&crew.lock);
    while (crew.busy) pthread_cond_wait(&crew.done, &crew.lock);
    pthread_mutex_unlock(&crew.lock);
}

static uint64_t no_common_factor(uint64_t wanted, uint64_t n)
{
    for (uint64_t step = wanted % n;; step = (step + 1) % n) {
        uint64_t a = n, b = step;
        while (b) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) return step;
    }
}

cudaError_t emu_grid(const char *kernel, dim3 grid, dim3 block_size, size_t shared_bytes, const std::function<void()> &thread)
{
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, random = emu_random(EMU_BLOCKS);
    struct grid g = {.kernel = kernel,
                     .grid = grid,
                     .block = block_size,
                     .shared_bytes = shared_bytes,
                     .thread = &thread,
                     .seed = emu_random(EMU_FIBERS),
                     .blocks = blocks,
                     .step = no_common_factor(random >> 32, blocks),
                     .start = random % blocks,
                     .taken = 0,
                     .failed = 0};
    races_begin_grid();
    bool large = blocks > 1 && blocks * block_size.x * block_size.y * block_size.z >= WORTH_A_CREW;
    if (large && !pthread_mutex_trylock(&crew.one_grid)) {
        run_with_crew(&g);
        pthread_mutex_unlock(&crew.one_grid);
    } else
        run_blocks(&g);
    races_end_grid();
    return g.failed ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t emu_launch_fits(const char *kernel, dim3 grid, dim3 block_size, size_t shared_bytes)
{
    uint64_t threads = (uint64_t)block_size.x * block_size.y * block_size.z;
    const char *why = nullptr;
    if (!threads || threads > 1024 || block_size.z > 64)
        why = "a block has 1 to 1024 threads, z up to 64";
    else if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        why = "a grid has 1 to 2^31-1, 65535 and 65535 blocks";
    else if (shared_bytes > EMU_MAX_SHARED)
        why = "a block has at most 227 KiB of shared memory";
    if (!why) return cudaSuccess;
    fprintf(stderr, "emu: launch of %s <<<(%u,%u,%u), (%u,%u,%u), %zu>>>: %s\n", kernel, grid.x, grid.y, grid.z, block_size.x, block_size.y,
            block_size.z, shared_bytes, why);
    return cudaErrorInvalidConfiguration;
}
