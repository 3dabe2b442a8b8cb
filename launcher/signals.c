#include "launcher/signals.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

/* How one signal is answered. Installed handlers touch nothing but the flags below and _exit. */
struct answer {
    int signal;
    unsigned flags;
    int again_s; /* the same signal again within so many seconds ends the process at once; 0 = never, −1 = always */
};

static const struct answer answers[] = {
    {SIGUSR1, SIGNAL_SAVE, 0},
    {SIGUSR2, SIGNAL_SAVE | SIGNAL_STOP, 0},
    {SIGHUP, SIGNAL_SAVE | SIGNAL_STOP, 0},
    {SIGTERM, SIGNAL_SAVE | SIGNAL_STOP, -1},
    {SIGINT, SIGNAL_SAVE | SIGNAL_STOP, 5},
    {SIGPIPE, 0, 0},
};
enum { ANSWERS = sizeof answers / sizeof *answers };

static volatile sig_atomic_t received[ANSWERS]; /* since the last take */
static volatile sig_atomic_t stopping;
static volatile long last_s[ANSWERS];           /* second of the latest one, 0 = none yet */

static long now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1;
}

static void on_signal(int signal)
{
    for (int i = 0; i < ANSWERS; i++) {
        if (answers[i].signal != signal) continue;
        long now = now_s();
        int again_s = answers[i].again_s;
        if (last_s[i] && again_s && (again_s < 0 || now - last_s[i] <= again_s)) _exit(128 + signal);
        last_s[i] = now;
        received[i] = 1;
        if (answers[i].flags & SIGNAL_STOP) stopping = 1;
    }
}

void signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < ANSWERS; i++) sigaction(answers[i].signal, &action, NULL);
}

unsigned signals_take(void)
{
    unsigned flags = stopping ? SIGNAL_SAVE | SIGNAL_STOP : 0;
    for (int i = 0; i < ANSWERS; i++) {
        if (!received[i]) continue;
        received[i] = 0;
        flags |= answers[i].flags;
    }
    return flags;
}

bool signals_stopping(void) { return stopping; }
