/* cuda.h — what every .cu file of this folder includes: one op's kernels and its launcher NAME_cuda.
 *
 * The same text is compiled by nvcc for a GPU, and by g++ as C++ for the emulated device (tests/emu), whose folder has headers of
 * CUDA's names. So: kernels are launched through LAUNCH only, dynamic shared memory is declared through DYNAMIC_SHARED only, inline
 * PTX lives in mma.h with a host twin, and nothing is contracted (-fmad=false, no fast math).
 *
 * Rules of kernels: the same bits on every run and for any grid that the shapes give (no float atomics, sums in a fixed order);
 * f32 arithmetic, one rounding per stored output; no index of 32 bits where an element count may pass 2^31; vectors of 16 bytes
 * where pointer and ld allow it, else one element at a time: any view that ops.h allows works.
 *
 * Rules of launchers: what is queued follows from the op's arguments alone, host twins unread; nothing is allocated or waited for
 * (kernels/record.h: a call may be captured). */
#ifndef TRIMPOT_CUDA_H
#define TRIMPOT_CUDA_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "kernels/cuda/stream.h"
#include "kernels/base/philox.h"
}
#include "kernels/cuda/one.h"

/* The launchers, one per op: filled into the table by cuda.c. */
#define CUDA_LAUNCHER(name, args) extern "C" op_##name##_fn name##_cuda;
TRIMPOT_OPS(CUDA_LAUNCHER)
#undef CUDA_LAUNCHER

enum { WARP = 32, MAX_THREADS = 1024, MAX_SHARED = 227 << 10, SHARED_WITHOUT_ASKING = 48 << 10 };

#ifndef LAUNCH /* the emulated device has its own */

template <class... P> static inline void cuda_allow_shared(void (*kernel)(P...), size_t bytes)
{
    if (bytes > SHARED_WITHOUT_ASKING) cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

/* status LAUNCH(kernel, dim3 grid, dim3 block, size_t shared_bytes, struct stream *s, args…): kernel with template arguments in
 * parentheses, LAUNCH((copy<float, 4>), …). Covers the launch; what goes wrong later is the next sync's. */
#define LAUNCH(kernel, grid, block, shared, s, ...)                                                                                        \
    (cuda_allow_shared(kernel, shared), kernel<<<grid, block, shared, cuda_on(s)>>>(__VA_ARGS__), cuda_status(cudaGetLastError(), #kernel))

/* T *name: the block's dynamic shared memory, 16-byte aligned. */
#define DYNAMIC_SHARED(T, name)                                                                                                            \
    extern __shared__ __align__(16) unsigned char dynamic_shared_[];                                                                       \
    T *name = (T *)dynamic_shared_

#define ALIGNED(p) (p) /* the address of an access of 16 bytes: a GPU faults where it is none, and the emulated device says so */

#endif

/* ---- storage: f32 and bf16 (and f16 to read) ------------------------------------------------------------------------------ */

static __device__ inline float widen(float x) { return x; }
static __device__ inline float widen(bf16 x) { return bf16_widen(x); }
template <class T> static __device__ inline T narrow(float x);
template <> __device__ inline float narrow<float>(float x) { return x; }
/* bf16_round in one instruction; a NaN becomes the one that a GPU makes. */
template <> __device__ inline bf16 narrow<bf16>(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }

/* Calls body with T = the C type of dt: WITH_TYPE(a->x.dt, T, { TRY(LAUNCH(kernel<T>, …)); }) */
#define WITH_TYPE(dt, T, ...)                                                                                                              \
    do {                                                                                                                                   \
        if ((dt) == DT_F32) {                                                                                                              \
            typedef float T;                                                                                                               \
            __VA_ARGS__                                                                                                                    \
        } else {                                                                                                                           \
            typedef bf16 T;                                                                                                                \
            __VA_ARGS__                                                                                                                    \
        }                                                                                                                                  \
    } while (0)

/* ---- sums in a fixed order -------------------------------------------------------------------------------------------------- */

/* Σ over the lanes of a whole warp, by halves; every lane gets it. */
static __device__ inline float warp_sum(float x)
{
    for (int half = WARP / 2; half; half /= 2) x += __shfl_xor_sync(0xffffffffu, x, half);
    return x;
}

static __device__ inline float warp_max(float x)
{
    for (int half = WARP / 2; half; half /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, half));
    return x;
}

/* Σ over the threads of a block of whole warps; every thread gets it. scratch: WARP floats of shared memory, free again after the
 * next __syncthreads. */
static __device__ inline float block_sum(float x, float *scratch)
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

#endif
