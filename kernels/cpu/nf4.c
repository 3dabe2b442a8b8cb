#include <math.h>

#include "kernels/cpu/elem.h"
#include "kernels/formulas.h"
#include "kernels/quant_maps.h"

/* The unit of work: blocks whose absmax share one nested scale. */
struct group {
    int64_t first, count; /* elements */
    int64_t block0, blocks;
};

static struct group group_at(int64_t index, int64_t n)
{
    struct group g = {.first = index * NF4_GROUP, .block0 = index * NF4_NESTED_BLOCK};
    g.count = n - g.first < NF4_GROUP ? n - g.first : NF4_GROUP;
    g.blocks = (g.count + NF4_BLOCK - 1) / NF4_BLOCK;
    return g;
}

static const void *block_of(const tensor *w, const struct group *g, int64_t block, int64_t *count)
{
    int64_t left = g->count - block * NF4_BLOCK;
    *count = left < NF4_BLOCK ? left : NF4_BLOCK;
    return (const char *)w->data + (size_t)(g->first + block * NF4_BLOCK) * dtype_bytes(w->dt);
}

static float block_absmax(const tensor *w, const struct group *g, int64_t block)
{
    int64_t n;
    const void *x = block_of(w, g, block, &n);
    vf top = vf_zero();
    for (int64_t i = 0; i < n; i += VW) top = vf_max(top, vf_abs(vec_load(x, w->dt, i, n)));
    return vf_top(top);
}

/* table[at], 16 entries, for indices 0 … 15 in each lane. */
static inline vf lookup16(const float *table, vi at)
{
#ifdef __AVX512F__
    return _mm512_permutexvar_ps(at, vf_load(table));
#else
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(vf_load(table), at), _mm256_permutevar8x32_ps(vf_load(table + 8), at),
                            vf_from_bits(_mm256_slli_epi32(at, 28)));
#endif
}

static inline vi indices(int x)
{
#ifdef __AVX512F__
    return _mm512_set1_epi32(x);
#else
    return _mm256_set1_epi32(x);
#endif
}

/* index + step where the threshold at index + step − 1 lies below y */
static inline vi climb(vi index, int step, const float thresholds[16], vf y)
{
#ifdef __AVX512F__
    vm above = vf_lt(lookup16(thresholds, _mm512_add_epi32(index, indices(step - 1))), y);
    return _mm512_mask_add_epi32(index, above, index, indices(step));
#else
    vm above = vf_lt(lookup16(thresholds, _mm256_add_epi32(index, indices(step - 1))), y);
    return _mm256_add_epi32(index, _mm256_and_si256(vf_bits(above), indices(step)));
#endif
}

/* A code is the number of thresholds below y, found by bisection. The missing element of an odd tensor is a zero, like
 * the rest of a short block here. */
static void encode_block(const tensor *w, const struct group *g, int64_t block, float absmax, uint8_t *codes)
{
    int64_t n;
    const void *x = block_of(w, g, block, &n);
    int32_t code[NF4_BLOCK];
    float thresholds[16] = {0};
    memcpy(thresholds, nf4_threshold, sizeof nf4_threshold);
    vf inverse = vf_set(absmax > 0 ? 1.0f / absmax : 0.0f);
    for (int64_t i = 0; i < NF4_BLOCK; i += VW) {
        vf y = vf_zero();
        if (i < n) y = vec_load(x, w->dt, i, n) * inverse;
        vi index = indices(0);
        for (int step = 8; step; step /= 2) index = climb(index, step, thresholds, y);
        memcpy(code + i, &index, sizeof index);
    }
    uint8_t *out = codes + (g->first + block * NF4_BLOCK) / 2;
    for (int64_t i = 0; i < (n + 1) / 2; i++) out[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
}

/* The nearest entry of the map; an exact midpoint takes the even index. Exact in f64. */
static uint8_t nearest_code(float y)
{
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (dynamic_map_signed[middle] <= y)
            low = middle;
        else
            high = middle;
    }
    double below = (double)y - (double)dynamic_map_signed[low], above = (double)dynamic_map_signed[high] - (double)y;
    return (uint8_t)(above < below || (above == below && high % 2 == 0) ? high : low);
}

/* nested[index] holds the group's sum of absmax until the mean is known. */
static void sum_group(const void *arg, int64_t index)
{
    const struct nf4_args *q = arg;
    struct group g = group_at(index, tensor_count(&q->w));
    double sum = 0;
    for (int64_t b = 0; b < g.blocks; b++) sum += (double)block_absmax(&q->w, &g, b);
    ((float *)q->nested.data)[index] = (float)sum;
}

static void encode_group(const void *arg, int64_t index)
{
    const struct nf4_args *q = arg;
    float offset = *(const float *)q->offset.data;
    struct group g = group_at(index, tensor_count(&q->w));
    float absmax[NF4_NESTED_BLOCK], scale = 0;
    for (int64_t b = 0; b < g.blocks; b++) {
        absmax[b] = block_absmax(&q->w, &g, b);
        encode_block(&q->w, &g, b, absmax[b], q->codes.data);
        absmax[b] -= offset;
        scale = fmaxf(scale, fabsf(absmax[b]));
    }
    for (int64_t b = 0; b < g.blocks; b++) ((uint8_t *)q->absmax_q.data)[g.block0 + b] = nearest_code(scale > 0 ? absmax[b] / scale : 0.0f);
    ((float *)q->nested.data)[index] = scale;
}

status CPU_FN(nf4_quantize)(struct stream *s, const struct nf4_args *q)
{
    int64_t n = tensor_count(&q->w), groups = (n + NF4_GROUP - 1) / NF4_GROUP, blocks = (n + NF4_BLOCK - 1) / NF4_BLOCK;
    int threads = elem_threads(s, n);
    team_for(threads, groups, sum_group, q);
    double sum = 0;
    for (int64_t i = 0; i < groups; i++) sum += (double)((const float *)q->nested.data)[i];
    *(float *)q->offset.data = blocks ? (float)(sum / (double)blocks) : 0.0f;
    team_for(threads, groups, encode_group, q);
    return ST_OK;
}

/* Sixteen codes, first in the high nibble, to the map's values. */
static inline void decode16(const uint8_t *codes, float out[16])
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)codes), low = _mm_set1_epi8(15);
    __m128i nibbles = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(bytes, 4), low), _mm_and_si128(bytes, low));
#ifdef __AVX512F__
    vf_store(out, lookup16(nf4_map, _mm512_cvtepu8_epi32(nibbles)));
#else
    vf_store(out, lookup16(nf4_map, _mm256_cvtepu8_epi32(nibbles)));
    vf_store(out + 8, lookup16(nf4_map, _mm256_cvtepu8_epi32(_mm_srli_si128(nibbles, 8))));
#endif
}

/* Elements [i, end) of the flat matrix, sixteen at most, to where they lie. */
static void store_apart(const tensor *w, int64_t i, int64_t end, const float x[16])
{
    for (int64_t j = i; j < end; j++) {
        int64_t at = j / w->dim[1] * w->ld + j % w->dim[1];
        vec_store(w->data, w->dt, at, at + 1, vf_set(x[j - i]));
    }
}

/* The scales of a group's blocks. */
static void decode_scales(const struct nf4_args *q, const struct group *g, int64_t index, float absmax[NF4_NESTED_BLOCK])
{
    if (q->absmax.data) {
        memcpy(absmax, (const float *)q->absmax.data + g->block0, (size_t)g->blocks * sizeof *absmax);
        return;
    }
    const uint8_t *scales = (const uint8_t *)q->absmax_q.data + g->block0;
    float nested = ((const float *)q->nested.data)[index], offset = *(const float *)q->offset.data;
    for (int64_t b = 0; b < g->blocks; b++) absmax[b] = dynamic_map_signed[scales[b]] * nested + offset;
}

static void decode_group(const void *arg, int64_t index)
{
    const struct nf4_args *q = arg;
    struct group g = group_at(index, tensor_count(&q->w));
    const uint8_t *codes = (const uint8_t *)q->codes.data + g.first / 2;
    float scale[NF4_NESTED_BLOCK];
    decode_scales(q, &g, index, scale);
    char *out = (char *)q->w.data + (size_t)g.first * dtype_bytes(q->w.dt);
    bool apart = q->w.rank == 2 && q->w.ld != q->w.dim[1];
    for (int64_t b = 0; b < g.blocks; b++) {
        vf absmax = vf_set(scale[b]);
        int64_t end = (b + 1) * NF4_BLOCK < g.count ? (b + 1) * NF4_BLOCK : g.count;
        for (int64_t i = b * NF4_BLOCK; i < end; i += 16) {
            float x[16];
            uint8_t tail[8] = {0};
            bool whole = end - i >= 16;
            if (!whole) memcpy(tail, codes + i / 2, (size_t)(end - i + 1) / 2);
            decode16(whole ? codes + i / 2 : tail, x);
            for (int64_t j = 0; j < 16; j += VW) vf_store(x + j, formula_through(vf_load(x + j) * absmax, q->through));
            if (apart) store_apart(&q->w, g.first + i, g.first + (whole ? i + 16 : end), x);
            for (int64_t j = i; !apart && j < end && j < i + 16; j += VW) vec_store(out, q->w.dt, j, end, vf_load(x + (j - i)));
        }
    }
}

status CPU_FN(nf4_dequantize)(struct stream *s, const struct nf4_args *q)
{
    int64_t n = tensor_count(&q->w), groups = (n + NF4_GROUP - 1) / NF4_GROUP;
    team_for(elem_threads(s, n), groups, decode_group, q);
    return ST_OK;
}
