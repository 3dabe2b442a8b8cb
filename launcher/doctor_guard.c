/* The process that the launcher started only waits. Its child goes on as the doctor: MPI_Init may hang in it, end it or
 * crash it, and a file system may hold it for ever; the report is printed all the same. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/log.h"
#include "launcher/doctor.h"

static struct shared {
    struct doctor_record record;
    volatile enum doctor_stage stage;
    volatile bool reported;
} * shared;

struct doctor_record *doctor_mine(void) { return &shared->record; }
void doctor_at(enum doctor_stage stage) { shared->stage = stage; }
void doctor_reported(void) { shared->reported = true; }

/* What is being waited for at each stage, and what usually keeps it. */
static const struct {
    const char *what, *causes;
} stages[DOCTOR_STAGES] = {
    [DOCTOR_PROBE] = {"looking at this host", "the file system with the program or with libmpi does not answer"},
    [DOCTOR_OPEN] = {"MPI_Init", "a rank that did not start, is stopped or has ended; hosts that do not reach each other over TCP "
                                 "(a firewall, or the wrong network: --mca btl_tcp_if_include, --mca oob_tcp_if_include); variables of "
                                 "another launcher"},
    [DOCTOR_GATHER] = {"the other ranks", "a rank that is stopped, has ended, or waits for its disk; a network that was cut"},
    [DOCTOR_FILES] = {"the output folder", "a file system that does not answer"},
    [DOCTOR_END] = {"the end of the other ranks (MPI_Finalize)", "a rank that is stopped or has ended; a network that was cut"},
};

/* ---- stopped processes of the same program on this host --------------------------------------------------------- */

static char state_of(const char *pid)
{
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%.16s/stat", pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    const char *end = strrchr(text, ')');
    return end && end[1] ? end[2] : 0;
}

static bool same_program(const char *pid, const char *program)
{
    char path[64], exe[512];
    snprintf(path, sizeof path, "/proc/%.16s/exe", pid);
    ssize_t n = readlink(path, exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    return n > 0 && strcmp(exe, program) == 0;
}

/* "; process 812 on this host is stopped (kill -CONT 812)", or "". */
static void find_stopped(char *text, size_t bytes)
{
    char program[512];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = 0;
    *text = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!isdigit((unsigned char)*e->d_name) || !same_program(e->d_name, program) || state_of(e->d_name) != 'T') continue;
        snprintf(text, bytes, "; process %.10s of the same program is stopped on this host (kill -CONT %.10s)", e->d_name, e->d_name);
        break;
    }
    if (d) closedir(d);
}

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

enum ending { ENDED, KILLED, LATE };

/* SIGCHLD is blocked: it is waited for, not handled. Processes that are not the first wait longer: its report comes before
 * their exit codes end the job. */
static enum ending wait_for(pid_t child, double seconds, const sigset_t *child_ends, int *code)
{
    enum { LATER_S = 2 };
    double begun = clock_s();
    for (;;) {
        int how = 0;
        if (waitpid(child, &how, WNOHANG) == child) {
            *code = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
            return WIFEXITED(how) ? ENDED : KILLED;
        }
        double left = begun + seconds + (shared->record.number > 0 ? LATER_S : 0) - clock_s();
        if (left <= 0) return LATE;
        if (left > 1) left = 1;
        sigtimedwait(child_ends, NULL, &(struct timespec){.tv_sec = (time_t)left, .tv_nsec = (long)((left - (double)(time_t)left) * 1e9)});
    }
}

/* In the record's words, and the exit code. */
static int describe(enum ending how, int code, double seconds)
{
    struct doctor_record *r = &shared->record;
    const char *what = stages[shared->stage].what, *causes = stages[shared->stage].causes;
    char stopped[160];
    find_stopped(stopped, sizeof stopped);
    if (how == LATE)
        snprintf(r->failure, sizeof r->failure, "no end within %.0f s (--timeout) while waiting for %s%s; likely: %s", seconds, what,
                 stopped, causes);
    else if (how == KILLED)
        snprintf(r->failure, sizeof r->failure, "signal %d (%s) ended the process while waiting for %s", code - 128, strsignal(code - 128),
                 what);
    else
        snprintf(r->failure, sizeof r->failure,
                 "the process was ended with exit code %d while waiting for %s: what it printed "
                 "itself stands above",
                 code, what);
    return r->failure_code = how == LATE ? ST_WATCHDOG : how == ENDED && code ? code : ST_FAIL;
}

static void report(const struct cli *c, const char *scripts)
{
    struct doctor_world w;
    struct buf text = {0};
    int n = 0;
    doctor_world_init(&w, &shared->record, 1, scripts);
    struct doctor_finding *f = doctor_judge(&w, &n);
    if (shared->record.number > 0 || shared->reported)
        doctor_lines(&w, f, n);
    else
        (c->json ? doctor_json : doctor_text)(&w, f, n, &text);
    if (text.len) fwrite(text.data, 1, text.len, stdout);
    fflush(stdout);
    /* Launchers that end the job upon an exit code may drop what they have not passed on yet. */
    if (text.len && shared->record.number == 0) sleep(1);
    buf_release(&text);
    doctor_spare(f, n);
    doctor_world_release(&w);
}

static bool share(void)
{
    void *memory = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared = memory == MAP_FAILED ? NULL : memory;
    return shared != NULL;
}

/* The child: dies with the guard, whatever ends that. */
static void go_on(const struct cli *c, const sigset_t *mask, pid_t guard)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard) raise(SIGKILL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    doctor_probe(c, &shared->record);
    doctor_at(DOCTOR_OPEN);
}

bool doctor_guard(const struct cli *c, int *code)
{
    enum { REPORT_S = 5 };
    double seconds = c->timeout > 0 ? (double)c->timeout : DOCTOR_SECONDS;
    sigset_t child_ends, before;
    pid_t guard = getpid();
    if (!share()) {
        log_error("no memory for the report");
        *code = ST_OOM;
        return true;
    }
    sigemptyset(&child_ends);
    sigaddset(&child_ends, SIGCHLD);
    signal(SIGCHLD, SIG_DFL); /* ignored by whoever started us, it would take the exit code along */
    sigprocmask(SIG_BLOCK, &child_ends, &before);
    pid_t child = fork();
    if (child < 0) {
        log_error("fork: %s; the number of processes is limited (ulimit -u)", strerror(errno));
        *code = ST_FAIL;
        return true;
    }
    if (child == 0) {
        go_on(c, &before, guard);
        return false;
    }
    enum ending how = wait_for(child, seconds, &child_ends, code);
    if (how == ENDED && shared->reported) return true;
    if (how == LATE) kill(child, SIGKILL);
    alarm(REPORT_S); /* the scripts that are quoted may lie on the file system that hangs: no report then, but an end */
    *code = describe(how, *code, seconds);
    char *scripts = mem_printf("%s/slurm", c->shipped_dir);
    report(c, scripts);
    free(scripts);
    return true;
}
