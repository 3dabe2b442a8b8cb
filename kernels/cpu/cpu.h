/* cpu.h — what the files of the CPU backend share.
 *
 * Every loop file here is compiled twice, for AVX2 and for AVX-512. CPU_FN(rope) is rope_cpu_avx2 in one object and
 * rope_cpu_avx512 in the other, so ops and shared non-static helpers must be named through it; anything else is
 * static. cpu.c fills its table from both sets and picks one when the first stream is opened:
 *
 *      TRIMPOT_ISA=avx2     AVX2 loops; oneDNN held to AVX2 (bf16 products run in f32)
 *      TRIMPOT_ISA=avx512   AVX-512 loops without VBMI; oneDNN held to AVX-512 without bf16
 *      TRIMPOT_ISA=avx512_bf16   the same; bf16 products by the instructions for them
 *      unset                the fastest this machine has. Instructions for bf16 are not always that: AMD's multiply twice as
 *                           many bf16 as f32 in a cycle and AMX many more, but Intel's vdpbf16ps half as many (Emerald Rapids
 *                           without AMX: 142 GFLOP/s of bf16, 275 of f32 on two cores). Where a virtual machine hides AMX,
 *                           widening the operands and multiplying f32 is 1.7 times as fast.
 */
#ifndef TRIMPOT_CPU_H
#define TRIMPOT_CPU_H

#include "kernels/backend.h"

#define CPU_PASTE_(name, isa) name##_cpu_##isa
#define CPU_PASTE(name, isa)  CPU_PASTE_(name, isa)
#define CPU_FN(name)          CPU_PASTE(name, CPU_ISA)

/* What an op needs for the largest call of `w`; the backend's answer is the maximum over the ops. */
typedef size_t cpu_workspace_fn(const struct work_bounds *w);
cpu_workspace_fn gemm_cpu_workspace;

#ifdef CPU_ISA
#define CPU_DECLARE(name, args) op_##name##_fn CPU_FN(name);
TRIMPOT_OPS(CPU_DECLARE)
#undef CPU_DECLARE
cpu_workspace_fn CPU_FN(attn_fwd_workspace), CPU_FN(attn_bwd_workspace);
#endif

bool gemm_cpu_has_bf16(void); /* oneDNN multiplies bf16 × bf16 itself (AVX512_BF16 or AMX) */
bool cpu_has_vbmi(void);      /* it looks up bytes in tables (AVX512_VBMI), and was not asked for plain AVX-512 */

/* What oneDNN allocates by itself inside a product (packing buffers, compiled kernels): not under our control, so the
 * plan shows it as an estimate. */
size_t cpu_library_scratch_bytes(const struct work_bounds *w);

/* Bytes rounded up to what keeps the next piece of a workspace aligned. */
static inline size_t cpu_pad(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

#endif
