/* team.c — the team's helpers sleep in a list of their own; a call is a door that they pass while it is open.
 *
 *      door = threads << 16 | OPEN | helpers inside
 *
 *      caller   job, ranges │ door = OPEN │ calls++  │ works        │ OPEN off │ waits: none inside │ returns
 *      helper               │             │ awakes → │ inside + 1 ──┼ works ── inside − 1          │ waits for calls
 *
 * Only who is inside reads the job, and the caller changes it only while the door is shut and none is inside. */
#include "kernels/base/team.h"

#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/base/thread.h"

enum {
    OPEN = 1 << 15,
    INSIDE = OPEN - 1,
    THREADS_SHIFT = 16,
    PARTS = 8, /* a thread's range is taken in so many pieces */
};

struct range {
    alignas(64) _Atomic int64_t next;
    int64_t end;
};

static struct {
    pthread_mutex_t caller; /* who has the team */
    alignas(64) struct team_word calls;
    alignas(64) struct team_word door;
    int helpers; /* threads there are beside the caller; its lock's */
    team_fn *fn;
    const void *arg;
    int ranges;
    int64_t step;
    struct range range[TEAM_MAX];
} team = {.caller = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int rank;
static _Thread_local bool inside;

int team_rank(void) { return rank; }
int team_size(void) { return omp_get_max_threads(); }

/* ---- waiting ------------------------------------------------------------------------------------------------------ */

/* Looks before the core is offered to others, and before the thread sleeps: about 2 and 300 µs where nobody takes it. */
enum { LOOKS = 50, OFFERS = 600 };

static inline void breathe(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

uint32_t team_wait(struct team_word *word, uint32_t old)
{
    uint32_t now;
    for (int look = 0; look < LOOKS + OFFERS; look++) {
        if ((now = atomic_load_explicit(&word->value, memory_order_acquire)) != old) return now;
        if (look < LOOKS)
            breathe();
        else
            sched_yield();
    }
    atomic_fetch_add(&word->asleep, 1);
    while ((now = atomic_load(&word->value)) == old) syscall(SYS_futex, &word->value, FUTEX_WAIT, old, NULL, NULL, 0);
    atomic_fetch_sub(&word->asleep, 1);
    return now;
}

void team_changed(struct team_word *word)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&word->asleep)) syscall(SYS_futex, &word->value, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ---- work --------------------------------------------------------------------------------------------------------- */

static void take(struct range *r)
{
    int64_t at;
    while ((at = atomic_fetch_add_explicit(&r->next, team.step, memory_order_relaxed)) < r->end)
        for (int64_t i = at; i < at + team.step && i < r->end; i++) team.fn(team.arg, i);
}

static void work(int me)
{
    rank = me;
    inside = true;
    for (int k = 0; k < team.ranges; k++) take(&team.range[(me + k) % team.ranges]);
    inside = false;
    rank = 0;
}

static bool enter(int me)
{
    uint32_t door = atomic_load_explicit(&team.door.value, memory_order_relaxed);
    while (door & OPEN && me < (int)(door >> THREADS_SHIFT))
        if (atomic_compare_exchange_weak_explicit(&team.door.value, &door, door + 1, memory_order_acq_rel, memory_order_relaxed))
            return true;
    return false;
}

static void *help(void *arg)
{
    int me = (int)(ptrdiff_t)arg;
    for (uint32_t calls = 0;;) {
        calls = team_wait(&team.calls, calls);
        if (!enter(me)) continue;
        work(me);
        atomic_fetch_sub_explicit(&team.door.value, 1, memory_order_acq_rel);
        team_changed(&team.door);
    }
    return NULL;
}

static void forked(void) { team.helpers = 0; } /* they are the other process's */

/* Where no more threads are to be had, fewer do the same. */
static void hire(int threads)
{
    static bool known;
    if (!known) pthread_atfork(NULL, NULL, forked);
    known = true;
    for (pthread_t thread; team.helpers + 1 < threads; team.helpers++) {
        if (!thread_start_computing(&thread, help, (void *)(ptrdiff_t)(team.helpers + 1))) return;
        pthread_detach(thread);
    }
}

static void alone(int64_t n, team_fn *fn, const void *arg)
{
    int before = rank;
    rank = 0;
    for (int64_t i = 0; i < n; i++) fn(arg, i);
    rank = before;
}

static void run(int threads, int ranges, int64_t step, int64_t n, team_fn *fn, const void *arg)
{
    hire(threads);
    team.fn = fn;
    team.arg = arg;
    team.ranges = ranges;
    team.step = step;
    for (int i = 0; i < ranges; i++) {
        atomic_store_explicit(&team.range[i].next, n / ranges * i + (i < n % ranges ? i : n % ranges), memory_order_relaxed);
        team.range[i].end = n / ranges * (i + 1) + (i + 1 < n % ranges ? i + 1 : n % ranges);
    }
    atomic_store_explicit(&team.door.value, (uint32_t)threads << THREADS_SHIFT | OPEN, memory_order_release);
    atomic_fetch_add(&team.calls.value, 1);
    team_changed(&team.calls);
    work(0);
    uint32_t door = atomic_fetch_and(&team.door.value, ~(uint32_t)OPEN) & ~(uint32_t)OPEN;
    while (door & INSIDE) door = team_wait(&team.door, door);
}

static void share(int threads, int ranges, int64_t step, int64_t n, team_fn *fn, const void *arg)
{
    if (threads < 2 || n < 2 || inside || pthread_mutex_trylock(&team.caller)) {
        alone(n, fn, arg);
        return;
    }
    run(threads, ranges, step, n, fn, arg);
    pthread_mutex_unlock(&team.caller);
}

static int at_most(int threads, int64_t n)
{
    if (threads > TEAM_MAX) threads = TEAM_MAX;
    return threads < n ? threads : (int)n;
}

void team_for(int threads, int64_t n, team_fn *fn, const void *arg)
{
    int most = at_most(threads, n);
    int64_t step = most > 0 ? n / most / PARTS : 1;
    share(most, most, step > 0 ? step : 1, n, fn, arg);
}

void team_each(int threads, int64_t n, team_fn *fn, const void *arg) { share(at_most(threads, n), 1, 1, n, fn, arg); }
