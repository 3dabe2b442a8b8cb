#include "kernels/cpu/elem.h"
#include "kernels/cpu/random.h"
#include "kernels/formulas.h"

static inline vm kept(const uint32_t *words, uint32_t threshold)
{
#ifdef __AVX512F__
    return _mm512_cmpge_epu32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32((int)threshold));
#else
    __m256i u = _mm256_loadu_si256((const __m256i *)words);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(u, _mm256_set1_epi32((int)threshold)), u));
#endif
}

struct dropping {
    const struct dropout_args *of;
    uint64_t key;
};

static void drop_row(const void *arg, int64_t token)
{
    const struct dropping *now = arg;
    const struct dropout_args *d = now->of;
    int64_t width = d->x.dim[1], first = d->rows.position[token] * width;
    uint64_t sample = (uint64_t)d->rows.sample[token];
    uint32_t threshold = formula_dropout_threshold(d->p), words[PHILOX_WORDS + VW] = {0};
    float scale = formula_dropout_scale(d->p);
    const void *x = row_of(&d->x, token);
    void *y = row_of(&d->y, token);
    dtype dt = d->x.dt;
    int64_t skip = first % 4; /* lanes of the first block that belong to the row before */
    for (int64_t c = 0; c < width; c += PHILOX_WORDS - skip, skip = 0) {
        if (threshold) philox_fill(now->key, (uint64_t)(first + c) / 4, sample, words);
        int64_t end = c + PHILOX_WORDS - skip < width ? c + PHILOX_WORDS - skip : width;
        for (int64_t i = c; i < end; i += VW) {
            vf old = vf_zero();
            if (d->accumulate) old = vec_load(y, dt, i, end);
            vf new = formula_axpy(vec_load(x, dt, i, end), old, scale, d->accumulate);
            vec_store(y, dt, i, end, vf_pick(kept(words + skip + (i - c), threshold), new, old));
        }
    }
}

status CPU_FN(dropout)(struct stream *s, const struct dropout_args *d)
{
    int64_t tokens = d->x.dim[0];
    struct dropping now = {d, formula_dropout_key(d)};
    team_for(elem_threads(s, tokens * d->x.dim[1]), tokens, drop_row, &now);
    return ST_OK;
}
