/* pack.h — documents end to end into items of at most `max` tokens, in file order.
 *
 *   documents   |aaaaa|bbbbbbbb|cccc|           whole   [aaaaa   ] [bbbbbbbb] [cccc    ]     max = 8
 *                                               split   [aaaaabbb] [bbbbbccc] [c       ]
 *
 * Nothing is reordered and nothing is padded. A document cut in two becomes two documents, each with positions from 0
 * and the labels it had. */
#ifndef TRIMPOT_PACK_H
#define TRIMPOT_PACK_H

#include <stdbool.h>
#include <stdint.h>

/* A document in the flat arrays. */
struct span {
    int64_t at, n;
    int64_t row; /* number of the row it came from */
};

struct spans {
    struct span *v;
    int64_t n, cap;
};

/* Where each item begins among the spans. */
struct starts {
    int64_t *v;
    int64_t n, cap;
};

void spans_push(struct spans *a, struct span s);
void starts_push(struct starts *a, int64_t first);

/* Tokens [from, from + n) of a document, as a document. */
struct span span_part(const struct span *s, int64_t from, int64_t n);

/* Appends to `out` and `items`. Without `split`, every document must fit (n <= max). */
void pack(const struct spans *documents, int64_t max, bool split, struct spans *out, struct starts *items);

#endif
