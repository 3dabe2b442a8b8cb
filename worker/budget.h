/* budget.h — memory_budget: of all settings that a person left open, the ones that fit and cost least time.
 *
 * Settings lie on axes: how much is recomputed, what is offloaded, how large a micro-batch is. A key that was written fixes its axis. Each
 * point of the remaining ones is planned by the code that a run binds and weighed by the speed model; the cheapest that fits on every rank
 * is taken, of equal ones the one with fewer changes. Axes that never change a bit of the result (numerics.md 14.8) come first; then
 * smaller micro-batches of the same step, which add in another order; what trains another way only where a person is told what to
 * write (`plan --fit`). */
#ifndef TRIMPOT_BUDGET_H
#define TRIMPOT_BUDGET_H

#include "worker/technique.h"

enum budget_reach {
    BUDGET_SAME_STEP,   /* a checkpoint's step goes on: the micro-batches stay as they are */
    BUDGET_SMALLER,     /* and smaller micro-batches */
    BUDGET_OTHER_MATHS, /* and other states, and frozen weights in 4 bits */
};

struct choice_made {
    struct config *config; /* x->cfg by then; NULL: as configured */
    char *settings;        /* "key=value …" that were chosen; NULL: none */
    char *why;             /* a sentence for the header */
};

/* Of an opened session, planned as configured. Leaves it planned as chosen; ST_OOM when nothing fits, which says what would be left of
 * it. Collective. Release with choice_free after session_close. */
status budget_choose(struct session *x, const struct gpu *asked, enum budget_reach reach, struct choice_made *out);
void choice_free(struct choice_made *c);

/* c with the choices of the run that wrote `saved` (a configuration's text), for keys that are not written in c. *out NULL: none. */
status budget_again(const struct config *c, const char *saved, struct config **out);

/* "key=value …" as lines of a configuration; of an optimizer's key alone, with the class that c has. */
void settings_text(const struct config *c, const char *settings, struct buf *out);

#endif
