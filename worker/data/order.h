/* order.h — the order of an epoch as a pure function: no list of indices exists. */
#ifndef TRIMPOT_ORDER_H
#define TRIMPOT_ORDER_H

#include <stdint.h>

/* Where `position` goes in the permutation of [0, n) that (seed, epoch) choose: a bijection for every key. */
int64_t order_permute(uint64_t seed, int64_t epoch, int64_t n, int64_t position);

#endif
