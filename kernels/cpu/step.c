/* step.c — what a step comes to: sums of a few numbers, and the scalars of its update. Nothing to share out. */
#include "kernels/cpu/elem.h"

#include <math.h>

status CPU_FN(loss_sum)(struct stream *s, const struct loss_sum_args *l)
{
    (void)s;
    const float *loss = l->loss.data;
    double sum = 0;
    for (int64_t i = 0; i < l->loss.dim[0]; i++) sum += (double)loss[i];
    *(double *)l->out.data = sum;
    return ST_OK;
}

static double mean_factor(const struct step_plan *p) { return p->supervised > 0 ? 1 / p->supervised : 0; }

/* The scalars of an update that multiplies gradients by gscale, as the step's number among the applied ones has them. */
static void set_rates(struct step_scalars *c, const struct step_plan *p, double gscale)
{
    int which = c->applied > p->applied;
    c->gscale = (double)(float)gscale;
    c->lr = p->lr;
    c->lw = p->lw;
    c->rate = p->rate[which];
    c->c2 = p->c2[which];
    c->first = c->applied == 0;
}

status CPU_FN(step_decide)(struct stream *s, const struct step_decide_args *d)
{
    (void)s;
    const struct step_plan *p = d->plan.data;
    struct step_scalars *c = d->scalars.data;
    const float *partial = d->partial.data;
    double loss = 0, squares = 0;
    for (int64_t r = 0; r < d->losses.dim[0]; r++)
        for (int64_t i = 0; i < d->losses.dim[1]; i++) loss += ((const double *)d->losses.data)[r * d->losses.ld + i];
    for (int64_t i = 0; i < d->partial.dim[0]; i++) squares += (double)partial[i];
    c->loss = p->supervised > 0 ? loss / p->supervised : 0;
    c->grad_norm = mean_factor(p) * sqrt(squares);
    c->usable = p->supervised > 0 && isfinite(c->loss) && isfinite(c->grad_norm) && c->refused == 0;
    set_rates(c, p, mean_factor(p) * fmin(1, p->max_norm / (c->grad_norm + 1e-6)));
    c->applied += c->usable;
    return ST_OK;
}

status CPU_FN(step_admit)(struct stream *s, const struct step_admit_args *d)
{
    (void)s;
    const struct step_plan *p = d->plan.data;
    struct step_scalars *c = d->scalars.data;
    const float *partial = d->partial.data;
    bool finite = true;
    for (int64_t i = 0; i < d->partial.dim[0]; i++) finite = finite && isfinite(partial[i]);
    if (!finite && c->refused == 0) {
        c->refused = (double)(d->tensor + 1);
        c->refused_step = p->step;
    }
    c->usable = p->supervised > 0 && c->refused == 0;
    set_rates(c, p, mean_factor(p));
    return ST_OK;
}
