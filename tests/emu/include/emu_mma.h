/* emu_mma.h — host twins of the inline PTX of kernels/cuda/mma.h: asynchronous copies, ldmatrix, mma.m16n8k16. mma.cc
 *
 * Layouts are the PTX ISA's; g = lane / 4, t = lane % 4, a register holds two bf16, the lower index in the lower half:
 *     A [16, 16]   a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8), each with the next column
 *     B [16, 8]    b0 (2t, g), b1 (2t + 8, g), each with the next row
 *     C [16, 8]    c[0] (g, 2t), c[1] (g, 2t + 1), c[2] (g + 8, 2t), c[3] (g + 8, 2t + 1) */
#ifndef TRIMPOT_EMU_MMA_H
#define TRIMPOT_EMU_MMA_H

#include "tests/emu/include/emu_threads.h"

/* 16 bytes to shared memory, of which the first `bytes` are read and the rest are zeros. They arrive when this thread waits for their
 * group, or at any moment before: a thread that reads without waiting reads poison, sometimes. */
void emu_cp_async(void *shared, const void *global, int bytes, emu_where where = emu_where::current());
void emu_cp_async_commit(void);
void emu_cp_async_wait(int pending); /* for all but the last `pending` groups; not for copies that no commit has put in a group */

/* Four 8 × 8 matrices of two bytes: lane l points to row l % 8 of matrix l / 8. By whole warps, as emu_mma. */
void emu_ldmatrix(unsigned (&r)[4], const void *row, bool transposed, emu_where where = emu_where::current());

/* c += a·b in f32, along k in order. */
void emu_mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, emu_where where = emu_where::current());

#endif
