#include "worker/train_step.h"

#include <math.h>

#include "collectives/watch.h"
#include "kernels/base/log.h"

static int64_t blocks_of(const struct param *p) { return (p->count + NORM_BLOCK - 1) / NORM_BLOCK; }

/* ---- gradient norm ---------------------------------------------------------------------------------------------------------- */

static status square_sum(struct session *x, int id, tensor grad)
{
    const struct param *p = &x->model.params.p[id];
    return op_sumsq(x->s, &(struct sumsq_args){.x = grad, .partial = tensor_1d(x->norm_partials + x->partial_at[id], DT_F32, blocks_of(p))});
}

/* Partials in (tensor, block) order, in f64. */
static double norm_of(const struct session *x, double gs)
{
    double sum = 0;
    for (int64_t i = 0; i < x->n_partials; i++) sum += (double)x->norm_partials[i];
    return gs * sqrt(sum);
}

status session_consume(void *owner, int id, tensor grad)
{
    struct session *x = owner;
    const struct param *p = &x->model.params.p[id];
    TRY(square_sum(x, id, grad));
    TRY(x->be->dev.sync(x->s, "gradient norm"));
    for (int64_t b = 0; b < blocks_of(p); b++)
        if (!isfinite(x->norm_partials[x->partial_at[id] + b]))
            FAIL(ST_NONFINITE, "step %lld: the gradient of %s is not finite, and with optimizer_in_bwd other tensors have already "
                 "stepped; lower the learning rate, or set optimizer_in_bwd=false, which skips such steps", (long long)x->now.step + 1, p->name);
    return optim_apply(&x->optim, id, grad, x->now.gscale, x->now.lr, x->now.step);
}

/* ---- micro-batches ------------------------------------------------------------------------------------------------------------ */

static struct item_order order_of(const struct session *x, int64_t step)
{
    return (struct item_order){.data = x->data, .seed = x->seed, .shuffle = x->cfg->shuffle, .epoch = step / x->steps_per_epoch};
}

/* Micro-batch i of the step is the same items on every number of ranks; rank r runs [rM/P, (r+1)M/P). */
static status run_micro_batches(struct session *x, int64_t step, int64_t first, double *data_s)
{
    struct item_order order = order_of(x, step);
    int64_t lo = x->comm->rank * x->accumulation;
    for (int64_t i = lo; i < lo + x->accumulation; i++) {
        double before = clock_s();
        batch_fill(&x->batcher, &order, first + i * x->cfg->batch_size, x->cfg->batch_size);
        *data_s += clock_s() - before;
        struct pass p = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch, .sink = &x->sink, .seed = x->seed,
                         .step = (uint32_t)step, .dropout = true};
        TRY(grad_micro_begin(&x->sink));
        TRY(model_run(&p, &x->losses[i]));
        TRY(grad_micro_end(&x->sink));
    }
    return ST_OK;
}

static status share_losses(struct session *x, double *sum)
{
    size_t bytes = (size_t)x->accumulation * sizeof(double);
    TRY(x->comm->fn->all_gather(x->comm, x->losses + x->comm->rank * x->accumulation, x->losses, bytes));
    *sum = 0;
    for (int64_t i = 0; i < x->micro_batches; i++) *sum += x->losses[i];
    return ST_OK;
}

/* ---- update ----------------------------------------------------------------------------------------------------------------------- */

static status all_square_sums(struct session *x)
{
    for (int i = 0; i < x->model.params.n; i++)
        if (grad_held(&x->sink, i)) TRY(square_sum(x, i, grad_of(&x->sink, i)));
    return x->be->dev.sync(x->s, "gradient norm");
}

static status update(struct session *x, double norm)
{
    double clip = x->cfg->clip_grad_norm, coef = 1;
    if (!isnan(clip) && isfinite(clip)) coef = fmin(1, clip / (norm + 1e-6));
    for (int i = 0; i < x->model.params.n; i++)
        if (grad_held(&x->sink, i))
            TRY(optim_apply(&x->optim, i, grad_of(&x->sink, i), x->now.gscale * coef, x->now.lr, x->now.step));
    return ST_OK;
}

static status skip(struct session *x, struct progress *at, double norm, double loss)
{
    at->skipped++;
    at->skipped_in_a_row++;
    if (x->comm->rank == 0)
        log_warn("step %lld skipped: loss %g, gradient norm %g; no weight was changed", (long long)at->step + 1, loss, norm);
    if (x->cfg->max_skipped_steps > 0 && at->skipped_in_a_row >= x->cfg->max_skipped_steps)
        FAIL(ST_NONFINITE, "%lld steps in a row had a non-finite loss or gradient (max_skipped_steps); lower the learning rate, or "
             "look at the data of these steps", (long long)at->skipped_in_a_row);
    return ST_OK;
}

status train_step(struct session *x, struct progress *at, struct step_metrics *m)
{
    double started = clock_s(), sum;
    struct item_order order = order_of(x, at->step);
    int64_t first = at->step % x->steps_per_epoch * x->step_items;
    watch_at(WATCH_COMPUTE, at->step + 1);
    batch_count(&order, first, x->step_items, &m->tokens, &m->supervised);
    x->now.step = at->step;
    x->now.lr = x->cfg->optimizer.lr * schedule_at(x->cfg, at->step, x->total_steps);
    x->now.gscale = m->supervised ? 1 / (double)m->supervised : 0;

    grad_step_begin(&x->sink);
    m->data_s = clock_s() - started;
    TRY(run_micro_batches(x, at->step, first, &m->data_s));
    double reducing = clock_s();
    watch_at(WATCH_REDUCE, at->step + 1);
    TRY(grad_reduce(&x->sink));
    TRY(share_losses(x, &sum));
    m->comm_s = clock_s() - reducing;
    watch_at(WATCH_UPDATE, at->step + 1);

    TRY(all_square_sums(x));
    m->loss = m->supervised ? sum / (double)m->supervised : 0;
    m->grad_norm = norm_of(x, x->now.gscale);
    m->lr = x->now.lr;
    bool usable = m->supervised && isfinite(m->loss) && isfinite(m->grad_norm);
    if (usable) {
        TRY(update(x, m->grad_norm));
        x->optim.applied = ++at->applied;
        at->skipped_in_a_row = 0;
    } else TRY(skip(x, at, m->grad_norm, m->loss));
    at->step++;
    m->step_s = clock_s() - started;
    return ST_OK;
}
