/* pager.h — vectors over the flat index of which not all is on the device: what is away waits in pinned memory, comes by windows when it
 * is updated, and goes back. (Optimizer states: which vectors, and how the index is cut, is worker/optim's.)
 *
 *   index    |window 0     |window 1|window 2|window 3|window 4|window 5|     ascending, all of it
 *   device   |home: it stays|                                                 windows that are away have PAGER_PLACES places
 *   pinned                 |pool: 1 |2       |3       |4       |5       |     between them, by turns
 *
 *   in       [1 → a]▪here  [2 → b]▪       [3 → c]▪       [4 → a]▪             one window ahead of s; at the end of a step the first
 *              └────────╮    └───────────╮  └──────────╮   ▲ back             window of the next one comes, behind everything
 *   s        [ 0       ]▼[ 1 in a ]▪     ▼[ 2 in b ]▪  ▼[ 3 │in c ]▪
 *                                  └╮ updated       └╮      │
 *   out                             ▼[ a → 1       ]▪▼[ b →2]▪                the last window goes while one is worked on and one comes
 *
 * Which window comes next is what came next the last time, at first the next one in the index: a sequence that repeats is always one
 * ahead, one that does not is only slower. A place is a function of the window, so that a step that repeats hands ops the same pointers.
 *
 * The order of updates and their arithmetic are the caller's; copies change no bit. Each dependency is an event, by a label that tests
 * take away in turn:
 *
 *   stream   waits until                                         label
 *   s        the window is in its place                          states here
 *   out      what s does with it is done                         states updated
 *   in       what had the place before is in pinned memory       states written back
 *
 * That a window is read back from where it was written needs none: both went through the same place.
 *
 * Memory: home and places are the device arena's, the pool is the pinned one's; windows and bookkeeping are ordinary memory. */
#ifndef TRIMPOT_PAGER_H
#define TRIMPOT_PAGER_H

#include "collectives/own.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"
#include "worker/memory/stage.h"

enum { PAGER_VECTORS = 6, PAGER_PLACES = 3 };

struct pager_window {
    struct range index;             /* elements of the flat index */
    struct range of[PAGER_VECTORS]; /* what of each vector is its, in stored elements; those of successive windows follow each other */
    bool may_leave;
    int place;                /* −1: it stays */
    size_t at[PAGER_VECTORS]; /* bytes, from the beginning of home or pool; multiples of ARENA_ALIGN */
};

struct pager {
    const struct backend *be;
    struct stream *s;
    size_t element[PAGER_VECTORS]; /* bytes of one stored */
    struct pager_window *window;
    int n, away; /* windows; those away */
    int *next;   /* [n] which came after it */
    size_t home_bytes[PAGER_VECTORS], pool_bytes[PAGER_VECTORS], place_bytes[PAGER_VECTORS];
    void *home[PAGER_VECTORS], *pool[PAGER_VECTORS], *place[PAGER_PLACES][PAGER_VECTORS];
    int holds[PAGER_PLACES]; /* window whose values are in the place, or on their way there; −1 none */
    int current, last;       /* window in use, −1 none; the one before */
    struct stream *in, *out; /* NULL: nothing is away */
    struct event *here[PAGER_PLACES], *updated[PAGER_PLACES], *back[PAGER_PLACES];
};

/* element: 0 = no such vector. */
void pager_init(struct pager *p, struct stream *s, const size_t element[PAGER_VECTORS]);
/* Takes windows over, in place of those it had: all of them stay. Before the layout, any number of times, and so is pager_fit. */
void pager_cut(struct pager *p, struct pager_window *windows, int n);
/* As many stay, from the first on, as fit into so many bytes of the device, places included: fewer if not even places fit, and all where
 * leaving gains nothing. */
status pager_fit(struct pager *p, size_t bytes);
void pager_release(struct pager *p);

size_t pager_device_bytes(const struct pager *p); /* places included */
size_t pager_home_bytes(const struct pager *p);   /* of the windows that stay … */
size_t pager_away_bytes(const struct pager *p);   /* … and of the others */

/* row: of the plan, per vector. */
void pager_layout(struct pager *p, struct arena *device, struct arena *pinned, const char *const row[PAGER_VECTORS]);
status pager_zero(struct pager *p); /* once bound, before the first step */

/* The first window that ends after this element of the index. */
int pager_find(const struct pager *p, int64_t index);

/* What is queued on s from here on, until another window is entered or all rest, may read and write window w. */
status pager_enter(struct pager *p, int w);
static inline void *pager_at(const struct pager *p, int w, int k)
{
    const struct pager_window *x = &p->window[w];
    return x->place < 0 ? (char *)p->home[k] + x->at[k] : p->place[x->place][k];
}
/* The end of a step: what was entered goes home, what the next step begins with comes. */
status pager_rest(struct pager *p);

/* Stored elements [at, at + n) of vector k, wherever they are: between steps. Waits for what is queued. */
status pager_read(struct pager *p, struct stage *g, int k, int64_t at, int64_t n, void *to_host);
status pager_write(struct pager *p, struct stage *g, int k, int64_t at, int64_t n, const void *from_host);

#endif
