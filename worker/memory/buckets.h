/* buckets.h — the flat index in pieces, in the order in which their gradients are complete.
 *
 *   |head……|norms of many layers|down L-1|up L-1|…………|q 0|embed……|     a bucket: `size` elements, wherever tensors begin and end
 *   |0     |1   ▲    |2        |3       |4  …
 *               └ norms of lower layers lie here too (param_store.h): bucket 1 is complete long after bucket 2
 *
 * A bucket is complete when its last tensor is: of those in it, the one with the lowest number, for backward goes down. Sorted by that
 * one, no bucket waits for another that comes later. The order follows from the shapes alone, so that ranks that take buckets in this
 * order, each when its own are complete, meet. */
#ifndef TRIMPOT_BUCKETS_H
#define TRIMPOT_BUCKETS_H

#include "collectives/own.h"
#include "worker/memory/param_store.h"

struct buckets {
    int64_t size, count; /* elements of one; of all */
    int n, taken;
    struct bucket {
        int at, lowest; /* which one it is; the number of the tensor that completes it */
        int tensors;    /* in it … */
    } * order;          /* [n] */
    int *open;          /* [n], by place: … of which so many are not complete yet */
};

/* size: 0 = one bucket. Owns ordinary memory: release. */
void buckets_init(struct buckets *b, const struct param_store *params, int64_t size);
void buckets_release(struct buckets *b);

void buckets_begin(struct buckets *b);                           /* nothing is complete, nothing taken */
void buckets_complete(struct buckets *b, const struct param *p); /* the gradient of p, once */
/* Is the next one in the order complete? Then it counts as taken. */
bool buckets_take(struct buckets *b);
struct range bucket_range(const struct buckets *b, int k); /* k-th of the order */

#endif
