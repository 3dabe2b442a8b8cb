/* one.h — the vocabulary of kernels/cpu/vec.h for a thread that owns one element: formulas.h and functions.h mean the same here,
 * bit for bit (the compiler contracts nothing: -fmad=false; a fused product is spelt vf_fma). */
#ifndef TRIMPOT_CUDA_ONE_H
#define TRIMPOT_CUDA_ONE_H

#include <math.h>

#include "kernels/base/tensor.h"

typedef float vf;
typedef bool vm;

BOTH vf vf_set(float x) { return x; }
BOTH vf vf_zero(void) { return 0.0f; }
BOTH vf vf_fma(vf a, vf b, vf c) { return fmaf(a, b, c); }
BOTH vf vf_fnma(vf a, vf b, vf c) { return fmaf(-a, b, c); }
BOTH vf vf_max(vf a, vf b) { return a > b ? a : b; } /* b when either is NaN */
BOTH vf vf_min(vf a, vf b) { return a < b ? a : b; }
BOTH vf vf_sqrt(vf x) { return sqrtf(x); }
BOTH vf vf_abs(vf x) { return fabsf(x); }
BOTH vf vf_nearest(vf x) { return rintf(x); }
BOTH vf vf_copysign(vf magnitude, vf sign) { return copysignf(magnitude, sign); }
BOTH vm vf_lt(vf a, vf b) { return a < b; }
BOTH vm vf_ge(vf a, vf b) { return a >= b; }
BOTH vf vf_pick(vm m, vf yes, vf no) { return m ? yes : no; }
BOTH vf vf_scalb(vf x, vf n) { return ldexpf(x, (int)n); } /* of a NaN n: x is NaN too */

#include "kernels/functions.h"

#include "kernels/formulas.h"

#endif
