/* functions.h — exp, tanh, sigmoid and the soft cap, written once for every backend over the vocabulary of kernels/cpu/vec.h
 * (which includes this at its end) or of kernels/cuda/one.h: the same bits everywhere. */
#ifndef TRIMPOT_FUNCTIONS_H
#define TRIMPOT_FUNCTIONS_H

#include "kernels/base/both.h"

/* exp, error ≤ 1.02 ulp. Cody–Waite reduction to |r| ≤ ln2/2, then 1 + r + r²·q(r), q of degree 4 (Chebyshev nodes;
 * 0.18·2^-24 off). Below −104 it is 0, above 88.73 Inf; NaN stays. */
BOTH vf vf_exp(vf x)
{
    x = vf_min(vf_set(89.0f), vf_max(vf_set(-104.5f), x));
    vf n = vf_nearest(x * vf_set(1.44269504f));
    vf r = vf_fnma(n, vf_set(0x1.62e4p-1f), x); /* n·(ln2's high 15 bits) is exact */
    r = vf_fnma(n, vf_set(0x1.7f7d1cp-20f), r);
    vf q = vf_fma(vf_set(0.00139262504f), r, vf_set(0.00836323295f));
    q = vf_fma(q, r, vf_set(0.0416665524f));
    q = vf_fma(q, r, vf_set(0.166665763f));
    q = vf_fma(q, r, vf_set(0.5f));
    return vf_scalb(vf_fma(q, r * r, r) + vf_set(1.0f), n);
}

/* tanh, ≤ 1.3 ulp: an odd polynomial below 0.625, 1 − 2/(e^2|x| + 1) above. */
BOTH vf vf_tanh(vf x)
{
    vf a = vf_abs(x), z = x * x;
    vf p = vf_fma(vf_set(-0.00609671418f), z, vf_set(0.0209971797f));
    p = vf_fma(p, z, vf_set(-0.0538509078f));
    p = vf_fma(p, z, vf_set(0.133327693f));
    p = vf_fma(p, z, vf_set(-0.333333284f));
    vf small = vf_fma(p * z, x, x);
    vf large = vf_copysign(vf_set(1.0f) - vf_set(2.0f) / (vf_exp(a + a) + vf_set(1.0f)), x);
    return vf_pick(vf_lt(a, vf_set(0.625f)), small, large);
}

/* ≤ 2 ulp. */
BOTH vf vf_sigmoid(vf x) { return vf_set(1.0f) / (vf_set(1.0f) + vf_exp(vf_zero() - x)); }

/* cap·tanh(x/cap); cap = 0 means no cap. */
BOTH vf vf_soft_cap(vf x, float cap)
{
    if (cap == 0.0f) return x;
    return vf_set(cap) * vf_tanh(x / vf_set(cap));
}

#endif
