#include "worker/profile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "kernels/trace.h"

enum phase_of_step { STEP_PLAIN, STEP_WARM, STEP_TRACED };

struct profile {
    struct config_profiler c;
    struct trace *trace;
    const struct backend *inner;
    int rank;
    bool streams, host; /* which threads the file has */
    int64_t first;      /* step of this process, -1: none yet */
    int64_t from, last; /* steps in the trace; last: the newest */
    enum phase_of_step phase;
    char *dir, *part; /* where the file is written before it is whole */
    FILE *file;
    bool named[TRACE_STREAMS], failed;
};

/* ---- opening ------------------------------------------------------------------------------------------------------------------- */

status profile_open(struct profile **out, const struct config *c, int rank, const struct backend **be)
{
    if (!c->profiler.enabled) return ST_OK;
    struct profile *p = mem_alloc(sizeof *p);
    bool gpu = (*be)->tensors_in == MEM_DEVICE;
    *p = (struct profile){.c = c->profiler, .rank = rank, .inner = *be, .first = -1};
    p->streams = gpu ? c->profiler.cuda : c->profiler.cpu;
    p->host = gpu && c->profiler.cpu;
    p->dir = c->profiler.output_dir ? mem_strdup(c->profiler.output_dir) : mem_printf("%s/profiling_outputs", c->output_dir);
    p->part = mem_printf("%s/rank%d_trace.json.part", p->dir, rank);
    if (rank == 0 && c->profiler.memory) log_note("profiler.profile_memory: no step allocates; `trimpot plan` has every buffer");
    if (rank == 0 && c->profiler.stack) log_note("profiler.with_stack: there are no Python calls to show");
    if (rank == 0 && !p->streams && !p->host) log_warn("profiler: traces will be empty: profiler.%s is false", gpu ? "cuda" : "cpu");
    *out = p;
    return trace_open(&p->trace, be);
}

void profile_layout(struct profile *p, struct arena *host)
{
    if (p) trace_layout(p->trace, host);
}

size_t profile_library_bytes(const struct profile *p) { return p ? trace_event_bytes() : 0; }
status profile_ready(struct profile *p) { return p ? trace_ready(p->trace) : ST_OK; }

void profile_close(struct profile *p)
{
    if (!p) return;
    if (p->file) fclose(p->file);
    p->file = NULL;
    trace_close(p->trace);
}

void profile_release(struct profile *p)
{
    if (!p) return;
    trace_release(p->trace);
    free(p->dir);
    free(p->part);
    free(p);
}

/* ---- the file --------------------------------------------------------------------------------------------------------------------- */

enum { HOST_THREAD = 0, STREAM_THREAD = 1 };

static const char *category(enum trace_kind kind)
{
    static const char *const of[TRACE_KINDS] = {
        [TRACE_OP] = "op",         [TRACE_COPY] = "copy",   [TRACE_ZERO] = "zero",    [TRACE_HOST] = "host",
        [TRACE_BEGIN] = "library", [TRACE_END] = "library", [TRACE_RECORD] = "event", [TRACE_WAIT] = "event"};
    return of[kind];
}

static void name_thread(struct profile *p, int thread, const char *name)
{
    fprintf(p->file, ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s\"}}", p->rank, thread, name);
    fprintf(p->file, ",\n{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":%d,\"tid\":%d,\"args\":{\"sort_index\":%d}}", p->rank, thread,
            thread);
}

/* ,{"ph":…,"name":…,…,"ts":… without its closing brace */
static void put_event(struct profile *p, const struct trace_row *r, const char *ph, const char *name, int thread, double at)
{
    fprintf(p->file, ",\n{\"ph\":\"%s\",\"cat\":\"%s\",\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f", ph, category(r->kind), name,
            p->rank, thread, at * 1e6);
}

static void put_args(struct profile *p, const struct trace_row *r)
{
    fprintf(p->file, ",\"args\":{\"seq\":%lld", (long long)r->seq);
    if (r->kind == TRACE_COPY || r->kind == TRACE_ZERO) fprintf(p->file, ",\"bytes\":%lld", (long long)r->bytes);
    if (r->kind == TRACE_WAIT) fprintf(p->file, ",\"after\":%lld", (long long)r->after);
    if (r->m && p->c.record_shapes)
        fprintf(p->file, ",\"m\":%lld,\"n\":%lld,\"k\":%lld", (long long)r->m, (long long)r->n, (long long)r->k);
    if (r->m && p->c.with_flops) fprintf(p->file, ",\"flops\":%lld", (long long)(2 * r->m * r->n * r->k));
    fprintf(p->file, "}}");
}

/* An event and what waits for it: a mark on the stream, and an arrow. */
static void put_order(struct profile *p, const struct trace_row *r, int thread)
{
    bool waits = r->kind == TRACE_WAIT;
    put_event(p, r, "i", r->name, thread, r->from);
    fprintf(p->file, ",\"s\":\"t\"");
    put_args(p, r);
    if (waits && r->after < 0) return;
    put_event(p, r, waits ? "f" : "s", "order", thread, r->from);
    fprintf(p->file, "%s,\"id\":%lld}", waits ? ",\"bp\":\"e\"" : "", (long long)(waits ? r->after : r->seq));
}

static status put_row(const struct trace_row *r, void *arg)
{
    struct profile *p = arg;
    int thread = STREAM_THREAD + r->stream;
    if (!p->file) return ST_OK;
    if (p->streams && !p->named[r->stream]) name_thread(p, thread, trace_stream_name(p->trace, r->stream));
    p->named[r->stream] = true;
    if (p->streams && (r->kind == TRACE_RECORD || r->kind == TRACE_WAIT)) {
        put_order(p, r, thread);
    } else if (p->streams && (r->kind == TRACE_BEGIN || r->kind == TRACE_END)) {
        put_event(p, r, r->kind == TRACE_BEGIN ? "B" : "E", r->name, thread, r->from);
        put_args(p, r);
    } else if (p->streams) {
        put_event(p, r, "X", r->name, thread, r->from);
        fprintf(p->file, ",\"dur\":%.3f", (r->to - r->from) * 1e6);
        put_args(p, r);
    }
    if (!p->host) return ST_OK;
    put_event(p, r, "X", r->name, HOST_THREAD, r->queued);
    fprintf(p->file, ",\"dur\":%.3f,\"args\":{\"queues\":%lld}}", (r->returned - r->queued) * 1e6, (long long)r->seq);
    return ST_OK;
}

static status give_up(struct profile *p, const char *what)
{
    log_warn("profiler: %s: cannot %s (%s); there will be no trace of this rank", p->part, what, file_error(errno));
    p->failed = true;
    return ST_OK;
}

static status open_file(struct profile *p)
{
    if (p->failed) return ST_OK;
    if (file_mkdirs(p->dir)) return give_up(p, "make the folder");
    p->file = fopen(p->part, "w");
    if (!p->file) return give_up(p, "write");
    for (int i = 0; i < TRACE_STREAMS; i++) p->named[i] = false;
    fprintf(p->file, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"device\":\"%s\",\"rank\":%d,\"first_step\":%lld},\"traceEvents\":[\n",
            p->inner->describe(), p->rank, (long long)p->from + 1);
    fprintf(p->file, "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":\"rank %d\"}}", p->rank, p->rank);
    if (p->host) name_thread(p, HOST_THREAD, "host: queueing");
    return ST_OK;
}

/* Whole: it gets its name. */
static status close_file(struct profile *p)
{
    if (!p->file) return ST_OK;
    fprintf(p->file, "\n]}\n");
    bool bad = ferror(p->file);
    bad = fclose(p->file) || bad;
    p->file = NULL;
    if (bad) return give_up(p, "write");
    char *folder = mem_printf("%s/iteration_%lld", p->dir, (long long)p->last + 1);
    char *name = mem_printf("%s/rank%d_trace.json", folder, p->rank);
    if (file_mkdirs(folder) || rename(p->part, name))
        (void)give_up(p, "give it its name");
    else
        log_note("profiler: steps %lld to %lld are in %s", (long long)p->from + 1, (long long)p->last + 1, name);
    free(folder);
    free(name);
    return ST_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------------ */

static enum phase_of_step phase_of(const struct profile *p, int64_t n)
{
    int64_t wait = p->c.wait_steps, warm = p->c.warmup_steps;
    int64_t cycle = wait + warm + p->c.active_steps, at = n % cycle;
    if (p->failed || (p->c.num_cycles && n / cycle >= p->c.num_cycles)) return STEP_PLAIN;
    return at < wait ? STEP_PLAIN : at < wait + warm ? STEP_WARM : STEP_TRACED;
}

/* A window ends where the next step is of another phase, or the first of another cycle. */
static status enter(struct profile *p, struct stream *s, int64_t step, enum phase_of_step phase)
{
    TRY(trace_stop(p->trace));
    TRY(close_file(p));
    p->phase = phase;
    p->from = step;
    if (phase == STEP_TRACED) TRY(open_file(p));
    return phase == STEP_PLAIN ? ST_OK : trace_start(p->trace, s, phase == STEP_TRACED ? put_row : NULL, p);
}

status profile_step(struct profile *p, struct stream *s, int64_t step)
{
    if (!p) return ST_OK;
    if (p->first < 0) p->first = step;
    int64_t n = step - p->first, cycle = p->c.wait_steps + p->c.warmup_steps + p->c.active_steps;
    enum phase_of_step phase = phase_of(p, n);
    if (phase != p->phase || (n % cycle == 0 && phase != STEP_PLAIN)) TRY(enter(p, s, step, phase));
    p->last = step;
    return ST_OK;
}

status profile_finish(struct profile *p)
{
    if (!p || !trace_on(p->trace)) return ST_OK;
    return enter(p, NULL, p->last, STEP_PLAIN);
}
