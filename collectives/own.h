/* own.h — who owns which elements of the flat index: one answer for summing (there of a bucket, worker/memory/buckets.h), updating and
 * saving.
 *
 *   |page|page|page|page|page|page|page|rest|      n = 8 pages over 3 ranks: rank r has pages [⌊nr/P⌋, ⌊n(r+1)/P⌋)
 *   |rank 0   |rank 1        |rank 2        |
 *
 * Small tensors never straddle a page and large ones begin on one (worker/memory/param_store.h), so that nothing whose
 * parts belong together (a norm partial, a block of an 8-bit state, a small tensor) is split between ranks. */
#ifndef TRIMPOT_OWN_H
#define TRIMPOT_OWN_H

#include <stdint.h>

enum { OWN_PAGE = 65536 };

struct range {
    int64_t lo, hi;
};

/* What rank `rank` of `size` has of `count` elements: whole pages, but for the last. Ranges of successive ranks follow each
 * other from 0 to count; they may be empty. */
struct range own(int64_t count, int rank, int size);

/* What is in both, empty (lo == hi) when nothing is. */
struct range range_meet(struct range a, struct range b);

static inline int64_t range_count(struct range r) { return r.hi - r.lo; }

#endif
