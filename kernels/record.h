/* record.h — what a stretch of a stream queues, written down first, so that a stretch that comes again costs one launch.
 *
 *   record_begin(s) … ops, copies and zeros on s … record_end(s, st)
 *
 *     written down    |op, its arguments|op, its arguments|zero, …|       nothing of it is queued yet
 *     at the end      new                 queued, call by call, as if nobody had written it down; its hash is remembered
 *                     seen once           queued between graph_begin and graph_end: the graph is kept, and launched
 *                     known               its graph is launched
 *
 * Who queues goes on as without, bookkeeping and all; what differs is when calls reach the backend. Known is what has the same bytes
 * from the first call to the last. The first time is plain for the backend's sake: kernels are loaded, plans made, algorithms chosen
 * outside of a capture.
 *
 * So, of a backend that has graphs: what a launcher queues follows from the bytes of the op's arguments (and from what prepare() said)
 * alone. Host twins (struct ints, segs) have been judged by the front door when a call is written down, and are NULL in what is: none
 * may be read. What only the front door reads (rope's `positions`) is left out too. What memory holds, pinned memory too, is read when
 * the stream gets there, as ever: a stretch whose arguments point to the same places in every step is the same stretch.
 *
 * Within a stretch `s->be` is a table of the recorder's, which the calls must go through: kernels/cuda asserts that none reaches the
 * stream past it. Anything else than ops, copies and zeros (events, calls of the host, a sync) ends a piece: what was written down so
 * far is queued, by the rule above, and then the call is made.
 *
 * Whoever begins a stretch ends it, also after a failure: that of what it did (`st`) is returned, and what was written down is dropped.
 *
 * Memory: the list, and of what is known its bytes and graph, bounded; what was not used for long gives way. Of one thread. */
#ifndef TRIMPOT_RECORD_H
#define TRIMPOT_RECORD_H

#include "kernels/backend.h"
#include "kernels/base/arena.h"

enum {
    RECORD_GRAPHS = 1024,          /* kept at most */
    RECORD_GRAPH_BYTES = 64 << 10, /* of the device that one holds, outside our arenas: a guess for the plan, not measured */
};

struct recorder;

/* Of stream s, whose backend has graphs; its lists are `host` memory. After record_layout with a bound arena it records. */
status record_open(struct recorder **out, struct stream *s);
void record_layout(struct recorder *r, struct arena *host);
/* Before its stream is closed, and when nothing of it is queued any more. NULL is nothing. */
void record_close(struct recorder *r);

/* Between the two, s->recorder is who writes down; of a stream without one they do nothing. */
void record_start(struct recorder *r);
status record_finish(struct recorder *r, status st);
static inline void record_begin(struct stream *s)
{
    if (s->recorder) record_start(s->recorder);
}
static inline status record_end(struct stream *s, status st) { return s->recorder ? record_finish(s->recorder, st) : st; }

struct record_counts {
    int64_t stretches, calls; /* written down */
    int64_t pieces;           /* … and queued: more than stretches where something ended one early; of which */
    int64_t launched, made;   /* as graphs, and how many of these were made for it */
    int64_t plain;            /* call by call */
    int64_t dropped;          /* graphs that gave way */
};
struct record_counts record_counts(const struct recorder *r);

#endif
