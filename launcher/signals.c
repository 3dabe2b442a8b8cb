/* signals.c — signals become flags, on a thread that does nothing else.
 *
 * A handler must never run on a thread that computes: one that interrupts oneDNN's dnnl_sgemm (2.6.3, AVX-512) corrupts
 * the heap, though it only sets a flag: an abort, other sums or a hang, seen about once in twenty signals. So the signals
 * are blocked in the thread that installs them, and with it in every thread started later; only a thread that sleeps all
 * its life has them open, and there the kernel delivers them. */
#include "launcher/signals.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "collectives/watch.h"

/* How one signal is answered. Handlers touch nothing but the flags below and _exit. */
struct answer {
    int signal;
    unsigned flags;
    long from_s, to_s; /* the same signal again, so many seconds later, ends the process at once; sooner it is the same one */
};

/* One TERM comes as several: cancelled, Slurm sends it to the ranks, and to srun or mpirun, which send it on, mpirun a
 * second later. */
static const struct answer answers[] = {
    {SIGUSR1, SIGNAL_SAVE, LONG_MAX, 0},
    {SIGUSR2, SIGNAL_SAVE | SIGNAL_STOP, LONG_MAX, 0},
    {SIGHUP, SIGNAL_SAVE | SIGNAL_STOP, LONG_MAX, 0},
    {SIGTERM, SIGNAL_SAVE | SIGNAL_STOP, 5, LONG_MAX},
    {SIGINT, SIGNAL_SAVE | SIGNAL_STOP, 0, 5},
};
enum { ANSWERS = sizeof answers / sizeof *answers };

static atomic_uint received; /* flags since the last take */
static atomic_bool stopping, ended;
static atomic_long last_s[ANSWERS]; /* second of the latest one that counted, 0 = none yet */

static long now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1;
}

static void on_signal(int signal)
{
    if (atomic_load(&ended)) return;
    for (int i = 0; i < ANSWERS; i++) {
        if (answers[i].signal != signal) continue;
        long now = now_s(), last = atomic_load(&last_s[i]), gap = now - last;
        if (last && gap >= answers[i].from_s && gap <= answers[i].to_s) _exit(128 + signal);
        if (!last || gap >= answers[i].from_s) atomic_store(&last_s[i], now);
        if (answers[i].flags & SIGNAL_STOP) {
            atomic_store(&stopping, true);
            watch_asked_to_stop();
        }
        atomic_fetch_or(&received, answers[i].flags);
    }
}

static void *listen(void *unused)
{
    (void)unused;
    sigset_t none;
    sigemptyset(&none);
    for (;;) sigsuspend(&none);
    return NULL;
}

static void ignore(int number)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(number, &action, NULL);
}

void signals_prepare(void) { ignore(SIGXFSZ); }

status signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigset_t ours;
    sigemptyset(&ours);
    for (int i = 0; i < ANSWERS; i++) sigaddset(&ours, answers[i].signal);
    pthread_sigmask(SIG_BLOCK, &ours, NULL);
    for (int i = 0; i < ANSWERS; i++) sigaction(answers[i].signal, &action, NULL);
    ignore(SIGPIPE);

    pthread_t thread;
    int error = pthread_create(&thread, NULL, listen, NULL);
    if (error) FAIL(ST_FAIL, "signals: no thread could be started: %s; raise the limit on processes (ulimit -u)", strerror(error));
    pthread_detach(thread);
    return ST_OK;
}

unsigned signals_take(void)
{
    unsigned flags = atomic_exchange(&received, 0);
    return atomic_load(&stopping) ? flags | SIGNAL_SAVE | SIGNAL_STOP : flags;
}

bool signals_stopping(void) { return atomic_load(&stopping); }

void signals_end(void) { atomic_store(&ended, true); }
