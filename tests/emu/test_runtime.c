/* The emulated device under the device table (kernels/backend.h): orders that events allow happen and no others, memory is guarded,
 * failures arrive where they must, with one message. Every case is a process of its own: a device is opened once, and some die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/backend.h"

enum { N = 1024, BYTES = N * (int)sizeof(float) };

static struct {
    const struct backend *be;
    struct stream *a, *b;
    struct event *e;
    float *pinned, *back, *device; /* N each */
} t;

#define CHECK(what)                                                                                                                        \
    do {                                                                                                                                   \
        if (!(what)) {                                                                                                                     \
            fprintf(stderr, "%s:%d: not so: %s (last message: %s)\n", __FILE__, __LINE__, #what, status_message());                        \
            _exit(1);                                                                                                                      \
        }                                                                                                                                  \
    } while (0)
#define OK(call) CHECK((call) == ST_OK)

static struct device dev(void) { return t.be->dev; }

static void open_all(void)
{
    OK(backend_load("emu", &(struct backend_place){0, 1}, &t.be));
    OK(dev().stream_open(&t.a, 1));
    OK(dev().stream_open(&t.b, 1));
    t.a->name = "a";
    t.b->name = "b";
    OK(dev().event_open(&t.e));
    OK(dev().alloc(MEM_PINNED, BYTES, (void **)&t.pinned));
    OK(dev().alloc(MEM_PINNED, BYTES, (void **)&t.back));
    OK(dev().alloc(MEM_DEVICE, BYTES, (void **)&t.device));
}

static void close_all(void)
{
    dev().free(MEM_DEVICE, t.device, BYTES);
    dev().free(MEM_PINNED, t.back, BYTES);
    dev().free(MEM_PINNED, t.pinned, BYTES);
    dev().event_close(t.e);
    dev().stream_close(t.b);
    dev().stream_close(t.a);
}

/* ---- one case, one process ----------------------------------------------------------------------------------------------- */

static char said[8192]; /* what the last child printed on stderr */

/* Runs fn with "NAME=value" in the environment; its exit status, 128 + its signal. */
static int in_child(const char *const *env, void (*fn)(void))
{
    int ends[2], how;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        for (; env && *env; env++) putenv((char *)(uintptr_t)*env);
        dup2(ends[1], STDERR_FILENO);
        signal(SIGSEGV, SIG_DFL); /* cmocka's would go on with the tests */
        close(ends[0]);
        close(ends[1]);
        fn();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;) n += (size_t)got;
    said[n] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

static void holds(const char *const *env, void (*fn)(void))
{
    int code = in_child(env, fn);
    if (code) fail_msg("exit status %d: %s", code, said);
}

/* ---- copies -------------------------------------------------------------------------------------------------------------- */

static void round_trip(void)
{
    open_all();
    for (int i = 0; i < N; i++) t.pinned[i] = (float)i;
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    OK(dev().zero(t.a, t.device + 7, 3 * sizeof(float)));
    OK(dev().copy(t.a, t.back, t.device, BYTES));
    OK(dev().copy(t.a, t.back, t.device, 0));
    OK(dev().sync(t.a, "round trip"));
    for (int i = 0; i < N; i++) CHECK(t.back[i] == (i >= 7 && i < 10 ? 0.0f : (float)i));
    close_all();
}

static void copies_arrive(void **state)
{
    (void)state;
    holds(NULL, round_trip);
}

/* A copy reads its source when it runs: between being queued and being waited for, at any time. Exit status 10 + what it read. */
static void source_changes(void)
{
    open_all();
    t.pinned[0] = 1;
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    t.pinned[0] = 2;
    OK(dev().copy(t.a, t.back, t.device, BYTES));
    OK(dev().sync(t.b, "another stream"));
    t.pinned[0] = 3;
    OK(dev().sync(t.a, "copy"));
    _exit(10 + (int)t.back[0]);
}

static void copies_read_when_they_run(void **state)
{
    (void)state;
    assert_int_equal(in_child((const char *const[]){"TRIMPOT_EMU_ORDER=last", NULL}, source_changes), 13);
    assert_int_equal(in_child((const char *const[]){"TRIMPOT_EMU_ORDER=first", NULL}, source_changes), 11);
    int seen = 0;
    for (int seed = 0; seed < 60; seed++) {
        char name[40];
        snprintf(name, sizeof name, "TRIMPOT_EMU_SEED=%d", seed);
        int code = in_child((const char *const[]){name, NULL}, source_changes);
        assert_in_range(code, 11, 13);
        seen |= 1 << (code - 11);
    }
    assert_int_equal(seen, 7);
}

/* ---- order --------------------------------------------------------------------------------------------------------------- */

static char happened[64]; /* by calls of the host, which the emulated driver makes one at a time */
static int n_happened;

static status note(void *arg)
{
    happened[n_happened++] = *(const char *)arg;
    return ST_OK;
}

#define NOTE(stream, letter) OK(dev().host_call(stream, note, (void *)(uintptr_t)(letter)))

/* Which order these two streams' calls came in: exit status 10 ("abxy"), and 11 and on. */
static void two_streams(bool event)
{
    static const char *const ORDERS[] = {"abxy", "axby", "axyb", "xaby", "xayb", "xyab"};
    open_all();
    NOTE(t.a, "a");
    NOTE(t.a, "b");
    if (event) OK(dev().event_record(t.e, t.a));
    if (event) OK(dev().event_wait(t.e, t.b, "after b"));
    NOTE(t.b, "x");
    NOTE(t.b, "y");
    OK(dev().sync(t.b, "b"));
    OK(dev().sync(t.a, "a"));
    for (int i = 0; i < 6; i++)
        if (!strcmp(happened, ORDERS[i])) _exit(10 + i);
    CHECK(!"an order in which no stream is in order");
}

static void unordered(void) { two_streams(false); }
static void ordered(void) { two_streams(true); }

static void only_events_order_streams(void **state)
{
    (void)state;
    int seen = 0;
    for (int seed = 0; seed < 60; seed++) {
        char name[40];
        snprintf(name, sizeof name, "TRIMPOT_EMU_SEED=%d", seed);
        const char *env[] = {name, NULL};
        int code = in_child(env, unordered);
        assert_in_range(code, 10, 15);
        seen |= 1 << (code - 10);
        if (seed < 12) assert_int_equal(in_child(env, ordered), 10);
    }
    assert_int_equal(seen, 63);
    assert_int_equal(in_child((const char *const[]){"TRIMPOT_EMU_ORDER=last", NULL}, unordered), 15); /* b is waited for first */
    assert_int_equal(in_child((const char *const[]){"TRIMPOT_EMU_ORDER=first", NULL}, unordered), 10);
}

static void only_what_is_needed(void)
{
    open_all();
    NOTE(t.a, "a");
    OK(dev().event_record(t.e, t.a));
    NOTE(t.a, "b");
    OK(dev().event_wait(t.e, t.b, "after a"));
    NOTE(t.b, "x");
    OK(dev().sync(t.b, "b"));
    CHECK(!strcmp(happened, "ax"));
    OK(dev().sync(t.a, "a"));
    CHECK(!strcmp(happened, "axb"));
    close_all();
}

static void the_rest_stays_pending(void **state)
{
    (void)state;
    holds((const char *const[]){"TRIMPOT_EMU_ORDER=last", NULL}, only_what_is_needed);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

static void events(void)
{
    open_all();
    CHECK(dev().event_done(t.e)); /* never recorded */
    OK(dev().event_sync(t.e, "never recorded"));
    OK(dev().event_wait(t.e, t.a, "never recorded"));
    NOTE(t.a, "a");
    OK(dev().event_record(t.e, t.a));
    OK(dev().event_wait(t.e, t.b, "the first record"));
    NOTE(t.b, "x");
    NOTE(t.a, "b");
    OK(dev().event_record(t.e, t.a)); /* what waits for the first one does not wait for this */
    OK(dev().sync(t.b, "b"));
    CHECK(!strcmp(happened, "ax"));
    CHECK(!dev().event_done(t.e) || strlen(happened) == 3);
    int asked = 0;
    while (!dev().event_done(t.e)) CHECK(++asked < 1000);
    CHECK(!strcmp(happened, "axb"));
    close_all();
}

static void events_are_what_backend_h_says(void **state)
{
    (void)state;
    holds((const char *const[]){"TRIMPOT_EMU_ORDER=last", NULL}, events);
}

/* ---- calls of the host --------------------------------------------------------------------------------------------------- */

static status fails(void *arg) { FAIL(ST_IO, "%s", (const char *)arg); }

static void says(status expected, const char *words, status st)
{
    if (st == expected && strstr(status_message(), words)) return;
    fprintf(stderr, "status %d, not %d, or no '%s' in: %s\n", (int)st, (int)expected, words, status_message());
    _exit(1);
}

static void failing_calls(void)
{
    open_all();
    NOTE(t.a, "a");
    OK(dev().host_call(t.a, fails, (void *)(uintptr_t) "the disk is full"));
    OK(dev().host_call(t.a, fails, (void *)(uintptr_t) "the second failure"));
    NOTE(t.a, "b"); /* not made: what it stands behind has failed */
    says(ST_IO, "the disk is full", dev().sync(t.a, "calls"));
    CHECK(!strcmp(happened, "a"));
    NOTE(t.a, "c"); /* told, and over */
    OK(dev().sync(t.a, "calls"));
    CHECK(!strcmp(happened, "ac"));
    OK(dev().host_call(t.a, fails, (void *)(uintptr_t) "the cable is out"));
    OK(dev().event_record(t.e, t.a));
    OK(dev().sync(t.b, "another stream is well"));
    says(ST_IO, "the cable is out", dev().event_sync(t.e, "event"));
    OK(dev().event_sync(t.e, "event"));
    OK(dev().sync(t.a, "calls"));
    close_all();
}

static pthread_t caller;
static status where(void *arg)
{
    (void)arg;
    if (pthread_equal(pthread_self(), caller)) return status_fail(ST_FAIL, "a call was made on the thread that waits");
    if (!dev().event_sync(t.e, "inside")) return status_fail(ST_FAIL, "a call of the host may call the device");
    return ST_OK;
}

static void calls_have_a_thread(void)
{
    open_all();
    caller = pthread_self();
    OK(dev().host_call(t.a, where, NULL));
    OK(dev().sync(t.a, "calls"));
    close_all();
}

static void calls_fail_at_the_next_sync(void **state)
{
    (void)state;
    holds(NULL, failing_calls);
    holds(NULL, calls_have_a_thread);
}

/* ---- graphs -------------------------------------------------------------------------------------------------------------- */

/* a, then b on this stream and x, y on another, then c. */
static struct graph *fork_and_join(void)
{
    struct graph *g;
    struct event *back;
    OK(dev().event_open(&back));
    OK(dev().graph_begin(t.a));
    NOTE(t.a, "a");
    OK(dev().event_record(t.e, t.a));
    OK(dev().event_wait(t.e, t.b, "fork"));
    NOTE(t.a, "b");
    NOTE(t.b, "x");
    NOTE(t.b, "y");
    OK(dev().event_record(back, t.b));
    OK(dev().event_wait(back, t.a, "join"));
    NOTE(t.a, "c");
    OK(dev().graph_end(t.a, &g));
    OK(dev().sync(t.b, "nothing ran"));
    OK(dev().sync(t.a, "nothing ran"));
    CHECK(!n_happened);
    dev().event_close(back);
    return g;
}

/* Exit status 10 and on: the order of the second of three launches. */
static void graph_replays(void)
{
    static const char *const ORDERS[] = {"abxyc", "axbyc", "axybc"};
    open_all();
    struct graph *g = fork_and_join();
    for (int i = 0; i < 3; i++) OK(dev().graph_launch(g, t.a));
    OK(dev().sync(t.a, "launches"));
    CHECK(strlen(happened) == 15);
    dev().graph_close(g);
    close_all();
    for (int i = 0; i < 3; i++)
        if (!strncmp(happened + 5, ORDERS[i], 5)) _exit(10 + i);
    CHECK(!"an order that the graph does not allow");
}

/* The arguments are those of then, what they point to is what is there now. */
static void graph_moves_data(void)
{
    struct graph *g;
    open_all();
    OK(dev().graph_begin(t.a));
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    OK(t.be->ops.soft_cap(t.a, &(struct soft_cap_args){tensor_2d(t.device, DT_F32, 1, N), 1e9f}));
    OK(dev().copy(t.a, t.back, t.device, BYTES));
    OK(dev().graph_end(t.a, &g));
    for (int round = 1; round < 4; round++) {
        t.pinned[5] = (float)round;
        OK(dev().graph_launch(g, t.a));
        OK(dev().sync(t.a, "round"));
        CHECK(t.back[5] == (float)round);
    }
    dev().graph_close(g);
    close_all();
}

static void graph_refuses(void)
{
    struct graph *g;
    open_all();
    OK(dev().graph_begin(t.a));
    says(ST_DEVICE, "cudaErrorStreamCaptureUnsupported", dev().sync(t.a, "in a graph"));
    says(ST_DEVICE, "cudaErrorStreamCaptureInvalidated", dev().graph_end(t.a, &g));
    CHECK(!g);
    void *more;
    OK(dev().graph_begin(t.a)); /* the same for what allocates */
    says(ST_DEVICE, "cudaErrorStreamCaptureUnsupported", dev().alloc(MEM_DEVICE, 64, &more));
    says(ST_DEVICE, "cudaErrorStreamCaptureInvalidated", dev().graph_end(t.a, &g));
    OK(dev().graph_begin(t.a)); /* a branch that does not come back */
    OK(dev().event_record(t.e, t.a));
    OK(dev().event_wait(t.e, t.b, "fork"));
    NOTE(t.b, "x");
    says(ST_DEVICE, "cudaErrorStreamCaptureUnjoined", dev().graph_end(t.a, &g));
    NOTE(t.b, "y"); /* and both are streams again */
    OK(dev().event_record(t.e, t.b));
    OK(dev().graph_begin(t.a));
    says(ST_DEVICE, "cudaErrorStreamCaptureIsolation", dev().event_wait(t.e, t.a, "of outside"));
    OK(dev().graph_end(t.a, &g));
    dev().graph_close(g);
    OK(dev().sync(t.b, "b"));
    CHECK(!strcmp(happened, "y"));
    close_all();
}

static void graph_faults(void)
{
    open_all();
    struct graph *g = fork_and_join(); /* five pieces; a launch is the sixth */
    OK(dev().graph_launch(g, t.a));
    OK(dev().sync(t.a, "first"));
    OK(dev().graph_launch(g, t.a));
    says(ST_DEVICE, "second: ", dev().sync(t.a, "second"));
    dev().graph_close(g);
    close_all();
}

static void graphs_are_kept_and_replayed(void **state)
{
    (void)state;
    int seen = 0;
    for (int seed = 0; seed < 40; seed++) {
        char name[40];
        snprintf(name, sizeof name, "TRIMPOT_EMU_SEED=%d", seed);
        int code = in_child((const char *const[]){name, NULL}, graph_replays);
        if (code < 10 || code > 12) fail_msg("exit status %d: %s", code, said);
        seen |= 1 << (code - 10);
    }
    assert_int_equal(seen, 7);
    holds(NULL, graph_moves_data);
    holds(NULL, graph_refuses);
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=stream:7", NULL}, graph_faults);
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static void outside(void)
{
    open_all();
    says(ST_DEVICE, "cudaErrorInvalidValue", dev().copy(t.a, t.device, t.pinned + 1, BYTES));
    says(ST_DEVICE, "cudaErrorInvalidValue", dev().zero(t.a, t.device + N, 4));
    float heap[N];
    says(ST_DEVICE, "cudaErrorInvalidValue", dev().copy(t.a, t.device, heap, BYTES));
    dev().free(MEM_DEVICE, t.device, BYTES);
    says(ST_DEVICE, "cudaErrorInvalidValue", dev().zero(t.a, t.device, 4));
    OK(dev().sync(t.a, "none of it was queued"));
}

static void fresh(void)
{
    void *p;
    open_all();
    OK(dev().copy(t.a, t.back, t.device, BYTES));
    OK(dev().sync(t.a, "copy"));
    for (int i = 0; i < N; i++) CHECK(t.back[i] != t.back[i]);
    OK(dev().alloc(MEM_DEVICE, 0, &p));
    CHECK(p && (uintptr_t)p % 64 == 0);
    dev().free(MEM_DEVICE, p, 0);
    size_t before, after, all;
    OK(dev().mem_info(MEM_DEVICE, &before, &all));
    OK(dev().alloc(MEM_DEVICE, 1 << 20, &p));
    OK(dev().mem_info(MEM_DEVICE, &after, &all));
    CHECK(before - after == 1 << 20);
    dev().free(MEM_DEVICE, p, 1 << 20);
    OK(dev().mem_info(MEM_DEVICE, &after, &all));
    CHECK(before == after);
    close_all();
}

/* So low a cap that it changes the bytes of a guard, as a number. */
static void cap(float *z, int64_t n) { OK(t.be->ops.soft_cap(t.a, &(struct soft_cap_args){tensor_2d(z, DT_F32, 1, n), 1e-30f})); }

static void host_reads_device(void)
{
    open_all();
    fprintf(stderr, "%g", (double)t.device[3]);
}

static void kernel_runs_over(void) /* into the page behind */
{
    open_all();
    cap(t.device, N + 1);
    (void)dev().sync(t.a, "kernel");
}

static void kernel_runs_over_a_little(void) /* into the alignment of an odd size */
{
    float *odd;
    open_all();
    OK(dev().alloc(MEM_DEVICE, 20, (void **)&odd));
    OK(dev().zero(t.a, odd, 20));
    cap(odd, 5);
    OK(dev().sync(t.a, "within"));
    cap(odd, 6);
    says(ST_DEVICE, "behind the kernel: the GPU's work on stream a failed", dev().sync(t.a, "behind the kernel"));
}

static void kernel_uses_freed(void)
{
    open_all();
    dev().free(MEM_DEVICE, t.device, BYTES);
    cap(t.device, N);
    (void)dev().sync(t.a, "kernel");
}

/* A pointer that is an argument by itself. (In one that is a struct it is a word like others, until the kernel uses it.) */
static void kernel_is_given_pinned(void)
{
    open_all();
    says(ST_DEVICE, "init", t.be->ops.init(t.a, &(struct init_args){.w = tensor_1d(t.pinned, DT_F32, N), .bound = 1}));
}

/* From the middle of a tensor that begins in device memory. */
static void kernel_reads_pinned(void)
{
    open_all();
    struct soft_cap_args a = {tensor_2d(t.device, DT_F32, 2, N), 30.0f};
    a.z.ld = t.pinned - t.device;
    OK(t.be->ops.soft_cap(t.a, &a));
    (void)dev().sync(t.a, "kernel");
}

static void kernel_is_given_stack(void)
{
    float local[N];
    open_all();
    says(ST_DEVICE, "init", t.be->ops.init(t.a, &(struct init_args){.w = tensor_1d(local, DT_F32, N), .bound = 1}));
}

static void dies(void (*fn)(void), const char *words)
{
    assert_int_not_equal(in_child(NULL, fn), 0);
    if (!strstr(said, words)) fail_msg("no '%s' in: %s", words, said);
}

static void memory_is_guarded(void **state)
{
    (void)state;
    holds(NULL, fresh);
    holds(NULL, outside);
    assert_non_null(strstr(said, "the source of a copy (4096 bytes) reaches 0 bytes past the end of pinned allocation 1 (4096 bytes)"));
    assert_non_null(strstr(said, "the source of a copy (4096 bytes) is 0x"));
    assert_non_null(strstr(said, "the target of a memset (4 bytes) is byte 0 of device allocation 3 (4096 bytes, freed)"));
    dies(host_reads_device, "'the host' touched byte 12 of device allocation 3 (4096 bytes)");
    dies(kernel_runs_over, "touched 0 bytes past the end of device allocation 3 (4096 bytes)");
    dies(kernel_uses_freed, "byte 0 of device allocation 3 (4096 bytes, freed)");
    holds(NULL, kernel_runs_over_a_little);
    assert_non_null(strstr(said, "0 bytes past the end of device allocation 4 (20 bytes)"));
    holds(NULL, kernel_is_given_pinned);
    dies(kernel_reads_pinned, "touched byte 0 of pinned allocation 1 (4096 bytes)");
    holds(NULL, kernel_is_given_stack);
}

/* ---- failures ------------------------------------------------------------------------------------------------------------ */

static void alloc_fails(void)
{
    void *p;
    open_all();
    says(ST_OOM, "cannot allocate 1.00 kB of GPU memory: ", dev().alloc(MEM_DEVICE, 1000, &p));
    CHECK(!p);
    OK(dev().alloc(MEM_DEVICE, 1000, &p)); /* it is not sticky */
    dev().free(MEM_DEVICE, p, 1000);
    close_all();
}

static void pinned_fails(void)
{
    void *p;
    open_all();
    says(ST_OOM, "of pinned host memory", dev().alloc(MEM_PINNED, 1000, &p));
    close_all();
}

static void device_is_full(void)
{
    void *p;
    open_all();
    says(ST_OOM, "of GPU memory", dev().alloc(MEM_DEVICE, 2 << 20, &p));
    close_all();
}

/* As when another process has the memory of the GPU. */
static void no_room_at_all(void) { says(ST_OOM, "no room for this process", backend_load("emu", &(struct backend_place){0, 1}, &t.be)); }

static void launch_fails(void)
{
    open_all();
    struct soft_cap_args a = {tensor_2d(t.device, DT_F32, 1, N), 30.0f};
    OK(t.be->ops.soft_cap(t.a, &a));
    says(ST_DEVICE, "soft_cap", t.be->ops.soft_cap(t.a, &a));
    OK(t.be->ops.soft_cap(t.a, &a));
    OK(dev().sync(t.a, "the launch that failed is not the sync's business"));
    close_all();
}

static void copy_fails(void)
{
    open_all();
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    says(ST_DEVICE, "queueing a copy", dev().copy(t.a, t.device, t.pinned, BYTES));
    OK(dev().sync(t.a, "copy"));
    close_all();
}

static void host_fails(void)
{
    open_all();
    NOTE(t.a, "a");
    says(ST_OOM, "queueing a call of the host", dev().host_call(t.a, note, (void *)(uintptr_t) "b"));
    NOTE(t.a, "c");
    OK(dev().sync(t.a, "calls"));
    CHECK(!strcmp(happened, "ac"));
    close_all();
}

/* A fault of the device stays: it is told by the next that waits, with its label, and by everything after. */
static void stream_faults(void)
{
    void *p;
    open_all();
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    OK(dev().copy(t.a, t.device, t.pinned, BYTES));
    NOTE(t.a, "a");
    OK(dev().event_record(t.e, t.a));
    says(ST_DEVICE, "step 3: the GPU's work on stream a failed, at this point or earlier: cudaErrorIllegalAddress",
         dev().sync(t.a, "step 3"));
    CHECK(strstr(status_message(), "(GPU 0, emulated GPU)"));
    CHECK(!n_happened);
    says(ST_DEVICE, "step 4: ", dev().sync(t.b, "step 4"));
    says(ST_DEVICE, "step 4: ", dev().event_sync(t.e, "step 4"));
    CHECK(dev().event_done(t.e));
    says(ST_DEVICE, "queueing a copy: cudaErrorIllegalAddress", dev().copy(t.a, t.device, t.pinned, BYTES));
    says(ST_DEVICE, "cudaErrorIllegalAddress", dev().alloc(MEM_DEVICE, 100, &p));
    close_all();
}

static void failures_are_told_once_and_where_they_belong(void **state)
{
    (void)state;
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=alloc:2", NULL}, alloc_fails);
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=pinned:3", NULL}, pinned_fails);
    holds((const char *const[]){"TRIMPOT_EMU_MEMORY=513M", NULL}, device_is_full);
    holds((const char *const[]){"TRIMPOT_EMU_MEMORY=511M", NULL}, no_room_at_all);
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=launch:2", NULL}, launch_fails);
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=copy:2", NULL}, copy_fails);
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=copy:7,host:2", NULL}, host_fails);
    holds((const char *const[]){"TRIMPOT_EMU_FAIL=stream:2", NULL}, stream_faults);
}

/* ---- which GPU ----------------------------------------------------------------------------------------------------------- */

static struct backend_place place;
static const char *words;

static void refused(void)
{
    says(ST_DEVICE, words, backend_load("emu", &place, &t.be));
    CHECK(strstr(status_message(), "device: emu: ") && strstr(status_message(), "device=cpu"));
}

static void refuses(const char *env, int local_rank, int local_size, const char *expected)
{
    place = (struct backend_place){local_rank, local_size};
    words = expected;
    holds((const char *const[]){env, NULL}, refused);
}

static void a_gpu_that_does_not_serve_is_refused(void **state)
{
    (void)state;
    refuses("TRIMPOT_EMU_DRIVER=0", 0, 1, "there is no NVIDIA driver here; one of release 580 or newer is needed (CUDA 13.0)");
    refuses("TRIMPOT_EMU_DRIVER=12040", 0, 1, "CUDA 12.4");
    refuses("TRIMPOT_EMU_DEVICES=0", 0, 1, "the driver shows no GPU; ");
    refuses("CUDA_VISIBLE_DEVICES=", 0, 1, "shows no GPU (CUDA_VISIBLE_DEVICES is '')");
    refuses("TRIMPOT_EMU_DEVICES=3", 1, 4, "4 ranks on this host, but 3 GPUs are visible");
    refuses("CUDA_VISIBLE_DEVICES=4,5", 1, 4, "4 ranks on this host, but 2 GPUs are visible (CUDA_VISIBLE_DEVICES is '4,5')");
    refuses("TRIMPOT_EMU_SM=75", 0, 1, "emulated GPU has compute capability 7.5; 8.0 or newer is needed");
}

/* A thread that has not been here before works on this rank's GPU too. */
static void *other_thread(void *arg)
{
    (void)arg;
    void *p;
    OK(dev().alloc(MEM_DEVICE, 100, &p));
    OK(dev().zero(t.a, p, 100));
    OK(dev().sync(t.a, "other thread"));
    dev().free(MEM_DEVICE, p, 100);
    return NULL;
}

/* Copies there and back, on a stream of its own. */
static void *works_alone(void *arg)
{
    struct stream *s;
    struct event *e;
    float *pinned, *device;
    OK(dev().stream_open(&s, 1));
    OK(dev().event_open(&e));
    OK(dev().alloc(MEM_PINNED, 2 * BYTES, (void **)&pinned));
    OK(dev().alloc(MEM_DEVICE, BYTES, (void **)&device));
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < N; i++) pinned[i] = (float)(*(const int *)arg + round + i);
        OK(dev().copy(s, device, pinned, BYTES));
        OK(dev().copy(s, pinned + N, device, BYTES));
        OK(dev().event_record(e, s));
        if (round % 3)
            OK(dev().event_sync(e, "round"));
        else
            while (!dev().event_done(e)) sched_yield();
        for (int i = 0; i < N; i++) CHECK(pinned[N + i] == pinned[i]);
    }
    dev().free(MEM_DEVICE, device, BYTES);
    dev().free(MEM_PINNED, pinned, 2 * BYTES);
    dev().event_close(e);
    dev().stream_close(s);
    return NULL;
}

static void threads_side_by_side(void)
{
    pthread_t id[3];
    int number[3] = {1000, 2000, 3000};
    OK(backend_load("emu", &(struct backend_place){0, 1}, &t.be));
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&id[i], NULL, works_alone, &number[i]));
    for (int i = 0; i < 3; i++) CHECK(!pthread_join(id[i], NULL));
}

static void third_of_four(void)
{
    pthread_t id;
    OK(backend_load("emu", &(struct backend_place){2, 4}, &t.be));
    OK(dev().stream_open(&t.a, 1));
    CHECK(!pthread_create(&id, NULL, other_thread, NULL));
    CHECK(!pthread_join(id, NULL));
    dev().stream_close(t.a);
}

static void described(void)
{
    open_all();
    fprintf(stderr, "%s", t.be->describe());
}

static void only_one(void) { OK(backend_load("emu", &(struct backend_place){0, 2}, &t.be)); }

static void each_rank_has_its_own(void **state)
{
    (void)state;
    holds(NULL, third_of_four);
    holds(NULL, threads_side_by_side);
    holds((const char *const[]){"TRIMPOT_EMU_SM=86", NULL}, described);
    assert_ptr_equal(strstr(said, "emu: emulated GPU, sm_86, driver CUDA 13.0, "), said);
    holds((const char *const[]){"TRIMPOT_EMU_SM=120", NULL}, described);
    assert_ptr_equal(strstr(said, "emu: emulated GPU, sm_120 running through JIT, driver CUDA 13.0, "), said);
    holds((const char *const[]){"CUDA_VISIBLE_DEVICES=3", NULL}, only_one);
    assert_non_null(strstr(said, "each of the 2 ranks of this host sees one GPU (CUDA_VISIBLE_DEVICES is '3')"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_arrive),
        cmocka_unit_test(copies_read_when_they_run),
        cmocka_unit_test(only_events_order_streams),
        cmocka_unit_test(the_rest_stays_pending),
        cmocka_unit_test(events_are_what_backend_h_says),
        cmocka_unit_test(calls_fail_at_the_next_sync),
        cmocka_unit_test(graphs_are_kept_and_replayed),
        cmocka_unit_test(memory_is_guarded),
        cmocka_unit_test(failures_are_told_once_and_where_they_belong),
        cmocka_unit_test(a_gpu_that_does_not_serve_is_refused),
        cmocka_unit_test(each_rank_has_its_own),
    };
    if (!backend_built("emu")) return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
