/* The team: everything is done once, by threads that are told apart; who waits sleeps; odd callers are served too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/team.h"

enum { MOST = 5000 };

struct tally {
    _Atomic int done[MOST], by[8], bad_ranks;
    int threads;
};

static void count(const void *arg, int64_t i)
{
    struct tally *t = (struct tally *)(uintptr_t)arg;
    int rank = team_rank();
    atomic_fetch_add(&t->done[i], 1);
    if (rank < 0 || rank >= t->threads)
        atomic_fetch_add(&t->bad_ranks, 1);
    else
        atomic_fetch_add(&t->by[rank], 1);
}

typedef void call_fn(int threads, int64_t n, team_fn *fn, const void *arg);

static void each_once(void **state)
{
    (void)state;
    static call_fn *const calls[] = {team_for, team_each};
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 8, 63, 100, 1023, MOST};
    static struct tally t;
    for (int c = 0; c < 2; c++)
        for (int threads = 0; threads <= 8; threads++)
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
                memset(&t, 0, sizeof t);
                t.threads = threads > 1 ? threads : 1;
                calls[c](threads, sizes[k], count, &t);
                for (int64_t i = 0; i < MOST; i++) assert_int_equal(t.done[i], i < sizes[k]);
                assert_int_equal(t.bad_ranks, 0);
                assert_int_equal(team_rank(), 0);
            }
}

/* Two units that each wait for the other to begin are run by two threads, whose ranks differ. */
struct meeting {
    _Atomic int arrived, ranks;
};

static void meet(const void *arg, int64_t i)
{
    (void)i;
    struct meeting *m = (struct meeting *)(uintptr_t)arg;
    atomic_fetch_add(&m->arrived, 1);
    atomic_fetch_or(&m->ranks, 1 << team_rank());
    while (atomic_load(&m->arrived) < 3) sched_yield();
}

static void threads_are_side_by_side(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct meeting m = {0};
        team_each(3, 3, meet, &m);
        assert_int_equal(m.ranks, 7);
    }
}

static void inner(const void *arg, int64_t i)
{
    assert_int_equal(team_rank(), 0);
    ((int *)(uintptr_t)arg)[i]++;
}

static void outer(const void *arg, int64_t i)
{
    (void)arg;
    int done[50] = {0}, rank = team_rank();
    team_for(4, 50, inner, done);
    for (int k = 0; k < 50; k++) assert_int_equal(done[k], 1);
    assert_int_equal(team_rank(), rank);
    (void)i;
}

static void a_call_inside_a_call(void **state)
{
    (void)state;
    team_for(4, 100, outer, NULL);
}

static void *calls_too(void *arg)
{
    (void)arg;
    struct tally *t = calloc(1, sizeof *t);
    t->threads = 4;
    for (int round = 0; round < 300; round++) team_for(4, 1000, count, t);
    for (int i = 0; i < 1000; i++) assert_int_equal(t->done[i], 300);
    assert_int_equal(t->bad_ranks, 0);
    free(t);
    return NULL;
}

static void two_callers(void **state)
{
    (void)state;
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, calls_too, NULL), 0);
    calls_too(NULL);
    pthread_join(other, NULL);
}

static void after_a_fork(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it ends a process that starts threads after such a fork */
#endif
    struct meeting m = {0};
    team_each(3, 3, meet, &m);
    pid_t child = fork();
    if (!child) {
        struct meeting again = {0};
        team_each(3, 3, meet, &again); /* needs threads of its own */
        _exit(again.ranks == 7 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* ---- who waits sleeps --------------------------------------------------------------------------------------------- */

/* Seen from another thread: does thread `id` of this process sleep? Looks for ten seconds. */
static bool falls_asleep(pid_t id)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)id);
    for (int look = 0; look < 10000; look++) {
        FILE *f = fopen(path, "r");
        if (!f) return false;
        char *got = fgets(line, sizeof line, f), *end = got ? strrchr(line, ')') : NULL;
        fclose(f);
        if (end && end[2] == 'S') return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

struct long_unit {
    pid_t caller;
    _Atomic pid_t helper;
    _Atomic int begun, slept;
};

static void one_is_long(const void *arg, int64_t i)
{
    (void)i;
    struct long_unit *u = (struct long_unit *)(uintptr_t)arg;
    atomic_fetch_add(&u->begun, 1);
    while (atomic_load(&u->begun) < 2) sched_yield();
    if (gettid() == u->caller) return;
    u->helper = gettid();
    u->slept = falls_asleep(u->caller);
}

/* A thread that waits without sleeping takes the core that the one it waits for could run on. */
static void who_waits_sleeps(void **state)
{
    (void)state;
    struct long_unit u = {.caller = gettid()};
    team_each(2, 2, one_is_long, &u);
    assert_true(u.slept);
    assert_true(falls_asleep(u.helper));
    struct meeting m = {0};
    team_each(3, 3, meet, &m); /* and sleepers come when they are called */
    assert_int_equal(m.ranks, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_once),
        cmocka_unit_test(threads_are_side_by_side),
        cmocka_unit_test(a_call_inside_a_call),
        cmocka_unit_test(two_callers),
        cmocka_unit_test(after_a_fork),
        cmocka_unit_test(who_waits_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
