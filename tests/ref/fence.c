#include "tests/ref/fence.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

struct region {
    char *at;
    size_t bytes;
    enum mem_kind kind;
};

static struct {
    const struct backend *inner;
    struct backend outer;
    struct region *region;
    int n_regions;
    struct fence_stream **stream;
    int n_streams;
    enum { ORDER_NOW, ORDER_ANY, ORDER_LAST, ORDER_FIRST } order;
    bool tensors, unpinned; /* reachable now; not reachable now */
    uint64_t random;
    const char *without;
} fence;

static size_t pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static void protect(enum mem_kind kind, int how)
{
    for (int i = 0; i < fence.n_regions; i++)
        if (fence.region[i].kind == kind && mprotect(fence.region[i].at, fence.region[i].bytes, how)) abort();
}

/* Who may reach which memory now: ops the tensors, copies both, the host what is pinned. A change costs as many pages as there
 * are, so that a row of ops opens the gate once. */
static void gate(bool tensors, bool pinned)
{
    if (tensors != fence.tensors) protect(MEM_DEVICE, tensors ? PROT_READ | PROT_WRITE : PROT_NONE);
    if (pinned == fence.unpinned) protect(MEM_PINNED, pinned ? PROT_READ | PROT_WRITE : PROT_NONE);
    fence.tensors = tensors;
    fence.unpinned = !pinned;
}

static void back_to_host(void) { gate(false, true); }

static status fence_alloc(enum mem_kind kind, size_t bytes, void **out)
{
    if (kind == MEM_HOST) return fence.inner->dev.alloc(kind, bytes, out);
    void *p = mmap(NULL, pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) FAIL(ST_OOM, "fence: cannot allocate %s", text_bytes((double)bytes));
    madvise(p, pages(bytes), MADV_HUGEPAGE); /* a row of ops changes its protection: the fewer pages the better */
    memset(p, 0xff, pages(bytes));           /* fresh memory is never zero by luck */
    fence.region = mem_grow(fence.region, (size_t)(fence.n_regions + 1) * sizeof *fence.region);
    fence.region[fence.n_regions++] = (struct region){p, pages(bytes), kind};
    if (kind == MEM_DEVICE && mprotect(p, pages(bytes), PROT_NONE)) abort();
    *out = p;
    return ST_OK;
}

static void finish_all(void);

static void fence_free(enum mem_kind kind, void *p, size_t bytes)
{
    finish_all();
    if (kind == MEM_HOST) {
        fence.inner->dev.free(kind, p, bytes);
        return;
    }
    for (int i = 0; i < fence.n_regions; i++)
        if (fence.region[i].at == p) {
            munmap(p, fence.region[i].bytes);
            fence.region[i] = fence.region[--fence.n_regions];
            return;
        }
}

/* Copies reach memory of this table only: heap and mapped files are staged through pinned memory. */
static status known(const void *p, size_t bytes, const char *what)
{
    for (int i = 0; i < fence.n_regions; i++)
        if ((const char *)p >= fence.region[i].at && (const char *)p + bytes <= fence.region[i].at + fence.region[i].bytes) return ST_OK;
    FAIL(ST_FAIL, "fence: the %s of a copy of %zu bytes is neither tensor nor pinned memory", what, bytes);
}

/* ---- queues ------------------------------------------------------------------------------------------------------------ */

struct fence_stream;
struct event {
    uint64_t recorded, done;
    double at;               /* clock_s() when it was done last */
    struct fence_stream *on; /* where it was last recorded: its failures are told to who waits for it */
};

union any_args {
#define MEMBER(name, args) struct args##_args name;
    TRIMPOT_OPS(MEMBER)
#undef MEMBER
    struct {
        void *dst;
        const void *src;
        size_t bytes;
    } move;
    struct {
        status (*fn)(void *);
        void *arg;
    } call;
    struct {
        struct event *e;
        uint64_t ticket;
    } event;
};

struct item {
    struct item *next;
    status (*run)(struct fence_stream *s, union any_args *a);
    enum { RUNS, WAITS } what;
    const char *label;
    union any_args args;
};

struct fence_stream {
    struct stream base;
    struct stream *inner;
    struct item *first, **last;
    status failed; /* the first failure since the last sync */
    char message[1024];
};

static struct fence_stream *unwrap(struct stream *s)
{
    struct fence_stream *f = (struct fence_stream *)s;
    f->inner->workspace = s->workspace;
    f->inner->workspace_bytes = s->workspace_bytes;
    f->inner->threads = s->threads;
    return f;
}

static uint64_t draw(void)
{
    fence.random ^= fence.random << 13;
    fence.random ^= fence.random >> 7;
    fence.random ^= fence.random << 17;
    return fence.random;
}

static bool ready(const struct fence_stream *s)
{
    const struct item *i = s->first;
    return i && (i->what != WAITS || i->args.event.e->done >= i->args.event.ticket);
}

static status run_record(struct fence_stream *s, union any_args *a);

/* Behind a failure nothing runs any more, but events come: others wait for them. */
static void run_first(struct fence_stream *s)
{
    struct item *i = s->first;
    s->first = i->next;
    if (!s->first) s->last = &s->first;
    status st = s->failed && i->run != run_record ? ST_OK : i->run(s, &i->args);
    if (st) {
        s->failed = st;
        snprintf(s->message, sizeof s->message, "%s", status_message());
    }
    free(i);
}

/* One item of some stream, chosen by the order; `wanted`: the stream that the host waits for, NULL: all. */
static void run_some(const struct fence_stream *wanted)
{
    struct fence_stream *can[64], *pick = NULL;
    int n = 0;
    for (int i = 0; i < fence.n_streams && n < 64; i++)
        if (ready(fence.stream[i])) can[n++] = fence.stream[i];
    if (!n) {
        fprintf(stderr, "fence: every stream waits for an event that nobody will record:");
        for (int i = 0; i < fence.n_streams; i++)
            if (fence.stream[i]->first) fprintf(stderr, " %s for '%s'", fence.stream[i]->base.name, fence.stream[i]->first->label);
        fprintf(stderr, "\n");
        abort();
    }
    for (int i = 0; i < n; i++) {
        bool is_wanted = can[i] == wanted;
        if (fence.order == ORDER_LAST && is_wanted) pick = can[i];
        if (fence.order == ORDER_FIRST && !is_wanted) pick = can[i];
    }
    run_first(pick ? pick : can[draw() % (uint64_t)n]);
}

static void finish_all(void)
{
    for (int i = 0; i < fence.n_streams; i++)
        while (fence.stream[i]->first) run_some(NULL);
    back_to_host();
}

static status taken(struct fence_stream *s)
{
    status st = s->failed;
    s->failed = ST_OK;
    if (st) FAIL(st, "%s", s->message);
    return ST_OK;
}

static status put(struct fence_stream *s, struct item i)
{
    if (fence.order == ORDER_NOW) {
        status st = i.run(s, &i.args);
        back_to_host();
        return st;
    }
    struct item *queued = mem_alloc(sizeof *queued);
    *queued = i;
    queued->next = NULL;
    *s->last = queued;
    s->last = &queued->next;
    return ST_OK;
}

/* ---- what runs ----------------------------------------------------------------------------------------------------------- */

#define FENCED(name, args_)                                                                                                                \
    static status run_##name(struct fence_stream *s, union any_args *a)                                                                    \
    {                                                                                                                                      \
        gate(true, false);                                                                                                                 \
        return fence.inner->ops.name(s->inner, &a->name);                                                                                  \
    }                                                                                                                                      \
    static status name##_fence(struct stream *s, const struct args_##_args *a)                                                             \
    {                                                                                                                                      \
        return put(unwrap(s), (struct item){.run = run_##name, .args.name = *a});                                                          \
    }
TRIMPOT_OPS(FENCED)

static status run_copy(struct fence_stream *s, union any_args *a)
{
    gate(true, true);
    return fence.inner->dev.copy(s->inner, a->move.dst, a->move.src, a->move.bytes);
}

static status fence_copy(struct stream *s, void *dst, const void *src, size_t bytes)
{
    if (!bytes) return ST_OK;
    TRY(known(dst, bytes, "target"));
    TRY(known(src, bytes, "source"));
    return put(unwrap(s), (struct item){.run = run_copy, .args.move = {dst, src, bytes}});
}

static status run_zero(struct fence_stream *s, union any_args *a)
{
    gate(true, false);
    return fence.inner->dev.zero(s->inner, a->move.dst, a->move.bytes);
}

static status fence_zero(struct stream *s, void *dst, size_t bytes)
{
    return put(unwrap(s), (struct item){.run = run_zero, .args.move = {.dst = dst, .bytes = bytes}});
}

static status run_call(struct fence_stream *s, union any_args *a)
{
    (void)s;
    back_to_host();
    return a->call.fn(a->call.arg);
}

static status fence_host_call(struct stream *s, status (*fn)(void *), void *arg)
{
    return put(unwrap(s), (struct item){.run = run_call, .args.call = {fn, arg}});
}

/* ---- events, waits ------------------------------------------------------------------------------------------------------- */

static status fence_event_open(struct event **out)
{
    *out = mem_alloc(sizeof **out);
    return ST_OK;
}

static void fence_event_close(struct event *e)
{
    if (e) finish_all();
    free(e);
}

static status run_record(struct fence_stream *s, union any_args *a)
{
    (void)s;
    a->event.e->done = a->event.ticket;
    a->event.e->at = clock_s();
    return ST_OK;
}

static status fence_event_elapsed(struct event *from, struct event *to, double *seconds)
{
    if (from->done < from->recorded || to->done < to->recorded) FAIL(ST_FAIL, "fence: an event whose time is asked is not done");
    *seconds = to->at - from->at;
    return ST_OK;
}

static status fence_event_record(struct event *e, struct stream *s)
{
    e->on = unwrap(s);
    return put(e->on, (struct item){.run = run_record, .args.event = {e, ++e->recorded}});
}

static status run_nothing(struct fence_stream *s, union any_args *a)
{
    (void)s, (void)a;
    return ST_OK;
}

/* The wait that a test takes away, to see whether it is missed. */
static bool without(const char *label) { return fence.without && !strcmp(fence.without, label); }

static status fence_event_wait(struct event *e, struct stream *s, const char *label)
{
    if (without(label)) return ST_OK;
    return put(unwrap(s), (struct item){.run = run_nothing, .what = WAITS, .label = label, .args.event = {e, e->recorded}});
}

/* Which stream will record e next. */
static const struct fence_stream *recorder(const struct event *e)
{
    for (int i = 0; i < fence.n_streams; i++)
        for (const struct item *at = fence.stream[i]->first; at; at = at->next)
            if (at->run == run_record && at->args.event.e == e) return fence.stream[i];
    return NULL;
}

static bool fence_event_done(struct event *e) { return e->done >= e->recorded; }

static status fence_event_sync(struct event *e, const char *label)
{
    if (without(label)) return ST_OK;
    uint64_t ticket = e->recorded, done = e->done;
    const struct fence_stream *wanted = done < ticket ? recorder(e) : NULL; /* looked for once: queues are long */
    while (e->done < ticket) {
        run_some(wanted);
        if (e->done != done) wanted = recorder(e);
        done = e->done;
    }
    back_to_host();
    return e->on ? taken(e->on) : ST_OK;
}

static status fence_sync(struct stream *s, const char *label)
{
    struct fence_stream *f = unwrap(s);
    if (without(label)) return ST_OK;
    while (f->first) run_some(f);
    back_to_host();
    return taken(f);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

static status fence_stream_open(struct stream **out, int threads)
{
    struct stream *inner;
    *out = NULL;
    TRY(fence.inner->dev.stream_open(&inner, threads));
    struct fence_stream *s = mem_alloc(sizeof *s);
    *s = (struct fence_stream){.base = *inner, .inner = inner};
    s->base.be = &fence.outer;
    s->last = &s->first;
    fence.stream = mem_grow(fence.stream, (size_t)(fence.n_streams + 1) * sizeof *fence.stream);
    fence.stream[fence.n_streams++] = s;
    *out = &s->base;
    return ST_OK;
}

static void fence_stream_close(struct stream *s)
{
    if (!s) return;
    struct fence_stream *f = unwrap(s);
    finish_all();
    for (int i = 0; i < fence.n_streams; i++)
        if (fence.stream[i] == f) fence.stream[i] = fence.stream[--fence.n_streams];
    fence.inner->dev.stream_close(f->inner);
    free(f);
}

static status fence_prepare(struct stream *s, const struct work_bounds *w)
{
    struct stream *inner = ((struct fence_stream *)s)->inner;
    TRY(fence.inner->prepare(inner, w));
    s->workspace_bytes = inner->workspace_bytes;
    return ST_OK;
}

static const char *fence_describe(void) { return fence.inner->describe(); }

static void choose_order(void)
{
    static const char *const NAMES[] = {[ORDER_NOW] = "now", [ORDER_ANY] = "any", [ORDER_LAST] = "last", [ORDER_FIRST] = "first"};
    const char *name = getenv("TRIMPOT_FENCE"), *seed = getenv("TRIMPOT_FENCE_SEED");
    fence.order = ORDER_NOW;
    fence.without = getenv("TRIMPOT_FENCE_WITHOUT");
    for (int i = 0; name && i < (int)(sizeof NAMES / sizeof *NAMES); i++)
        if (!strcmp(name, NAMES[i])) fence.order = (unsigned)i;
    fence.random = 0x9e3779b97f4a7c15u * (1 + (seed ? strtoull(seed, NULL, 10) : 0));
}

const struct backend *fence_wrap(const struct backend *inner)
{
#define FENCE_SLOT(name, args) .name = name##_fence,
    fence.inner = inner;
    choose_order();
    fence.outer = *inner;
    fence.outer.name = "fence";
    fence.outer.tensors_in = MEM_DEVICE;
    fence.outer.joins_products = getenv("TRIMPOT_FENCE_JOINS") != NULL;
    fence.outer.describe = fence_describe;
    fence.outer.prepare = fence_prepare;
    fence.outer.ops = (struct ops){TRIMPOT_OPS(FENCE_SLOT)};
    fence.outer.dev = (struct device){
        .alloc = fence_alloc,
        .free = fence_free,
        .stream_open = fence_stream_open,
        .stream_close = fence_stream_close,
        .event_open = fence_event_open,
        .event_close = fence_event_close,
        .event_record = fence_event_record,
        .event_wait = fence_event_wait,
        .event_done = fence_event_done,
        .event_sync = fence_event_sync,
        .clock_open = fence_event_open,
        .event_elapsed = fence_event_elapsed,
        .host_call = fence_host_call,
        .copy = fence_copy,
        .zero = fence_zero,
        .sync = fence_sync,
        .mem_info = inner->dev.mem_info,
    };
    return &fence.outer;
}
