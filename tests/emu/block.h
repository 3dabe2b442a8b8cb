/* block.h — what grid.cc keeps of a running grid, and of the block that each OS thread runs. */
#ifndef TRIMPOT_EMU_BLOCK_H
#define TRIMPOT_EMU_BLOCK_H

#include <vector>

#include "tests/emu/fiber.h"

enum { EMU_MAX_THREADS = 1024, EMU_MAX_SHARED = 227 << 10 };

struct grid {
    const char *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    const std::function<void()> *thread;
    uint64_t seed, blocks, step, start;
    uint64_t taken; /* blocks that somebody has begun */
    int failed;
};

struct place {
    const char *what;
    emu_where where;
    int thread; /* that came first */
};

struct thread {
    uint3 index;
    bool at_barrier;
    struct fiber *on; /* nullptr: not begun */
};

struct meeting {
    struct place place;
    uint32_t mask, came; /* lanes */
    bool whole;          /* no lane may exit before it */
    emu_finish *finish;
};

struct warp {
    uint32_t alive;
    int meetings; /* at most one per lane, and nearly always one */
    struct meeting meeting[32];
    void *frames[32]; /* of the meeting that each lane waits in */
};

/* Copies of a thread to shared memory that have not arrived (cp.async). */
struct copy {
    void *to;
    const void *from;
    int bytes, group;
};

struct copies {
    std::vector<struct copy> list;
    int groups; /* closed */
};

struct block {
    struct grid *grid;
    struct fiber home; /* the OS thread's own stack */
    struct fiber stacks[EMU_MAX_THREADS];
    struct fiber *free_stacks[EMU_MAX_THREADS];
    int stack_count, free_count;
    char *stacks_from, *stacks_to;
    struct fiber *running;
    int current, next; /* the thread that runs; that a stack was switched to for */
    struct thread threads[EMU_MAX_THREADS];
    struct warp warps[EMU_MAX_THREADS / 32];
    int thread_count, warp_count, live;
    uint16_t ready[EMU_MAX_THREADS];
    int ready_count;
    uint32_t drawn; /* whose turn is next, in ready */
    bool newest_first, broken;
    uint64_t random;
    struct place barrier;
    int barrier_came, barrier_set;
    struct copies copies[EMU_MAX_THREADS];
    bool copying;             /* one of them is not empty */
    struct emu_counts counts; /* of the last barrier that opened */
    char *shared;             /* static shared memory of all kernels */
    char *kept;               /* what was there before the grid */
    size_t shared_bytes;
    struct emu_here *here;
    unsigned char *dynamic;
};

struct block *emu_block(void); /* of this OS thread */
uint32_t emu_below(struct block *b, uint32_t n);

/* Whether this fault of a block's running thread is the grid's first, which is told: the message has begun then. */
bool emu_fault_begins(struct block *b);
[[noreturn]] void emu_leave_block(struct block *b);

/* A meeting of all 32 lanes; a fault where one has exited. */
void emu_meet_whole(const char *what, emu_finish *finish, void *frame, emu_where where);

#endif
