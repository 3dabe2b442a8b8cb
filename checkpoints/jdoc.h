/* jdoc.h — small JSON files read with suspicion: depth and duplicates checked, every access typed and ranged, every
 * message names file, key, value and what is wanted. Internal to checkpoints/, and for
 * worker/run_lock_record.c. */
#ifndef TRIMPOT_JDOC_H
#define TRIMPOT_JDOC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/text.h"

enum { JDOC_MAX_DEPTH = 64 };

/* One object of a parsed file. */
struct jdoc {
    const char *path; /* the file, for messages */
    const char *in;   /* "" or the enclosing keys, e.g. "rope_scaling." */
    json_t *o;
};

/* The text must be one JSON object (ST_CORRUPT with line:column). `used` may be NULL: then nothing may follow the
 * object but white space; else it receives the bytes consumed. The caller json_decrefs. */
status jdoc_parse(const char *path, const char *text, size_t n, json_t **root, size_t *used);

/* A whole number beyond 64 bits is read as a real: transformers writes 1000000000000000019884624838656 for a
 * model_max_length that it does not know. For files of which other keys are wanted. */
status jdoc_parse_any_number(const char *path, const char *text, size_t n, json_t **root);

/* NULL when the key is absent or null. */
json_t *jdoc_get(const struct jdoc *d, const char *key);

/* Typed members. Absent and null leave *out alone; a wrong type or range is ST_CORRUPT. Reals accept integers and must
 * be finite. */
status jdoc_i64(const struct jdoc *d, const char *key, int64_t lo, int64_t hi, int64_t *out);
status jdoc_real(const struct jdoc *d, const char *key, double lo, double hi, double *out);
status jdoc_flag(const struct jdoc *d, const char *key, bool *out);
status jdoc_string(const struct jdoc *d, const char *key, char *out, size_t cap);
status jdoc_object(const struct jdoc *d, const char *key, json_t **out);
status jdoc_need(const struct jdoc *d, const char *key); /* ST_CORRUPT when absent or null */

/* A value as short ASCII JSON for messages; a ring of 4 static buffers per thread. */
const char *jdoc_show(const json_t *v);

/* Appends `s` as a JSON string with its quotes. */
void jdoc_quote(struct buf *b, const char *s);

#endif
