/* dataset_store.h — how a data set lies in memory. Private to dataset*.c.
 *
 *   ids, labels   |row 0 ......|row 1 ...|row 2 ........|      two flat arrays, in file order
 *   spans         ^at,n         ^         ^                    documents
 *   items         0             1    2                         spans[items[i] .. items[i+1]) are item i */
#ifndef TRIMPOT_DATASET_STORE_H
#define TRIMPOT_DATASET_STORE_H

#include "kernels/base/text.h"
#include "worker/data/dataset.h"
#include "worker/data/pack.h"

struct dataset {
    struct ids ids, labels;
    struct spans spans;
    struct starts items;        /* one more than there are items */
    struct document *documents; /* spans as the outside sees them */
    int64_t first_sample;       /* of a set split off another: its first document's number there */
    struct dataset_stats stats;
    struct buf skipped;  /* bad rows as lines of JSON */
    char *template_text; /* of the first set of chats */
    bool has_chats;
};

#endif
