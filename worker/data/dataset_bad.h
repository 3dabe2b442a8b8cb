/* dataset_bad.h — rows that cannot be used: gathered, counted by reason, named or saved. Private to dataset*.c. */
#ifndef TRIMPOT_DATASET_BAD_H
#define TRIMPOT_DATASET_BAD_H

#include "kernels/base/text.h"
#include "worker/data/dataset_source.h"

enum { BAD_ROWS_NAMED = 20, BAD_REASONS = 20 };

struct bad_rows {
    int64_t n;
    struct buf named; /* the first of them, a line each */
    struct {
        char *text;
        int64_t n;
    } reasons[BAD_REASONS]; /* by first appearance, without numbers and quotes */
    int n_reasons;
    int64_t other_reasons;
    bool keep;       /* for skipped_rows.jsonl */
    struct buf kept; /* a line of JSON each */
};

/* Row i of the split was refused with `message`, which begins with FILE:LINE. */
void bad_rows_add(struct bad_rows *b, const struct source *s, int64_t i, const char *message);
void bad_rows_release(struct bad_rows *b);

/* ST_DATA with every named row and the counts; `rows` = how many were read. */
status bad_rows_fail(const struct bad_rows *b, int64_t rows);
/* A warning with the counts; nothing when there are none. */
void bad_rows_warn(const struct bad_rows *b, const char *file, int64_t rows);

#endif
