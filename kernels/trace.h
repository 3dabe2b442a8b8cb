/* trace.h — what every stream is given, with the times at which its device began and ended it.
 *
 *   trace_open        a table around the backend's: streams opened by it are watched
 *   trace_start … trace_stop       between the two every call has a row; else the table only passes calls on
 *
 *      op, copy, zero, host call     one clock before and one behind it, on its own stream: what it waited for is not in it
 *      begin, end                    of what a library queues past the table (stream_span)
 *      record, wait                  events, and which record a wait is for: the order across streams, as written
 *
 * Rows are told oldest first, when there are ROWS of them or the trace stops; the host waits for the device then, and there only.
 * A stretch that is recorded as a graph (record.h) has its calls queued one by one while it is watched. Numbers do not change.
 *
 * One at a time, of one thread. */
#ifndef TRIMPOT_TRACE_H
#define TRIMPOT_TRACE_H

#include "kernels/backend.h"
#include "kernels/base/arena.h"

enum trace_kind { TRACE_OP, TRACE_COPY, TRACE_ZERO, TRACE_HOST, TRACE_BEGIN, TRACE_END, TRACE_RECORD, TRACE_WAIT, TRACE_KINDS };

struct trace_row {
    enum trace_kind kind;
    int stream;              /* trace_stream_name */
    const char *name;        /* of the op; of a wait, its label */
    int64_t seq;             /* its number among all rows: the order in which the host queued */
    int64_t after;           /* a wait: seq of the record that it waits for, -1: of before the trace, or of none */
    int64_t m, n, k;         /* gemm: [m,k]·[k,n], both products' k together */
    int64_t bytes;           /* copies, zeros */
    double from, to;         /* seconds since trace_start, by the device's clock; equal where there is but one */
    double queued, returned; /* the same by the host's: when it called, and had called */
};

enum { TRACE_ROWS = 8192, TRACE_STREAMS = 16 };

struct trace;
typedef status trace_see(const struct trace_row *row, void *arg);

/* *be: the table to wrap, then the one to use; before any stream is opened. */
status trace_open(struct trace **out, const struct backend **be);
void trace_layout(struct trace *t, struct arena *host); /* measured, then bound */
status trace_ready(struct trace *t);                    /* opens its clocks: after that nothing of it is allocated */
void trace_close(struct trace *t);                      /* when nothing is queued: its clocks; NULL is nothing, here … */
void trace_release(struct trace *t);                    /* … and here, when its streams are closed and its memory is free: the table */
size_t trace_event_bytes(void);                         /* of its clocks, a guess for the plan */

/* Time 0 is when s gets there. see NULL: rows are thrown away. In between no stretch is open (record.h). */
status trace_start(struct trace *t, struct stream *s, trace_see *see, void *arg);
status trace_stop(struct trace *t); /* tells what is left */
status trace_flush(struct trace *t);
bool trace_on(const struct trace *t);

const char *trace_stream_name(const struct trace *t, int stream);

#endif
