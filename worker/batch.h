/* batch.h — micro-batches out of the data set: which items, in which order, laid end to end. */
#ifndef TRIMPOT_BATCH_H
#define TRIMPOT_BATCH_H

#include "worker/data/dataset.h"
#include "worker/model/model.h"

struct batcher {
    int32_t *ids, *start, *rows, *labels;
    int64_t *sample;
    int32_t *past, *key_start, *cache_rows; /* with a key/value cache, else NULL */
    struct batch batch; /* what batch_fill made last */
};

/* Bounds of a micro-batch of n items of d. */
struct batch_bounds batch_bounds_of(const struct dataset *d, int64_t n);
struct batch_bounds batch_bounds_max(struct batch_bounds a, struct batch_bounds b);

void batcher_layout(struct batcher *b, const struct batch_bounds *bounds, struct arena *a);

/* Where an item comes from. */
struct item_order { const struct dataset *data; uint64_t seed; bool shuffle; int64_t epoch; };

/* Items at positions [first, first + n) of the epoch, clipped to its end (0 items: an empty batch). */
void batch_fill(struct batcher *b, const struct item_order *order, int64_t first, int64_t n);

/* Tokens and supervised tokens of those positions, without assembling them. */
void batch_count(const struct item_order *order, int64_t first, int64_t n, int64_t *tokens, int64_t *supervised);

#endif
