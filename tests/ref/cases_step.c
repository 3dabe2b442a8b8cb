/* Cases of what ends a step, of initialisation and NF4: see cases.c. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "tests/ref/cases.h"

/* ---- the end of a step ------------------------------------------------------------------------------------------ */

static struct segs kit_segs(struct kit *k, const struct seg *table, int64_t n)
{
    struct seg *copy = kit_memory(k, (size_t)n * sizeof *copy);
    memcpy(copy, table, (size_t)n * sizeof *copy);
    return (struct segs){copy, kit_twin(k, copy, (size_t)n * sizeof *copy), n};
}

/* {elements, lo} of tensors in five pages, numbered backwards: three pages, two tensors in one, many in the last. */
void build_sumsq_segs(struct kit *k, const int64_t *p)
{
    enum { P = FLAT_PAGE, N = 9 };
    static const struct seg table[N] = {{0, 3 * P, 8, 1, 1, 0},        {3 * P, 77, 7, 1, 1, 0},         {3 * P + 256, 1000, 6, 1, 1, 0},
                                        {4 * P, 10, 5, 1, 1, 0},       {4 * P + 256, 1, 4, 1, 1, 0},    {4 * P + 512, 31, 3, 1, 1, 0},
                                        {4 * P + 768, 33, 2, 1, 1, 0}, {4 * P + 1024, 512, 1, 1, 1, 0}, {4 * P + 1536, 2053, 0, 1, 1, 0}};
    k->args.sumsq_segs = (struct sumsq_segs_args){kit_act(k, 0, p[0], 1), kit_f32(k, 0, 11, 1), kit_segs(k, table, N), p[1]};
    kit_output(k, "partial", k->args.sumsq_segs.partial, DT_F32);
}

void bound_sumsq_segs(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    bounds[0] = mat_load(&ref->args.sumsq_segs.partial);
    for (int64_t i = 0; i < bounds[0].cols; i++) bounds[0].v[i] = fabs(bounds[0].v[i]) * EPS * sqrt((double)FLAT_PAGE);
}

tensor kit_f64(struct kit *k, int64_t rows, int64_t cols, const double *values)
{
    double *v = kit_memory(k, (size_t)((rows ? rows : 1) * (cols + k->pad)) * sizeof *v);
    tensor t = rows ? tensor_2d(v, DT_F64, rows, cols) : tensor_1d(v, DT_F64, cols);
    if (rows) t.ld += k->pad;
    for (int64_t i = 0; i < (rows ? rows : 1); i++)
        for (int64_t j = 0; j < cols; j++) v[i * t.ld + j] = values ? values[i * cols + j] : 2 + kit_uniform(k);
    return t;
}

void build_loss_sum(struct kit *k, const int64_t *p)
{
    k->args.loss_sum = (struct loss_sum_args){kit_f32(k, 0, p[0], 9), kit_f64(k, 0, 1, NULL)};
    kit_output(k, "out", k->args.loss_sum.out, DT_F64);
}

/* {supervised, max_norm or 0, applied since the plan, refused, partials or 0, the one that is not finite or 0} */
static tensor kit_plan(struct kit *k, const int64_t *p)
{
    struct step_plan plan = {.step = 6,
                             .supervised = (double)p[0],
                             .max_norm = p[1] ? (double)p[1] / 1024 : INFINITY,
                             .applied = 4,
                             .lr = 0.25,
                             .lw = 0.125,
                             .rate = {0.5, 0.75},
                             .c2 = {0.0625, 0.03125}};
    return kit_f64(k, 0, STEP_PLAN, (const double *)&plan);
}

static tensor kit_scalars(struct kit *k, const int64_t *p)
{
    struct step_scalars c = {.loss = 9, .grad_norm = 8, .usable = 7, .applied = (double)(4 + p[2]), .refused = (double)p[3]};
    return kit_f64(k, 0, STEP_SCALARS, (const double *)&c);
}

void build_step_decide(struct kit *k, const int64_t *p)
{
    struct step_decide_args *d = &k->args.step_decide;
    *d = (struct step_decide_args){kit_plan(k, p), kit_scalars(k, p), kit_f64(k, 3, 5, NULL), kit_f32(k, 0, p[4] ? p[4] : 37, 1)};
    struct mat m = mat_load(&d->partial);
    for (int64_t i = 0; i < m.cols; i++) m.v[i] = fabs(m.v[i]);
    mat_store(&d->partial, m), mat_free(m);
    kit_output(k, "scalars", d->scalars, DT_F64);
}

void build_step_admit(struct kit *k, const int64_t *p)
{
    k->args.step_admit = (struct step_admit_args){kit_plan(k, p), kit_scalars(k, p), kit_f32(k, 0, p[4] ? p[4] : 5, 1), 11};
    struct mat m = mat_load(&k->args.step_admit.partial);
    if (p[5]) m.v[p[5]] = INFINITY;
    mat_store(&k->args.step_admit.partial, m), mat_free(m);
    kit_output(k, "scalars", k->args.step_admit.scalars, DT_F64);
}

/* A few roundings of f64, and gscale's one of f32, which may fall the other way. */
void bound_step(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    bounds[0] = mat_load(&ref->out[0].t);
    for (int64_t i = 0; i < bounds[0].cols; i++)
        bounds[0].v[i] = fabs(bounds[0].v[i]) * (i == offsetof(struct step_scalars, gscale) / 8 ? 2 * EPS : 0x1p-50);
}

/* ---- update: {n, kind, flags, lo}; init: {n, normal, flat0} ------------------------------------------------------ */

/* Three tensors apart; the first begins before the range and the last ends after it. Short ranges: one. */
static struct segs update_segs(struct kit *k, int64_t lo, int64_t n)
{
    int64_t third = n / 3, before = lo >= 16 ? 16 : 0;
    struct seg table[] = {{lo - before, third + before, 0, 1, 1, 2},
                          {lo + third + 5, third - 5, 0, 0.5f, 0, 0},
                          {lo + 2 * third + 3, n - 2 * third + 9, 0, 1, 2, 0.75f}};
    if (n >= 64) return kit_segs(k, table, 3);
    table[0].count = n + before;
    return kit_segs(k, table, 1);
}

static void absolute(const tensor *t)
{
    struct mat v = mat_load(t);
    for (int64_t i = 0; i < v.cols; i++) v.v[i] = fabs(v.v[i]);
    mat_store(t, v), mat_free(v);
}

/* As update_segs, but with states of their own: the first and the last are coded, and the vectors hold others' before and behind.
 * The last one goes beyond ranges of whole blocks. */
static struct segs coded_segs(struct kit *k, int64_t lo, int64_t n)
{
    int64_t third = (n / 3 + 255) / 256 * 256, before = lo >= 512 ? 512 : 0;
    struct seg table[] = {{lo - before, third + before - 3, 0, 1, 1, 2, 1, 256},
                          {lo + third, n / 3 - 5, 0, 0.5f, 0, 0, 0, 7},
                          {lo + 2 * third, n - 2 * third + (n % 256 ? 0 : 9), 0, 1, 2, 0.75f, 1, 256 + (third + before)}};
    if (n >= 1024) return kit_segs(k, table, 3);
    table[0].count = n + before;
    return kit_segs(k, table, 1);
}

static void coded_states(struct kit *k, struct update_args *u)
{
    int64_t n = (u->w.dim[0] + 255) / 256 * 256 + 5 * 256;
    bool moments = u->kind != OPTIM_SGD;
    u->segs = coded_segs(k, u->lo, u->w.dim[0]);
    u->m8 = kit_u8(k, n), u->m_absmax = kit_f32(k, 0, n / 256, 1), u->m = kit_f32(k, 0, n / 3, 1);
    absolute(&u->m_absmax);
    kit_output(k, "m8", u->m8, DT_U8), kit_output(k, "m_absmax", u->m_absmax, DT_F32), kit_output(k, "m", u->m, DT_F32);
    if (!moments) return;
    u->v8 = kit_u8(k, n), u->v_absmax = kit_f32(k, 0, n / 256, 1), u->v = kit_f32(k, 0, n / 3, 1);
    absolute(&u->v_absmax), absolute(&u->v);
    kit_output(k, "v8", u->v8, DT_U8), kit_output(k, "v_absmax", u->v_absmax, DT_F32), kit_output(k, "v", u->v, DT_F32);
}

void build_update(struct kit *k, const int64_t *p)
{
    struct update_args *u = &k->args.update;
    tensor (*state)(struct kit *, int64_t, int64_t, double) = p[2] & O_F32_STATES ? kit_f32 : kit_act;
    dtype state_value = p[2] & O_F32_STATES ? DT_F32 : k->value;
    bool wide = p[2] & O_WORK; /* adapters are f32, their working copies are not */
    struct step_scalars c = {.usable = !(p[2] & O_REFUSED),
                             .gscale = 0.125,
                             .lr = (double)0.01f,
                             .lw = (double)0.001f,
                             .rate = (double)0.05f,
                             .c2 = (double)0.07f,
                             .first = (p[2] & O_FIRST) != 0};
    *u = (struct update_args){
        .kind = (enum optim_kind)p[1],
        .w = (wide ? kit_f32 : kit_act)(k, 0, p[0], 1),
        .g = (p[2] & O_F32_GRADIENT ? kit_f32 : kit_act)(k, 0, p[0], 8),
        .scalars = kit_f64(k, 0, STEP_SCALARS, (const double *)&c),
        .segs = update_segs(k, p[3], p[0]),
        .lo = p[3],
        .wd = 0.1f,
        .beta1 = p[2] & O_PLAIN ? 0 : 0.9f,
        .beta2 = p[1] == OPTIM_SGD ? 0.1f : 0.999f,
        .eps = 1e-8f,
        .nesterov = p[2] & O_NESTEROV,
        .sr = p[2] & O_SR,
        .key_w = 11,
        .key_m = 0xfedcba9876543210ull,
        .key_v = 13,
    };
    kit_output(k, "w", u->w, wide ? DT_F32 : k->value);
    if (p[2] & O_MASTER) u->master = kit_f32(k, 0, p[0], 1), kit_output(k, "master", u->master, DT_F32);
    if (wide) u->work = kit_act(k, 0, p[0], 1), kit_output(k, "work", u->work, k->value);
    if (p[2] & O_EIGHT) {
        coded_states(k, u);
        return;
    }
    if (!(p[2] & O_PLAIN)) u->m = state(k, 0, p[0], 1), kit_output(k, "m", u->m, state_value);
    if (p[1] == OPTIM_SGD) return;
    u->v = state(k, 0, p[0], 1);
    absolute(&u->v);
    kit_output(k, "v", u->v, state_value);
}

/* |m|, |g| and |w| are at most 1 + 2·wd; the step divides by sqrt(v)/c2, where v is at least what it becomes; a working copy is at
 * most twice its weight. Coded: codes agree, for no case holds a state that close to the middle of two; v is at least β2·v + (1 − β2)·g²
 * of what lies in the kit before. */
void bound_update(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct update_args *u = &in->args.update;
    struct mat v = mat_load(u->m8.data ? &u->g : &ref->args.update.v);
    for (int out = 0; out < ref->n_outs; out++) {
        bounds[out] = bound_like(ref, out);
        const char *name = ref->out[out].name;
        bool work = !strcmp(name, "work"), weight = work || !strcmp(name, "w") || !strcmp(name, "master");
        for (int64_t i = 0; ref->out[out].value != DT_U8 && i < bounds[out].cols; i++) {
            double least = v.v && weight ? u->m8.data ? 0.001 * v.v[i] * v.v[i] / 64 : v.v[i] : 1;
            double move = u->kind == OPTIM_SGD ? 1 : (double)0.05f / (sqrt(least) / (double)0.07f);
            bounds[out].v[i] = 8 * EPS * (1.2 + (weight ? 1.2 * move : 0)) * (work ? 2 : 1);
        }
    }
    mat_free(v);
}

void build_init(struct kit *k, const int64_t *p)
{
    k->args.init = (struct init_args){kit_act(k, 0, p[0], 0), 0.03f, p[1], 0x0123456789abcdefull, p[2]};
    kit_output(k, "w", k->args.init.w, k->value);
}

/* Radius and angle are a few roundings each, relative: no cancellation. */
void bound_init(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    bounds[0] = mat_load(&ref->out[0].t);
    for (int64_t i = 0; i < bounds[0].cols; i++) bounds[0].v[i] = 8 * EPS * fabs(bounds[0].v[i]);
}

/* ---- NF4: {n, of zeros}; dequantised: {n, columns or 0: a vector, what lies between rows, flags} ------------------------------ */

/* Scales that were not quantised again, and so small that values are subnormal in f16; through bf16, through f16. */
enum { Q_ONCE = 1, Q_BF16 = 2, Q_F16 = 4, Q_SMALL = 8 };

static void nf4_operands(struct kit *k, int64_t n, double scale, struct nf4_args *q)
{
    int64_t blocks = (n + 63) / 64;
    *q = (struct nf4_args){kit_act(k, 0, n, scale), kit_u8(k, (n + 1) / 2), kit_u8(k, blocks), kit_f32(k, 0, (blocks + 255) / 256, 1),
                           kit_f32(k, 0, 1, 1)};
}

void build_nf4_quantize(struct kit *k, const int64_t *p)
{
    struct nf4_args *q = &k->args.nf4_quantize;
    nf4_operands(k, p[0], p[1] ? 0 : 1, q);
    kit_output(k, "codes", q->codes, DT_U8);
    kit_output(k, "absmax_q", q->absmax_q, DT_U8);
    kit_output(k, "nested", q->nested, DT_F32);
    kit_output(k, "offset", q->offset, DT_F32);
}

/* Codes must agree: the cases hold no value that close to a threshold. */
void bound_nf4_quantize(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    (void)in;
    for (int out = 0; out < 4; out++) bounds[out] = bound_like(ref, out);
    for (int64_t i = 0; i < bounds[2].cols; i++) bounds[2].v[i] = 4 * EPS;
    bounds[3].v[0] = 4 * EPS;
}

void build_nf4_dequantize(struct kit *k, const int64_t *p)
{
    struct nf4_args *q = &k->args.nf4_dequantize;
    nf4_operands(k, p[0], 0, q);
    if (p[3] & Q_ONCE) {
        q->absmax_q = q->nested = q->offset = (tensor){0};
        q->absmax = kit_f32(k, 0, (p[0] + 63) / 64, p[3] & Q_SMALL ? 0x1p-14 : 1);
    }
    q->through = p[3] & Q_BF16 ? DT_BF16 : p[3] & Q_F16 ? DT_F16 : DT_F32;
    if (p[1]) {
        tensor whole = kit_act(k, p[0] / p[1], p[1] + p[2], 1);
        q->w = tensor_columns(&whole, 0, p[1]);
    }
    kit_output(k, "w", q->w, k->value);
}

/* A value that lies between two of 16 bits may become either. */
void bound_nf4_dequantize(const struct kit *in, const struct kit *ref, struct mat bounds[])
{
    const struct nf4_args *q = &in->args.nf4_dequantize;
    struct mat w = mat_load(&ref->out[0].t);
    bounds[0] = bound_like(ref, 0);
    for (int64_t i = 0; i < bounds[0].rows * bounds[0].cols; i++) { /* |nested|, |offset| ≤ 1 */
        bounds[0].v[i] = 3 * EPS * 2;
        if (q->through != DT_F32) bounds[0].v[i] += ulp_of(q->through, w.v[i]);
    }
    mat_free(w);
}
