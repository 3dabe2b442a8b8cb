/* plan.h — every buffer of the run, before the first byte is allocated.
 *
 * A plan is a set of arenas (measured by the layout code that later binds them) and of rows beside them: memory that
 * the process holds although no arena gives it (weight pages mapped from files, library scratch, tokenised data).
 *
 * Each class of rows lives in one kind of memory; where the backend's tensors are host memory, all kinds are one:
 *
 *              device backend                                        cpu
 *   MEM_DEVICE frozen … communication: what ops work on              ┐
 *   MEM_PINNED staging, offloaded, paged: what crosses, by streams   ├ MEM_HOST, one budget
 *   MEM_HOST   optimizer on the host, host: the host's alone; others ┘ */
#ifndef TRIMPOT_PLAN_H
#define TRIMPOT_PLAN_H

#include <stdint.h>

#include "configs/config.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"
#include "kernels/base/text.h"

enum plan_class {
    PLAN_FROZEN,
    PLAN_TRAINED,
    PLAN_GRADIENTS,
    PLAN_OPTIMIZER,
    PLAN_ACTIVATIONS,
    PLAN_SCRATCH,
    PLAN_WORKSPACE,
    PLAN_BATCH,
    PLAN_COMM,
    PLAN_STAGING,
    PLAN_OFFLOADED,
    PLAN_PAGED,
    PLAN_HOSTED,
    PLAN_HOST,
    PLAN_ARENAS,
};

struct plan_extra {
    const char *category;
    char name[56];
    size_t bytes;
    enum mem_kind kind;
};

struct plan {
    const struct backend *be;
    struct arena arena[PLAN_ARENAS];
    void *memory[PLAN_ARENAS];
    struct plan_extra *extra;
    int n_extra;
    int64_t budget; /* as plan_budget_of; of the memory where tensors live */
    size_t held;    /* of the rows beside the arenas: what is taken by now, and so is not among the device's free bytes */
};

/* memory_budget: bytes that the plan may have, ≥ 0; BUDGET_*: what plan_machine_bytes says, and whether settings are chosen for it. */
int64_t plan_budget_of(const struct config *c);
bool plan_has_budget(const struct config *c); /* there is a budget, which settings are chosen for */

void plan_init(struct plan *p, const struct backend *be, int64_t budget);
void plan_extra(struct plan *p, enum mem_kind kind, const char *category, const char *name, size_t bytes);
size_t plan_arena_bytes(const struct plan *p); /* what plan_bind allocates, exactly */
size_t plan_total_bytes(const struct plan *p); /* with the rows beside the arenas */

/* Sums of the rows of one category. */
enum { PLAN_SUMS = 16 };
struct plan_sum {
    const char *category;
    size_t device, host; /* where tensors have memory of their own; else all is the host's */
};
int plan_sums(const struct plan *p, struct plan_sum sums[PLAN_SUMS]);

/* The table: one line per category and name with how many and how much; `json`: an object instead, which `more` (",\"key\":…", or
 * "") goes on. Appends to out. */
void plan_text(const struct plan *p, int rank, bool json, const char *more, struct buf *out);

/* ST_OOM when the rows of one memory exceed what there is of it, naming the largest and the keys that shrink them. */
status plan_check(const struct plan *p, int local_ranks);

bool plan_fits(const struct plan *p, int local_ranks);               /* plan_check without the message */
void plan_kinds(const struct plan *p, size_t *device, size_t *host); /* all rows; without a device all are the host's */
/* Bytes by which the rows of the memory where tensors live exceed what plan_check lets them have; negative: so many are free. */
int64_t plan_excess(const struct plan *p, int local_ranks);
void plan_again(struct plan *p); /* arenas are measured anew; rows beside them stay */

status plan_bind(struct plan *p); /* allocates every arena; ST_OOM */
void plan_release(struct plan *p);

/* Bytes of a kind that this process may use. Of host memory: the machine's available memory or the control group's limit,
 * divided over local ranks. */
size_t plan_machine_bytes(const struct backend *be, enum mem_kind kind, int local_ranks);

#endif
