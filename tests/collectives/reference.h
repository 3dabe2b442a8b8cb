/* reference.h — leaves whose sums round nearly always, and the reduction tree by its definition. */
#ifndef TRIMPOT_TESTS_REFERENCE_H
#define TRIMPOT_TESTS_REFERENCE_H

#include "kernels/base/philox.h"

static inline float leaf_value(int leaf, int64_t e)
{
    philox4 r = philox(11, (uint64_t)e, (uint64_t)leaf);
    return ((float)r.v[0] - 2147483648.0f) * 0x1p-31f * (float)(1u << r.v[1] % 20);
}

static inline float tree_value(int a, int b, int64_t e)
{
    if (b - a == 1) return leaf_value(a, e);
    int p = 1;
    while (2 * p < b - a) p *= 2;
    return tree_value(a, a + p, e) + tree_value(a + p, b, e);
}

#endif
