/* device.c — the device table over the CUDA runtime: this rank's GPU, memory, streams, events, calls of the host.
 *
 * Any thread may call: the runtime keeps a current device per thread, and `here` makes ours that. */
#include "kernels/cuda/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include "kernels/base/text.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/stream.h"

const struct backend *cuda_backend;

/* ---- errors -------------------------------------------------------------------------------------------------------------- */

/* CUDA keeps an error until it is asked for: without that the next launch would be blamed. (A sticky one stays all the same.) */
status cuda_status(cudaError_t e, const char *what)
{
    if (!e) return ST_OK;
    cudaGetLastError();
    FAIL(e == cudaErrorMemoryAllocation ? ST_OOM : ST_DEVICE, "%s: %s: %s (GPU %d, %s)", what, cudaGetErrorName(e), cudaGetErrorString(e),
         gpu_index(), gpu_name());
}

static status here(void)
{
    static _Thread_local bool is;
    if (is) return ST_OK;
    TRY(cuda_status(cudaSetDevice(gpu_index()), "choosing the GPU"));
    is = true;
    return ST_OK;
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static status out_of_memory(cudaError_t e, enum mem_kind kind, size_t bytes)
{
    size_t left = 0, all = 0;
    cudaGetLastError();
    if (e != cudaErrorMemoryAllocation) return cuda_status(e, kind == MEM_DEVICE ? "allocating GPU memory" : "allocating pinned memory");
    if (kind == MEM_PINNED)
        FAIL(ST_OOM, "cannot allocate %s of pinned host memory: the host or its limits (ulimit -l, the job's memory) have no more",
             text_bytes((double)bytes));
    cudaMemGetInfo(&left, &all);
    FAIL(ST_OOM, "cannot allocate %s of GPU memory: %s of %s are free on %s; does another process use it?", text_bytes((double)bytes),
         text_bytes((double)left), text_bytes((double)all), gpu_name());
}

static status device_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    *out = NULL;
    if (kind == MEM_HOST) return backend_cpu.dev.alloc(kind, bytes, out);
    TRY(here());
    if (!bytes) bytes = 1;
    cudaError_t e = kind == MEM_DEVICE ? cudaMalloc(out, bytes) : cudaMallocHost(out, bytes);
    return e ? out_of_memory(e, kind, bytes) : ST_OK;
}

/* Nothing to be done about a failure here: it is a sticky one, and the next sync's. */
static void device_free(enum mem_kind kind, void *p, size_t bytes)
{
    if (kind == MEM_HOST) {
        backend_cpu.dev.free(kind, p, bytes);
        return;
    }
    if (!p || here()) return;
    if (kind == MEM_DEVICE)
        cudaFree(p);
    else
        cudaFreeHost(p);
}

/* The context has its memory already, and is a row of the plan all the same (cuda_library_bytes): so it counts as free. */
static status device_mem_info(enum mem_kind kind, size_t *free_bytes, size_t *total_bytes)
{
    if (kind != MEM_DEVICE) return backend_cpu.dev.mem_info(kind, free_bytes, total_bytes);
    TRY(here());
    TRY(cuda_status(cudaMemGetInfo(free_bytes, total_bytes), "asking for free GPU memory"));
    size_t used = *total_bytes - *free_bytes;
    *free_bytes += used < GPU_CONTEXT_BYTES ? used : GPU_CONTEXT_BYTES;
    return ST_OK;
}

/* ---- calls of the host ----------------------------------------------------------------------------------------------------
 *
 * They run on a thread of the driver, so a failure travels as text. After the first one of a stream, its further calls are not
 * made until a sync (or an event_sync of something recorded on it) has returned that failure: what stands behind a call that failed
 * must not act on what it did not do. */

struct host_call {
    struct host_call *made, *spare; /* next of each list */
    struct host_calls *of;
    status (*fn)(void *arg);
    void *arg;
    bool stays; /* part of a graph, and made again */
};

/* Of one stream; lives while the stream or an event recorded on it does. */
struct host_calls {
    pthread_mutex_t lock;
    int users;
    struct host_call *made, *spare; /* all of them; those free again: as many are made as a step has in flight */
    status failed;
    char message[2048];
};

static struct host_calls *calls_open(void)
{
    struct host_calls *c = mem_alloc(sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->users = 1;
    return c;
}

static struct host_calls *calls_share(struct host_calls *c)
{
    pthread_mutex_lock(&c->lock);
    c->users++;
    pthread_mutex_unlock(&c->lock);
    return c;
}

static void calls_done(struct host_calls *c)
{
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    bool last = !--c->users;
    pthread_mutex_unlock(&c->lock);
    if (!last) return;
    while (c->made) {
        struct host_call *call = c->made;
        c->made = call->made;
        free(call);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct host_call *call_take(struct host_calls *c)
{
    pthread_mutex_lock(&c->lock);
    struct host_call *call = c->spare;
    if (call) {
        c->spare = call->spare;
    } else {
        call = mem_alloc(sizeof *call);
        call->of = c;
        call->made = c->made;
        c->made = call;
    }
    pthread_mutex_unlock(&c->lock);
    return call;
}

/* Under the lock. */
static void call_give(struct host_call *call)
{
    call->spare = call->of->spare;
    call->of->spare = call;
}

/* On a thread of the driver: no function of CUDA may be called from here. */
static void CUDART_CB call_now(void *data)
{
    struct host_call *call = data;
    struct host_calls *c = call->of;
    pthread_mutex_lock(&c->lock);
    bool skip = c->failed != ST_OK;
    pthread_mutex_unlock(&c->lock);
    status st = skip ? ST_OK : call->fn(call->arg);
    pthread_mutex_lock(&c->lock);
    if (st) {
        c->failed = st;
        snprintf(c->message, sizeof c->message, "%s", status_message());
    }
    if (!call->stays) call_give(call);
    pthread_mutex_unlock(&c->lock);
}

static status calls_taken(struct host_calls *c)
{
    char message[sizeof c->message];
    if (!c) return ST_OK;
    pthread_mutex_lock(&c->lock);
    status st = c->failed;
    c->failed = ST_OK;
    if (st) memcpy(message, c->message, sizeof message);
    pthread_mutex_unlock(&c->lock);
    if (st) FAIL(st, "%s", message);
    return ST_OK;
}

static status device_host_call(struct stream *s, status (*fn)(void *arg), void *arg)
{
    struct host_calls *c = cuda_stream(s)->calls;
    enum cudaStreamCaptureStatus how;
    TRY(here());
    TRY(cuda_status(cudaStreamIsCapturing(cuda_on(s), &how), "queueing a call of the host"));
    struct host_call *call = call_take(c);
    call->stays = how != cudaStreamCaptureStatusNone;
    call->fn = fn;
    call->arg = arg;
    status st = cuda_status(cudaLaunchHostFunc(cuda_on(s), call_now, call), "queueing a call of the host");
    if (st) {
        pthread_mutex_lock(&c->lock);
        call_give(call);
        pthread_mutex_unlock(&c->lock);
    }
    return st;
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

/* No stream of ours waits for the null stream, which nobody uses. */
static status device_stream_open(struct stream **out, int threads)
{
    *out = NULL;
    TRY(here());
    struct cuda_stream *s = mem_alloc(sizeof *s);
    s->base = (struct stream){.be = cuda_backend, .name = "stream", .threads = threads};
    status st = cuda_status(cudaStreamCreateWithFlags(&s->on, cudaStreamNonBlocking), "making a stream");
    if (st) {
        free(s);
        return st;
    }
    s->calls = calls_open();
    *out = &s->base;
    return ST_OK;
}

static void device_stream_close(struct stream *s)
{
    if (!s) return;
    if (!here()) {
        cudaStreamSynchronize(cuda_on(s)); /* what still runs may call the host */
        if (cuda_stream(s)->gemm) cuda_stream(s)->gemm_close(cuda_stream(s)->gemm);
        cudaStreamDestroy(cuda_on(s));
    }
    calls_done(cuda_stream(s)->calls);
    free(s);
}

/* An error of the device names the place that noticed it; where it happened, nobody can say. A call of the host that failed came
 * first: none is made once the device has an error. */
static status waited(cudaError_t e, struct host_calls *calls, const char *stream, const char *label)
{
    status st = calls_taken(calls);
    if (st) {
        cudaGetLastError();
        return st;
    }
    if (!e) return ST_OK;
    char what[256];
    snprintf(what, sizeof what, "%s: the GPU's work%s%s failed, at this point or earlier", label, stream ? " on stream " : "",
             stream ? stream : "");
    return cuda_status(e, what);
}

static status device_sync(struct stream *s, const char *label)
{
    TRY(here());
    return waited(cudaStreamSynchronize(cuda_on(s)), cuda_stream(s)->calls, s->name, label);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

struct event {
    cudaEvent_t on;
    struct host_calls *calls; /* of the stream that it was last recorded on */
};

/* Blocking: the host waits seldom and long (its numbers are a step late), and has other threads for the core. */
static status open_event(struct event **out, unsigned more)
{
    *out = NULL;
    TRY(here());
    struct event *e = mem_alloc(sizeof *e);
    status st = cuda_status(cudaEventCreateWithFlags(&e->on, cudaEventBlockingSync | more), "making an event");
    if (st) {
        free(e);
        return st;
    }
    *out = e;
    return ST_OK;
}

static status device_event_open(struct event **out) { return open_event(out, cudaEventDisableTiming); }
static status device_clock_open(struct event **out) { return open_event(out, 0); }

static status device_event_elapsed(struct event *from, struct event *to, double *seconds)
{
    float ms = 0;
    TRY(here());
    TRY(cuda_status(cudaEventElapsedTime(&ms, from->on, to->on), "asking for the time between two events"));
    *seconds = (double)ms / 1000;
    return ST_OK;
}

static void device_event_close(struct event *e)
{
    if (!e) return;
    if (!here()) cudaEventDestroy(e->on);
    calls_done(e->calls);
    free(e);
}

static status device_event_record(struct event *e, struct stream *s)
{
    TRY(here());
    TRY(cuda_status(cudaEventRecord(e->on, cuda_on(s)), "recording an event"));
    if (e->calls == cuda_stream(s)->calls) return ST_OK;
    calls_done(e->calls);
    e->calls = calls_share(cuda_stream(s)->calls);
    return ST_OK;
}

/* CUDA takes a wait for an event never recorded for no wait, as backend.h does. */
static status device_event_wait(struct event *e, struct stream *s, const char *label)
{
    TRY(here());
    return cuda_status(cudaStreamWaitEvent(cuda_on(s), e->on, 0), label);
}

/* After an error everything is done: the next sync tells, and nobody polls for ever. */
static bool device_event_done(struct event *e) { return here() || cudaEventQuery(e->on) != cudaErrorNotReady; }

static status device_event_sync(struct event *e, const char *label)
{
    TRY(here());
    return waited(cudaEventSynchronize(e->on), e->calls, NULL, label);
}

/* ---- copies -------------------------------------------------------------------------------------------------------------- */

static status device_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    if (!bytes) return ST_OK;
    TRY(here());
    return cuda_status(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, cuda_on(s)), "queueing a copy");
}

static status device_zero(struct stream *s, void *dst, size_t bytes)
{
    if (!bytes) return ST_OK;
    TRY(here());
    return cuda_status(cudaMemsetAsync(dst, 0, bytes, cuda_on(s)), "queueing zeros");
}

/* ---- graphs -------------------------------------------------------------------------------------------------------------- */

struct graph {
    cudaGraphExec_t exec;
};

static status device_graph_begin(struct stream *s)
{
    TRY(here());
    return cuda_status(cudaStreamBeginCapture(cuda_on(s), cudaStreamCaptureModeThreadLocal), "beginning a graph");
}

static status device_graph_end(struct stream *s, struct graph **out)
{
    cudaGraph_t made = NULL;
    *out = NULL;
    TRY(here());
    TRY(cuda_status(cudaStreamEndCapture(cuda_on(s), &made), "ending a graph"));
    struct graph *g = mem_alloc(sizeof *g);
    status st = cuda_status(cudaGraphInstantiate(&g->exec, made, 0), "making a graph");
    cudaGraphDestroy(made);
    if (st) {
        free(g);
        return st;
    }
    *out = g;
    return ST_OK;
}

static status device_graph_launch(struct graph *g, struct stream *s)
{
    TRY(here());
    return cuda_status(cudaGraphLaunch(g->exec, cuda_on(s)), "launching a graph");
}

static void device_graph_close(struct graph *g)
{
    if (!g) return;
    if (!here()) cudaGraphExecDestroy(g->exec);
    free(g);
}

const struct device cuda_device = {
    .alloc = device_alloc,
    .free = device_free,
    .stream_open = device_stream_open,
    .stream_close = device_stream_close,
    .event_open = device_event_open,
    .event_close = device_event_close,
    .event_record = device_event_record,
    .event_wait = device_event_wait,
    .event_done = device_event_done,
    .event_sync = device_event_sync,
    .clock_open = device_clock_open,
    .event_elapsed = device_event_elapsed,
    .host_call = device_host_call,
    .copy = device_copy,
    .zero = device_zero,
    .sync = device_sync,
    .mem_info = device_mem_info,
    .graph_begin = device_graph_begin,
    .graph_end = device_graph_end,
    .graph_launch = device_graph_launch,
    .graph_close = device_graph_close,
};
