#include "worker/train_step.h"

#include <math.h>

#include "collectives/watch.h"
#include "kernels/base/log.h"

/* ---- micro-batches ------------------------------------------------------------------------------------------------------------ */

static struct item_order order_of(const struct session *x, int64_t step)
{
    return (struct item_order){.data = x->data, .seed = x->seed, .shuffle = x->cfg->shuffle, .epoch = step / x->steps_per_epoch};
}

/* Micro-batch i of the step is the same items on every number of ranks; rank r runs [rM/P, (r+1)M/P). */
static status run_micro_batches(struct session *x, int64_t step, int64_t first, double *data_s)
{
    struct trainer *t = &x->trainer;
    struct item_order order = order_of(x, step);
    for (int64_t i = 0; i < t->accumulation; i++) {
        double before = clock_s();
        int64_t number = x->comm->rank * t->accumulation + i;
        TRY(batch_fill(&x->batcher, &order, first + number * x->cfg->batch_size, x->cfg->batch_size));
        *data_s += clock_s() - before;
        struct pass p = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch, .sink = &t->sink, .seed = x->seed,
                         .step = (uint32_t)step, .dropout = true};
        TRY(trainer_micro(t, &p, i));
    }
    return ST_OK;
}

/* ---- the step --------------------------------------------------------------------------------------------------------------- */

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
    double started = clock_s();
    struct item_order order = order_of(x, at->step);
    int64_t first = at->step % x->steps_per_epoch * x->step_items;
    struct step_result result;
    watch_at(WATCH_COMPUTE, at->step + 1);
    batch_count(&order, first, x->step_items, &m->tokens, &m->supervised);
    m->lr = x->cfg->optimizer.lr * schedule_at(x->cfg, at->step, x->total_steps);
    TRY(trainer_begin(&x->trainer, &(struct step_start){.step = at->step, .supervised = m->supervised, .lr = m->lr}));
    m->data_s = clock_s() - started;
    TRY(run_micro_batches(x, at->step, first, &m->data_s));
    double reducing = clock_s();
    watch_at(WATCH_REDUCE, at->step + 1);
    TRY(trainer_reduce(&x->trainer, 0));
    m->comm_s = clock_s() - reducing;
    watch_at(WATCH_UPDATE, at->step + 1);
    TRY(trainer_update(&x->trainer));
    TRY(trainer_collect(&x->trainer, &result));
    m->loss = result.loss;
    m->grad_norm = result.grad_norm;
    if (result.usable) {
        at->applied = result.applied;
        at->skipped_in_a_row = 0;
    } else TRY(skip(x, at, m->grad_norm, m->loss));
    at->step++;
    m->step_s = clock_s() - started;
    return ST_OK;
}
