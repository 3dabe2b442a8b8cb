/* One output folder, one run: what follows from finding a lock, record by record; files that are none; taking, losing,
 * putting back, releasing; several that try at once. What takes seconds runs in processes beside each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collectives/comm_self.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "worker/run_lock.h"
#include "worker/run_lock_file.h"
#include "worker/train.h"

static char root[] = "/tmp/trimpot-lock-XXXXXX";
static struct comm comm;

/* ---- file systems without hard links -------------------------------------------------------------------------------------- */

static bool no_links;
int link(const char *from, const char *to)
{
    if (!no_links) return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    errno = EPERM;
    return -1;
}

/* ---- records and folders ---------------------------------------------------------------------------------------------------- */

static struct lock_record self(void)
{
    struct lock_record r;
    assert_int_equal(lock_record_self(&r), ST_OK);
    return r;
}

/* A run of somewhere else that says nothing of a job. */
static struct lock_record elsewhere(void)
{
    struct lock_record r = self();
    snprintf(r.host, sizeof r.host, "elsewhere");
    return r;
}

static const char *folder(const char *name)
{
    static char path[4][256];
    static int next;
    char *p = path[next++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

static void plant(const char *dir, const struct lock_record *r, double age_s)
{
    struct buf text = {0};
    size_t beat_at;
    char path[300];
    lock_record_text(r, &text, &beat_at);
    assert_int_equal(file_mkdirs(dir), ST_OK);
    snprintf(path, sizeof path, "%s/run.lock", dir);
    assert_int_equal(file_replace(path, text.data, text.len), ST_OK);
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[1]);
    t[1].tv_sec -= (time_t)age_s;
    t[0] = t[1];
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    buf_release(&text);
}

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static status take(const char *dir, struct run_lock **l) { return run_lock_take(dir, &comm, NULL, l); }

static void refused(const char *dir, status code, const char *text)
{
    struct run_lock *l;
    double began = clock_s();
    assert_int_equal(take(dir, &l), code);
    assert_true(clock_s() - began < 2); /* the machine is shared */
    assert_null(l);
    if (!strstr(status_message(), text)) fail_msg("no '%s' in: %s", text, status_message());
    assert_non_null(strstr(status_message(), "another output_dir"));
}

/* ---- the judgement ------------------------------------------------------------------------------------------------------------- */

static const struct lock_record HERE = {.host = "a", .boot = "b1", .pid_space = "p1", .pid = 7, .started = 5},
                                OTHER_HOST = {.host = "c", .boot = "b2", .pid_space = "p1", .pid = 7, .started = 5},
                                REBOOTED = {.host = "a", .boot = "b3", .pid_space = "p1", .pid = 7, .started = 5},
                                CONTAINER = {.host = "a", .boot = "b1", .pid_space = "p2", .pid = 7, .started = 5},
                                NOWHERE = {.host = "a", .boot = "b1", .pid = 7},
                                JOB_0 = {.host = "c", .boot = "b2", .job = "77", .cluster = "x"},
                                JOB_1 = {.host = "a", .boot = "b1", .pid_space = "p1", .job = "77", .cluster = "x", .restarts = 1},
                                JOB_2 = {.host = "c", .boot = "b2", .job = "77", .cluster = "x", .restarts = 2},
                                JOB_OTHER_CLUSTER = {.host = "c", .boot = "b2", .job = "77", .cluster = "y"},
                                JOB_OTHER = {.host = "c", .boot = "b2", .job = "78", .cluster = "x"},
                                JOB_HERE_0 = {.host = "a", .boot = "b1", .pid_space = "p1", .job = "77", .cluster = "x"};

#define GONE(age)                                                                                                                          \
    {                                                                                                                                      \
        .age_s = (age)                                                                                                                     \
    }
static const struct judged {
    const struct lock_record *theirs, *mine;
    struct lock_seen seen;
    enum lock_verdict verdict;
    double watch_s; /* 0: does not matter */
} JUDGED[] = {
    /* The same host: its process decides, whatever the clocks say. */
    {&HERE, &HERE, {.lives = true, .age_s = 1}, LOCK_REFUSE},
    {&HERE, &HERE, {.lives = true, .age_s = 1e6, .still_s = 1e6}, LOCK_REFUSE},
    {&HERE, &HERE, {.lives = false, .age_s = 0}, LOCK_TAKE},
    {&HERE, &HERE, {.lives = false, .age_s = -1e6}, LOCK_TAKE},
    /* Another host, or none that can be looked into: a process of that number here says nothing. */
    {&OTHER_HOST, &HERE, {.lives = true, .age_s = 1}, LOCK_REFUSE},
    {&OTHER_HOST, &HERE, GONE(0), LOCK_REFUSE},
    {&OTHER_HOST, &HERE, GONE(9.9), LOCK_REFUSE},
    {&OTHER_HOST, &HERE, GONE(-9.9), LOCK_REFUSE},
    {&REBOOTED, &HERE, GONE(1), LOCK_REFUSE},
    {&CONTAINER, &HERE, GONE(1), LOCK_REFUSE},
    {&NOWHERE, &HERE, GONE(1), LOCK_REFUSE},
    {&NOWHERE, &NOWHERE, GONE(1), LOCK_REFUSE},
    /* Older, or from the future: watched; an age shortens the watch and never replaces it. */
    {&OTHER_HOST, &HERE, GONE(10), LOCK_WATCH, 50},
    {&OTHER_HOST, &HERE, GONE(45), LOCK_WATCH, 15},
    {&OTHER_HOST, &HERE, GONE(55), LOCK_WATCH, 10},
    {&OTHER_HOST, &HERE, GONE(1e9), LOCK_WATCH, 10},
    {&OTHER_HOST, &HERE, GONE(-10), LOCK_WATCH, 60},
    {&OTHER_HOST, &HERE, GONE(-1e9), LOCK_WATCH, 60},
    {&REBOOTED, &HERE, GONE(100), LOCK_WATCH, 10},
    {&CONTAINER, &HERE, {.lives = true, .age_s = 100}, LOCK_WATCH, 10},
    /* Watched long enough, or not; or it beats, whatever its clock. */
    {&OTHER_HOST, &HERE, {.age_s = 1e9, .still_s = 9.9}, LOCK_WATCH, 10},
    {&OTHER_HOST, &HERE, {.age_s = 1e9, .still_s = 10}, LOCK_TAKE},
    {&OTHER_HOST, &HERE, {.age_s = 20, .still_s = 39}, LOCK_WATCH, 40},
    {&OTHER_HOST, &HERE, {.age_s = 20, .still_s = 40}, LOCK_TAKE},
    {&OTHER_HOST, &HERE, {.age_s = -50, .still_s = 59}, LOCK_WATCH, 60},
    {&OTHER_HOST, &HERE, {.age_s = -50, .still_s = 60}, LOCK_TAKE},
    {&OTHER_HOST, &HERE, {.age_s = 1e9, .still_s = 10, .beats = true}, LOCK_REFUSE},
    {&OTHER_HOST, &HERE, {.age_s = -1e9, .still_s = 1, .beats = true}, LOCK_REFUSE},
    /* A requeue finds its predecessor; no other job, no other cluster, no later start, nothing without a job. */
    {&JOB_0, &JOB_1, GONE(0), LOCK_TAKE},
    {&JOB_0, &JOB_1, {.age_s = -1e6, .beats = true}, LOCK_TAKE},
    {&JOB_2, &JOB_1, GONE(0), LOCK_REFUSE},
    {&JOB_1, &JOB_0, GONE(0), LOCK_REFUSE},
    {&JOB_0, &JOB_0, GONE(0), LOCK_REFUSE},
    {&JOB_OTHER, &JOB_1, GONE(0), LOCK_REFUSE},
    {&JOB_OTHER_CLUSTER, &JOB_1, GONE(0), LOCK_REFUSE},
    {&OTHER_HOST, &JOB_1, GONE(0), LOCK_REFUSE},
    {&JOB_HERE_0, &JOB_1, {.lives = true}, LOCK_REFUSE},
    {&JOB_HERE_0, &JOB_1, GONE(0), LOCK_TAKE},
};

static void judgement(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof JUDGED / sizeof *JUDGED; i++) {
        const struct judged *c = &JUDGED[i];
        struct lock_judgement j = lock_judge(c->theirs, c->mine, &c->seen);
        if (j.verdict != c->verdict || (c->watch_s > 0 && j.watch_s != c->watch_s))
            fail_msg("row %zu: verdict %d after %g s (%s), expected %d after %g s", i, j.verdict, j.watch_s, j.why, c->verdict, c->watch_s);
    }
}

/* ---- the line ---------------------------------------------------------------------------------------------------------------- */

static void line(void **state)
{
    (void)state;
    struct buf text = {0};
    size_t beat_at;
    struct lock_record r = self(), back;
    snprintf(r.host, sizeof r.host, "quo\"te\\");
    r.beat = INT64_MAX;
    lock_record_text(&r, &text, &beat_at);
    assert_true(text.len <= LOCK_RECORD_BYTES && text.len == beat_at + LOCK_BEAT_WIDTH + 2);
    assert_int_equal(strtoll(text.data + beat_at, NULL, 10), INT64_MAX);
    assert_int_equal(lock_record_parse("run.lock", text.data, text.len, &back), ST_OK);
    assert_memory_equal(&r, &back, sizeof r);
    for (size_t n = 0; n + 1 < text.len; n++) assert_int_equal(lock_record_parse("run.lock", text.data, n, &back), ST_CORRUPT);
    buf_release(&text);

    /* What the environment says is cut and tamed: the line stays a line. */
    char longest[4096];
    memset(longest, '"', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    setenv("SLURM_JOB_ID", longest, 1);
    setenv("SLURM_CLUSTER_NAME", "\x1b[2J\xff{\n\"", 1);
    setenv("SLURM_RESTART_COUNT", "-3", 1);
    r = self();
    lock_record_text(&r, &text, &beat_at);
    assert_true(text.len <= LOCK_RECORD_BYTES);
    assert_int_equal(lock_record_parse("run.lock", text.data, text.len, &back), ST_OK);
    assert_string_equal(back.cluster, "?[2J?{");
    assert_int_equal(back.restarts, 0);
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_CLUSTER_NAME");
    unsetenv("SLURM_RESTART_COUNT");
    buf_release(&text);
}

#define GOOD    "\"trimpot_run_lock\":1,\"host\":\"h\",\"boot\":\"b\",\"pid_space\":\"p\",\"cluster\":\"\",\"job\":\"\",\"began\":\"t\","
#define NONCE   "\"nonce\":\"0123456789abcdef0123456789abcdef\","
#define NUMBERS "\"pid\":7,\"started\":1,\"restarts\":0,\"beat\":0}"

static void bad_lines(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } BAD[] = {
        {"", "is empty"},
        {"\n", "expected"},
        {"[1]", "one JSON object"},
        {"{}", "trimpot_run_lock is missing"},
        {"{\"trimpot_run_lock\":2}", "trimpot_run_lock is 2"},
        {"{\"trimpot_run_lock\":1}", "host is missing"},
        {"{" GOOD "\"nonce\":\"short\"," NUMBERS, "nonce must have"},
        {"{" GOOD NUMBERS, "nonce is missing"},
        {"{" GOOD NONCE "\"pid\":0,\"started\":1,\"restarts\":0,\"beat\":0}", "pid is 0"},
        {"{" GOOD NONCE "\"pid\":-1,\"started\":1,\"restarts\":0,\"beat\":0}", "pid is -1"},
        {"{" GOOD NONCE "\"pid\":\"7\",\"started\":1,\"restarts\":0,\"beat\":0}", "pid is \"7\""},
        {"{" GOOD NONCE "\"pid\":7,\"started\":1,\"restarts\":-1,\"beat\":0}", "restarts is -1"},
        {"{" GOOD NONCE "\"pid\":7,\"started\":1,\"restarts\":0}", "beat is missing"},
        {"{" GOOD NONCE NUMBERS " trailing", "end of file"},
        {"{" GOOD NONCE "\"host\":\"twice\"," NUMBERS, "duplicate"},
        {"{\"trimpot_run_lock\":1,\"host\":\"\\u001b[2J\\nerror: \",\"boot\":\"b\"}", "control characters"},
        {"{\"trimpot_run_lock\":1,\"host\":7}", "host is 7"},
    };
    const char *dir = folder("bad");
    char path[300];
    snprintf(path, sizeof path, "%s/run.lock", dir);
    assert_int_equal(file_mkdirs(dir), ST_OK);
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        char *after;
        assert_int_equal(file_replace(path, BAD[i].text, strlen(BAD[i].text)), ST_OK);
        refused(dir, ST_CORRUPT, BAD[i].says);
        assert_non_null(strstr(status_message(), path));
        assert_int_equal(file_read(path, 4096, &after, NULL), ST_OK);
        assert_string_equal(after, BAD[i].text);
        assert_int_equal(entries(dir), 1);
        free(after);
    }
    struct lock_record r;
    assert_int_equal(lock_record_parse("run.lock", "{" GOOD NONCE NUMBERS, strlen("{" GOOD NONCE NUMBERS), &r), ST_OK);
}

static void no_files(void **state)
{
    (void)state;
    const char *dir = folder("none");
    char path[300], *huge = mem_alloc(1 << 20);
    snprintf(path, sizeof path, "%s/run.lock", dir);
    assert_int_equal(file_mkdirs(dir), ST_OK);

    memset(huge, '[', 1 << 20);
    assert_int_equal(file_replace(path, huge, 1 << 20), ST_OK);
    refused(dir, ST_CORRUPT, "larger than a lock");
    memset(huge, 0x90, 1000);
    assert_int_equal(file_replace(path, huge, 1000), ST_OK);
    refused(dir, ST_CORRUPT, "decode");
    free(huge);
    unlink(path);

    assert_int_equal(mkdir(path, 0755), 0);
    refused(dir, ST_CORRUPT, "not a regular file");
    rmdir(path);
    assert_int_equal(symlink("nowhere", path), 0);
    refused(dir, ST_CORRUPT, "symbolic link");
    unlink(path);
    assert_int_equal(mkfifo(path, 0644), 0);
    refused(dir, ST_CORRUPT, "not a regular file");
    unlink(path);
    if (getuid() != 0) {
        struct lock_record r = self();
        plant(dir, &r, 0);
        chmod(path, 0);
        refused(dir, ST_IO, "Permission denied");
        unlink(path);
    }
    assert_int_equal(entries(dir), 0);
}

/* ---- taking -------------------------------------------------------------------------------------------------------------------- */

static void take_and_release(void **state)
{
    (void)state;
    struct run_lock *l, *second;
    const char *deep = folder("made/by/us/"), *kept = folder("kept");
    char path[300];

    /* A folder that this run made goes with it if nothing came of it, and nothing else does. */
    assert_int_equal(take(deep, &l), ST_OK);
    assert_int_equal(entries(deep), 1);
    assert_int_equal(run_lock_check(l), ST_OK);
    assert_false(run_lock_lost(l));
    refused(deep, ST_USAGE, "its process lives");
    assert_int_equal(entries(deep), 1);
    run_lock_release(l);
    assert_int_equal(entries(folder("made")), -1);

    assert_int_equal(file_mkdirs(kept), ST_OK);
    assert_int_equal(take(kept, &l), ST_OK);
    snprintf(path, sizeof path, "%s/file", kept);
    run_lock_release(l);
    assert_int_equal(entries(kept), 0);
    assert_int_equal(take(kept, &l), ST_OK);
    assert_int_equal(file_replace(path, "x", 1), ST_OK);
    run_lock_release(l);
    assert_int_equal(entries(kept), 1);

    no_links = true;
    assert_int_equal(take(kept, &l), ST_OK);
    assert_int_equal(take(kept, &second), ST_USAGE);
    run_lock_release(l);
    no_links = false;
    assert_int_equal(entries(kept), 1);
    run_lock_release(NULL);
}

static void taken_at_once(const char *dir)
{
    struct run_lock *l;
    double began = clock_s();
    assert_int_equal(take(dir, &l), ST_OK);
    assert_true(clock_s() - began < 2); /* the machine is shared */
    run_lock_release(l);
    assert_int_equal(entries(dir), 0);
}

static void dead_and_living(void **state)
{
    (void)state;
    const char *dir = folder("dead");
    struct lock_record r = self();
    plant(dir, &r, 1000);
    refused(dir, ST_USAGE, "its process lives");
    r.started++; /* the number was used again */
    plant(dir, &r, 0);
    taken_at_once(dir);

    pid_t child = fork();
    if (child == 0) _exit(0);
    siginfo_t info;
    waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT);
    char path[64], text[1024] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)child);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    r.pid = child;
    sscanf(strrchr(text, ')'), ") %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNd64, &r.started);
    plant(dir, &r, 0);
    taken_at_once(dir); /* a zombie: killed, and nobody has asked for it yet */
    waitpid(child, NULL, 0);
    plant(dir, &r, 0);
    taken_at_once(dir);

    r = elsewhere();
    plant(dir, &r, 1);
    refused(dir, ST_USAGE, "on elsewhere");
    assert_non_null(strstr(status_message(), "certainly gone"));
}

static void requeued(void **state)
{
    (void)state;
    const char *dir = folder("requeued");
    struct lock_record r = elsewhere();
    snprintf(r.job, sizeof r.job, "4711");
    plant(dir, &r, 1);
    setenv("SLURM_JOB_ID", "4711", 1);
    refused(dir, ST_USAGE, "job 4711, start 1"); /* a second step of the same start */
    setenv("SLURM_RESTART_COUNT", "1", 1);
    taken_at_once(dir);
    plant(dir, &r, 1);
    setenv("SLURM_JOB_ID", "4712", 1);
    refused(dir, ST_USAGE, "job 4711");
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
}

static void touch(const char *dir, const char *name, long age_s)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(file_replace(path, "", 0), ST_OK);
    struct timespec t[2] = {{.tv_sec = time(NULL) - age_s}, {.tv_sec = time(NULL) - age_s}};
    utimensat(AT_FDCWD, path, t, 0);
}

/* What a kill between two system calls left goes with the next run; what may be in use, or is not ours, stays. */
static void sweeps(void **state)
{
    (void)state;
    const char *dir = folder("swept");
    struct run_lock *l;
    assert_int_equal(file_mkdirs(dir), ST_OK);
    touch(dir, "run.lock.0123456789abcdef0123456789abcdef", 100);
    touch(dir, "run.lock.1123456789abcdef0123456789abcdef", 10);
    touch(dir, "run.lock.0123456789abcdef0123456789abcdeX", 100);
    touch(dir, "run.lock.mine", 100);
    assert_int_equal(take(dir, &l), ST_OK);
    run_lock_release(l);
    assert_int_equal(entries(dir), 3);
}

/* ---- several at once, and what takes time ------------------------------------------------------------------------------------ */

enum { TRIERS = 8 };

/* All try at the same instant; the winner keeps it until all have tried. */
static int winners(const char *dir)
{
    int start[2], end[2], won = 0;
    pid_t pids[TRIERS];
    assert_int_equal(pipe(start) | pipe(end), 0);
    for (int i = 0; i < TRIERS; i++) {
        pids[i] = fork();
        if (pids[i]) continue;
        char c;
        struct run_lock *l;
        close(start[1]);
        close(end[1]);
        (void)!read(start[0], &c, 1); /* until the other end closes */
        status st = take(dir, &l);
        if (st) _exit(st);
        (void)!read(end[0], &c, 1);
        st = run_lock_check(l);
        run_lock_release(l);
        _exit(st ? 99 : 0);
    }
    close(start[0]);
    close(start[1]);
    close(end[0]);
    sleep(1);
    close(end[1]);
    for (int i = 0; i < TRIERS; i++) {
        int code;
        waitpid(pids[i], &code, 0);
        if (code == 0)
            won++;
        else
            assert_int_equal(WEXITSTATUS(code), ST_USAGE);
    }
    assert_int_equal(entries(dir), 0);
    return won;
}

static void races(void **state)
{
    (void)state;
    struct lock_record r = self();
    r.started++;
    for (int i = 0; i < 4; i++) {
        const char *dir = folder("race");
        if (i & 1)
            plant(dir, &r, 0);
        else
            assert_int_equal(file_mkdirs(dir), ST_OK);
        no_links = i == 2;
        assert_int_equal(winners(dir), 1);
    }
    no_links = false;
}

/* Each in a process of its own; 0 = as expected. */
static int replaced(void)
{
    const char *dir = folder("replaced");
    struct lock_record other = elsewhere();
    struct run_lock *l;
    if (take(dir, &l)) return 1;
    plant(dir, &other, 0);
    if (run_lock_check(l) != ST_USAGE || !strstr(status_message(), "taken over by pid") || !strstr(status_message(), "on elsewhere"))
        return 2;
    if (!run_lock_lost(l)) return 3;
    run_lock_release(l);
    return entries(dir) == 1 ? 0 : 4; /* the other's */
}

static int noticed(void)
{
    const char *dir = folder("noticed");
    struct lock_record other = elsewhere();
    struct run_lock *l;
    if (take(dir, &l)) return 1;
    plant(dir, &other, 0);
    sleep(RUN_LOCK_BEAT_S + 1);
    int bad = run_lock_lost(l) ? 0 : 2;
    run_lock_release(l);
    return bad;
}

static int put_back(void)
{
    const char *dir = folder("put-back");
    char path[300];
    struct run_lock *l;
    snprintf(path, sizeof path, "%s/run.lock", dir);
    if (take(dir, &l)) return 1;
    unlink(path);
    if (run_lock_check(l) || run_lock_lost(l)) return 2;
    sleep(RUN_LOCK_BEAT_S + 1);
    if (!file_exists(path) || run_lock_check(l)) return 3;
    file_remove_tree(dir); /* the folder itself: nobody can have it, and a save makes it again */
    sleep(RUN_LOCK_BEAT_S + 1);
    if (run_lock_check(l) || run_lock_lost(l)) return 4;
    file_mkdirs(dir);
    sleep(RUN_LOCK_BEAT_S + 1);
    if (!file_exists(path)) return 5;
    run_lock_release(l);
    return 0;
}

static int something_else(void)
{
    const char *dir = folder("something");
    char path[300];
    struct run_lock *l;
    snprintf(path, sizeof path, "%s/run.lock", dir);
    if (take(dir, &l)) return 1;
    unlink(path);
    mkdir(path, 0755);
    sleep(RUN_LOCK_BEAT_S + 1);
    if (!run_lock_lost(l) || run_lock_check(l) != ST_USAGE) return 2;
    run_lock_release(l);
    return file_is_dir(path) ? 0 : 3;
}

static int watched(void)
{
    const char *dir = folder("watched");
    struct lock_record r = elsewhere();
    struct run_lock *l;
    plant(dir, &r, 1000);
    double began = clock_s();
    if (take(dir, &l)) return 1;
    double took = clock_s() - began;
    run_lock_release(l);
    return took >= RUN_LOCK_FRESH_S && took < RUN_LOCK_FRESH_S + 3 ? 0 : 2;
}

/* A holder that beats, with a clock that is wrong by `age_s`. */
static int beats_with_clock(const char *dir, double age_s)
{
    struct lock_record r = elsewhere();
    struct run_lock *l;
    plant(dir, &r, age_s);
    pid_t holder = fork();
    if (holder == 0) {
        sleep(1);
        r.beat++;
        plant(dir, &r, age_s - 2);
        _exit(0);
    }
    double began = clock_s();
    status st = take(dir, &l);
    waitpid(holder, NULL, 0);
    return st == ST_USAGE && strstr(status_message(), "it beats") && clock_s() - began < 4 ? 0 : 1;
}
/* A predecessor whose node lives on, cut off, beats as fast as it can: taken over between two beats, at once. */
static int beating_predecessor(void)
{
    const char *dir = folder("predecessor");
    struct lock_record r = elsewhere();
    struct run_lock *l;
    snprintf(r.job, sizeof r.job, "4711");
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_RESTART_COUNT", "1", 1);
    plant(dir, &r, 0);
    struct lock_file theirs = {0};
    lock_file_init(&theirs, dir, &r);
    pid_t holder = fork();
    if (holder == 0) {
        for (int64_t i = 1; lock_file_beat(&theirs, i) == LOCK_OURS; i++) usleep(20000);
        _exit(0); /* it saw that it was taken over */
    }
    double began = clock_s();
    int code, bad = take(dir, &l) ? 1 : clock_s() - began < 3 ? 0 : 2;
    if (bad) kill(holder, SIGKILL);
    waitpid(holder, &code, 0);
    lock_file_free(&theirs);
    if (!bad) run_lock_release(l);
    return bad ? bad : code ? 3 : 0;
}

static int beats_behind(void) { return beats_with_clock(folder("behind"), 5000); }
static int beats_ahead(void) { return beats_with_clock(folder("ahead"), -5000); }

static unsigned asks_to_stop(void)
{
    static int calls;
    return ++calls > 3 ? TRAIN_STOP : 0;
}

static int stopped(void)
{
    const char *dir = folder("stopped");
    struct lock_record r = elsewhere();
    struct run_lock *l;
    plant(dir, &r, 30);
    if (run_lock_take(dir, &comm, asks_to_stop, &l) != ST_NOT_SAVED) return 1;
    return !l && strstr(status_message(), "stopped on request") && entries(dir) == 1 ? 0 : 2;
}

static void at_the_same_time(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int (*run)(void);
    } CASES[] = {
        {"replaced", replaced},
        {"noticed", noticed},
        {"put_back", put_back},
        {"something_else", something_else},
        {"watched", watched},
        {"beats_behind", beats_behind},
        {"beats_ahead", beats_ahead},
        {"stopped", stopped},
        {"beating_predecessor", beating_predecessor},
    };
    enum { N = sizeof CASES / sizeof *CASES };
    pid_t pids[N];
    for (int i = 0; i < N; i++)
        if ((pids[i] = fork()) == 0) _exit(CASES[i].run());
    int bad = 0;
    for (int i = 0; i < N; i++) {
        int code;
        waitpid(pids[i], &code, 0);
        if (code)
            print_error("%s: %s %d\n", CASES[i].name, WIFEXITED(code) ? "step" : "signal", WIFEXITED(code) ? WEXITSTATUS(code) : code);
        bad += code != 0;
    }
    assert_int_equal(bad, 0);
}

static int open_root(void **state)
{
    (void)state;
    log_init(0, 1, LOG_QUIET);
    comm_self_open(&comm);
    unsetenv("SLURM_JOB_ID");
    unsetenv("SLURM_RESTART_COUNT");
    unsetenv("SLURM_CLUSTER_NAME");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return file_remove_tree(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judgement),
        cmocka_unit_test(line),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(no_files),
        cmocka_unit_test(take_and_release),
        cmocka_unit_test(dead_and_living),
        cmocka_unit_test(requeued),
        cmocka_unit_test(sweeps),
        cmocka_unit_test(races),
        cmocka_unit_test(at_the_same_time),
    };
    return cmocka_run_group_tests(tests, open_root, remove_root);
}
