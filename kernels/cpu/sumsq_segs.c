#include "kernels/cpu/elem.h"

static float square_sum(const void *x, dtype dt, int64_t n)
{
    lanes squares = {0};
    FOR_LANES(i, p, n)
    {
        vf v = vec_load(x, dt, i, n);
        squares.part[p] = vf_fma(v, v, squares.part[p]);
    }
    return lanes_total(squares);
}

/* A page of the index is one thread's, with whatever lies in it. */
static void sum_page(const void *arg, int64_t index)
{
    const struct sumsq_segs_args *q = arg;
    int64_t lo = q->lo, hi = lo + tensor_count(&q->g), page = lo / FLAT_PAGE + index;
    int64_t from = page * FLAT_PAGE > lo ? page * FLAT_PAGE : lo, to = (page + 1) * FLAT_PAGE < hi ? (page + 1) * FLAT_PAGE : hi;
    for (int64_t i = segs_after(q->segs.dev, q->segs.n, from); i < q->segs.n && q->segs.dev[i].at < to; i++) {
        const struct seg *x = &q->segs.dev[i];
        int64_t a = x->at > from ? x->at : from, b = x->at + x->count < to ? x->at + x->count : to;
        const void *g = (const char *)q->g.data + (size_t)(a - lo) * dtype_bytes(q->g.dt);
        ((float *)q->partial.data)[x->partial + page - x->at / FLAT_PAGE] = square_sum(g, q->g.dt, b - a);
    }
}

status CPU_FN(sumsq_segs)(struct stream *s, const struct sumsq_segs_args *q)
{
    int64_t n = tensor_count(&q->g), pages = (q->lo + n + FLAT_PAGE - 1) / FLAT_PAGE - q->lo / FLAT_PAGE;
    team_for(elem_threads(s, n), pages, sum_page, q);
    return ST_OK;
}
