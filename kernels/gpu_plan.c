#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/plugin.h"
#include "kernels/base/text.h"
#include "kernels/gpu.h"

static const struct gpu *described; /* the GPU that gpu_backend stands for */
static backend_sizes_fn *sizes;
static char *estimated;

/* ---- a device of which there is nothing --------------------------------------------------------------------------------- */

struct event {
    char nothing;
};

static status no_memory(enum mem_kind kind, size_t bytes, void **out)
{
    (void)kind, (void)out;
    FAIL(ST_FAIL, "%zu bytes of a %s that is not here: only its plan is", bytes, described->full);
}

static status open_stream(struct stream **out, int threads)
{
    static const struct stream as_opened;
    *out = mem_alloc(sizeof **out);
    **out = as_opened;
    (*out)->threads = threads;
    return gpu_backend(described, &(*out)->be);
}

static void close_stream(struct stream *s) { free(s); }

static status open_event(struct event **out)
{
    *out = mem_alloc(sizeof **out);
    return ST_OK;
}

static void close_event(struct event *e) { free(e); }

/* Nothing is queued on it: whoever waits, waits for nothing; whoever queues learns why it cannot. */
static status no_work(void) { FAIL(ST_FAIL, "work for a %s that is not here: only its plan is", described->full); }
static status no_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    return (void)s, (void)dst, (void)src, (void)bytes, no_work();
}
static status no_zero(struct stream *s, void *dst, size_t bytes) { return (void)s, (void)dst, (void)bytes, no_work(); }
static status no_record(struct event *e, struct stream *s) { return (void)e, (void)s, no_work(); }
static status no_wait(struct event *e, struct stream *s, const char *label) { return (void)e, (void)s, (void)label, no_work(); }
static status no_clock(struct event *from, struct event *to, double *seconds) { return (void)from, (void)to, (void)seconds, no_work(); }
static status no_call(struct stream *s, status (*fn)(void *arg), void *arg) { return (void)s, (void)fn, (void)arg, no_work(); }
static status no_graph(struct stream *s) { return (void)s, no_work(); }
static status idle_stream(struct stream *s, const char *label) { return (void)s, (void)label, ST_OK; }
static status idle_event(struct event *e, const char *label) { return (void)e, (void)label, ST_OK; }
static bool event_done(struct event *e) { return (void)e, true; }
static void no_free(enum mem_kind kind, void *p, size_t bytes) { (void)kind, (void)p, (void)bytes; }

/* The host's memory is that of another machine too: nothing is known of it. */
static status memory_there(enum mem_kind kind, size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = kind == MEM_DEVICE ? (size_t)(described->memory_gib * 1073741824.0) : SIZE_MAX;
    return ST_OK;
}

/* ---- sizes --------------------------------------------------------------------------------------------------------------- */

/* Where the CUDA backend cannot be asked: a GEMM's scratch as Hopper wants it, and beside attention's backward a dQ in f32, dK and
 * dV per query head where heads are grouped, and the row sums. */
static void estimate(const struct work_bounds *w, size_t *workspace, size_t *library)
{
    int64_t rows = 4 * w->tokens * w->heads, attention = rows * w->head_dim * (w->kv_heads < w->heads ? 2 : 1) + rows;
    *workspace = (32u << 20) > (size_t)attention ? 32u << 20 : (size_t)attention;
    *library = 500000000;
}

static status find_sizes(void)
{
    static const char *const NAMES[] = {"cuda", "emu"}; /* the emulated device of the tests has the same formulas */
    free(estimated);
    estimated = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char file[64];
        snprintf(file, sizeof file, "trimpot_%s.so", NAMES[i]);
        if (!plugin_exists(NULL, file)) continue;
        if (!plugin_function(NULL, file, "trimpot_backend_sizes", file, "its sizes are estimated", &sizes)) {
            free(estimated);
            estimated = NULL;
            return ST_OK;
        }
        if (!estimated) estimated = mem_strdup(status_message());
    }
    if (!estimated) estimated = mem_strdup("this trimpot was built without CUDA");
    sizes = estimate;
    return ST_OK;
}

const char *gpu_estimated(void) { return estimated; }

static status prepare(struct stream *s, const struct work_bounds *w)
{
    size_t library;
    sizes(w, &s->workspace_bytes, &library);
    return ST_OK;
}

static size_t library_bytes(const struct work_bounds *w)
{
    size_t workspace, library;
    sizes(w, &workspace, &library);
    return library;
}

static const char *describe(void)
{
    static char text[80];
    snprintf(text, sizeof text, "%s (as the table has it: none is used)", described->full);
    return text;
}

status gpu_backend(const struct gpu *g, const struct backend **out)
{
    static const struct backend backend = {
        .name = "plan",
        .tensors_in = MEM_DEVICE,
        .joins_products = true,
        .token_unit = GPU_TOKEN_UNIT,
        .head_rows = GPU_HEAD_ROWS,
        .dev = {.alloc = no_memory,
                .free = no_free,
                .stream_open = open_stream,
                .stream_close = close_stream,
                .event_open = open_event,
                .event_close = close_event,
                .event_record = no_record,
                .event_wait = no_wait,
                .event_done = event_done,
                .event_sync = idle_event,
                .event_elapsed = no_clock,
                .host_call = no_call,
                .copy = no_copy,
                .zero = no_zero,
                .sync = idle_stream,
                .graph_begin = no_graph,
                .mem_info = memory_there},
        .prepare = prepare,
        .library_bytes = library_bytes,
        .library = "CUDA context, cuBLASLt, cuDNN",
        .describe = describe,
        .elsewhere = true,
    };
    described = g;
    if (!sizes) TRY(find_sizes());
    *out = &backend;
    return ST_OK;
}
