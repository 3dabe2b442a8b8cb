#include "worker/memory/buckets.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

static int later_first(const void *a, const void *b)
{
    const struct bucket *x = a, *y = b;
    if (x->lowest != y->lowest) return x->lowest > y->lowest ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

static struct range buckets_of(const struct buckets *b, const struct param *p)
{
    return (struct range){p->flat / b->size, (p->flat + p->count - 1) / b->size + 1};
}

void buckets_init(struct buckets *b, const struct param_store *params, int64_t size)
{
    int64_t count = params->flat_count;
    if (size <= 0 || size > count) size = count;
    *b = (struct buckets){.size = size, .count = count, .n = count ? (int)((count + size - 1) / size) : 0};
    b->order = mem_alloc((size_t)(b->n + 1) * sizeof *b->order);
    b->open = mem_alloc((size_t)(b->n + 1) * sizeof *b->open);
    for (int k = 0; k < b->n; k++) b->order[k] = (struct bucket){.at = k, .lowest = INT_MAX};
    for (int i = params->n - 1; i >= 0; i--) {
        if (!param_is_trained(&params->p[i])) continue;
        struct range in = buckets_of(b, &params->p[i]);
        for (int64_t k = in.lo; k < in.hi; k++) {
            b->order[k].lowest = i;
            b->order[k].tensors++;
        }
    }
    qsort(b->order, (size_t)b->n, sizeof *b->order, later_first);
}

void buckets_release(struct buckets *b)
{
    free(b->order);
    free(b->open);
    *b = (struct buckets){0};
}

void buckets_begin(struct buckets *b)
{
    b->taken = 0;
    for (int k = 0; k < b->n; k++) b->open[b->order[k].at] = b->order[k].tensors;
}

void buckets_complete(struct buckets *b, const struct param *p)
{
    struct range in = buckets_of(b, p);
    for (int64_t k = in.lo; k < in.hi; k++) b->open[k]--;
}

bool buckets_take(struct buckets *b)
{
    if (b->taken == b->n || b->open[b->order[b->taken].at]) return false;
    b->taken++;
    return true;
}

struct range bucket_range(const struct buckets *b, int k)
{
    int64_t lo = b->order[k].at * b->size, hi = lo + b->size;
    return (struct range){lo, hi < b->count ? hi : b->count};
}
