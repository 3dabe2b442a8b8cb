/* Reference: optimizers with their roundings, initialisation, NF4. */
#include <math.h>
#include <stddef.h>
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

/* Rounds by chance what is stored as bf16; element i of `t` is element flat + i of the index. */
static double stored(const tensor *t, bool chance, uint64_t key, int64_t flat, double x)
{
    return chance && t->dt == DT_BF16 ? round_by_chance(x, key, flat) : ref_round(t->dt, x);
}

struct rates {
    const struct update_args *u;
    double gscale, lr, lw, wd, step, c2;
    bool first;
};

static void adam(const struct rates *r, double *w, double *m, double *v, double g)
{
    const struct update_args *u = r->u;
    double b1 = (double)u->beta1, b2 = (double)u->beta2;
    if (u->kind == OPTIM_ADAMW)
        *w -= r->lw * *w;
    else
        g += r->wd * *w;
    *m = b1 * *m + (1 - b1) * g;
    *v = b2 * *v + (1 - b2) * g * g;
    *w -= r->step * *m / (sqrt(*v) / r->c2 + (double)u->eps);
}

static void sgd(const struct rates *r, double *w, double *buf, double g)
{
    const struct update_args *u = r->u;
    double d = g + r->wd * *w, mu = (double)u->beta1;
    if (buf) {
        *buf = r->first ? d : mu * *buf + (1 - (double)u->beta2) * d;
        d = u->nesterov ? d + mu * *buf : *buf;
    }
    *w -= r->lr * d;
}

/* ---- maps of 8-bit states, ascending, by their bit recipe ------------------------------------------------------- */

/* Decade i of a dynamic map has m entries. */
static double dynamic_entry(int i, int m, int k)
{
    float h = (1 - 0.1f) / (float)m, edge[2];
    for (int e = 0; e < 2; e++) edge[e] = 2 * (k + e) < m + 1 ? fmaf(h, (float)(k + e), 0.1f) : fmaf(-h, (float)(m - k - e), 1.0f);
    return (double)((float)pow(10, i - 6) * ((edge[0] + edge[1]) / 2));
}

static void dynamic_map(double map[256])
{
    for (int i = 0; i < 7; i++)
        for (int m = 1 << i, k = 0; k < m; k++) {
            map[127 + m + k] = dynamic_entry(i, m, k);
            map[127 - m - k] = -map[127 + m + k];
        }
    map[127] = 0;
    map[255] = 1;
}

static void dynamic_map_of_squares(double map[256])
{
    for (int i = 0; i < 7; i++)
        for (int m = 2 << i, k = 0; k < m; k++) map[m - 1 + k] = dynamic_entry(i, m, k);
    map[0] = 0;
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

struct vectors {
    struct mat w, master, g, m, v, work, m8, v8, m_absmax, v_absmax;
    double signed_map[256], square_map[256];
};

/* Element `flat`, whose states are element `at` of m and v. */
static void update_element(const struct rates *r, const struct seg *q, struct vectors *x, int64_t flat, double *m, double *v)
{
    const struct update_args *u = r->u;
    int64_t i = flat - u->lo;
    double w = x->master.v ? x->master.v[i] : x->w.v[i], g = r->gscale * x->g.v[i];
    if (u->kind == OPTIM_SGD)
        sgd(r, &w, m && u->beta1 != 0 ? m : NULL, g);
    else
        adam(r, &w, m, v, g);
    if (x->master.v) x->master.v[i] = ref_round(u->master.dt, w);
    x->w.v[i] = stored(&u->w, u->sr && !x->master.v, u->key_w, flat, w);
    if (x->work.v && q->scale != 0) x->work.v[i] = (double)q->scale * x->w.v[i];
}

static void encode_block(const tensor *absmax_in, double *absmax, double *codes, const double *map, const double *x, int n)
{
    double top = 0;
    for (int i = 0; i < n; i++) top = fmax(top, fabs(x[i]));
    *absmax = ref_round(absmax_in->dt, top);
    for (int i = 0; i < n; i++) {
        int code = nearest(map, 256, top > 0 ? x[i] / *absmax : 0, true);
        if (x[i] < 0 && code == 127) code = 126; /* not of squares: they are never negative */
        codes[i] = code;
    }
}

static void update_block(const struct rates *r, const struct seg *q, struct vectors *x, int64_t flat, int n)
{
    const struct update_args *u = r->u;
    int64_t at = q->state + flat - q->at;
    double m[256], v[256];
    for (int i = 0; i < n; i++) {
        m[i] = x->signed_map[(int)x->m8.v[at + i]] * x->m_absmax.v[at / 256];
        if (x->v8.v) v[i] = x->square_map[(int)x->v8.v[at + i]] * x->v_absmax.v[at / 256];
        update_element(r, q, x, flat + i, &m[i], &v[i]);
    }
    encode_block(&u->m_absmax, &x->m_absmax.v[at / 256], &x->m8.v[at], x->signed_map, m, n);
    if (x->v8.v) encode_block(&u->v_absmax, &x->v_absmax.v[at / 256], &x->v8.v[at], x->square_map, v, n);
}

static void update_seg(const struct update_args *u, const struct seg *q, const double *scalars, struct vectors *x)
{
    struct step_scalars c;
    memcpy(&c, scalars, sizeof c);
    double lr = (double)q->lr_mult, wd = (double)q->wd_mult;
    struct rates r = {u, c.gscale, c.lr * lr, c.lw * lr * wd, (double)u->wd * wd, c.rate * lr, c.c2, c.first != 0};
    int64_t begin = q->at > u->lo ? q->at : u->lo, end = u->lo + x->w.cols;
    if (end > q->at + q->count) end = q->at + q->count;
    for (int64_t flat = begin; q->eight && flat < end; flat += 256)
        update_block(&r, q, x, flat, end - flat < 256 ? (int)(end - flat) : 256);
    for (int64_t flat = begin; !q->eight && flat < end; flat++) {
        int64_t at = x->m8.v ? q->state + flat - q->at : flat - u->lo;
        update_element(&r, q, x, flat, x->m.v ? &x->m.v[at] : NULL, x->v.v ? &x->v.v[at] : NULL);
        if (x->m.v) x->m.v[at] = stored(&u->m, true, u->key_m, flat, x->m.v[at]);
        if (x->v.v) x->v.v[at] = stored(&u->v, true, u->key_v, flat, x->v.v[at]);
    }
}

status update_ref(struct stream *s, const struct update_args *u)
{
    (void)s;
    struct mat scalars = mat_load(&u->scalars);
    struct vectors x = {0};
    const struct {
        const tensor *t;
        struct mat *m;
        bool kept;
    } all[] = {{&u->w, &x.w, true},
               {&u->master, &x.master, true},
               {&u->g, &x.g, false},
               {&u->m, &x.m, true},
               {&u->v, &x.v, true},
               {&u->work, &x.work, true},
               {&u->m8, &x.m8, true},
               {&u->v8, &x.v8, true},
               {&u->m_absmax, &x.m_absmax, true},
               {&u->v_absmax, &x.v_absmax, true}};
    enum { ALL = sizeof all / sizeof *all };
    for (int i = 0; i < ALL; i++) *all[i].m = mat_load(all[i].t);
    dynamic_map(x.signed_map), dynamic_map_of_squares(x.square_map);
    bool usable = scalars.v[offsetof(struct step_scalars, usable) / 8] != 0;
    for (int64_t i = 0; usable && i < u->segs.n; i++) update_seg(u, &u->segs.dev[i], scalars.v, &x);
    for (int i = 0; i < ALL; i++) {
        if (all[i].kept && all[i].m->v) mat_store(all[i].t, *all[i].m);
        mat_free(*all[i].m);
    }
    mat_free(scalars);
    return ST_OK;
}

/* ---- the end of a step ------------------------------------------------------------------------------------------ */

status sumsq_segs_ref(struct stream *s, const struct sumsq_segs_args *q)
{
    (void)s;
    struct mat g = mat_load(&q->g), partial = mat_load(&q->partial);
    for (int64_t k = 0; k < q->segs.n; k++) {
        const struct seg *x = &q->segs.dev[k];
        int64_t before = -1;
        for (int64_t flat = x->at; flat < x->at + x->count; flat++) {
            int64_t at = x->partial + flat / 65536 - x->at / 65536;
            if (flat < q->lo || flat >= q->lo + g.cols) continue;
            if (at != before) partial.v[at] = 0;
            partial.v[at] += g.v[flat - q->lo] * g.v[flat - q->lo];
            before = at;
        }
    }
    mat_store(&q->partial, partial);
    mat_free(g), mat_free(partial);
    return ST_OK;
}

status loss_sum_ref(struct stream *s, const struct loss_sum_args *l)
{
    (void)s;
    struct mat loss = mat_load(&l->loss), out = mat_zero(1, 1);
    for (int64_t i = 0; i < loss.cols; i++) out.v[0] += loss.v[i];
    mat_store(&l->out, out);
    mat_free(loss), mat_free(out);
    return ST_OK;
}

/* usable and coefficient are the caller's. */
static void judge(const tensor *plan, const tensor *scalars, double loss, double squares, bool whole, int64_t number)
{
    struct step_plan p;
    struct step_scalars c;
    memcpy(&p, plan->data, sizeof p);
    memcpy(&c, scalars->data, sizeof c);
    double share = p.supervised != 0 ? 1 / p.supervised : 0, coefficient = 1;
    bool next = c.applied != p.applied, begun = c.applied != 0, good = isfinite(squares);
    if (whole) {
        c.loss = loss * share;
        c.grad_norm = share * sqrt(squares);
        good = isfinite(c.loss) && isfinite(c.grad_norm);
        if (p.max_norm < c.grad_norm + 1e-6) coefficient = p.max_norm / (c.grad_norm + 1e-6);
    } else if (!good && c.refused == 0) {
        c.refused = (double)number + 1;
        c.refused_step = p.step;
    }
    c.usable = good && p.supervised != 0 && c.refused == 0 ? 1 : 0;
    if (whole) c.applied += c.usable;
    c.gscale = ref_round(DT_F32, share * coefficient);
    c.lr = p.lr, c.lw = p.lw, c.rate = p.rate[next], c.c2 = p.c2[next], c.first = !begun;
    memcpy(scalars->data, &c, sizeof c);
}

static double sum_of(const tensor *t)
{
    struct mat m = mat_load(t);
    double sum = 0;
    for (int64_t i = 0; i < m.rows * m.cols; i++) sum += m.v[i];
    mat_free(m);
    return sum;
}

status step_decide_ref(struct stream *s, const struct step_decide_args *d)
{
    (void)s;
    judge(&d->plan, &d->scalars, sum_of(&d->losses), sum_of(&d->partial), true, 0);
    return ST_OK;
}

status step_admit_ref(struct stream *s, const struct step_admit_args *d)
{
    (void)s;
    judge(&d->plan, &d->scalars, 0, sum_of(&d->partial), false, d->tensor);
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

static double block_top(struct mat w, int64_t block, int64_t n)
{
    double top = 0;
    for (int64_t i = block * 64; i < n && i < block * 64 + 64; i++) top = fmax(top, fabs(w.v[i]));
    return top;
}

status nf4_quantize_ref(struct stream *s, const struct nf4_args *q)
{
    (void)s;
    struct mat w = mat_load(&q->w), codes = mat_load(&q->codes), scales = mat_load(&q->absmax_q), nested = mat_load(&q->nested),
               offset = mat_zero(1, 1);
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
    struct mat w = mat_load(&q->w), codes = mat_load(&q->codes), scales = mat_load(&q->absmax_q), nested = mat_load(&q->nested),
               offset = mat_load(&q->offset), once = mat_load(&q->absmax);
    double map[256];
    dynamic_map(map);
    for (int64_t i = 0; i < w.rows * w.cols; i++) {
        int byte = (int)codes.v[i / 2], code = i % 2 ? byte & 15 : byte >> 4;
        int64_t b = i / 64;
        double absmax = once.v ? once.v[b] : map[(int)scales.v[b]] * nested.v[b / 256] + offset.v[0];
        w.v[i] = nf4[code] * absmax;
        if (q->through != DT_F32) w.v[i] = ref_round(q->through, w.v[i]);
    }
    mat_store(&q->w, w);
    mat_free(w), mat_free(codes), mat_free(scales), mat_free(nested), mat_free(offset), mat_free(once);
    return ST_OK;
}
