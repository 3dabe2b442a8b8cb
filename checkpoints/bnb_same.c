/* bnb_same.c — are these the weights that were quantised? Judged from codes and a sample of values, scales are not looked at. */
#include <math.h>
#include <string.h>

#include "checkpoints/bnb.h"
#include "kernels/quant_maps.h"

enum { RUNS = 4, RUN_BLOCKS = 16 };

/* What 16 bits may have done to a value and to its block's largest, and to their quotient. */
static const float ROUNDED = 1.0f / 128;

static float value_at(const struct st_entry *e, int64_t i)
{
    const char *data = e->data;
    float wide;
    uint16_t narrow;
    if (e->dt == DT_F32) {
        memcpy(&wide, data + (size_t)i * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, data + (size_t)i * sizeof narrow, sizeof narrow);
    return e->dt == DT_BF16 ? bf16_widen(narrow) : f16_widen(narrow);
}

static bool has_values(const struct st_entry *e) { return e->known && (e->dt == DT_F32 || e->dt == DT_BF16 || e->dt == DT_F16); }

struct sample {
    int64_t seen, strays;
};

/* 64 values from `first` on: each, as a share of the largest, belongs in the bin of its code, between the midpoints to its neighbours. */
static void see_block(const struct bnb_tensor *t, const struct st_entry *original, int64_t first, int64_t n, struct sample *s)
{
    const unsigned char *codes = t->codes->data;
    float largest = 0;
    for (int64_t i = first; i < first + n; i++) largest = fmaxf(largest, fabsf(value_at(original, i)));
    for (int64_t i = first; i < first + n; i++) {
        int code = i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
        float share = largest > 0 ? value_at(original, i) / largest : 0;
        bool fits = (code == 0 || share >= nf4_threshold[code - 1] - ROUNDED) && (code == 15 || share <= nf4_threshold[code] + ROUNDED);
        s->seen++;
        s->strays += !fits;
    }
}

static void see_value(const struct st_entry *source, const struct st_entry *original, int64_t i, struct sample *s)
{
    float a = value_at(source, i), b = value_at(original, i);
    s->seen++;
    s->strays += !(fabsf(a - b) <= ROUNDED * fabsf(b));
}

double bnb_strays(const struct bnb_tensor *t, const struct st_entry *source, const struct st_entry *original)
{
    struct sample s = {0};
    int64_t count = 1, blocks;
    for (int k = 0; k < original->rank; k++) count *= original->dim[k];
    if (!has_values(original) || (!t->codes && !has_values(source))) return 0;
    blocks = (count + NF4_BLOCK - 1) / NF4_BLOCK;
    bool all = blocks <= RUNS * RUN_BLOCKS;
    for (int run = 0; run < (all ? 1 : RUNS); run++) {
        int64_t first = all ? 0 : (blocks - RUN_BLOCKS) * run / (RUNS - 1), end = all ? blocks : first + RUN_BLOCKS;
        for (int64_t b = first; b < end; b++) {
            int64_t at = b * NF4_BLOCK, n = count - at < NF4_BLOCK ? count - at : NF4_BLOCK;
            if (t->codes) see_block(t, original, at, n, &s);
            for (int64_t i = at; !t->codes && i < at + n; i++) see_value(source, original, i, &s);
        }
    }
    return s.seen ? (double)s.strays / (double)s.seen : 0;
}
