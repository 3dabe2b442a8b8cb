#include "worker/optim/optim.h"

#include <math.h>

#include "kernels/base/philox.h"

static const struct { enum optim_kind op; bool m, v; } KINDS[] = {
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
    o->applied = 0;
    return ST_OK;
}

static tensor state_of(const struct optim *o, const struct param *p, void *flat)
{
    if (!flat) return (tensor){0};
    return tensor_1d((char *)flat + (size_t)p->flat * dtype_bytes(o->state_dt), o->state_dt, p->count);
}

static tensor flattened(tensor t) { return t.data ? tensor_1d(t.data, t.dt, tensor_count(&t)) : (tensor){0}; }

status optim_apply(struct optim *o, int id, tensor grad, double gscale, double lr, int64_t step)
{
    const struct config *c = o->cfg;
    const struct param *p = &o->params->p[id];
    bool sgd = c->optimizer.kind == CONFIG_SGD;
    /* The kernels hold the betas in f32: bias corrections of other betas would not cancel theirs. */
    double t = (double)(o->applied + 1), beta1 = (double)(float)c->optimizer.beta1, beta2 = (double)(float)c->optimizer.beta2;
    struct optim_args a = {
        .kind = KINDS[c->optimizer.kind].op, .w = flattened(p->value), .master = flattened(p->master), .g = grad,
        .m = state_of(o, p, o->m), .v = state_of(o, p, o->v), .gscale = (float)gscale, .lr = (float)lr,
        .wd = (float)c->optimizer.weight_decay, .eps = (float)c->optimizer.eps, .nesterov = c->optimizer.nesterov,
        .beta1 = (float)(sgd ? c->optimizer.momentum : beta1), .beta2 = (float)(sgd ? c->optimizer.dampening : beta2),
        .lw = (float)(lr * c->optimizer.weight_decay), .step = (float)(lr / (1 - pow(beta1, t))),
        .c2 = (float)sqrt(1 - pow(beta2, t)), .first = o->applied == 0, .sr = c->stochastic_rounding,
        .key_w = rng_key(o->seed, RNG_SR_WEIGHT, (uint32_t)id, (uint32_t)step),
        .key_m = rng_key(o->seed, RNG_SR_M, (uint32_t)id, (uint32_t)step),
        .key_v = rng_key(o->seed, RNG_SR_V, (uint32_t)id, (uint32_t)step),
    };
    TRY(op_optim(o->s, &a));
    return param_store_refresh(o->params, o->s, id);
}

double schedule_at(const struct config *cfg, int64_t k, int64_t n)
{
    double warmup = (double)cfg->schedule.num_warmup_steps, at = (double)k, end = (double)n;
    if (at < warmup) return (at + (cfg->warmup_start_one ? 1 : 0)) / fmax(1, warmup);
    double left = fmax(1, end - warmup);
    switch (cfg->schedule.kind) {
    case SCHEDULE_CONSTANT: return 1;
    case SCHEDULE_LINEAR: return fmax(0, (end - at) / left);
    case SCHEDULE_COSINE: return fmax(0, 0.5 * (1 + cos(2 * M_PI * cfg->schedule.num_cycles * (at - warmup) / left)));
    }
    return 1;
}
