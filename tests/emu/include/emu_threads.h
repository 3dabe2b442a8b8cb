/* emu_threads.h — the thread that is running: a fiber of one block, whose block has this OS thread to itself. */
#ifndef TRIMPOT_EMU_THREADS_H
#define TRIMPOT_EMU_THREADS_H

#include <source_location>

struct emu_here {
    uint3 thread, block, block_dim, grid_dim;
    unsigned char *dynamic; /* the block's dynamic shared memory */
};
extern __thread struct emu_here emu_here;

#define threadIdx (static_cast<const uint3 &>(emu_here.thread))
#define blockIdx  (static_cast<const uint3 &>(emu_here.block))
#define blockDim  (static_cast<const uint3 &>(emu_here.block_dim))
#define gridDim   (static_cast<const uint3 &>(emu_here.grid_dim))
#define warpSize  32

/* One block at a time runs on an OS thread, so what a block shares is that thread's. grid.cc poisons it before each block. */
#define __shared__ static thread_local

static inline int emu_lane(void)
{
    return (int)((emu_here.thread.x + emu_here.block_dim.x * (emu_here.thread.y + emu_here.block_dim.y * emu_here.thread.z)) % 32);
}

/* Where a thread is in the source, for messages. */
typedef std::source_location emu_where;

/* Ends the grid with a message: what no GPU may do, or what a kernel asked for (__trap). */
[[noreturn]] void emu_fault(emu_where where, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
