/* plan.h — every buffer of the run, before the first byte is allocated.
 *
 * A plan is a set of arenas (measured by the layout code that later binds them) and of rows beside them: memory that
 * the process holds although no arena gives it (weight pages mapped from files, library scratch, tokenised data). */
#ifndef TRIMPOT_PLAN_H
#define TRIMPOT_PLAN_H

#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/base/arena.h"
#include "kernels/base/text.h"

enum plan_class {
    PLAN_FROZEN, PLAN_TRAINED, PLAN_GRADIENTS, PLAN_OPTIMIZER, PLAN_ACTIVATIONS, PLAN_SCRATCH, PLAN_WORKSPACE,
    PLAN_BATCH, PLAN_COMM, PLAN_ARENAS,
};

struct plan_extra { const char *category; char name[56]; size_t bytes; };

struct plan {
    struct arena arena[PLAN_ARENAS];
    void *memory[PLAN_ARENAS];
    struct plan_extra extra[8];
    int n_extra;
};

void plan_init(struct plan *p);
void plan_extra(struct plan *p, const char *category, const char *name, size_t bytes);
size_t plan_arena_bytes(const struct plan *p); /* what plan_bind allocates, exactly */
size_t plan_total_bytes(const struct plan *p); /* with the rows beside the arenas */

/* The table: one line per category and name with how many and how much; `json`: an object instead. Appends to out. */
void plan_text(const struct plan *p, int rank, bool json, struct buf *out);

/* ST_OOM when the total exceeds the budget, naming the largest rows and the keys that shrink them. */
status plan_check(const struct plan *p, size_t budget_bytes);

status plan_bind(struct plan *p, const struct backend *be); /* allocates every arena; ST_OOM */
void plan_release(struct plan *p, const struct backend *be);

/* Bytes this process may use: the machine's available memory or the control group's limit, divided over local ranks. */
size_t plan_machine_bytes(int local_ranks);

#endif
