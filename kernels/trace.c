#include "kernels/trace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum {
    EVENTS = 512,        /* whose last record is known */
    CLOCK_BYTES = 2 * 64 /* of a row's two */
};

struct trace {
    struct backend be;
    const struct backend *inner;
    struct stream *stream[TRACE_STREAMS];
    const char *name[TRACE_STREAMS];
    struct event *last[TRACE_STREAMS]; /* the clock of a stream that comes last */
    int n_streams;
    struct recorder *recorder[TRACE_STREAMS]; /* of the streams, put aside while they are watched */
    struct trace_row *row;                    /* [TRACE_ROWS] */
    struct event **clock;                     /* [2 TRACE_ROWS]: row i has 2i and 2i + 1 */
    struct {
        const struct event *e;
        int64_t seq;
    } * event; /* [EVENTS], recorded since the start; the oldest gives way */
    struct event *zero;
    double host_zero;
    int n_rows, n_clocks;
    int64_t seq, n_events;
    bool on, inside; /* inside a call: what that calls is part of it */
    trace_see *see;
    void *arg;
};

static struct trace *watch; /* the table's functions have no other way to it */

/* ---- rows ------------------------------------------------------------------------------------------------------------------ */

static int number_of(const struct stream *s)
{
    for (int i = 0; i < watch->n_streams; i++)
        if (watch->stream[i] == s) return i;
    return -1;
}

static const char *name_of(int i)
{
    const struct stream *s = watch->stream[i];
    if (s && s->name) watch->name[i] = s->name;
    return watch->name[i] ? watch->name[i] : "unnamed";
}

static status tick(struct stream *s, int stream, struct event *clock)
{
    watch->last[stream] = clock;
    return watch->inner->dev.event_record(clock, s);
}

/* Its row, with the clock before it; NULL: the stream is not watched. */
static status open_row(struct stream *s, enum trace_kind kind, const char *name, struct trace_row **out)
{
    struct trace *t = watch;
    int stream = number_of(s);
    *out = NULL;
    if (!t->on || t->inside || stream < 0) return ST_OK;
    if (t->n_rows == TRACE_ROWS) TRY(trace_flush(t));
    struct trace_row *r = &t->row[t->n_rows];
    (void)name_of(stream);
    *r = (struct trace_row){.kind = kind, .stream = stream, .name = name, .seq = t->seq++, .after = -1};
    r->queued = clock_s() - t->host_zero;
    TRY(tick(s, stream, t->clock[2 * t->n_rows++]));
    *out = r;
    t->inside = true;
    return ST_OK;
}

static status close_row(struct stream *s, struct trace_row *r, bool lasts)
{
    struct trace *t = watch;
    if (!r) return ST_OK;
    t->inside = false;
    if (lasts) TRY(tick(s, r->stream, t->clock[2 * (r - t->row) + 1]));
    r->returned = clock_s() - t->host_zero;
    return ST_OK;
}

static bool has_two(const struct trace_row *r) { return r->kind <= TRACE_HOST; }

static status tell(struct trace *t, int i)
{
    const struct device *dev = &t->inner->dev;
    struct trace_row *r = &t->row[i];
    TRY(dev->event_elapsed(t->zero, t->clock[2 * i], &r->from));
    r->to = r->from;
    if (has_two(r)) TRY(dev->event_elapsed(t->zero, t->clock[2 * i + 1], &r->to));
    return t->see(r, t->arg);
}

status trace_flush(struct trace *t)
{
    int n = t->n_rows;
    t->n_rows = 0;
    /* Waited for even where nobody sees them: clocks are used again, and by another stream. */
    for (int i = 0; i < t->n_streams && n; i++)
        if (t->last[i]) TRY(t->inner->dev.event_sync(t->last[i], "trace"));
    for (int i = 0; i < n && t->see; i++) TRY(tell(t, i));
    return ST_OK;
}

/* ---- the table: ops --------------------------------------------------------------------------------------------------------- */

#define NUMBER(name, args) OP_##name,
enum op_number { TRIMPOT_OPS(NUMBER) OP_COUNT };

static void add_shape(struct trace_row *r, enum op_number op, const void *args)
{
    const struct gemm_args *g = args;
    if (!r || op != OP_gemm) return;
    r->m = g->c.dim[0];
    r->n = g->c.dim[1];
    r->k = g->a.dim[g->ta ? 0 : 1] + (g->a2.data ? g->a2.dim[1] : 0);
}

#define TRACED(op_, args_)                                                                                                                 \
    static status op_##_trace(struct stream *s, const struct args_##_args *a)                                                              \
    {                                                                                                                                      \
        struct trace_row *r;                                                                                                               \
        TRY(open_row(s, TRACE_OP, #op_, &r));                                                                                              \
        TRY(watch->inner->ops.op_(s, a));                                                                                                  \
        add_shape(r, OP_##op_, a);                                                                                                         \
        return close_row(s, r, true);                                                                                                      \
    }
TRIMPOT_OPS(TRACED)

/* ---- … and the device -------------------------------------------------------------------------------------------------------- */

static status trace_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    struct trace_row *r;
    TRY(open_row(s, TRACE_COPY, "copy", &r));
    TRY(watch->inner->dev.copy(s, dst, src, bytes));
    if (r) r->bytes = (int64_t)bytes;
    return close_row(s, r, true);
}

static status trace_zero(struct stream *s, void *dst, size_t bytes)
{
    struct trace_row *r;
    TRY(open_row(s, TRACE_ZERO, "zero", &r));
    TRY(watch->inner->dev.zero(s, dst, bytes));
    if (r) r->bytes = (int64_t)bytes;
    return close_row(s, r, true);
}

static status trace_host_call(struct stream *s, status (*fn)(void *arg), void *arg)
{
    struct trace_row *r;
    TRY(open_row(s, TRACE_HOST, "host call", &r));
    TRY(watch->inner->dev.host_call(s, fn, arg));
    return close_row(s, r, true);
}

static status trace_span(struct stream *s, const char *what, bool begins)
{
    struct trace_row *r;
    TRY(open_row(s, begins ? TRACE_BEGIN : TRACE_END, what, &r));
    return close_row(s, r, false);
}

static status trace_event_record(struct event *e, struct stream *s)
{
    struct trace *t = watch;
    struct trace_row *r;
    TRY(open_row(s, TRACE_RECORD, "record", &r));
    TRY(t->inner->dev.event_record(e, s));
    if (!r) return ST_OK;
    int64_t i = 0, n = t->n_events < EVENTS ? t->n_events : EVENTS;
    while (i < n && t->event[i].e != e) i++;
    if (i == n) i = t->n_events++ % EVENTS;
    t->event[i].e = e;
    t->event[i].seq = r->seq;
    return close_row(s, r, false);
}

/* Its time is when it is over: behind it, not before. */
static status trace_event_wait(struct event *e, struct stream *s, const char *label)
{
    struct trace *t = watch;
    struct trace_row *r;
    TRY(t->inner->dev.event_wait(e, s, label));
    TRY(open_row(s, TRACE_WAIT, label, &r));
    if (!r) return ST_OK;
    for (int64_t i = 0; i < EVENTS && i < t->n_events; i++)
        if (t->event[i].e == e) r->after = t->event[i].seq;
    return close_row(s, r, false);
}

/* Another event may come to lie where a closed one lay. */
static void trace_event_close(struct event *e)
{
    for (int64_t i = 0; watch->event && i < EVENTS && i < watch->n_events; i++)
        if (watch->event[i].e == e) watch->event[i].e = NULL;
    watch->inner->dev.event_close(e);
}

static status trace_stream_open(struct stream **out, int threads)
{
    TRY(watch->inner->dev.stream_open(out, threads));
    (*out)->be = &watch->be;
    int i = 0; /* a closed one's place */
    while (i < watch->n_streams && watch->stream[i]) i++;
    if (i == TRACE_STREAMS) return ST_OK;
    watch->stream[i] = *out;
    watch->name[i] = NULL;
    if (i == watch->n_streams) watch->n_streams++;
    return ST_OK;
}

static void trace_stream_close(struct stream *s)
{
    int i = s ? number_of(s) : -1;
    if (i >= 0) watch->stream[i] = NULL;
    if (s) s->be = watch->inner;
    watch->inner->dev.stream_close(s);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------------- */

#define TRACE_SLOT(name, args) .name = name##_trace,

status trace_open(struct trace **out, const struct backend **be)
{
    assert(!watch && (*be)->dev.event_elapsed);
    struct trace *t = mem_alloc(sizeof *t);
    *t = (struct trace){.inner = *be, .be = **be};
    t->be.ops = (struct ops){TRIMPOT_OPS(TRACE_SLOT)};
    t->be.dev.copy = trace_copy;
    t->be.dev.zero = trace_zero;
    t->be.dev.host_call = trace_host_call;
    t->be.dev.span = trace_span;
    t->be.dev.event_record = trace_event_record;
    t->be.dev.event_wait = trace_event_wait;
    t->be.dev.event_close = trace_event_close;
    t->be.dev.stream_open = trace_stream_open;
    t->be.dev.stream_close = trace_stream_close;
    *be = &t->be;
    *out = watch = t;
    return ST_OK;
}

void trace_layout(struct trace *t, struct arena *host)
{
    t->row = arena_take(host, TRACE_ROWS * sizeof *t->row, "calls of a trace");
    t->clock = arena_take(host, (2 * TRACE_ROWS + 1) * sizeof *t->clock, "calls of a trace");
    t->event = arena_take(host, EVENTS * sizeof *t->event, "calls of a trace");
}

size_t trace_event_bytes(void) { return TRACE_ROWS * (size_t)CLOCK_BYTES; }

status trace_ready(struct trace *t)
{
    for (; t->n_clocks < 2 * TRACE_ROWS; t->n_clocks++) TRY(t->inner->dev.clock_open(&t->clock[t->n_clocks]));
    return t->inner->dev.clock_open(&t->zero);
}

void trace_release(struct trace *t)
{
    if (t) watch = NULL;
    free(t);
}

void trace_close(struct trace *t)
{
    if (!t) return;
    while (t->n_clocks > 0) t->inner->dev.event_close(t->clock[--t->n_clocks]);
    if (t->zero) t->inner->dev.event_close(t->zero);
    t->zero = NULL;
    t->on = false;
    t->event = NULL;
}

/* ---- on and off ------------------------------------------------------------------------------------------------------------------- */

bool trace_on(const struct trace *t) { return t->on; }
const char *trace_stream_name(const struct trace *t, int stream) { return t->name[stream]; }

static void set_recorders_aside(struct trace *t, bool aside)
{
    for (int i = 0; i < t->n_streams; i++) {
        struct stream *s = t->stream[i];
        assert(!s || !s->recorded);
        if (s && aside) t->recorder[i] = s->recorder;
        if (s) s->recorder = aside ? NULL : t->recorder[i];
    }
}

status trace_start(struct trace *t, struct stream *s, trace_see *see, void *arg)
{
    const struct device *dev = &t->inner->dev;
    assert(!t->on && t->zero);
    t->see = see;
    t->arg = arg;
    t->inside = false;
    t->n_rows = 0;
    t->seq = t->n_events = 0;
    memset(t->last, 0, sizeof t->last);
    TRY(dev->event_record(t->zero, s));
    TRY(dev->event_sync(t->zero, "trace"));
    t->host_zero = clock_s();
    set_recorders_aside(t, true);
    t->on = true;
    return ST_OK;
}

status trace_stop(struct trace *t)
{
    if (!t->on) return ST_OK;
    set_recorders_aside(t, false);
    t->on = false;
    return trace_flush(t);
}
