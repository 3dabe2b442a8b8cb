#include "worker/data/order.h"

#include <assert.h>

#include "kernels/base/philox.h"

/* A Feistel network over the smallest power of two that holds n, walked until it lands inside [0, n): a cycle of a
 * bijection, cut to a subset, is a bijection of the subset. Small n use 64 values, since a network over two or three
 * bits reaches few permutations. The halves are odd-sized where they must be: each round changes one by the other. */
enum { ROUNDS = 8, MIN_BITS = 6 };

static uint64_t feistel(uint64_t key, int low_bits, int high_bits, uint64_t x)
{
    uint64_t low = x & (((uint64_t)1 << low_bits) - 1), high = x >> low_bits;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t *to = round & 1 ? &low : &high, from = round & 1 ? high : low;
        int bits = round & 1 ? low_bits : high_bits;
        philox4 r = philox(key, from, (uint64_t)round);
        *to ^= (r.v[0] | (uint64_t)r.v[1] << 32) & (((uint64_t)1 << bits) - 1);
    }
    return high << low_bits | low;
}

int64_t order_permute(uint64_t seed, int64_t epoch, int64_t n, int64_t position)
{
    assert(n > 0 && position >= 0 && position < n);
    int bits = MIN_BITS;
    while (bits < 62 && ((int64_t)1 << bits) < n) bits++;
    uint64_t key = rng_key(seed, RNG_ORDER, 0, (uint32_t)epoch), x = (uint64_t)position;
    do x = feistel(key, bits - bits / 2, bits / 2, x);
    while (x >= (uint64_t)n);
    return (int64_t)x;
}
