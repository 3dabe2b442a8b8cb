/* arena.h — memory whose layout code runs twice.
 *
 *      pass 1 (base == NULL)   arena_take("grad", n) → NULL      rows and offsets are recorded: this IS the plan
 *      arena_bind(base)
 *      pass 2                  arena_take("grad", n) → pointer   must ask for exactly the same bytes in the same order
 *
 *      |row 0|pad|row 1      |pad|row 2|……………………………|          every take is aligned to ARENA_ALIGN
 *      0                            used            size
 *
 * The plan and the run cannot differ, because they are the same code. An arena never grows and never frees: it is
 * bound to one allocation of a device, and released with it. */
#ifndef TRIMPOT_ARENA_H
#define TRIMPOT_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"

enum { ARENA_ALIGN = 64, ARENA_NAME = 56 };

struct arena_row {
    char name[ARENA_NAME];
    size_t bytes; /* as asked; the padding is the arena's */
    size_t offset;
};

struct arena {
    const char *name; /* category in the plan: "weights", "gradients", … */
    char *base;       /* NULL while measuring */
    size_t used, size;
    struct arena_row *rows; /* recorded while measuring only */
    int n_rows, cap_rows;
    int next_row; /* pass 2: the row the next take must match */
};

void arena_init(struct arena *a, const char *name);
void arena_release(struct arena *a); /* the rows only: the allocation belongs to whoever bound it */

/* The next `bytes` bytes, aligned. Measuring: records a row "name" and returns NULL. Bound: returns the memory;
 * a take that was not planned is our bug and fails an assert. */
void *arena_take(struct arena *a, size_t bytes, const char *name, ...) __attribute__((format(printf, 3, 4)));

/* Ends pass 1: `base` holds at least arena_need(a) bytes. */
void arena_bind(struct arena *a, void *base);
size_t arena_need(const struct arena *a); /* bytes to allocate: what pass 1 took */

#endif
