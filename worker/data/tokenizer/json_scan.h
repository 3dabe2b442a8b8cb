/* json_scan.h — JSON read in passing. A vocabulary and its merges are most of a tokenizer file: building a tree of them
 * costs ten times the memory and three times the time of reading them once. Everything else goes to jansson. */
#ifndef TRIMPOT_TOK_JSON_SCAN_H
#define TRIMPOT_TOK_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"
#include "kernels/base/text.h"

struct tok_scanner { /* over valid UTF-8 */
    const char *start, *at, *end;
    struct buf text; /* of the last string; released by tok_scan_close */
};

struct tok_extent {
    const char *at;
    size_t n;
}; /* at == NULL: absent */

void tok_scan_close(struct tok_scanner *s);
bool tok_scan_take(struct tok_scanner *s, char c); /* skips white space, then c if it is next */
status tok_scan_string(struct tok_scanner *s);     /* "…" to s->text, escapes resolved */
status tok_scan_int(struct tok_scanner *s, int64_t *v);
status tok_scan_skip(struct tok_scanner *s); /* any value; well-formed as far as brackets and strings go */
/* ',' or the closing bracket: *more says which. */
status tok_scan_next(struct tok_scanner *s, char close, bool *more);
status tok_scan_end(struct tok_scanner *s);                           /* nothing but white space is left */
status tok_scan_bad(const struct tok_scanner *s, const char *wanted); /* ST_CORRUPT with line and column */

/* Finds data.model.vocab (an object) and data.model.merges (a list), and writes the rest, with {} and [] in their
 * places, to `rest`. ST_CORRUPT if data is not an object. */
status tok_scan_model(const char *data, size_t n, struct tok_extent *vocab, struct tok_extent *merges, struct buf *rest);

#endif
