/* rows.h — a data file as numbered rows of JSON.
 *
 * The file stays mapped; one pass of our own scanner finds where each row begins and ends (an array's elements, the
 * lines of JSONL and text, the records of CSV), so slices cost nothing and rows can be parsed by several threads. Files
 * are outside data: depth and lengths are checked before a row reaches the parser. */
#ifndef TRIMPOT_ROWS_H
#define TRIMPOT_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "kernels/base/file.h"
#include "kernels/base/status.h"

enum { ROWS_MAX_DEPTH = 64 };

enum rows_kind {
    ROWS_JSON, /* an array when the first byte is '[', else one value per line */
    ROWS_TEXT, /* every line is {"text": line}, empty ones too */
    ROWS_CSV,  /* RFC 4180 with a header; all values are strings */
    ROWS_TSV,
};

struct row_span {
    size_t at;
    uint32_t bytes, line; /* line counts from 1 */
};

struct rows {
    const char *name; /* for messages */
    const unsigned char *data;
    size_t bytes;
    enum rows_kind kind;
    bool lines; /* JSON, one value per line */
    struct row_span *spans;
    int64_t n, cap;
    char **columns; /* CSV, TSV: the header */
    int n_columns;
    struct file_map map; /* empty when the bytes belong to the caller */
};

/* ST_IO when the file cannot be read; ST_DATA when it has no rows, an array that does not close, … */
status rows_open(struct rows *r, const char *path, enum rows_kind kind);
/* The same over memory that outlives `r`. */
status rows_scan(struct rows *r, const char *name, const void *data, size_t bytes, enum rows_kind kind);
void rows_close(struct rows *r);

/* One row; the caller owns *row. Thread-safe. ST_DATA with FILE:LINE when it is not JSON, not UTF-8 or too deep. */
status rows_get(const struct rows *r, int64_t i, json_t **row);

/* JSON that stands in a string, under the same limits. ST_DATA without a place. */
status rows_parse(const char *text, size_t n, json_t **value);

/* What a JSON value is, for messages: "the number 42", "a list of 3", "null"; a ring of 4 buffers per thread. */
const char *json_says(const json_t *v);

/* The rows of `split` ("train", "train[:95%]", "train[10:20]", "train[-5%:]") among n: [*first, *end). Percentages are
 * rounded to the closest row, ties to the even one, as Hugging Face's loader does. ST_CONFIG_RUNTIME if malformed. */
status rows_slice(const char *split, int64_t n, int64_t *first, int64_t *end);

#endif
