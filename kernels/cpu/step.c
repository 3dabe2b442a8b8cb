/* step.c — what a step comes to: sums of a few numbers, and the scalars of its update. Nothing to share out. */
#include "kernels/cpu/elem.h"
#include "kernels/formulas.h"

status CPU_FN(loss_sum)(struct stream *s, const struct loss_sum_args *l)
{
    (void)s;
    const float *loss = l->loss.data;
    double sum = 0;
    for (int64_t i = 0; i < l->loss.dim[0]; i++) sum += (double)loss[i];
    *(double *)l->out.data = sum;
    return ST_OK;
}

status CPU_FN(step_decide)(struct stream *s, const struct step_decide_args *d)
{
    (void)s;
    const float *partial = d->partial.data;
    double loss = 0, squares = 0;
    for (int64_t r = 0; r < d->losses.dim[0]; r++)
        for (int64_t i = 0; i < d->losses.dim[1]; i++) loss += ((const double *)d->losses.data)[r * d->losses.ld + i];
    for (int64_t i = 0; i < d->partial.dim[0]; i++) squares += (double)partial[i];
    formula_decide(d->scalars.data, d->plan.data, loss, squares);
    return ST_OK;
}

status CPU_FN(step_admit)(struct stream *s, const struct step_admit_args *d)
{
    (void)s;
    const float *partial = d->partial.data;
    bool finite = true;
    for (int64_t i = 0; i < d->partial.dim[0]; i++) finite = finite && isfinite(partial[i]);
    formula_admit(d->scalars.data, d->plan.data, d->tensor, finite);
    return ST_OK;
}
