/* vec.h — one vector of floats, as wide as the instruction set this file is compiled for.
 *
 * Loops of kernels/cpu are written once over `vf` (VW floats) and compiled twice (see cpu.h). + − * / work on vf
 * directly: each is one IEEE operation, and nothing is contracted; a fused product is spelt vf_fma. Tails: the
 * `_n` forms touch exactly n < VW elements and fill the missing lanes with zero.
 *
 *      for (int64_t i = 0; i < n; i += VW)
 *          vec_store(y, dt, i, n, vec_load(x, dt, i, n) * scale);      handles tails and dtypes
 */
#ifndef TRIMPOT_CPU_VEC_H
#define TRIMPOT_CPU_VEC_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base/tensor.h"

#ifdef __AVX512F__

enum { VW = 16 };
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm; /* a lane mask */

static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vm vm_first(int64_t n) { return (vm)((1u << n) - 1); }
static inline vf vf_load_n(const float *p, int64_t n) { return _mm512_maskz_loadu_ps(vm_first(n), p); }
static inline void vf_store_n(float *p, int64_t n, vf x) { _mm512_mask_storeu_ps(p, vm_first(n), x); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   /* a·b + c */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c − a·b */
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }              /* b when either is NaN */
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }              /* b when either is NaN */
static inline vf vf_sqrt(vf x) { return _mm512_sqrt_ps(x); }
static inline vf vf_abs(vf x) { return _mm512_abs_ps(x); }
static inline vf vf_nearest(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vi vf_bits(vf x) { return _mm512_castps_si512(x); }
static inline vf vf_from_bits(vi x) { return _mm512_castsi512_ps(x); }
static inline vf vf_copysign(vf magnitude, vf sign)
{
    __m512i top = _mm512_set1_epi32((int)0x80000000u);
    return vf_from_bits(_mm512_ternarylogic_epi32(top, vf_bits(sign), vf_bits(magnitude), 0xca));
}
static inline vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vf_ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline vf vf_pick(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }

static inline vf vf_widen_epi16(__m256i h) { return vf_from_bits(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
static inline vf vf_load_bf16(const bf16 *p) { return vf_widen_epi16(_mm256_loadu_si256((const __m256i *)p)); }
static inline vf vf_load_bf16_n(const bf16 *p, int64_t n) { return vf_widen_epi16(_mm256_maskz_loadu_epi16(vm_first(n), p)); }
/* The bits bf16_round gives: nearest even, NaN stays a quiet NaN. */
static inline __m256i vf_narrow_epi16(vf x)
{
    __m512i u = vf_bits(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i near = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    __m512i r = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), near, quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}
static inline void vf_store_bf16(bf16 *p, vf x) { _mm256_storeu_si256((__m256i *)p, vf_narrow_epi16(x)); }
static inline void vf_store_bf16_n(bf16 *p, int64_t n, vf x) { _mm256_mask_storeu_epi16(p, vm_first(n), vf_narrow_epi16(x)); }

/* x·2^n for integral n; overflow gives Inf, underflow rounds once. */
static inline vf vf_scalb(vf x, vf n) { return _mm512_scalef_ps(x, n); }

/* Integers of 32 bits, for codes of 8 bits. vi_at, vf_at: what a table holds at VW indices, all in range. vi_store_u16, vi_store_u8: the
 * lanes of two and of four vectors in order, all of which fit. */
static inline vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
static inline vi vi_high(vi x, int n) { return _mm512_srli_epi32(x, (unsigned)n); } /* x / 2^n, unsigned */
static inline vi vi_below(vi x, int n) { return _mm512_min_epu32(x, vi_set(n)); }   /* n where x < 0 or x > n */
static inline vi vi_pick(vm m, vi yes, vi no) { return _mm512_mask_blend_epi32(m, no, yes); }
static inline vi vi_at(const uint32_t *table, const uint16_t *i)
{
    return _mm512_i32gather_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)i)), table, 4);
}
static inline vf vf_at(const float *table, const uint8_t *i)
{
    return _mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)i)), table, 4);
}
static inline void vi_store_u16(uint16_t *p, vi a, vi b)
{
    __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi64(order, _mm512_packus_epi32(a, b)));
}
static inline void vi_store_u8(uint8_t *p, const vi x[4])
{
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i bytes = _mm512_packus_epi16(_mm512_packus_epi32(x[0], x[1]), _mm512_packus_epi32(x[2], x[3]));
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, bytes));
}

#else

enum { VW = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;

static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vi vi_first(int64_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
static inline vm vm_first(int64_t n) { return _mm256_castsi256_ps(vi_first(n)); }
static inline vf vf_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, vi_first(n)); }
static inline void vf_store_n(float *p, int64_t n, vf x) { _mm256_maskstore_ps(p, vi_first(n), x); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_sqrt(vf x) { return _mm256_sqrt_ps(x); }
static inline vf vf_abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
static inline vf vf_nearest(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vi vf_bits(vf x) { return _mm256_castps_si256(x); }
static inline vf vf_from_bits(vi x) { return _mm256_castsi256_ps(x); }
static inline vf vf_copysign(vf magnitude, vf sign)
{
    vf top = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(top, magnitude), _mm256_and_ps(top, sign));
}
static inline vm vf_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm vf_ge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
static inline vf vf_pick(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }

static inline vf vf_widen_epi16(__m128i h) { return vf_from_bits(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
static inline vf vf_load_bf16(const bf16 *p) { return vf_widen_epi16(_mm_loadu_si128((const __m128i *)p)); }
static inline vf vf_load_bf16_n(const bf16 *p, int64_t n)
{
    bf16 lanes[8] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return vf_load_bf16(lanes);
}
static inline __m128i vf_narrow_epi16(vf x)
{
    __m256i u = vf_bits(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i near = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256i nan = vf_bits(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i r = _mm256_srli_epi32(_mm256_blendv_epi8(near, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline void vf_store_bf16(bf16 *p, vf x) { _mm_storeu_si128((__m128i *)p, vf_narrow_epi16(x)); }
static inline void vf_store_bf16_n(bf16 *p, int64_t n, vf x)
{
    bf16 lanes[8];
    vf_store_bf16(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

static inline vf vf_pow2(vi n) /* 2^n for n in [−126, 127] */
{
    return vf_from_bits(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
static inline vf vf_scalb(vf x, vf n) /* in two halves, so that |n| may reach 252 */
{
    vi whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return x * vf_pow2(half) * vf_pow2(_mm256_sub_epi32(whole, half));
}

static inline vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
static inline vi vi_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
static inline vi vi_high(vi x, int n) { return _mm256_srli_epi32(x, n); }
static inline vi vi_below(vi x, int n) { return _mm256_min_epu32(x, vi_set(n)); }
static inline vi vi_pick(vm m, vi yes, vi no) { return _mm256_blendv_epi8(no, yes, vf_bits(m)); }
/* One by one: where AVX2 is all there is, a gather takes twice as long. Half of the indices come in one word, for loads are what it
 * waits for. */
static inline vi vi_at(const uint32_t *t, const uint16_t *i)
{
    uint64_t w;
    memcpy(&w, i, sizeof w);
    return (vi)(__v8su){t[w & 0xffff], t[w >> 16 & 0xffff], t[w >> 32 & 0xffff], t[w >> 48], t[i[4]], t[i[5]], t[i[6]], t[i[7]]};
}
static inline vf vf_at(const float *t, const uint8_t *i)
{
    uint32_t w;
    memcpy(&w, i, sizeof w);
    return (vf){t[w & 0xff], t[w >> 8 & 0xff], t[w >> 16 & 0xff], t[w >> 24], t[i[4]], t[i[5]], t[i[6]], t[i[7]]};
}
static inline void vi_store_u16(uint16_t *p, vi a, vi b)
{
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8));
}
static inline void vi_store_u8(uint8_t *p, const vi x[4])
{
    __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(x[0], x[1]), _mm256_packus_epi32(x[2], x[3]));
    _mm256_storeu_si256((__m256i *)p, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

#endif

static inline vf vf_zero(void) { return vf_set(0.0f); }

/* Lanes added (or compared) by halves: the order is fixed, but is another one for another VW. */
#ifdef __AVX512F__
#define VF_FOLD_8(op, x) _mm256_##op(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)), _mm512_castps512_ps256(x))
#else
#define VF_FOLD_8(op, x) (x)
#endif
#define VF_FOLD(name, op)                                                                                                                  \
    static inline float name(vf x)                                                                                                         \
    {                                                                                                                                      \
        __m256 eight = VF_FOLD_8(op, x);                                                                                                   \
        __m128 four = _mm_##op(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));                                            \
        __m128 two = _mm_##op(_mm_movehl_ps(four, four), four);                                                                            \
        return _mm_cvtss_f32(_mm_##op(_mm_movehdup_ps(two), two));                                                                         \
    }
VF_FOLD(vf_sum, add_ps)
VF_FOLD(vf_top, max_ps)
#undef VF_FOLD
#undef VF_FOLD_8

#include "kernels/functions.h"

static inline float vf_first(vf x) { return x[0]; }

/* Lanes [i, min(i + VW, n)) of an array of f32 or bf16. In a loop over i the choice of dtype is hoisted when the
 * function that holds the loop gets `dt` as a constant; otherwise it is a predicted branch. */
static inline vf vec_load(const void *base, dtype dt, int64_t i, int64_t n)
{
    if (dt == DT_F32) return n - i >= VW ? vf_load((const float *)base + i) : vf_load_n((const float *)base + i, n - i);
    return n - i >= VW ? vf_load_bf16((const bf16 *)base + i) : vf_load_bf16_n((const bf16 *)base + i, n - i);
}

static inline void vec_store(void *base, dtype dt, int64_t i, int64_t n, vf x)
{
    if (dt == DT_F32) {
        if (n - i >= VW)
            vf_store((float *)base + i, x);
        else
            vf_store_n((float *)base + i, n - i, x);
    } else if (n - i >= VW) {
        vf_store_bf16((bf16 *)base + i, x);
    } else {
        vf_store_bf16_n((bf16 *)base + i, n - i, x);
    }
}

#endif
