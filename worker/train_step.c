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
        struct pass p = {.m = &x->model, .s = x->s, .batch = &x->batcher.batch, .sink = &t->sink, .seed = x->seed, .plan = t->plan};
        TRY(trainer_micro(t, &p, i));
    }
    return ST_OK;
}

/* ---- the step --------------------------------------------------------------------------------------------------------------- */

status step_launch(struct session *x, struct steps *f, struct progress *at, unsigned flags)
{
    struct trainer *t = &x->trainer;
    int64_t step = at->step, first = step % x->steps_per_epoch * x->step_items, slot = t->launched % TRAINER_SLOTS;
    struct item_order order = order_of(x, step);
    struct step_metrics *m = &f->m[slot];
    TRY(profile_step(x->profile, x->s, step));
    f->started_at[slot] = clock_s();
    watch_at(WATCH_COMPUTE, step + 1);
    *m = (struct step_metrics){.step = step + 1,
                               .total = x->total_steps,
                               .epoch = (double)(step + 1) / (double)x->steps_per_epoch,
                               .lr = x->cfg->optimizer.lr * schedule_at(x->cfg, step, x->total_steps),
                               .val_loss = NAN};
    batch_count(&order, first, x->step_items, &m->tokens, &m->supervised);
    TRY(trainer_begin(t, &(struct step_start){.step = step, .supervised = m->supervised, .lr = m->lr}));
    m->data_s = clock_s() - f->started_at[slot];
    TRY(run_micro_batches(x, step, first, &m->data_s));
    double reducing = clock_s();
    watch_at(WATCH_REDUCE, step + 1);
    TRY(trainer_reduce(t, flags));
    m->comm_s = clock_s() - reducing;
    watch_at(WATCH_UPDATE, step + 1);
    TRY(trainer_update(t));
    at->step++;
    return ST_OK;
}

static status skip(struct session *x, struct progress *at, const struct step_metrics *m)
{
    at->skipped++;
    at->skipped_in_a_row++;
    if (x->comm->rank == 0)
        log_warn("step %lld skipped: loss %g, gradient norm %g; no weight was changed", (long long)m->step, m->loss, m->grad_norm);
    if (x->cfg->max_skipped_steps > 0 && at->skipped_in_a_row >= x->cfg->max_skipped_steps)
        FAIL(ST_NONFINITE,
             "%lld steps in a row had a non-finite loss or gradient (max_skipped_steps); lower the learning rate, or "
             "look at the data of these steps",
             (long long)at->skipped_in_a_row);
    return ST_OK;
}

status step_collect(struct session *x, struct steps *f, struct progress *at, struct step_metrics *m, unsigned *flags)
{
    int64_t slot = x->trainer.collected % TRAINER_SLOTS;
    struct step_result result;
    TRY(trainer_collect(&x->trainer, &result));
    *m = f->m[slot];
    m->loss = result.loss;
    m->grad_norm = result.grad_norm;
    /* Its own time: from its launch, or where it was queued behind another, from the end of that one. */
    m->step_s = result.finished_at - fmax(f->started_at[slot], f->told_at);
    f->told_at = result.finished_at;
    *flags |= result.flags;
    at->applied = result.applied;
    if (result.usable)
        at->skipped_in_a_row = 0;
    else
        TRY(skip(x, at, m));
    m->skipped = at->skipped;
    return ST_OK;
}

bool step_may_be_last(const struct session *x, const struct progress *at)
{
    return x->cfg->max_skipped_steps > 0 && at->skipped_in_a_row + trainer_in_flight(&x->trainer) >= x->cfg->max_skipped_steps;
}
