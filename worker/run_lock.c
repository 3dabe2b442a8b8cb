#include "worker/run_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/thread.h"
#include "worker/run_lock_file.h"
#include "worker/train.h"

struct run_lock {
    struct lock_file file;
    struct lock_record mine;
    bool held;   /* by this rank */
    size_t kept; /* bytes of the folder's path that were there before */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool ending; /* under mutex */
    atomic_bool lost;
    atomic_llong seen_ms; /* when the file was last seen to be ours */
};

static void pause_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

/* ---- holding ------------------------------------------------------------------------------------------------------------- */

/* Goes on while the machine sleeps. */
static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static bool silent_at(const struct run_lock *l, long long ms) { return ms - atomic_load(&l->seen_ms) > 1000LL * RUN_LOCK_FRESH_S; }

/* What a look at `ms` says of the lock; either thread. */
static void note(struct run_lock *l, enum lock_look found, long long ms, bool silent)
{
    if (found == LOCK_OURS) atomic_store(&l->seen_ms, ms);
    if (found == LOCK_OTHERS || (found == LOCK_ABSENT && silent)) atomic_store(&l->lost, true);
}

/* Allocates nothing: steps are made meanwhile. */
static void beat(struct run_lock *l, int64_t count)
{
    long long ms = now_ms();
    bool silent = silent_at(l, ms);
    enum lock_look found = lock_file_beat(&l->file, count);
    if (found == LOCK_ABSENT && !silent) found = lock_file_put_back(&l->file);
    note(l, found, ms, silent);
}

static void *beat_until_released(void *arg)
{
    struct run_lock *l = arg;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    pthread_mutex_lock(&l->mutex);
    for (int64_t count = 1; !l->ending && !atomic_load(&l->lost); count++) {
        at.tv_sec += RUN_LOCK_BEAT_S;
        while (!l->ending && pthread_cond_timedwait(&l->wake, &l->mutex, &at) != ETIMEDOUT) continue;
        if (l->ending) break;
        pthread_mutex_unlock(&l->mutex);
        beat(l, count);
        clock_gettime(CLOCK_MONOTONIC, &at);
        pthread_mutex_lock(&l->mutex);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static status start_beating(struct run_lock *l)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    l->held = thread_start(&l->thread, beat_until_released, l);
    if (!l->held) FAIL(ST_FAIL, "run.lock: no thread could be started: %s; raise the limit on processes (ulimit -u)", strerror(errno));
    return ST_OK;
}

static void stop_beating(struct run_lock *l)
{
    pthread_mutex_lock(&l->mutex);
    l->ending = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->mutex);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->mutex);
}

bool run_lock_lost(struct run_lock *l)
{
    if (!l->held) return false;
    long long ms = now_ms();
    if (!atomic_load(&l->lost) && silent_at(l, ms)) note(l, lock_file_look(&l->file), ms, true);
    return atomic_load(&l->lost);
}

status run_lock_check(struct run_lock *l)
{
    if (!l->held) return ST_OK;
    long long ms = now_ms();
    bool silent = silent_at(l, ms);
    enum lock_look found = lock_file_look(&l->file);
    int error = errno;
    note(l, found, ms, silent);
    if (!atomic_load(&l->lost)) {
        if (found != LOCK_UNREADABLE) return ST_OK;
        FAIL(ST_IO, "%s: cannot look whether %s is still this run's: %s", l->file.path, l->file.dir, strerror(error));
    }
    struct lock_sight other;
    struct buf name = {0};
    if (lock_file_read(&l->file, &other))
        buf_text(&name, "something that is no run has taken its lock's place");
    else if (other.absent)
        buf_text(&name, "its lock is gone after a silence of this run: another one may have been there since");
    else {
        buf_text(&name, "it was taken over by ");
        lock_record_name(&other.record, &name);
    }
    status st =
        status_fail(ST_USAGE, "output_dir: %s is no longer this run's: %s; this one ends and writes nothing more", l->file.dir, name.data);
    buf_release(&name);
    return st;
}

/* ---- taking -------------------------------------------------------------------------------------------------------------- */

struct taking {
    struct run_lock *l;
    unsigned (*requests)(void);
    struct lock_sight first; /* the lock that is being judged, as it was first seen … */
    struct lock_seen seen;
    double first_s; /* … and when, by our clock */
    bool said;
};

static double seconds_between(const struct timespec *from, const struct timespec *to)
{
    return difftime(to->tv_sec, from->tv_sec) + 1e-9 * (double)(to->tv_nsec - from->tv_nsec);
}

/* Everything the judgement needs to know of the lock that lies there now. */
static status observe(struct taking *t, const struct lock_sight *now)
{
    if (strcmp(now->record.nonce, t->first.record.nonce) != 0) {
        struct timespec clock;
        TRY(lock_file_now(&t->l->file, &clock));
        t->first = *now;
        t->first_s = clock_s();
        t->said = false;
        t->seen = (struct lock_seen){.age_s = seconds_between(&now->changed, &clock)};
    }
    t->seen.beats |= !lock_sight_equal(now, &t->first);
    t->seen.still_s = clock_s() - t->first_s;
    t->seen.lives = lock_process_lives(&now->record);
    return ST_OK;
}

/* "PATH is held by pid 7 on HOST, since …, last beat 3 s ago: why" */
static char *describe(const struct taking *t, const char *why)
{
    struct buf text = {0};
    double age_s = t->seen.age_s + t->seen.still_s;
    buf_printf(&text, "%s is held by ", t->l->file.path);
    lock_record_name(&t->first.record, &text);
    if (t->seen.beats)
        buf_text(&text, ", beating");
    else if (age_s <= -RUN_LOCK_FRESH_S)
        buf_printf(&text, ", last beat %.0f s in the future (the clocks of the hosts differ)", -age_s);
    else
        buf_printf(&text, ", last beat %.0f s ago", age_s > 0 ? age_s : 0.0);
    buf_printf(&text, ": %s", why);
    return text.data;
}

static status refuse(const struct taking *t, const struct lock_judgement *j)
{
    const struct run_lock *l = t->l;
    char *who = describe(t, j->why);
    bool sure = lock_same_host(&t->first.record, &l->mine);
    status st = status_fail(ST_USAGE, "output_dir: %s; one folder takes one run: stop it, wait for it, or choose another output_dir", who);
    if (!sure)
        st = status_fail(ST_USAGE, "%s; if that process is certainly gone, start again in %d s, or remove %s", status_message(),
                         RUN_LOCK_FRESH_S, l->file.path);
    free(who);
    return st;
}

static status watch(struct taking *t, const struct lock_judgement *j)
{
    enum { LOOK_MS = 250 };
    if (!t->said) {
        char *who = describe(t, j->why);
        log_warn("output_dir: %s; waiting until it beats or %.0f s have passed, then it is refused or taken over", who, j->watch_s);
        free(who);
    }
    t->said = true;
    if (t->requests && t->requests() & TRAIN_STOP)
        FAIL(ST_NOT_SAVED, "stopped on request while waiting for %s; nothing was trained, and nothing changed", t->l->file.path);
    pause_ms(LOOK_MS);
    return ST_OK;
}

static status take_over(const struct taking *t, const struct lock_sight *now, const struct lock_judgement *j, bool *mine)
{
    enum { SETTLE_MS = 100 }; /* far longer than the last look and the rename of another that does the same */
    bool put;
    TRY(lock_file_put_over(&t->l->file, now, &put));
    if (!put) return ST_OK;
    pause_ms(SETTLE_MS);
    *mine = lock_file_look(&t->l->file) == LOCK_OURS;
    if (!*mine) return ST_OK;
    char *who = describe(t, j->why);
    log_warn("output_dir: taken over: %s", who);
    free(who);
    return ST_OK;
}

/* One look at what lies there and what follows from it. */
static status try_once(struct taking *t, bool *mine)
{
    struct lock_sight now;
    TRY(lock_file_read(&t->l->file, &now));
    if (now.absent) return lock_file_place(&t->l->file, mine);
    TRY(observe(t, &now));
    struct lock_judgement j = lock_judge(&now.record, &t->l->mine, &t->seen);
    if (j.verdict == LOCK_REFUSE) return refuse(t, &j);
    return j.verdict == LOCK_WATCH ? watch(t, &j) : take_over(t, &now, &j, mine);
}

/* The part of the path that exists; what this run makes beyond it goes with it if nothing came of it. */
static size_t existing(const char *dir)
{
    char *path = mem_strdup(dir);
    size_t n = strlen(path);
    while (n && !file_exists(path)) {
        while (n && path[n - 1] == '/') n--;
        while (n && path[n - 1] != '/') n--;
        path[n] = 0;
    }
    free(path);
    return n;
}

static void remove_made(struct run_lock *l)
{
    char *path = l->file.dir;
    size_t n = strlen(path);
    while (n > l->kept && rmdir(path) == 0) {
        while (n && path[n - 1] == '/') n--;
        while (n && path[n - 1] != '/') n--;
        path[n] = 0;
    }
}

static status take(struct run_lock *l, unsigned (*requests)(void))
{
    enum { ROUNDS = 2000 }; /* each that does not wait ends, or finds a lock that has changed hands */
    struct taking t = {.l = l, .requests = requests};
    bool mine = false;
    TRY(file_mkdirs(l->file.dir));
    for (int i = 0; i < ROUNDS && !mine; i++) TRY(try_once(&t, &mine));
    if (!mine) FAIL(ST_USAGE, "output_dir: %s changes hands all the time; start again, or choose another output_dir", l->file.path);
    lock_file_sweep(&l->file, RUN_LOCK_STALE_S);
    atomic_store(&l->seen_ms, now_ms());
    status st = start_beating(l);
    if (st) lock_file_remove(&l->file);
    return st;
}

/* ---- all ranks ----------------------------------------------------------------------------------------------------------- */

struct view {
    char host[72];
    bool found;
};

static bool finds_lock(const struct run_lock *l)
{
    for (double until = clock_s() + RUN_LOCK_SHARED_S; clock_s() < until; pause_ms(50)) {
        /* An NFS client remembers for a while that a name is not there; opening the folder makes it ask again. */
        int fd = open(l->file.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) close(fd);
        if (lock_file_look(&l->file) == LOCK_OURS) return true;
    }
    return false;
}

/* The same words on every rank. */
static status name_the_blind(const struct run_lock *l, const struct view *all, int ranks)
{
    int blind = 0, first = 0;
    for (int r = ranks - 1; r > 0; r--) {
        if (all[r].found) continue;
        blind++;
        first = r;
    }
    if (!blind) return ST_OK;
    FAIL(ST_USAGE,
         "output_dir: %s is not one folder for all hosts: rank %d on %s did not find there within %d s what rank 0 on %s wrote "
         "(%d of %d ranks did not); put output_dir on a file system that all hosts see",
         l->file.dir, first, all[first].host, RUN_LOCK_SHARED_S, all[0].host, blind, ranks);
}

static status check_shared(const struct run_lock *l, struct comm *comm, const char *host)
{
    struct view mine = {.found = comm->rank == 0 || finds_lock(l)}, *all = mem_alloc((size_t)comm->size * sizeof *all);
    snprintf(mine.host, sizeof mine.host, "%s", host);
    status st = comm->fn->all_gather(comm, &mine, all, sizeof mine);
    if (!st) st = name_the_blind(l, all, comm->size);
    free(all);
    return comm_agree(comm, st);
}

status run_lock_take(const char *output_dir, struct comm *comm, unsigned (*requests)(void), struct run_lock **out)
{
    struct run_lock *l = mem_alloc(sizeof *l);
    struct lock_record self;
    *out = NULL;
    status st = lock_record_self(&self), told;
    l->mine = self;
    told = comm->fn->bcast(comm, &l->mine, sizeof l->mine, 0);
    lock_file_init(&l->file, output_dir, &l->mine);
    l->kept = comm->rank == 0 ? existing(output_dir) : strlen(output_dir);
    if (!st && !told && comm->rank == 0) st = take(l, requests);
    st = told ? told : comm_agree(comm, st);
    if (!st && comm->size > 1) st = check_shared(l, comm, self.host);
    if (!st)
        *out = l;
    else
        run_lock_release(l);
    return st;
}

const char *run_lock_nonce(const struct run_lock *l) { return l->mine.nonce; }

void run_lock_release(struct run_lock *l)
{
    if (!l) return;
    if (l->held) {
        stop_beating(l);
        lock_file_remove(&l->file);
    }
    remove_made(l);
    lock_file_free(&l->file);
    free(l);
}
