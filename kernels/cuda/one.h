/* one.h — the vocabulary of kernels/cpu/vec.h for a thread that owns one element: formulas.h and functions.h mean the same here,
 * bit for bit (the compiler contracts nothing: -fmad=false; a fused product is spelt vf_fma). */
#ifndef TRIMPOT_CUDA_ONE_H
#define TRIMPOT_CUDA_ONE_H

#include <math.h>

#include "kernels/base/tensor.h"

typedef float vf;
typedef int32_t vi;
typedef bool vm;

BOTH vf vf_set(float x) { return x; }
BOTH vf vf_zero(void) { return 0.0f; }
BOTH vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
BOTH vf vf_fnma(vf a, vf b, vf c) { return fmaf(-a, b, c); }
BOTH vf vf_max(vf a, vf b) { return a > b ? a : b; } /* b when either is NaN */
BOTH vf vf_min(vf a, vf b) { return a < b ? a : b; }
BOTH vf vf_sqrt(vf x) { return sqrtf(x); }
BOTH vf vf_abs(vf x) { return fabsf(x); }
/* |x| < 2^22: adding 1.5·2^23 rounds to the nearest even integer, and leaves it in the low bits of the sum. (rintf, and conversions
 * to int, run at an eighth of the rate.) */
#define VF_WHOLE 0x1.8p23f
BOTH vf vf_nearest(vf x) { return (x + VF_WHOLE) - VF_WHOLE; }
BOTH vf vf_copysign(vf magnitude, vf sign) { return copysignf(magnitude, sign); }
BOTH vm vf_lt(vf a, vf b) { return a < b; }
BOTH vm vf_ge(vf a, vf b) { return a >= b; }
BOTH vf vf_pick(vm m, vf yes, vf no) { return m ? yes : no; }
BOTH vi vf_bits(vf x) { return (vi)f32_bits(x); }
BOTH vf vf_from_bits(vi x) { return f32_from_bits((uint32_t)x); }
BOTH vi vi_set(int32_t x) { return x; }
BOTH vi vi_add(vi a, vi b) { return a + b; }
BOTH vi vi_sub(vi a, vi b) { return a - b; }
BOTH vi vi_and(vi a, vi b) { return a & b; }
BOTH vi vi_max(vi a, vi b) { return a > b ? a : b; }
BOTH vi vi_min(vi a, vi b) { return a < b ? a : b; }
BOTH vi vi_high(vi x, int n) { return (vi)((uint32_t)x >> n); }
BOTH vi vi_below(vi x, int n) { return (uint32_t)x < (uint32_t)n ? x : n; }
BOTH vi vi_pick(vm m, vi yes, vi no) { return m ? yes : no; }
/* x·2^n for integral n; in two halves, so that |n| may reach 252. Of a NaN n: x is NaN too. */
BOTH vf vf_pow2(int n) { return f32_from_bits((uint32_t)(n + 127) << 23); }
BOTH vf vf_scalb(vf x, vf n)
{
    int whole = (int)(f32_bits(n + VF_WHOLE) - f32_bits(VF_WHOLE)), half = whole >> 1;
    return x * vf_pow2(half) * vf_pow2(whole - half);
}

#include "kernels/functions.h"

#include "kernels/formulas.h"

#endif
