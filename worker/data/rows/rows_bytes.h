/* rows_bytes.h — what bytes are that are not rows of UTF-8 text, and what to do about it. Private to rows*.c. */
#ifndef TRIMPOT_ROWS_BYTES_H
#define TRIMPOT_ROWS_BYTES_H

#include "worker/data/rows/rows.h"

/* Files that cannot be read at all, by their first bytes: Git LFS pointers, UTF-16, Parquet, archives. ST_DATA, or
 * ST_NOT_BUILT for formats without a reader. */
status bytes_judge(const struct rows *r);

/* For a row at `at` that is not UTF-8: the likely encoding of the file and the command that converts it, or that it is
 * damaged UTF-8. Valid until this thread's next call. */
const char *bytes_remedy(const struct rows *r, size_t at);

#endif
