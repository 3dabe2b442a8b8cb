/* Reference: optimizers with their roundings, initialisation, NF4. */
#include <math.h>
#include <string.h>

#include "tests/ref/ref.h"

/* Stochastic rounding from the law: up, away from zero, with probability (low 16 bits of the f32)/65536. */
static double round_by_chance(double x, uint64_t key, int64_t element)
{
    uint32_t words[4], bits;
    ref_philox(key, (uint64_t)element / 8, 0, words);
    uint32_t lane = (uint32_t)(element % 8), draw = words[lane / 2] >> (lane % 2 ? 16 : 0) & 0xffff;
    float narrow = (float)x;
    memcpy(&bits, &narrow, sizeof bits);
    if (!isfinite(narrow)) return x;
    double below = (double)narrow, unit;
    uint32_t cut = bits & 0xffff0000u;
    float truncated;
    memcpy(&truncated, &cut, sizeof truncated);
    below = (double)truncated;
    uint32_t next_bits = cut + 0x10000u;
    float next;
    memcpy(&next, &next_bits, sizeof next);
    unit = (double)next - below;
    return draw + (bits & 0xffff) >= 65536 ? below + unit : below;
}

static void store_state(const tensor *t, struct mat m, bool chance, uint64_t key, int64_t flat0)
{
    if (!m.v) return;
    for (int64_t i = 0; chance && t->dt == DT_BF16 && i < m.rows * m.cols; i++)
        m.v[i] = round_by_chance(m.v[i], key, flat0 + i);
    mat_store(t, m);
}

static void adam(const struct optim_args *o, double *w, double *m, double *v, double g)
{
    double b1 = (double)o->beta1, b2 = (double)o->beta2;
    if (o->kind == OPTIM_ADAMW)
        *w -= (double)o->lw * *w;
    else
        g += (double)o->wd * *w;
    *m = b1 * *m + (1 - b1) * g;
    *v = b2 * *v + (1 - b2) * g * g;
    *w -= (double)o->step * *m / (sqrt(*v) / (double)o->c2 + (double)o->eps);
}

static void sgd(const struct optim_args *o, double *w, double *buf, double g)
{
    double d = g + (double)o->wd * *w, mu = (double)o->beta1;
    if (buf) {
        *buf = o->first ? d : mu * *buf + (1 - (double)o->beta2) * d;
        d = o->nesterov ? d + mu * *buf : *buf;
    }
    *w -= (double)o->lr * d;
}

status optim_ref(struct stream *s, const struct optim_args *o)
{
    (void)s;
    struct mat w = mat_load(o->master.data ? &o->master : &o->w), g = mat_load(&o->g), m = mat_load(&o->m),
               v = mat_load(&o->v);
    for (int64_t i = 0; i < w.rows * w.cols; i++) {
        double gradient = (double)o->gscale * g.v[i];
        if (o->kind == OPTIM_SGD)
            sgd(o, &w.v[i], m.v && o->beta1 != 0 ? &m.v[i] : NULL, gradient);
        else
            adam(o, &w.v[i], &m.v[i], &v.v[i], gradient);
    }
    if (o->master.data) mat_store(&o->master, w);
    store_state(&o->w, w, o->sr && !o->master.data, o->key_w, o->flat0);
    store_state(&o->m, m, true, o->key_m, o->flat0);
    store_state(&o->v, v, true, o->key_v, o->flat0);
    mat_free(w), mat_free(g), mat_free(m), mat_free(v);
    return ST_OK;
}

status init_ref(struct stream *s, const struct init_args *a)
{
    (void)s;
    struct mat w = mat_load(&a->w);
    for (int64_t i = 0; i < w.rows * w.cols; i++) {
        uint32_t words[4];
        int64_t e = a->flat0 + i, lane = e % 4, pair = lane / 2 * 2;
        ref_philox(a->key, (uint64_t)e / 4, 0, words);
        double unit = ((double)(words[lane] >> 9) + 0.5) / 4194304 - 1; /* odd multiples of 2^-23 */
        if (a->normal) {
            double radius = sqrt(-2 * log(((double)(words[pair] >> 9) + 0.5) / 8388608));
            double angle = 2 * 3.14159265358979323846 * (double)words[pair + 1] / 4294967296;
            unit = radius * (lane % 2 ? sin(angle) : cos(angle));
        }
        w.v[i] = (double)a->bound * unit;
    }
    mat_store(&a->w, w);
    mat_free(w);
    return ST_OK;
}

/* ---- NF4 with double quantisation ------------------------------------------------------------------------------- */

static const double nf4[16] = {
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
};

/* The signed dynamic map by its bit recipe, ascending. */
static void dynamic_map(double map[256])
{
    for (int i = 0; i < 7; i++) {
        int m = 1 << i;
        float h = (1 - 0.1f) / (float)m, edge[65];
        for (int k = 0; k <= m; k++) edge[k] = 2 * k < m + 1 ? fmaf(h, (float)k, 0.1f) : fmaf(-h, (float)(m - k), 1.0f);
        for (int k = 0; k < m; k++) {
            float value = (float)pow(10, i - 6) * ((edge[k] + edge[k + 1]) / 2);
            map[127 + m + k] = (double)value;
            map[127 - m - k] = -(double)value;
        }
    }
    map[127] = 0;
    map[255] = 1;
}

static int nearest(const double *map, int n, double y, bool tie_even)
{
    int best = 0;
    for (int i = 1; i < n; i++) {
        double gain = fabs(y - map[best]) - fabs(y - map[i]);
        if (gain > 0 || (gain == 0 && tie_even && i % 2 == 0)) best = i;
    }
    return best;
}

static double block_top(struct mat w, int64_t block, int64_t n)
{
    double top = 0;
    for (int64_t i = block * 64; i < n && i < block * 64 + 64; i++) top = fmax(top, fabs(w.v[i]));
    return top;
}

status nf4_quantize_ref(struct stream *s, const struct nf4_args *q)
{
    (void)s;
    struct mat w = mat_load(&q->w), codes = mat_load(&q->codes), scales = mat_load(&q->absmax_q),
               nested = mat_load(&q->nested), offset = mat_zero(1, 1);
    int64_t n = w.rows * w.cols, blocks = (n + 63) / 64;
    double map[256];
    dynamic_map(map);
    for (int64_t b = 0; b < blocks; b++) offset.v[0] += block_top(w, b, n) / (double)blocks;
    for (int64_t i = 0; i < n + n % 2; i++) {
        double top = block_top(w, i / 64, n), y = i < n && top > 0 ? w.v[i] / top : 0;
        int code = nearest(nf4, 16, y, false);
        codes.v[i / 2] = i % 2 ? codes.v[i / 2] + code : 16 * code;
    }
    for (int64_t g = 0; g < nested.rows * nested.cols; g++) {
        nested.v[g] = 0;
        for (int64_t b = g * 256; b < blocks && b < g * 256 + 256; b++)
            nested.v[g] = fmax(nested.v[g], fabs(block_top(w, b, n) - offset.v[0]));
    }
    for (int64_t b = 0; b < blocks; b++) {
        double scale = nested.v[b / 256];
        scales.v[b] = nearest(map, 256, scale > 0 ? (block_top(w, b, n) - offset.v[0]) / scale : 0, true);
    }
    mat_store(&q->codes, codes), mat_store(&q->absmax_q, scales);
    mat_store(&q->nested, nested), mat_store(&q->offset, offset);
    mat_free(w), mat_free(codes), mat_free(scales), mat_free(nested), mat_free(offset);
    return ST_OK;
}

status nf4_dequantize_ref(struct stream *s, const struct nf4_args *q)
{
    (void)s;
    struct mat w = mat_load(&q->w), codes = mat_load(&q->codes), scales = mat_load(&q->absmax_q),
               nested = mat_load(&q->nested), offset = mat_load(&q->offset);
    double map[256];
    dynamic_map(map);
    for (int64_t i = 0; i < w.rows * w.cols; i++) {
        int byte = (int)codes.v[i / 2], code = i % 2 ? byte & 15 : byte >> 4;
        int64_t b = i / 64;
        w.v[i] = nf4[code] * (map[(int)scales.v[b]] * nested.v[b / 256] + offset.v[0]);
    }
    mat_store(&q->w, w);
    mat_free(w), mat_free(codes), mat_free(scales), mat_free(nested), mat_free(offset);
    return ST_OK;
}
