#include "collectives/watch_fuse.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "collectives/watch.h"
#include "kernels/base/log.h"

enum { STACK_BYTES = 512 << 10 };

bool watch_thread(pthread_t *thread, void *(*run)(void *))
{
    pthread_attr_t attr;
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_attr_init(&attr)) return false;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    errno = pthread_create(thread, &attr, run, NULL);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    errno = error;
    return !error;
}

static struct { int code, after_ms; } fuse;

static void *burn(void *unused)
{
    (void)unused;
    poll(NULL, 0, fuse.after_ms);
    _exit(fuse.code);
}

void watch_fuse(int code, double seconds)
{
    pthread_t thread;
    fuse.code = code;
    fuse.after_ms = (int)(1000 * seconds);
    if (watch_thread(&thread, burn)) pthread_detach(thread);
}

/* ---- deadlines ------------------------------------------------------------------------------------------------------- */

static struct {
    const char *what;
    double seconds;
    int lift; /* eventfd */
    bool on;
    pthread_t thread;
} deadline;

static void *keep_deadline(void *unused)
{
    (void)unused;
    struct pollfd lifted = {deadline.lift, POLLIN, 0};
    const char *rank = getenv("PMIX_RANK");
    if (poll(&lifted, 1, (int)(1000 * deadline.seconds))) return NULL;
    if (!rank || atoi(rank) <= 1) /* if rank 0 is the one that is missing, rank 1 says it */
        log_error("%s did not end within %.0f s: a rank died while it started (see above), or the network between the hosts is not "
                  "usable for MPI", deadline.what, deadline.seconds);
    _exit(ST_WATCHDOG);
}

void watch_deadline(const char *what, double seconds)
{
    if (deadline.on) {
        eventfd_write(deadline.lift, 1);
        pthread_join(deadline.thread, NULL);
        close(deadline.lift);
    }
    deadline.what = what;
    deadline.seconds = seconds;
    deadline.lift = what ? eventfd(0, EFD_CLOEXEC) : -1;
    deadline.on = deadline.lift >= 0 && watch_thread(&deadline.thread, keep_deadline);
}
