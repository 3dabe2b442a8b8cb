/* The emulated device under the device table (kernels/backend.h): orders that events allow happen and no others, memory is guarded,
 * failures arrive where they must, with one message. Every case is a process of its own: a device is opened once, and some die. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_arrive),
    };
    if (!backend_built("emu")) return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
