#include "kernels/base/thread.h"

#include <errno.h>
#include <signal.h>

enum { STACK_BYTES = 512 << 10 };

static bool start(pthread_t *thread, size_t stack_bytes, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_attr_init(&attr)) return false;
    if (stack_bytes) pthread_attr_setstacksize(&attr, stack_bytes);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    errno = error;
    return !error;
}

bool thread_start(pthread_t *thread, void *(*run)(void *), void *arg) { return start(thread, STACK_BYTES, run, arg); }

bool thread_start_computing(pthread_t *thread, void *(*run)(void *), void *arg) { return start(thread, 0, run, arg); }
