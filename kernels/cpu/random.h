/* random.h — Philox4x32-10 for many counters at a time, and stores with stochastic rounding.
 * Same numbers as kernels/base/philox.h, one block after the other. */
#ifndef TRIMPOT_CPU_RANDOM_H
#define TRIMPOT_CPU_RANDOM_H

#include "kernels/base/philox.h"
#include "kernels/cpu/vec.h"

enum { PHILOX_BLOCKS = 16, PHILOX_WORDS = 4 * PHILOX_BLOCKS, PHILOX_HALVES = 2 * PHILOX_WORDS };

/* In both forms below the counters are laid out so that transposing 4×4 words inside 128-bit lanes puts the blocks in
 * order: lane k, position j holds counter (lanes·j + k). */
#ifdef __AVX512F__

#define RV(op) _mm512_##op
typedef __m512i rv;
static inline rv rv_set(uint32_t x) { return _mm512_set1_epi32((int)x); }
static inline rv rv_counters(void) { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }
static inline rv rv_odd(rv even, rv odd) { return _mm512_mask_blend_epi32(0xaaaa, even, odd); }
static inline rv rv_xor(rv a, rv b, rv c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
static inline void rv_store(uint32_t *p, rv x) { _mm512_storeu_si512(p, x); }

#else

#define RV(op) _mm256_##op
typedef __m256i rv;
static inline rv rv_set(uint32_t x) { return _mm256_set1_epi32((int)x); }
static inline rv rv_counters(void) { return _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7); }
static inline rv rv_odd(rv even, rv odd) { return _mm256_blend_epi32(even, odd, 0xaa); }
static inline rv rv_xor(rv a, rv b, rv c) { return _mm256_xor_si256(a, _mm256_xor_si256(b, c)); }
static inline void rv_store(uint32_t *p, rv x) { _mm256_storeu_si256((__m256i *)p, x); }

#endif

typedef struct {
    rv high, low;
} rv_pair;

static inline rv_pair rv_multiply(rv x, uint32_t by)
{
    rv m = rv_set(by);
    rv even = RV(mul_epu32)(x, m), odd = RV(mul_epu32)(RV(srli_epi64)(x, 32), m);
    return (rv_pair){rv_odd(RV(srli_epi64)(even, 32), odd), rv_odd(even, RV(slli_epi64)(odd, 32))};
}

/* VW blocks from counter (low, high); low + VW − 1 must not carry out of its lower word. */
static inline void philox_vector(uint64_t key, uint64_t low, uint64_t high, uint32_t *out)
{
    rv c0 = RV(add_epi32)(rv_counters(), rv_set((uint32_t)low)), c1 = rv_set((uint32_t)(low >> 32));
    rv c2 = rv_set((uint32_t)high), c3 = rv_set((uint32_t)(high >> 32));
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        rv_pair p0 = rv_multiply(c0, 0xD2511F53u), p1 = rv_multiply(c2, 0xCD9E8D57u);
        c0 = rv_xor(p1.high, c1, rv_set(k0));
        c1 = p1.low;
        c2 = rv_xor(p0.high, c3, rv_set(k1));
        c3 = p0.low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    rv a = RV(unpacklo_epi32)(c0, c1), b = RV(unpacklo_epi32)(c2, c3);
    rv c = RV(unpackhi_epi32)(c0, c1), d = RV(unpackhi_epi32)(c2, c3);
    rv_store(out, RV(unpacklo_epi64)(a, b));
    rv_store(out + VW, RV(unpackhi_epi64)(a, b));
    rv_store(out + 2 * VW, RV(unpacklo_epi64)(c, d));
    rv_store(out + 3 * VW, RV(unpackhi_epi64)(c, d));
}
#undef RV

/* Blocks block0 … block0 + 15 of (key, ·, high), four words each, in order. */
static inline void philox_fill(uint64_t key, uint64_t block0, uint64_t high, uint32_t out[PHILOX_WORDS])
{
    if ((uint32_t)block0 <= UINT32_MAX - PHILOX_BLOCKS) {
        for (int i = 0; i < PHILOX_BLOCKS; i += VW) philox_vector(key, block0 + (uint64_t)i, high, out + 4 * i);
        return;
    }
    for (int i = 0; i < PHILOX_BLOCKS; i++) {
        philox4 p = philox(key, block0 + (uint64_t)i, high);
        memcpy(out + 4 * i, p.v, sizeof p.v);
    }
}

/* 16-bit lane `index` of a filled buffer: the words are little-endian in memory, as is this backend. */
static inline const uint16_t *philox_halves(const uint32_t *words) { return (const uint16_t *)(const void *)words; }

/* The bits bf16_round_sr gives for lanes [0, n), n ≤ VW; r: n numbers, readable up to VW. */
static inline void vf_store_sr(bf16 *p, int64_t n, vf x, const uint16_t *r)
{
#ifdef __AVX512F__
    __m512i u = vf_bits(x), noise = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)r));
    __m512i top = _mm512_set1_epi32(0x7f800000);
    __mmask16 special = _mm512_cmpeq_epi32_mask(_mm512_and_si512(u, top), top);
    __m512i sum = _mm512_mask_blend_epi32(special, _mm512_add_epi32(u, noise), u);
    sum = _mm512_mask_or_epi32(sum, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), sum, _mm512_set1_epi32(0x400000));
    __m256i h = _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16));
    if (n >= VW)
        _mm256_storeu_si256((__m256i *)p, h);
    else
        _mm256_mask_storeu_epi16(p, vm_first(n), h);
#else
    __m256i u = vf_bits(x), noise = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)r));
    __m256i top = _mm256_set1_epi32(0x7f800000);
    __m256i special = _mm256_cmpeq_epi32(_mm256_and_si256(u, top), top);
    __m256i sum = _mm256_blendv_epi8(_mm256_add_epi32(u, noise), u, special);
    __m256i nan = vf_bits(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    sum = _mm256_or_si256(sum, _mm256_and_si256(nan, _mm256_set1_epi32(0x400000)));
    sum = _mm256_srli_epi32(sum, 16);
    __m128i h = _mm_packus_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    bf16 tail[8];
    _mm_storeu_si128((__m128i *)(n >= VW ? p : tail), h);
    if (n < VW) memcpy(p, tail, (size_t)n * sizeof *p);
#endif
}

#endif
