#include "worker/optim/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/philox.h"

static const struct {
    enum optim_kind op;
    bool m, v, eight;
} KINDS[] = {
    [CONFIG_ADAMW] = {OPTIM_ADAMW, true, true},
    [CONFIG_ADAM] = {OPTIM_ADAM, true, true},
    [CONFIG_SGD] = {OPTIM_SGD, true, false},
    [CONFIG_ADAMW_8BIT] = {OPTIM_ADAMW, true, true, .eight = true},
    [CONFIG_ADAM_8BIT] = {OPTIM_ADAM, true, true, .eight = true},
    [CONFIG_SGD_8BIT] = {OPTIM_SGD, true, false, .eight = true},
};

static const struct {
    const char *name, *row; /* of the plan: the dtype follows */
    bool second;
} VECTORS[STATE_VECTORS] = {
    [STATE_M] = {"m", "first moments, ", false},
    [STATE_V] = {"v", "second moments, ", true},
    [STATE_M8] = {"m8", "first moments, codes, ", false},
    [STATE_V8] = {"v8", "second moments, codes, ", true},
    [STATE_M_ABSMAX] = {"m_absmax", "first moments, absmax of 256 codes, ", false},
    [STATE_V_ABSMAX] = {"v_absmax", "second moments, absmax of 256 codes, ", true},
};

static enum optim_kind op_of(const struct config *cfg) { return KINDS[cfg->optimizer.kind].op; }

static bool has_m(const struct config *cfg)
{
    return KINDS[cfg->optimizer.kind].m && !(op_of(cfg) == OPTIM_SGD && cfg->optimizer.momentum == 0);
}

/* By elements of the whole tensor, whoever holds its parts. */
static bool in_codes(const struct config *cfg, const struct param *p)
{
    bool end = !strcmp(p->name, PARAM_EMBED) || !strcmp(p->name, PARAM_HEAD);
    return KINDS[cfg->optimizer.kind].eight && p->count >= cfg->optimizer.min_8bit_size && (cfg->optimizer.quantize_embeddings || !end);
}

/* Places of all tensors' states. Returns how many elements are in codes, and of those that are not, in *wide. */
static int64_t place_states(struct optim *o, int64_t *wide)
{
    struct param_store *ps = o->params;
    int64_t coded = 0;
    *wide = 0;
    for (int i = 0; i < ps->n; i++)
        if (param_is_trained(&ps->p[i]))
            ps->seg_table[segs_after(ps->seg_table, ps->segs.n, ps->p[i].flat)].eight = in_codes(o->cfg, &ps->p[i]);
    for (int64_t i = 0; i < ps->segs.n; i++) {
        struct seg *seg = &ps->seg_table[i];
        int64_t *end = seg->eight ? &coded : wide;
        seg->state = *end;
        *end += seg->eight ? (seg->count + STATE_BLOCK - 1) / STATE_BLOCK * STATE_BLOCK : seg->count;
    }
    return coded;
}

static void cut(struct optim *o, bool in_windows)
{
    int n;
    struct pager_window *windows = optim_windows(o, in_windows, &n);
    pager_cut(&o->pager, windows, n);
    optim_tables(o);
}

bool optim_is_paged(const struct optim *o) { return o->cfg->optimizer.is_paged; }
bool optim_is_on_host(const struct optim *o) { return o->cfg->optimizer.on_host; }

/* Where all stay they are one window, as if they were not paged. */
static status fit(struct optim *o, size_t bytes)
{
    if (!optim_is_paged(o) || o->host.down || o->params->be->tensors_in != MEM_DEVICE) return ST_OK;
    cut(o, false);
    if (pager_device_bytes(&o->pager) <= bytes) return ST_OK;
    cut(o, true);
    size_t tables = (size_t)o->n_seg_rows * sizeof *o->seg_rows;
    TRY(pager_fit(&o->pager, bytes > tables ? bytes - tables : 0));
    if (!o->pager.away) cut(o, false);
    return ST_OK;
}

static status open_pager(struct optim *o)
{
    size_t element[STATE_VECTORS] = {0};
    bool host = optim_is_on_host(o) && o->params->be->tensors_in == MEM_DEVICE;
    for (int k = 0; k < STATE_VECTORS && !host; k++) element[k] = o->vector[k].count ? dtype_bytes(o->vector[k].dt) : 0;
    pager_init(&o->pager, o->s, element);
    cut(o, false);
    if (host) return host_open(o);
    return o->cfg->optimizer.paged_resident < 0 ? ST_OK : fit(o, (size_t)o->cfg->optimizer.paged_resident);
}

dtype optim_state_dtype(const struct config *c)
{
    return c->recipe == RECIPE_FULL && c->dtype == CONFIG_BF16 && c->state_dtype != TRI_FP32 ? DT_BF16 : DT_F32;
}

bool optim_has_masters(const struct config *c) { return c->dtype == CONFIG_BF16 && c->master_weights == TRI_FP32; }

status optim_init(struct optim *o, const struct config *cfg, struct param_store *params, struct stream *s, dtype state_dt)
{
    *o = (struct optim){.cfg = cfg, .params = params, .s = s};
    int64_t wide, coded = place_states(o, &wide);
    o->coded = coded > 0;
    if (KINDS[cfg->optimizer.kind].eight) state_dt = DT_F32;
    if (!o->coded) wide = params->flat_count; /* all of the index, where it is */
    for (int k = 0; k < STATE_VECTORS; k++) {
        bool code = k == STATE_M8 || k == STATE_V8, absmax = k == STATE_M_ABSMAX || k == STATE_V_ABSMAX;
        bool has = VECTORS[k].second ? KINDS[cfg->optimizer.kind].v : has_m(cfg);
        o->vector[k] = (struct state_vector){.name = VECTORS[k].name,
                                             .dt = code     ? DT_U8
                                                   : absmax ? DT_F32
                                                            : state_dt,
                                             .count = !has             ? 0
                                                      : code || absmax ? coded
                                                                       : wide,
                                             .per = absmax ? STATE_BLOCK : 1};
    }
    return open_pager(o);
}

status optim_fit(struct optim *o, size_t bytes) { return o->cfg->optimizer.paged_resident < 0 ? fit(o, bytes) : ST_OK; }

void optim_release(struct optim *o)
{
    if (o->params) host_release(o);
    if (o->pager.be) pager_release(&o->pager);
    free(o->segs);
    free(o->seg_rows);
    *o = (struct optim){0};
}

size_t state_bytes(const struct state_vector *v) { return (size_t)(v->count / v->per) * dtype_bytes(v->dt); }

void optim_settle(struct optim *o)
{
    struct stream *const streams[] = {o->pager.in, o->pager.out, o->host.down, o->host.step, o->host.up};
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        if (streams[i]) (void)o->params->be->dev.sync(streams[i], "end");
}

void optim_layout(struct optim *o, struct arena *states, struct arena *paged, struct arena *hosted, struct arena *staging)
{
    char text[STATE_VECTORS][ARENA_NAME];
    const char *row[STATE_VECTORS];
    for (int k = 0; k < STATE_VECTORS; k++) {
        snprintf(text[k], sizeof text[k], "%s%s", VECTORS[k].row, dtype_name(o->vector[k].dt));
        row[k] = text[k];
    }
    pager_layout(&o->pager, states, paged, row);
    if (o->host.down) host_layout(o, hosted, staging, row);
    if (!o->segs) return;
    struct seg *dev = arena_take(states, (size_t)o->n_seg_rows * sizeof *dev, "tables of windows");
    for (int i = 0; i < o->pager.n && dev; i++) o->segs[i].dev = dev + (o->segs[i].host - o->seg_rows);
}

status optim_zero(struct optim *o, struct stage *g)
{
    TRY(pager_zero(&o->pager));
    if (o->host.down) host_zero(o);
    if (!o->segs) return ST_OK;
    return stage_in(g, (void *)(uintptr_t)o->segs[0].dev, o->seg_rows, (size_t)o->n_seg_rows * sizeof *o->seg_rows);
}

void optim_format(const struct optim *o, char text[64])
{
    const struct config *c = o->cfg;
    snprintf(text, 64, "%s", dtype_name(o->vector[STATE_M].dt));
    if (o->coded)
        snprintf(text, 64, "8-bit (of %lld elements or more%s)", (long long)c->optimizer.min_8bit_size,
                 c->optimizer.quantize_embeddings ? "" : ", not of embedding and head");
}

void optim_plan(const struct optim *o, double lr, int64_t applied, struct step_plan *out)
{
    /* The kernels hold the betas in f32: bias corrections of other betas would not cancel theirs. */
    double beta1 = (double)(float)o->cfg->optimizer.beta1, beta2 = (double)(float)o->cfg->optimizer.beta2;
    out->lr = (double)(float)lr;
    out->lw = (double)(float)(lr * o->cfg->optimizer.weight_decay);
    out->applied = (double)applied;
    for (int i = 0; i < 2; i++) {
        double t = (double)(applied + 1 + i);
        out->rate[i] = (double)(float)(lr / (1 - pow(beta1, t)));
        out->c2[i] = (double)(float)sqrt(1 - pow(beta2, t));
    }
}

static tensor part(void *flat, dtype dt, struct range r)
{
    return flat ? tensor_1d((char *)flat + (size_t)r.lo * dtype_bytes(dt), dt, range_count(r)) : (tensor){0};
}

/* Views of the range where the vector lies as the index does, else all of the window's. */
static tensor state(const struct optim *o, int w, int k, struct range r)
{
    const struct state_vector *v = &o->vector[k];
    const struct range *of = &o->pager.window[w].of[k];
    if (!v->count) return (tensor){0};
    void *at = pager_at(&o->pager, w, k);
    if (o->coded) r = *of;
    if (!range_count(r)) at = o->params->flat; /* none here, and any address says that the vector exists */
    return part(at, v->dt, (struct range){r.lo - of->lo, r.hi - of->lo});
}

struct update_args optim_args(const struct optim *o, int64_t step, struct range r)
{
    const struct config *c = o->cfg;
    bool sgd = op_of(c) == OPTIM_SGD;
    return (struct update_args){.kind = op_of(c),
                                .lo = r.lo,
                                .wd = (float)c->optimizer.weight_decay,
                                .eps = (float)c->optimizer.eps,
                                .beta1 = (float)(sgd ? c->optimizer.momentum : c->optimizer.beta1),
                                .beta2 = (float)(sgd ? c->optimizer.dampening : c->optimizer.beta2),
                                .nesterov = c->optimizer.nesterov,
                                .sr = c->stochastic_rounding,
                                .key_w = rng_key(o->seed, RNG_SR_WEIGHT, 0, (uint32_t)step),
                                .key_m = rng_key(o->seed, RNG_SR_M, 0, (uint32_t)step),
                                .key_v = rng_key(o->seed, RNG_SR_V, 0, (uint32_t)step)};
}

static status update(struct optim *o, int w, tensor grad, tensor scalars, int64_t step, struct range r)
{
    const struct param_store *ps = o->params;
    struct update_args a = optim_args(o, step, r);
    a.w = part(ps->flat, ps->trained_dt, r);
    a.master = part(ps->flat_master, DT_F32, r);
    a.g = grad;
    a.m = state(o, w, STATE_M, r);
    a.v = state(o, w, STATE_V, r);
    a.m8 = state(o, w, STATE_M8, r);
    a.v8 = state(o, w, STATE_V8, r);
    a.m_absmax = state(o, w, STATE_M_ABSMAX, r);
    a.v_absmax = state(o, w, STATE_V_ABSMAX, r);
    a.work = part(ps->flat_work, ps->act, r);
    a.scalars = scalars;
    a.segs = o->segs ? o->segs[w] : ps->segs;
    return op_update(o->s, &a);
}

status optim_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r)
{
    if (o->host.down) return host_range(o, grad, scalars, step, r);
    for (int w = pager_find(&o->pager, r.lo); w < o->pager.n && o->pager.window[w].index.lo < r.hi; w++) {
        struct range both = range_meet(r, o->pager.window[w].index);
        TRY(pager_enter(&o->pager, w));
        TRY(update(o, w, tensor_part(grad, both.lo - r.lo, range_count(both)), scalars, step, both));
    }
    return param_store_second_copies(o->params, o->s, r.lo, r.hi);
}

status optim_rest(struct optim *o) { return o->host.down ? host_rest(o) : pager_rest(&o->pager); }

status optim_read(struct optim *o, struct stage *g, int vector, int64_t at, int64_t n, void *to_host)
{
    void *there;
    if (!o->host.down) return pager_read(&o->pager, g, vector, at, n, to_host);
    TRY(host_states(o, vector, at, &there));
    memcpy(to_host, there, (size_t)n * dtype_bytes(o->vector[vector].dt));
    return ST_OK;
}

status optim_write(struct optim *o, struct stage *g, int vector, int64_t at, int64_t n, const void *from_host)
{
    void *there;
    if (!o->host.down) return pager_write(&o->pager, g, vector, at, n, from_host);
    TRY(host_states(o, vector, at, &there));
    memcpy(there, from_host, (size_t)n * dtype_bytes(o->vector[vector].dt));
    return ST_OK;
}

double schedule_at(const struct config *cfg, int64_t k, int64_t n)
{
    double warmup = (double)cfg->schedule.num_warmup_steps, at = (double)k, end = (double)n;
    if (at < warmup) return (at + (cfg->warmup_start_one ? 1 : 0)) / fmax(1, warmup);
    double left = fmax(1, end - warmup);
    switch (cfg->schedule.kind) {
    case SCHEDULE_CONSTANT:
        return 1;
    case SCHEDULE_LINEAR:
        return fmax(0, (end - at) / left);
    case SCHEDULE_COSINE:
        return fmax(0, 0.5 * (1 + cos(2 * M_PI * cfg->schedule.num_cycles * (at - warmup) / left)));
    }
    return 1;
}
