/* The watch among real processes on this host, without MPI and without a launcher: an abort ends its own rank only, so that
 * whoever is left hanging shows. All scenes run at once, each in its own processes; the tests look at how each ended. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "collectives/comm_self.h"
#include "collectives/watch.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { RANKS = 4, BOARD = 1 << 16 };

struct world {
    pthread_barrier_t gate;
    char board[BOARD];
    pid_t pid[RANKS];
    int port; /* rank 0 listens */
};

static struct scene {
    const char *name;
    void (*body)(struct comm *c); /* of each rank, after watch_open; returns to end in order */
    void (*outside)(void);        /* beside them, or NULL */
    struct world *world;
    pid_t pid[RANKS + 1];
    int code[RANKS]; /* exit code, −signal */
    double took_s;
    char *said;
    FILE *log;
    double began;
} * scene; /* the one this process plays in */

static int my_rank;

/* ---- a world of processes -------------------------------------------------------------------------------------------- */

static status meet(struct comm *c)
{
    (void)c;
    pthread_barrier_wait(&scene->world->gate);
    return ST_OK;
}

static status board_bcast(struct comm *c, void *data, size_t bytes, int root)
{
    assert(bytes <= BOARD);
    if (c->rank == root) memcpy(scene->world->board, data, bytes);
    meet(c);
    memcpy(data, scene->world->board, bytes);
    return meet(c);
}

static status board_all_gather(struct comm *c, const void *mine, void *all, size_t each)
{
    memcpy(scene->world->board + each * (size_t)c->rank, mine, each);
    meet(c);
    memcpy(all, scene->world->board, each * (size_t)c->size);
    return meet(c);
}

static void end_self(struct comm *c, int code)
{
    (void)c;
    _exit(code);
}

static const struct comm_table table = {
    .name = "processes", .barrier = meet, .bcast = board_bcast, .all_gather = board_all_gather, .abort = end_self};

/* ---- what stands between the watch and the system in this program ------------------------------------------------------ */

static bool refuse, swallow;
static atomic_bool crowded;

int connect(int fd, const struct sockaddr *to, socklen_t size)
{
    if (refuse || swallow) {
        errno = refuse ? ECONNREFUSED : EINPROGRESS;
        return -1;
    }
    return (int)syscall(SYS_connect, fd, to, size);
}

int listen(int fd, int backlog)
{
    struct sockaddr_in6 at;
    socklen_t size = sizeof at;
    int rc = (int)syscall(SYS_listen, fd, backlog);
    if (my_rank == 0 && getsockname(fd, (void *)&at, &size) == 0) scene->world->port = ntohs(at.sin6_port);
    return rc;
}

int accept4(int fd, struct sockaddr *from, socklen_t *size, int flags)
{
    if (crowded) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, from, size, flags);
}

/* ---- scenes ----------------------------------------------------------------------------------------------------------- */

static void nap(double s) { nanosleep(&(struct timespec){(time_t)s, (long)((s - (double)(time_t)s) * 1e9)}, NULL); }
static void hang(void)
{
    for (;;) pause();
}

static void dies(struct comm *c, int rank, int signal)
{
    watch_at(WATCH_REDUCE, 41);
    nap(0.3); /* that the others know */
    meet(c);
    if (c->rank == rank) raise(signal);
    hang();
}

static void kill_0(struct comm *c) { dies(c, 0, SIGKILL); }
static void kill_1(struct comm *c) { dies(c, 1, SIGKILL); }
static void kill_2(struct comm *c) { dies(c, 2, SIGKILL); }
static void crash_3(struct comm *c) { dies(c, 3, SIGSEGV); }

static void kill_at_once(struct comm *c)
{
    if (c->rank == 3) raise(SIGKILL);
    hang();
}

static void kill_asked(struct comm *c)
{
    if (c->rank == 2) watch_asked_to_stop();
    dies(c, 2, SIGKILL);
}

static void kill_centres(struct comm *c)
{
    meet(c);
    if (c->rank <= 1) raise(SIGKILL);
    hang();
}

static void stops(struct comm *c, int rank)
{
    watch_timeout(1);
    dies(c, rank, SIGSTOP);
}

static void stop_0(struct comm *c) { stops(c, 0); }
static void stop_1(struct comm *c) { stops(c, 1); }
static void stop_3(struct comm *c) { stops(c, 3); }

static void stop_forgiven(struct comm *c)
{
    watch_timeout(0);
    meet(c);
    if (c->rank == 2) raise(SIGSTOP);
    nap(3);
    if (c->rank == 0) kill(scene->world->pid[2], SIGCONT);
}

static void exits(struct comm *c)
{
    watch_at(WATCH_LOAD, 0);
    nap(0.3);
    meet(c);
    if (c->rank == 2) exit(11);
    hang();
}

static void tells(struct comm *c)
{
    if (c->rank == 2) {
        log_error("a reason of its own%s", watch_place());
        watch_tell(15);
        _exit(15);
    }
    hang();
}

/* An MPI call of a survivor fails because the peer is gone: it waits for the cause and adds nothing. */
static void blamed(struct comm *c)
{
    meet(c);
    if (c->rank == 2) raise(SIGKILL);
    if (!watch_blamed(3)) log_error("nobody was blamed");
    hang();
}

/* All of the job stands still, as in `scontrol suspend` or a laptop that sleeps. */
static void suspended(struct comm *c)
{
    watch_timeout(1);
    meet(c);
    nap(4);
}

static void suspend(void)
{
    nap(1);
    for (int r = 0; r < RANKS; r++) kill(scene->world->pid[r], SIGSTOP);
    nap(2.5);
    for (int r = 0; r < RANKS; r++) kill(scene->world->pid[r], SIGCONT);
}

static void in_order(struct comm *c) { (void)c; }

static void unreachable(struct comm *c)
{
    (void)c;
    nap(13);
}

static void unconnected(struct comm *c) { meet(c); }

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* A centre without descriptors does not spin at its door, and lets in who waits once there are some. */
static void crowd(struct comm *c)
{
    double before = cpu_s();
    nap(1.5);
    if (cpu_s() - before > 0.3) log_error("%.2f s of processor time in 1.5 s of waiting", cpu_s() - before);
    crowded = false;
    nap(2.5);
    meet(c);
    if (c->rank == 3) raise(SIGKILL);
    hang();
}

/* Other programs at the door of rank 0, and then a death, which is seen none the less. */
static void visited(struct comm *c)
{
    nap(2);
    meet(c);
    if (c->rank == 3) raise(SIGKILL);
    hang();
}

static void visit(void)
{
    char noise[4096];
    int fd[100];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    nap(0.5);
    to.sin_port = htons((uint16_t)scene->world->port);
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(i * 37);
    for (int i = 0; i < 100; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd[i], (const void *)&to, sizeof to)) log_error("the door is closed: %s", strerror(errno));
        size_t n = i % 4 == 0 ? 0 : i % 4 == 1 ? 7 : i % 4 == 2 ? 48 : sizeof noise;
        if (send(fd[i], noise, n, MSG_NOSIGNAL) < 0 && errno != ECONNRESET && errno != EPIPE) log_error("%s", strerror(errno));
        if (i % 3 == 0) close(fd[i]);
    }
    nap(1);
}

static struct scene scenes[] = {
    {"kill_0", kill_0},
    {"kill_1", kill_1},
    {"kill_2", kill_2},
    {"crash_3", crash_3},
    {"kill_at_once", kill_at_once},
    {"kill_asked", kill_asked},
    {"kill_centres", kill_centres},
    {"stop_0", stop_0},
    {"stop_1", stop_1},
    {"stop_3", stop_3},
    {"stop_forgiven", stop_forgiven},
    {"exits", exits},
    {"tells", tells},
    {"blamed", blamed},
    {"suspended", suspended, suspend},
    {"in_order", in_order},
    {"unreachable", unreachable},
    {"unconnected", unconnected},
    {"crowd", crowd},
    {"visited", visited, visit},
};
enum { SCENES = sizeof scenes / sizeof *scenes };

/* ---- running them ------------------------------------------------------------------------------------------------------ */

static void play(int rank)
{
    struct comm c = {.fn = &table, .rank = rank, .size = RANKS, .local_rank = rank, .local_size = RANKS};
    my_rank = rank;
    signal(SIGSEGV, SIG_DFL); /* cmocka catches it */
    scene->world->pid[rank] = getpid();
    if (dup2(fileno(scene->log), 2) < 0) _exit(99);
    log_init(rank, RANKS, LOG_INFO);
    if (rank == 3) {
        refuse = scene->body == unreachable;
        swallow = scene->body == unconnected;
    }
    crowded = scene->body == crowd && rank == 0;
    if (scene->body == kill_2 && rank == 0) { /* too few descriptors for all ranks, but more may be had */
        struct rlimit limit;
        int next = dup(2);
        close(next);
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = (rlim_t)next + 3;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    watch_open(&c);
    scene->body(&c);
    meet(&c);
    watch_close();
    exit(0);
}

static void start(struct scene *s)
{
    pthread_barrierattr_t shared;
    scene = s;
    s->world = mmap(NULL, sizeof *s->world, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s->log = tmpfile();
    assert_true(s->world != MAP_FAILED && s->log);
    fcntl(fileno(s->log), F_SETFL, O_APPEND);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&s->world->gate, &shared, RANKS);
    s->began = clock_s();
    for (int r = 0; r <= RANKS; r++) {
        if (r == RANKS && !s->outside) continue;
        s->pid[r] = fork();
        assert_true(s->pid[r] >= 0);
        if (s->pid[r] == 0 && r < RANKS) play(r);
        if (s->pid[r] == 0) {
            if (dup2(fileno(s->log), 2) < 0) _exit(99);
            my_rank = -1;
            s->outside();
            _exit(0);
        }
    }
}

static void note_end(pid_t pid, int how)
{
    for (int i = 0; i < SCENES; i++)
        for (int r = 0; r < RANKS; r++) {
            if (scenes[i].pid[r] != pid) continue;
            scenes[i].code[r] = WIFSIGNALED(how) ? -WTERMSIG(how) : WEXITSTATUS(how);
            scenes[i].took_s = clock_s() - scenes[i].began;
            scenes[i].pid[r] = 0;
        }
}

/* Ranks that a scene stopped are killed when all others of it are gone; whoever is left after a minute hangs. */
static int run_all(void **state)
{
    (void)state;
    for (int i = 0; i < SCENES; i++) start(&scenes[i]);
    double until = clock_s() + 60;
    for (int how;;) {
        pid_t pid = waitpid(-1, &how, WNOHANG);
        if (pid < 0) break;
        if (pid > 0)
            note_end(pid, how);
        else
            nap(0.02);
        for (int i = 0; i < SCENES; i++) {
            const struct scene *s = &scenes[i];
            int left = 0, last = 0;
            for (int r = 0; r < RANKS; r++)
                if (s->pid[r]) left++, last = r;
            bool stopped = left == 1 && strncmp(s->name, "stop_", 5) == 0 && s->name[5] - '0' == last;
            if (stopped || clock_s() > until)
                for (int r = 0; r < RANKS; r++)
                    if (s->pid[r]) kill(s->pid[r], SIGKILL);
        }
    }
    for (int i = 0; i < SCENES; i++) {
        struct scene *s = &scenes[i];
        long n = (fseek(s->log, 0, SEEK_END), ftell(s->log));
        s->said = mem_alloc((size_t)n + 1);
        rewind(s->log);
        assert_int_equal(fread(s->said, 1, (size_t)n, s->log), n);
        fclose(s->log);
    }
    return 0;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) n++;
    return n;
}

/* How it ended: the codes of the ranks, what was said (once, and nothing else of its kind), within which time. */
static const struct scene *ended(void (*body)(struct comm *), const int codes[RANKS], const char *told, double most_s)
{
    const struct scene *s = scenes;
    while (s->body != body) s++;
    bool good = s->took_s < most_s && count(s->said, "error: ") == (told && *told) && (!told || strstr(s->said, told));
    for (int r = 0; r < RANKS; r++) good &= s->code[r] == codes[r];
    if (!good)
        fail_msg("%s: codes %d %d %d %d, expected %d %d %d %d; %.1f s of %.0f; '%s' expected once:\n%s", s->name, s->code[0], s->code[1],
                 s->code[2], s->code[3], codes[0], codes[1], codes[2], codes[3], s->took_s, most_s, told ? told : "", s->said);
    return s;
}

#define CODES(...) ((const int[RANKS]){__VA_ARGS__})
#define WORDLESS   " ended without a word (killed, crashed, or out of memory) at "

static void a_death_is_named_by_who_is_in_charge(void **state)
{
    (void)state;
    const char *told = ")" WORDLESS "step 41, reduction; all ranks end\n";
    assert_non_null(strstr(ended(kill_0, CODES(-9, 17, 17, 17), told, 20)->said, "[rank 1] error: rank 0 (host "));
    assert_non_null(strstr(ended(kill_1, CODES(17, -9, 17, 17), told, 20)->said, "[rank 0] error: rank 1 (host "));
    assert_non_null(strstr(ended(kill_2, CODES(17, 17, -9, 17), told, 20)->said, "[rank 0] error: rank 2 (host "));
    assert_non_null(strstr(ended(crash_3, CODES(17, 17, 17, -11), told, 20)->said, "[rank 0] error: rank 3 (host "));
}

static void a_death_right_after_the_start_is_seen(void **state)
{
    (void)state;
    ended(kill_at_once, CODES(17, 17, 17, -9), ")" WORDLESS "start; all ranks end\n", 20);
}

static void who_was_asked_to_stop_was_killed(void **state)
{
    (void)state;
    ended(kill_asked, CODES(17, 17, -9, 17),
          ") was killed, some time after it had been asked to stop, at step 41, reduction; all ranks end\n", 20);
}

static void without_both_centres_the_others_end(void **state)
{
    (void)state;
    const struct scene *s = ended(kill_centres, CODES(-9, -9, 17, 17), ")" WORDLESS "start (and 1 more rank); all ranks end\n", 20);
    assert_non_null(strstr(s->said, "[rank 2] error: rank "));
}

static void silence_is_named(void **state)
{
    (void)state;
    const char *told =
        ") has not been heard of for 1 s (stopped, or its host or the network is gone), last at step 41, reduction; all ranks end\n";
    assert_non_null(strstr(ended(stop_0, CODES(-9, 21, 21, 21), told, 20)->said, "[rank 1] error: rank 0 (host "));
    assert_non_null(strstr(ended(stop_1, CODES(21, -9, 21, 21), told, 20)->said, "[rank 0] error: rank 1 (host "));
    assert_non_null(strstr(ended(stop_3, CODES(21, 21, 21, -9), told, 20)->said, "[rank 0] error: rank 3 (host "));
}

static void who_is_silent_for_a_reason_is_forgiven(void **state)
{
    (void)state;
    ended(stop_forgiven, CODES(0, 0, 0, 0), NULL, 20);
    ended(suspended, CODES(0, 0, 0, 0), NULL, 20);
}

static void the_code_of_a_rank_is_kept(void **state)
{
    (void)state;
    ended(exits, CODES(11, 11, 11, 11), ") ended by itself with exit code 11 at load; all ranks end\n", 20);
    ended(tells, CODES(15, 15, 15, 15), "[rank 2] error: a reason of its own (rank 2 of 4 on ", 20);
}

static void survivors_name_no_second_cause(void **state)
{
    (void)state;
    ended(blamed, CODES(17, 17, -9, 17), ")" WORDLESS "start; all ranks end\n", 20);
}

static void an_end_in_order_is_silent(void **state)
{
    (void)state;
    const struct scene *s = ended(in_order, CODES(0, 0, 0, 0), NULL, 5);
    assert_string_equal(s->said, "");
    s = ended(unconnected, CODES(0, 0, 0, 0), NULL, 8);
    assert_string_equal(s->said, "");
}

static void who_is_not_watched_is_told_once(void **state)
{
    (void)state;
    const struct scene *s = ended(unreachable, CODES(0, 0, 0, 0), NULL, 30);
    assert_non_null(strstr(s->said, "[rank 0] warning: 1 of 4 ranks (on "));
    assert_non_null(strstr(s->said, "srun -K1"));
    assert_int_equal(count(s->said, "warning: "), 1);
}

static void others_at_the_door_do_no_harm(void **state)
{
    (void)state;
    ended(visited, CODES(17, 17, 17, -9), ")" WORDLESS "start; all ranks end\n", 20);
    ended(crowd, CODES(17, 17, 17, -9), ")" WORDLESS "start; all ranks end\n", 20);
}

static void where_a_rank_stands(void **state)
{
    (void)state;
    struct comm c;
    comm_self_open(&c);
    watch_open(&c);
    watch_at(WATCH_SAVE, 7);
    assert_string_equal(watch_place(), "");
    watch_tell(3);
    watch_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_death_is_named_by_who_is_in_charge),
        cmocka_unit_test(a_death_right_after_the_start_is_seen),
        cmocka_unit_test(who_was_asked_to_stop_was_killed),
        cmocka_unit_test(without_both_centres_the_others_end),
        cmocka_unit_test(silence_is_named),
        cmocka_unit_test(who_is_silent_for_a_reason_is_forgiven),
        cmocka_unit_test(the_code_of_a_rank_is_kept),
        cmocka_unit_test(survivors_name_no_second_cause),
        cmocka_unit_test(an_end_in_order_is_silent),
        cmocka_unit_test(who_is_not_watched_is_told_once),
        cmocka_unit_test(others_at_the_door_do_no_harm),
        cmocka_unit_test(where_a_rank_stands),
    };
    return cmocka_run_group_tests(tests, run_all, NULL);
}
