/* batch.h — micro-batches out of the data set: which items, in which order, laid end to end; and their way to the device.
 *
 *            slot 0                        slot 1                      two, so that batch t + 1 is filled while t runs
 *   host     |ids|starts|positions|…|      |ids|starts|…|              pinned: the host fills it
 *               │ copy in, on its own stream  │
 *   device   |ids|starts|positions|…|      |ids|starts|…|              the same bytes, where tensors live: ops read it
 *
 *   batch_next    the other slot's host side, when its last copy has left it
 *   batch_send    copies it, when nothing queued reads the device side any more, and lets compute wait for that
 *
 * Where tensors live in host memory the two sides are one, and nothing is copied. */
#ifndef TRIMPOT_BATCH_H
#define TRIMPOT_BATCH_H

#include "configs/config.h"
#include "worker/data/dataset.h"
#include "worker/model/model.h"

/* One side of a slot. The last three only with a key/value cache, else NULL. */
struct batch_arrays {
    int32_t *ids, *start, *position, *rows, *labels, *row_position;
    int64_t *sample, *row_sample;
    int32_t *past, *key_start, *cache_rows;
};

struct batch_slot {
    struct batch_arrays host, dev;
    size_t bytes; /* of one side */
    void *host_at, *dev_at;
    struct event *arrived; /* the copy in is done */
    struct event *read;    /* what read the device side is done */
};

struct batcher {
    const struct backend *be;
    struct stream *compute, *copy_in;
    struct batch_slot slot[2];
    int turn; /* the slot filled last */
    struct batch_bounds bounds;
    struct batch batch; /* what was filled last */
};

/* Bounds of a micro-batch of n items of d. */
struct batch_bounds batch_bounds_of(const struct dataset *d, int64_t n);
/* Of one without rows: batch_size rows, as long as they may be. ST_USAGE: nothing says how long. */
status batch_bounds_told(const struct config *cfg, struct batch_bounds *out);
struct batch_bounds batch_bounds_max(struct batch_bounds a, struct batch_bounds b);
/* … with what batch_send adds on a backend of this token_unit; of batches with a cache nothing. */
struct batch_bounds batch_bounds_filled(struct batch_bounds b, int64_t unit);

status batcher_init(struct batcher *b, struct stream *compute, struct stream *copy_in);
void batcher_layout(struct batcher *b, const struct batch_bounds *bounds, struct arena *device, struct arena *staging);
void batcher_release(struct batcher *b);

/* The arrays to fill, and b->batch with nothing in it. */
status batch_next(struct batcher *b, struct batch_arrays **host);
/* One more document at the end: n tokens, of which the first `past` came earlier and lie in the cache. ids NULL: all 0; labels NULL: none.
 * With a cache, document i of every batch has the i-th part of its rows. */
void batch_append(struct batcher *b, const int32_t *ids, const int32_t *labels, int64_t n, int64_t past, int64_t sample);
/* Done. On a backend of few different calls (token_unit, kernels/backend.h), and without a cache:
 *   - one more document (several where all are shorter than the unit) fills the batch up to a multiple of the unit: id 0, no label,
 *     a sample number that no row has. Nothing attends to it, nothing is learnt from it, its rows of every gradient are zero, and
 *     it is counted nowhere but in docs. Rows of data are still never padded to each other's length.
 *   - bounds take the place of the numbers of documents and of the longest one's tokens: powers of two, but of a batch of one
 *     document, and of one that is full of documents of full length, both of which tell all by their tokens. */
status batch_send(struct batcher *b);

/* Where an item comes from. */
struct item_order {
    const struct dataset *data;
    uint64_t seed;
    bool shuffle;
    int64_t epoch;
};

/* Items at positions [first, first + n) of the epoch, clipped to its end (0 items: an empty batch), filled and sent. */
status batch_fill(struct batcher *b, const struct item_order *order, int64_t first, int64_t n);

/* Tokens and supervised tokens of those positions, without assembling them. */
void batch_count(const struct item_order *order, int64_t first, int64_t n, int64_t *tokens, int64_t *supervised);

#endif
