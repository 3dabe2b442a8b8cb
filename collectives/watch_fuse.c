#include "collectives/watch_fuse.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

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
