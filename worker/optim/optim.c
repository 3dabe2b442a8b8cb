#include "worker/optim/optim.h"

#include <math.h>

#include "kernels/base/philox.h"

static const struct {
    enum optim_kind op;
    bool m, v;
} KINDS[] = {
    [CONFIG_ADAMW] = {OPTIM_ADAMW, true, true},
    [CONFIG_ADAM] = {OPTIM_ADAM, true, true},
    [CONFIG_SGD] = {OPTIM_SGD, true, false},
};

void optim_init(struct optim *o, const struct config *cfg, struct param_store *params, struct stream *s, dtype state_dt)
{
    *o = (struct optim){.cfg = cfg, .params = params, .s = s, .state_dt = state_dt};
}

static bool has_m(const struct config *cfg)
{
    return KINDS[cfg->optimizer.kind].m && !(cfg->optimizer.kind == CONFIG_SGD && cfg->optimizer.momentum == 0);
}

void optim_layout(struct optim *o, struct arena *states)
{
    size_t bytes = (size_t)o->params->flat_count * dtype_bytes(o->state_dt);
    if (has_m(o->cfg)) o->m = arena_take(states, bytes, "first moments, %s", dtype_name(o->state_dt));
    if (KINDS[o->cfg->optimizer.kind].v) o->v = arena_take(states, bytes, "second moments, %s", dtype_name(o->state_dt));
}

status optim_zero(struct optim *o)
{
    size_t bytes = (size_t)o->params->flat_count * dtype_bytes(o->state_dt);
    const struct device *dev = &o->params->be->dev;
    if (o->m) TRY(dev->zero(o->s, o->m, bytes));
    if (o->v) TRY(dev->zero(o->s, o->v, bytes));
    return ST_OK;
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

status optim_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r)
{
    const struct config *c = o->cfg;
    const struct param_store *ps = o->params;
    bool sgd = c->optimizer.kind == CONFIG_SGD;
    TRY(op_update(o->s, &(struct update_args){
                            .kind = KINDS[c->optimizer.kind].op,
                            .w = part(ps->flat, ps->trained_dt, r),
                            .master = part(ps->flat_master, DT_F32, r),
                            .g = grad,
                            .m = part(o->m, o->state_dt, r),
                            .v = part(o->v, o->state_dt, r),
                            .work = part(ps->flat_work, ps->act, r),
                            .scalars = scalars,
                            .segs = ps->segs,
                            .lo = r.lo,
                            .wd = (float)c->optimizer.weight_decay,
                            .eps = (float)c->optimizer.eps,
                            .beta1 = (float)(sgd ? c->optimizer.momentum : c->optimizer.beta1),
                            .beta2 = (float)(sgd ? c->optimizer.dampening : c->optimizer.beta2),
                            .nesterov = c->optimizer.nesterov,
                            .sr = c->stochastic_rounding,
                            .key_w = rng_key(o->seed, RNG_SR_WEIGHT, 0, (uint32_t)step),
                            .key_m = rng_key(o->seed, RNG_SR_M, 0, (uint32_t)step),
                            .key_v = rng_key(o->seed, RNG_SR_V, 0, (uint32_t)step),
                        }));
    return param_store_second_copies(o->params, o->s, r.lo, r.hi);
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
