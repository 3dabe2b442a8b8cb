/* philox.h — counter-based random numbers: every number is a pure function of what it is for.
 *
 * Philox4x32-10 (Salmon et al. 2011). Nothing here has state, so recomputation, another rank count or a resumed run
 * draw the same numbers. Keys and counters: rng_key and enum rng_purpose. */
#ifndef TRIMPOT_PHILOX_H
#define TRIMPOT_PHILOX_H

#include <stdint.h>

#include "kernels/base/both.h"

typedef struct {
    uint32_t v[4];
} philox4;

enum rng_purpose {
    RNG_DROPOUT = 1,   /* counter = (element / 4, sample), lane = element % 4 */
    RNG_SR_WEIGHT = 2, /* counter = (index / 8, 0), 16-bit lane = index % 8 */
    RNG_SR_M = 3,
    RNG_SR_V = 4,
    RNG_INIT = 5,
    RNG_ORDER = 6,
    RNG_SAMPLE = 7, /* `generate` */
};

BOTH philox4 philox(uint64_t key, uint64_t low, uint64_t high)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (philox4){{c0, c1, c2, c3}};
}

/* SplitMix64: the finaliser after adding the golden gamma. rng_mix(0) = e220a8397b1dcdaf. */
BOTH uint64_t rng_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

/* A key but for its step, which whoever draws may be the first to know. site: number of the tensor or linear (24 bits). */
BOTH uint64_t rng_base(uint64_t seed, enum rng_purpose purpose, uint32_t site)
{
    return rng_mix(seed) ^ ((uint64_t)purpose << 56 | (uint64_t)(site & 0xffffffu) << 32);
}

BOTH uint64_t rng_key_of(uint64_t base, uint32_t step) { return rng_mix(base ^ step); }

/* step: optimizer step (32 bits). */
BOTH uint64_t rng_key(uint64_t seed, enum rng_purpose purpose, uint32_t site, uint32_t step)
{
    return rng_key_of(rng_base(seed, purpose, site), step);
}

#endif
