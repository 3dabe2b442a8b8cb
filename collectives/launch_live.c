/* launch_live.c — what the environment cannot tell of a launch: whether its launcher lives, and how MPI_Init ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collectives/comm.h"
#include "kernels/base/text.h"

static const char *environment(const char *name) { return getenv(name); }

/* ---- which process of a launch speaks ------------------------------------------------------------------------------ */

/* Direct children of a launcher's daemon, and where it numbers them: in a shell below, the variables may be older. */
static const struct {
    const char *parent, *rank;
} daemons[] = {
    {"slurmstepd", "SLURM_PROCID"},      {"mpirun", "OMPI_COMM_WORLD_RANK"}, {"orted", "OMPI_COMM_WORLD_RANK"},
    {"prterun", "OMPI_COMM_WORLD_RANK"}, {"prted", "OMPI_COMM_WORLD_RANK"},  {"mpiexec", "OMPI_COMM_WORLD_RANK"},
    {"hydra_pmi_proxy", "PMI_RANK"},     {"flux-shell", "FLUX_TASK_RANK"},
};

static bool is_echo(void)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%lld/comm", (long long)getppid());
    FILE *f = fopen(path, "re");
    if (f && !fgets(name, sizeof name, f)) *name = 0;
    if (f) fclose(f);
    name[strcspn(name, "\n")] = 0;
    for (size_t i = 0; i < sizeof daemons / sizeof *daemons; i++) {
        const char *rank = strcmp(name, daemons[i].parent) == 0 ? getenv(daemons[i].rank) : NULL;
        if (rank && atoi(rank) > 0) return true;
    }
    return false;
}

/* ---- is its server there? ------------------------------------------------------------------------------------------ */

/* The port of "pmix-server.812;tcp4://127.0.0.1:50027", 0 where it is no address of this host's loopback. */
static int loopback_port(const char *uri, int *family)
{
    static const struct {
        const char *prefix;
        int family;
    } forms[] = {{"tcp4://127.", AF_INET}, {"tcp6://[::1]:", AF_INET6}};
    for (size_t i = 0; i < 2; i++) {
        const char *at = strstr(uri, forms[i].prefix), *port = at ? strrchr(at, ':') : NULL;
        *family = forms[i].family;
        if (port) return atoi(port + 1) & 0xFFFF;
    }
    return 0;
}

/* Does any socket of this network namespace listen there? Asked first, so that a live server never sees a stranger. */
static bool listens(int port)
{
    static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
    enum { LISTEN = 10 };
    bool found = false;
    for (int i = 0; i < 2 && !found; i++) {
        char line[256];
        FILE *f = fopen(tables[i], "re");
        unsigned at, state = LISTEN;
        while (f && !found && state == LISTEN && fgets(line, sizeof line, f)) /* those that listen stand first */
            if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &at, &state) == 2)
                found = state == LISTEN && at == (unsigned)port;
        if (f) fclose(f);
    }
    return found;
}

static bool refuses(int family, int port)
{
    enum { PATIENCE_MS = 500 };
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool is_v4 = family == AF_INET;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    int error = connect(fd, is_v4 ? (void *)&v4 : (void *)&v6, is_v4 ? sizeof v4 : sizeof v6) ? errno : 0;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t bytes = sizeof error;
    if (error == EINPROGRESS && poll(&p, 1, PATIENCE_MS) == 1) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    close(fd);
    return error == ECONNREFUSED;
}

/* The first address of a server where nothing listens, if there is none where something does (or may). */
static const char *dead_server(void)
{
    static const char *const names[] = {"PMIX_SERVER_URI41", "PMIX_SERVER_URI4", "PMIX_SERVER_URI3", "PMIX_SERVER_URI21",
                                        "PMIX_SERVER_URI2"};
    const char *dead = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *uri = getenv(names[i]);
        int family, port = uri ? loopback_port(uri, &family) : 0;
        if (!uri) continue;
        if (!port || listens(port) || !refuses(family, port)) return NULL;
        if (!dead) dead = names[i];
    }
    return dead;
}

static status find(const char *dist, struct launch *out)
{
    TRY(launch_detect(dist, environment, out));
    const char *dead = out->mpi ? dead_server() : NULL;
    if (dead)
        FAIL(ST_USAGE,
             "environment: %s='%.80s', but nothing listens there: the launcher (%s) has ended and left its variables in this shell "
             "(or this is a container without its host's network); `unset ${!OMPI_*} ${!PMIX_*}` (bash), or a new shell, or --dist self "
             "for one process",
             dead, getenv(dead), out->how);
    return ST_OK;
}

status launch_find(const char *dist, struct launch *out)
{
    status st = find(dist, out);
    out->echo = st && is_echo();
    return st;
}

/* ---- around MPI_Init ------------------------------------------------------------------------------------------------- */

/* Open MPI ends the process itself when MPI_Init fails, past atexit. So a child waits on a socket: closed without a word, it says
 * what happened. The alarm ends a wait without end; it gives the child its word, and speaks. */
static struct {
    int to_child; /* −1 = no guard */
    pid_t child;
    char late[640];
} guard = {.to_child = -1};

static void say(const char *line)
{
    ssize_t ignored = write(STDERR_FILENO, line, strlen(line));
    (void)ignored;
}

static void give_word(void) { send(guard.to_child, "", 1, MSG_NOSIGNAL); } /* the launcher may have ended it already */

static void on_alarm(int number)
{
    (void)number;
    give_word();
    say(guard.late);
    _exit(ST_WATCHDOG);
}

/* A launcher's rank 0 speaks at once; the others a little later, when most launchers have ended them. */
static void watch_init(int from, bool echo, const char *ended)
{
    enum { OTHERS_WAIT_MS = 400 };
    char word;
    ssize_t n;
    sigset_t none;
    for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    while ((n = read(from, &word, 1)) < 0 && errno == EINTR) continue;
    if (n == 0) {
        if (echo) poll(NULL, 0, OTHERS_WAIT_MS);
        say(ended);
    }
    _exit(0);
}

static status init_timeout(unsigned *seconds)
{
    const char *text = getenv("TRIMPOT_INIT_TIMEOUT");
    char *end = "";
    unsigned long n = text ? strtoul(text, &end, 10) : 120;
    if (text && (*text < '0' || *text > '9' || *end || n > 1 << 24))
        FAIL(ST_USAGE, "environment variable TRIMPOT_INIT_TIMEOUT is '%s': seconds are expected, 0 = no limit", text);
    *seconds = (unsigned)n;
    return ST_OK;
}

status launch_guard(const struct launch *l)
{
    unsigned seconds = 0;
    int ends[2];
    bool echo = is_echo();
    char host[65] = "", who[160] = "", ended[760];
    if (!l->mpi) return ST_OK;
    TRY(init_timeout(&seconds));
    gethostname(host, sizeof host - 1);
    if (l->rank >= 0) snprintf(who, sizeof who, " (started by %s as rank %d on %s)", l->how, l->rank, host);
    snprintf(guard.late, sizeof guard.late,
             "error: the start of the ranks%s has not ended within %u s: a rank has not started, has ended or is stopped, or "
             "hosts cannot reach each other (firewall; btl_tcp_if_include); `trimpot doctor` under the same launcher looks closer, "
             "TRIMPOT_INIT_TIMEOUT=SECONDS waits longer\n",
             who, seconds);
    /* Seen: with Slurm's default a rank leaves the barrier at the end of MPI_Init too early, and its first message crashes another. */
    const char *race = getenv("SLURM_STEP_ID") ? "; a crash in it under srun: `export SLURM_PMIX_FENCE=ring`" : "";
    snprintf(ended, sizeof ended,
             "error: MPI_Init%s failed and ended this process; what MPI printed stands above. It fails for the second "
             "MPI program in the shell of one rank (give each its own mpirun or srun), where MPI and launcher belong to different "
             "installations, and in variables left over from another launch (`unset ${!OMPI_*} ${!PMIX_*}`, or --dist self)%s\n",
             who, race);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return ST_OK;
    guard.to_child = ends[1];
    guard.child = fork();
    if (guard.child == 0) {
        close(ends[1]);
        watch_init(ends[0], echo, ended);
    }
    close(ends[0]);
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds ? seconds + echo : 0); /* the first to end makes most launchers end the others */
    return ST_OK;
}

void launch_guarded(void)
{
    if (guard.to_child < 0) return;
    alarm(0);
    signal(SIGALRM, SIG_DFL);
    give_word();
    close(guard.to_child);
    guard.to_child = -1;
    while (guard.child > 0 && waitpid(guard.child, NULL, 0) < 0 && errno == EINTR) continue;
}
