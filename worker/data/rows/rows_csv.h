/* rows_csv.h — CSV and TSV as rows (RFC 4180): the first record names the columns, every value is a string. Private to
 * rows*.c. */
#ifndef TRIMPOT_ROWS_CSV_H
#define TRIMPOT_ROWS_CSV_H

#include "worker/data/rows/rows.h"

/* Reads the header and finds the records from byte `at` on. Calls `add` with each: [begin, end) and its line. */
status csv_scan(struct rows *r, size_t at, status (*add)(struct rows *r, size_t begin, size_t end, size_t line));
status csv_get(const struct rows *r, const struct row_span *s, json_t **row);
void csv_close(struct rows *r);

#endif
