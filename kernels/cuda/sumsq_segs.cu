/* sumsq_segs.cu — moves sizeof(g) bytes per element, and 4 per (segment, page).
 *
 * A block has a page, its warps take turns at the segments in it, and lane l of a warp sums elements l, l + 32, …: the order of
 * kernels/cpu/elem.h, so the same bits; each load of a warp is 128 bytes in a row, 64 of bf16. A page is mostly one segment: one
 * busy warp a block, as many blocks as pages. */
#include "kernels/cuda/cuda.h"

enum { THREADS = 128, AHEAD = 16, LANES = 32 }; /* AHEAD: loads under way in each lane */

/* Σ x² of n elements by one warp; lane 0 has it. */
template <class T> static __device__ float square_sum(const T *x, int64_t n)
{
    int lane = (int)threadIdx.x % LANES;
    float sum = 0;
    int64_t i = lane;
    for (; i + (AHEAD - 1) * LANES < n; i += AHEAD * LANES) {
        T ahead[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) ahead[k] = x[i + k * LANES];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) sum = fmaf(widen(ahead[k]), widen(ahead[k]), sum);
    }
    for (; i < n; i += LANES) sum = fmaf(widen(x[i]), widen(x[i]), sum);
    return warp_sum(sum);
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    sumsq_segs(const T *g, float *partial, const seg *segs, int64_t n_segs, int64_t lo, int64_t hi)
{
    int64_t page = lo / FLAT_PAGE + blockIdx.x, from = page * FLAT_PAGE, to = from + FLAT_PAGE;
    if (from < lo) from = lo;
    if (to > hi) to = hi;
    int64_t first = segs_after(segs, n_segs, from);
    for (int64_t i = first + threadIdx.x / LANES; i < n_segs && segs[i].at < to; i += THREADS / LANES) {
        int64_t at = segs[i].at, end = at + segs[i].count, a = at > from ? at : from, b = end < to ? end : to;
        float sum = square_sum(g + (a - lo), b - a);
        if (a < b && threadIdx.x % LANES == 0) partial[segs[i].partial + page - at / FLAT_PAGE] = sum;
    }
}

status sumsq_segs_cuda(struct stream *s, const struct sumsq_segs_args *q)
{
    int64_t hi = q->lo + tensor_count(&q->g), pages = (hi + FLAT_PAGE - 1) / FLAT_PAGE - q->lo / FLAT_PAGE;
    if (!tensor_count(&q->g)) return ST_OK;
    WITH_TYPE(q->g.dt, T, {
        TRY(LAUNCH(sumsq_segs<T>, (unsigned)pages, THREADS, 0, s, (const T *)q->g.data, (float *)q->partial.data, q->segs.dev, q->segs.n,
                   q->lo, hi));
    });
    return ST_OK;
}
