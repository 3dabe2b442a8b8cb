#include "kernels/cpu/elem.h"
#include "kernels/cpu/random.h"
#include "kernels/formulas.h"

static void draw(const struct init_args *a, uint64_t block, float out[PHILOX_WORDS])
{
    uint32_t words[PHILOX_WORDS];
    philox_fill(a->key, block, 0, words);
    if (a->normal)
        for (int i = 0; i < PHILOX_WORDS; i += 2) formula_normal(words[i], words[i + 1], out + i);
    else
        for (int i = 0; i < PHILOX_WORDS; i++) out[i] = formula_uniform(words[i]);
}

static int64_t skipped(const struct init_args *a) { return a->flat0 % 4; } /* lanes of the first block before ours */

static void fill(const void *arg, int64_t f)
{
    const struct init_args *a = arg;
    float x[PHILOX_WORDS];
    draw(a, (uint64_t)(a->flat0 / 4 + f * PHILOX_BLOCKS), x);
    int64_t n = tensor_count(&a->w), first = f * PHILOX_WORDS - skipped(a), from = first < 0 ? 0 : first;
    int64_t end = first + PHILOX_WORDS < n ? first + PHILOX_WORDS : n;
    for (int64_t e = from; e < end; e += VW)
        vec_store(a->w.data, a->w.dt, e, end, vec_load(x, DT_F32, e - first, end - first) * vf_set(a->bound));
}

status CPU_FN(init)(struct stream *s, const struct init_args *a)
{
    int64_t n = tensor_count(&a->w);
    team_for(elem_threads(s, n), (n + skipped(a) + PHILOX_WORDS - 1) / PHILOX_WORDS, fill, a);
    return ST_OK;
}
