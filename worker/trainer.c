#include "worker/trainer.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/text.h"
#include "worker/memory/plan.h"

static int64_t blocks_of(const struct param *p) { return (p->count + NORM_BLOCK - 1) / NORM_BLOCK; }

static void number_partials(struct trainer *t)
{
    const struct param_store *ps = &t->m->params;
    t->partial_at = mem_alloc((size_t)(ps->n + 1) * sizeof *t->partial_at);
    t->partial_at[0] = 0;
    for (int i = 0; i < ps->n; i++) t->partial_at[i + 1] = t->partial_at[i] + (param_is_trained(&ps->p[i]) ? blocks_of(&ps->p[i]) : 0);
}

static status consume(void *owner, int id, tensor grad);

void trainer_init(struct trainer *t, const struct config *cfg, struct model *m, struct comm *comm, struct stream *s,
                  const struct trainer_sizes *sizes)
{
    *t = (struct trainer){.cfg = cfg, .m = m, .comm = comm, .s = s, .sizes = *sizes, .accumulation = sizes->micro_batches / comm->size};
    grad_sink_init(&t->sink, &m->params, comm, s, m->stat, (int)sizes->leaves, (int)(sizes->micro_batches / sizes->leaves),
                   sizes->consume ? consume : NULL, t);
    optim_init(&t->optim, cfg, &m->params, s, sizes->state_dt);
    number_partials(t);
}

void trainer_layout(struct trainer *t, struct arena *a)
{
    int64_t partials = t->partial_at[t->m->params.n];
    t->losses = arena_take(&a[PLAN_HOST], (size_t)t->sizes.micro_batches * sizeof *t->losses, "micro-batch losses");
    grad_sink_layout(&t->sink, &a[PLAN_GRADIENTS], &a[PLAN_SCRATCH], &a[PLAN_COMM], &a[PLAN_STAGING]);
    optim_layout(&t->optim, &a[PLAN_OPTIMIZER]);
    void *data = arena_take(&a[PLAN_SCRATCH], (size_t)partials * dtype_bytes(t->m->stat), "gradient norm partials");
    t->partials = tensor_1d(data, t->m->stat, partials);
}

void trainer_release(struct trainer *t)
{
    if (t->sink.seen) grad_sink_release(&t->sink);
    free(t->partial_at);
    *t = (struct trainer){0};
}

/* ---- gradient norm ---------------------------------------------------------------------------------------------------- */

static tensor partials_of(const struct trainer *t, int id)
{
    int64_t at = t->partial_at[id];
    return tensor_1d((char *)t->partials.data + (size_t)at * dtype_bytes(t->partials.dt), t->partials.dt, t->partial_at[id + 1] - at);
}

static double partial(const struct trainer *t, int64_t i)
{
    return t->partials.dt == DT_F64 ? ((const double *)t->partials.data)[i] : (double)((const float *)t->partials.data)[i];
}

static status square_sum(struct trainer *t, int id, tensor grad)
{
    return op_sumsq(t->s, &(struct sumsq_args){.x = grad, .partial = partials_of(t, id)});
}

/* Partials in (tensor, block) order, in f64. */
static double norm_of(const struct trainer *t)
{
    double sum = 0;
    for (int64_t i = 0; i < t->partials.dim[0]; i++) sum += partial(t, i);
    return t->gscale * sqrt(sum);
}

/* optimizer_in_bwd: the gradient of one parameter is complete. */
static status consume(void *owner, int id, tensor grad)
{
    struct trainer *t = owner;
    TRY(square_sum(t, id, grad));
    TRY(t->s->be->dev.sync(t->s, "gradient norm"));
    for (int64_t i = t->partial_at[id]; i < t->partial_at[id + 1]; i++)
        if (!isfinite(partial(t, i)))
            FAIL(ST_NONFINITE, "step %lld: the gradient of %s is not finite, and with optimizer_in_bwd other tensors have already "
                 "stepped; lower the learning rate, or set optimizer_in_bwd=false, which skips such steps", (long long)t->now.step + 1,
                 t->m->params.p[id].name);
    return optim_apply(&t->optim, id, grad, t->gscale, t->now.lr, t->now.step);
}

/* ---- a step ------------------------------------------------------------------------------------------------------------- */

status trainer_begin(struct trainer *t, const struct step_start *start)
{
    t->now = *start;
    t->gscale = start->supervised ? 1 / (double)start->supervised : 0;
    grad_step_begin(&t->sink);
    return ST_OK;
}

status trainer_micro(struct trainer *t, struct pass *p, int64_t i)
{
    TRY(grad_micro_begin(&t->sink));
    TRY(model_run(p, &t->losses[t->comm->rank * t->accumulation + i]));
    return grad_micro_end(&t->sink);
}

status trainer_reduce(struct trainer *t)
{
    TRY(grad_reduce(&t->sink));
    return t->comm->fn->all_gather(t->comm, t->losses + t->comm->rank * t->accumulation, t->losses,
                                   (size_t)t->accumulation * sizeof *t->losses);
}

static status all_square_sums(struct trainer *t)
{
    for (int i = 0; i < t->m->params.n; i++)
        if (grad_held(&t->sink, i)) TRY(square_sum(t, i, grad_of(&t->sink, i)));
    return t->s->be->dev.sync(t->s, "gradient norm");
}

static status apply_all(struct trainer *t, double norm)
{
    double clip = t->cfg->clip_grad_norm, coef = 1;
    if (!isnan(clip) && isfinite(clip)) coef = fmin(1, clip / (norm + 1e-6));
    for (int i = 0; i < t->m->params.n; i++)
        if (grad_held(&t->sink, i))
            TRY(optim_apply(&t->optim, i, grad_of(&t->sink, i), t->gscale * coef, t->now.lr, t->now.step));
    return ST_OK;
}

status trainer_update(struct trainer *t, struct step_result *out)
{
    double sum = 0;
    TRY(all_square_sums(t));
    for (int64_t i = 0; i < t->sizes.micro_batches; i++) sum += t->losses[i];
    out->loss = t->now.supervised ? sum / (double)t->now.supervised : 0;
    out->grad_norm = norm_of(t);
    out->usable = t->now.supervised && isfinite(out->loss) && isfinite(out->grad_norm);
    if (!out->usable) return ST_OK;
    TRY(apply_all(t, out->grad_norm));
    t->optim.applied++;
    return ST_OK;
}
