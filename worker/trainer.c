#include "worker/trainer.h"

#include <assert.h>
#include <math.h>

#include "kernels/base/log.h"
#include "worker/memory/plan.h"

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

static status consume(void *owner, int id, tensor grad);

status trainer_init(struct trainer *t, const struct config *cfg, struct model *m, struct comm *comm, struct stream *s,
                    struct stream *across, const struct trainer_sizes *sizes)
{
    struct grad_sizes grads = {m->stat, (int)sizes->leaves, (int)(sizes->micro_batches / sizes->leaves), sizes->bucket};
    *t = (struct trainer){
        .cfg = cfg, .m = m, .comm = comm, .s = s, .across = across, .sizes = *sizes, .accumulation = sizes->micro_batches / comm->size};
    TRY(grad_sink_init(&t->sink, &m->params, comm, s, across, &grads, sizes->consume ? consume : NULL, t));
    TRY(optim_init(&t->optim, cfg, &m->params, s, sizes->state_dt));
    for (int i = 0; i < TRAINER_SLOTS; i++) {
        t->slot[i].trainer = t;
        TRY(s->be->dev.event_open(&t->slot[i].crossed));
        TRY(s->be->dev.event_open(&t->slot[i].done));
    }
    return ST_OK;
}

static tensor scalars_in(struct arena *a, int64_t n, const char *name)
{
    return tensor_1d(arena_take(a, (size_t)n * sizeof(double), "%s", name), DT_F64, n);
}

void trainer_layout(struct trainer *t, struct arena *a)
{
    int64_t partials = t->m->params.n_partials, row = t->accumulation + 1;
    grad_sink_layout(&t->sink, &a[PLAN_GRADIENTS], &a[PLAN_SCRATCH], &a[PLAN_COMM], &a[PLAN_STAGING]);
    optim_layout(&t->optim, &a[PLAN_OPTIMIZER], &a[PLAN_PAGED], &a[PLAN_HOSTED], &a[PLAN_STAGING]);
    void *data = arena_take(&a[PLAN_SCRATCH], (size_t)partials * dtype_bytes(t->m->stat), "gradient norm partials");
    t->partials = tensor_1d(data, t->m->stat, partials);
    t->plan = scalars_in(&a[PLAN_SCRATCH], STEP_PLAN, "scalars of the step");
    t->scalars = scalars_in(&a[PLAN_SCRATCH], STEP_SCALARS, "scalars of the step");
    t->losses = tensor_2d(arena_take(&a[PLAN_BATCH], (size_t)(t->comm->size * row) * sizeof(double), "micro-batch losses"), DT_F64,
                          t->comm->size, t->accumulation);
    t->losses.ld = row;
    for (int i = 0; i < TRAINER_SLOTS; i++) {
        struct trainer_slot *slot = &t->slot[i];
        slot->plan = scalars_in(&a[PLAN_STAGING], STEP_PLAN, "scalars of steps in flight").data;
        slot->found = scalars_in(&a[PLAN_STAGING], STEP_SCALARS, "scalars of steps in flight").data;
        slot->shared = scalars_in(&a[PLAN_STAGING], t->comm->size * row, "losses of steps in flight").data;
    }
}

void trainer_release(struct trainer *t)
{
    if (t->sink.seen) grad_sink_release(&t->sink);
    optim_release(&t->optim);
    for (int i = 0; i < TRAINER_SLOTS; i++) {
        if (t->slot[i].crossed) t->s->be->dev.event_close(t->slot[i].crossed);
        if (t->slot[i].done) t->s->be->dev.event_close(t->slot[i].done);
    }
    *t = (struct trainer){0};
}

status trainer_set_applied(struct trainer *t, int64_t applied)
{
    struct step_scalars *first = t->slot[0].found;
    assert(!trainer_in_flight(t));
    *first = (struct step_scalars){.applied = (double)applied};
    t->applied = applied;
    TRY(t->s->be->dev.copy(t->s, t->scalars.data, first, sizeof *first));
    return t->s->be->dev.sync(t->s, "scalars of the step");
}

/* ---- a step, launched --------------------------------------------------------------------------------------------------- */

static status square_sums(struct trainer *t, tensor grad, struct range r)
{
    return op_sumsq_segs(t->s, &(struct sumsq_segs_args){.g = grad, .partial = t->partials, .segs = t->m->params.segs, .lo = r.lo});
}

/* optimizer_in_bwd: the gradient of one parameter is complete. */
static status consume(void *owner, int id, tensor grad)
{
    struct trainer *t = owner;
    const struct param *p = &t->m->params.p[id];
    struct range r = {p->flat, p->flat + p->count};
    TRY(square_sums(t, grad, r));
    TRY(op_step_admit(t->s, &(struct step_admit_args){.plan = t->plan,
                                                      .scalars = t->scalars,
                                                      .tensor = id,
                                                      .partial = tensor_part(t->partials, p->partial, param_pages(p))}));
    return optim_range(&t->optim, grad, t->scalars, t->step, r);
}

static struct trainer_slot *newest(struct trainer *t) { return &t->slot[t->launched % TRAINER_SLOTS]; }

status trainer_begin(struct trainer *t, const struct step_start *start)
{
    struct step_plan *plan = newest(t)->plan;
    double clip = t->cfg->clip_grad_norm;
    assert(trainer_in_flight(t) < TRAINER_SLOTS);
    t->step = start->step;
    *plan =
        (struct step_plan){.step = (double)start->step, .supervised = (double)start->supervised, .max_norm = isnan(clip) ? INFINITY : clip};
    optim_plan(&t->optim, start->lr, t->applied, plan);
    grad_step_begin(&t->sink);
    return t->s->be->dev.copy(t->s, t->plan.data, plan, sizeof *plan);
}

static double *row_of(const struct trainer *t, double *rows) { return rows + t->comm->rank * t->losses.ld; }

status trainer_micro(struct trainer *t, struct pass *p, int64_t i)
{
    TRY(grad_micro_begin(&t->sink));
    TRY(model_run(p, tensor_1d(row_of(t, t->losses.data) + i, DT_F64, 1)));
    return grad_micro_end(&t->sink);
}

static status gather(void *arg)
{
    struct trainer_slot *slot = arg;
    struct trainer *t = slot->trainer;
    return t->comm->fn->all_gather(t->comm, row_of(t, slot->shared), slot->shared, (size_t)t->losses.ld * sizeof(double));
}

status trainer_reduce(struct trainer *t, unsigned flags)
{
    const struct device *dev = &t->s->be->dev;
    struct trainer_slot *slot = newest(t);
    TRY(grad_reduce(&t->sink));
    row_of(t, slot->shared)[t->accumulation] = (double)flags;
    if (t->comm->size == 1) return ST_OK;
    TRY(dev->copy(t->across, row_of(t, slot->shared), row_of(t, t->losses.data), (size_t)t->accumulation * sizeof(double)));
    TRY(dev->host_call(t->across, gather, slot));
    TRY(dev->copy(t->across, t->losses.data, slot->shared, (size_t)(t->comm->size * t->losses.ld) * sizeof(double)));
    if (t->across == t->s) return ST_OK;
    TRY(dev->event_record(slot->crossed, t->across));
    return dev->event_wait(slot->crossed, t->s, "gradients reduced");
}

static status stamp(void *arg)
{
    ((struct trainer_slot *)arg)->finished_at = clock_s();
    return ST_OK;
}

status trainer_update(struct trainer *t)
{
    const struct device *dev = &t->s->be->dev;
    struct trainer_slot *slot = newest(t);
    struct range all = {0, t->m->params.flat_count};
    tensor grad = t->sizes.consume ? (tensor){0} : grad_all(&t->sink);
    if (grad.data) TRY(square_sums(t, grad, all));
    TRY(op_step_decide(t->s,
                       &(struct step_decide_args){.plan = t->plan, .scalars = t->scalars, .losses = t->losses, .partial = t->partials}));
    if (grad.data) TRY(optim_range(&t->optim, grad, t->scalars, t->step, all));
    TRY(optim_rest(&t->optim));
    TRY(dev->copy(t->s, slot->found, t->scalars.data, sizeof *slot->found));
    TRY(dev->host_call(t->s, stamp, slot));
    TRY(dev->event_record(slot->done, t->s));
    t->launched++;
    return ST_OK;
}

/* ---- a step, told ------------------------------------------------------------------------------------------------------- */

static status refusal(const struct trainer *t, const struct step_scalars *c)
{
    FAIL(ST_NONFINITE,
         "step %lld: the gradient of %s is not finite, and with optimizer_in_bwd other tensors have already "
         "stepped; lower the learning rate, or set optimizer_in_bwd=false, which skips such steps",
         (long long)c->refused_step + 1, t->m->params.p[(int)c->refused - 1].name);
}

status trainer_collect(struct trainer *t, struct step_result *out)
{
    struct trainer_slot *slot = &t->slot[t->collected % TRAINER_SLOTS];
    assert(trainer_in_flight(t) > 0);
    /* Done with before the rest of the step is; asked for what failed on that stream, which is why the rest is wrong. */
    if (t->across != t->s) TRY(t->s->be->dev.event_sync(slot->crossed, "step"));
    TRY(t->s->be->dev.event_sync(slot->done, "step"));
    const struct step_scalars *c = slot->found;
    t->collected++;
    if (c->refused != 0) return refusal(t, c);
    t->applied = (int64_t)c->applied;
    *out = (struct step_result){
        .loss = c->loss, .grad_norm = c->grad_norm, .usable = c->usable != 0, .applied = t->applied, .finished_at = slot->finished_at};
    for (int r = 0; r < t->comm->size; r++) out->flags |= (unsigned)slot->shared[r * t->losses.ld + t->accumulation];
    return ST_OK;
}
