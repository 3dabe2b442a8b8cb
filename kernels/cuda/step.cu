/* step.cu — moves 4 bytes per partial, 8 per micro-batch, and the scalars; the time is that of the additions in order. */
#include "kernels/cuda/ordered.h"

static __global__ void __launch_bounds__(ORDERED_THREADS) step_decide(struct step_decide_args d)
{
    __shared__ double stage[2 * ORDERED_TILE];
    const double *losses = (const double *)d.losses.data;
    const float *partial = (const float *)d.partial.data;
    int64_t cols = d.losses.dim[1], ld = d.losses.ld;
    double loss = ordered_sum(d.losses.dim[0] * cols, stage, [=](int64_t i) { return losses[i / cols * ld + i % cols]; });
    double squares = ordered_sum(d.partial.dim[0], stage, [=](int64_t i) { return (double)partial[i]; });
    if (threadIdx.x == 0) formula_decide((struct step_scalars *)d.scalars.data, (const struct step_plan *)d.plan.data, loss, squares);
}

static __global__ void __launch_bounds__(ORDERED_THREADS) step_admit(struct step_admit_args d)
{
    __shared__ float scratch[WARP];
    const float *partial = (const float *)d.partial.data;
    bool finite = true;
    for (int64_t i = threadIdx.x; i < d.partial.dim[0]; i += ORDERED_THREADS) finite = finite && isfinite(partial[i]);
    float bad = block_sum(finite ? 0.0f : 1.0f, scratch);
    if (threadIdx.x == 0) formula_admit((struct step_scalars *)d.scalars.data, (const struct step_plan *)d.plan.data, d.tensor, bad == 0);
}

status step_decide_cuda(struct stream *s, const struct step_decide_args *d) { return LAUNCH(step_decide, 1, ORDERED_THREADS, 0, s, *d); }

status step_admit_cuda(struct stream *s, const struct step_admit_args *d) { return LAUNCH(step_admit, 1, ORDERED_THREADS, 0, s, *d); }
