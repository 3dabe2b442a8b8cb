/* mma.h — the instructions of attention that C++ has no words for, one function each: copies to shared memory behind the threads'
 * back, fragments of matrices, products of fragments (sm_80), the hardware's 2^x. The only file of this folder that knows of the
 * emulated device: each has a twin there, whose emu_… the headers of tests/emu declare.
 *
 * A fragment, of lane l with g = l / 4 and t = l % 4:
 *     A [16 rows, 16 k]    a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8); each two bf16 along k, the lower first
 *     B [16 k, 8 columns]  b[0] (2t, g), b[1] (2t + 8, g); each two along k
 *     C [16 rows, 8 cols]  c[0] (g, 2t), c[1] (g, 2t + 1), c[2] (g + 8, 2t), c[3] (g + 8, 2t + 1); f32 */
#ifndef TRIMPOT_CUDA_MMA_H
#define TRIMPOT_CUDA_MMA_H

#include "kernels/cuda/cuda.h"

#ifndef TRIMPOT_EMU

/* A place in shared memory as instructions name it. */
typedef unsigned shared_at;

static __device__ inline shared_at shared_place(const void *shared) { return (unsigned)__cvta_generic_to_shared(shared); }

/* 16 bytes, both sides aligned to 16, or zeros when `there` is false: nothing is read then, but the address must be a valid one.
 * In `shared` after a wait that covers it, for the thread that issued it; for others after a barrier behind that. */
static __device__ inline void cp_async(void *shared, const void *global, bool there)
{
    unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(there ? 16 : 0) : "memory");
}

/* Closes a group of this thread's copies; all but its last PENDING groups have arrived after the wait. */
static __device__ inline void cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> static __device__ inline void cp_async_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Four 8 × 8 matrices of bf16; lane l points to row l % 8 of matrix l / 8, 16 bytes aligned to 16. r[i]: of matrix i, row g, columns 2t and
 * 2t + 1; transposed: rows 2t and 2t + 1, column g. By whole warps. */
static __device__ inline void ldmatrix(unsigned (&r)[4], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

static __device__ inline void ldmatrix_transposed(unsigned (&r)[4], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

/* C += A·B. By whole warps. */
static __device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 2^x within 2^-22, 0 below the normal numbers; 1/x within 2^-23. */
static __device__ inline float exp2_quick(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ inline float reciprocal_quick(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* x, of which the compiler foresees nothing: what follows from it is made again where it is used, and holds no register over a loop. */
static __device__ inline int opaque(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

#else

typedef const char *shared_at;
static inline shared_at shared_place(const void *shared) { return (const char *)shared; }
static inline void cp_async(void *shared, const void *global, bool there) { emu_cp_async(shared, global, there ? 16 : 0); }
static inline void cp_async_commit(void) { emu_cp_async_commit(); }
template <int PENDING> static inline void cp_async_wait(void) { emu_cp_async_wait(PENDING); }
static inline void ldmatrix(unsigned (&r)[4], shared_at row) { emu_ldmatrix(r, row, false); }
static inline void ldmatrix_transposed(unsigned (&r)[4], shared_at row) { emu_ldmatrix(r, row, true); }
static inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) { emu_mma(c, a, b0, b1); }
static inline float exp2_quick(float x) { return x < -126.0f ? 0.0f : exp2f(x); }
static inline float reciprocal_quick(float x) { return 1.0f / x; }
static inline int opaque(int x) { return x; }

#endif

/* Two numbers as a fragment holds them, rounded to nearest even. */
static __device__ inline unsigned pack_bf16(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    unsigned bits;
    memcpy(&bits, &pair, 4);
    return bits;
}

#endif
