/* windows.c — the flat index cut for paging: windows, what of each vector of states is theirs, and their tables of segments. */
#include <stdlib.h>

#include "kernels/base/text.h"
#include "worker/optim/optim.h"

enum { ALIGN = STATE_BLOCK }; /* whole blocks of codes; tensors begin at multiples of it */

static int64_t whole_blocks(int64_t n) { return (n + STATE_BLOCK - 1) / STATE_BLOCK * STATE_BLOCK; }

/* Elements of a kind of states, coded or not, that are before this element of the index. */
static int64_t states_before(const struct segs *q, int64_t at, bool eight)
{
    int64_t i = segs_after(q->host, q->n, at);
    if (i < q->n && q->host[i].at < at && (q->host[i].eight != 0) == eight) return q->host[i].state + at - q->host[i].at;
    while (--i >= 0)
        if ((q->host[i].eight != 0) == eight) return q->host[i].state + (eight ? whole_blocks(q->host[i].count) : q->host[i].count);
    return 0;
}

static void fill_intervals(const struct optim *o, struct pager_window *x)
{
    for (int k = 0; k < STATE_VECTORS; k++) {
        const struct state_vector *v = &o->vector[k];
        bool eight = k >= STATE_M8;
        struct range r = x->index;
        if (o->coded)
            r = (struct range){states_before(&o->params->segs, r.lo, eight) / v->per,
                               states_before(&o->params->segs, r.hi, eight) / v->per};
        x->of[k] = v->count ? r : (struct range){0, 0};
    }
}

/* Elements up to `end` belong to windows: of those that may leave, of `most` elements at most. */
static struct pager_window *grow(struct pager_window *w, int *n, int64_t end, bool may_leave, int64_t most)
{
    int64_t at = *n ? w[*n - 1].index.hi : 0;
    while (at < end) {
        struct pager_window *x = *n ? &w[*n - 1] : NULL;
        if (!x || x->may_leave != may_leave || (may_leave && range_count(x->index) >= most)) {
            w = mem_grow(w, (size_t)(*n + 1) * sizeof *w);
            x = &w[(*n)++];
            *x = (struct pager_window){.index = {at, at}, .may_leave = may_leave};
        }
        x->index.hi = may_leave && x->index.lo + most < end ? x->index.lo + most : end;
        at = x->index.hi;
    }
    return w;
}

struct pager_window *optim_windows(const struct optim *o, bool paged, int *n)
{
    const struct config *c = o->cfg;
    const struct segs *q = &o->params->segs;
    struct pager_window *w = NULL;
    int64_t most = (c->optimizer.paged_window + ALIGN - 1) / ALIGN * ALIGN, all = o->params->flat_count;
    *n = 0;
    for (int64_t i = 0; paged && i + 1 < q->n; i++)
        w = grow(w, n, q->host[i + 1].at, q->host[i].count >= c->optimizer.min_paged_size, most);
    w = grow(w, n, all, paged && q->n && q->host[q->n - 1].count >= c->optimizer.min_paged_size, most);
    for (int i = 0; i < *n; i++) fill_intervals(o, &w[i]);
    return w;
}

/* The part of a segment that is in a window; its states are counted from the beginning of the window's. */
static struct seg cut(const struct seg *seg, const struct pager_window *x)
{
    struct seg part = *seg;
    struct range r = range_meet(x->index, (struct range){seg->at, seg->at + seg->count});
    part.at = r.lo;
    part.count = range_count(r);
    part.state += r.lo - seg->at - x->of[seg->eight ? STATE_M8 : STATE_M].lo;
    return part;
}

void optim_tables(struct optim *o)
{
    const struct segs *q = &o->params->segs;
    const struct pager *p = &o->pager;
    free(o->segs);
    free(o->seg_rows);
    o->segs = NULL;
    o->seg_rows = NULL;
    o->n_seg_rows = 0;
    if (!o->coded || p->n == 1) return;
    o->segs = mem_alloc((size_t)p->n * sizeof *o->segs);
    o->seg_rows = mem_alloc((size_t)(q->n + p->n) * sizeof *o->seg_rows);
    for (int i = 0; i < p->n; i++) {
        const struct pager_window *x = &p->window[i];
        struct segs *of = &o->segs[i];
        of->host = o->seg_rows + o->n_seg_rows;
        for (int64_t k = segs_after(q->host, q->n, x->index.lo); k < q->n && q->host[k].at < x->index.hi; k++, of->n++)
            o->seg_rows[o->n_seg_rows++] = cut(&q->host[k], x);
    }
}
