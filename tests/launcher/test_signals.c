/* Signals become flags; which of them end the process when they come again; which threads they leave alone. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "launcher/signals.h"

/* As another program would, to the process: the listening thread takes it a moment later. */
static void send(int signal)
{
    kill(getpid(), signal);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

enum { OVER = 1000, LATER = -5 }; /* in a list of signals: the run is over; seconds pass */

/* In a child: sends itself the signals (0 ends the list); returns its wait status. It exits with what it then takes,
 * plus 4 when it is stopping. */
static int child(const int *list)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (signals_install()) _exit(99);
        for (; *list; list++) {
            if (*list == OVER)
                signals_end();
            else if (*list < 0)
                nanosleep(&(struct timespec){.tv_sec = -*list}, NULL);
            else
                send(*list);
        }
        unsigned flags = signals_take();
        _exit((int)(flags + (signals_stopping() ? 4u : 0u)));
    }
    int how = 0;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    return how;
}

static void test_flags(void **state)
{
    (void)state;
    static const struct {
        int list[4], code;
    } rows[] = {
        {{0}, 0},
        {{SIGUSR1}, SIGNAL_SAVE},
        {{SIGUSR1, SIGUSR1}, SIGNAL_SAVE},
        {{SIGUSR2}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGUSR2, SIGUSR2}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGHUP}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGTERM}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGINT}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGTERM, SIGTERM, SIGTERM}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGTERM, LATER, SIGTERM}, 128 + SIGTERM},
        {{SIGINT, SIGINT}, 128 + SIGINT},
        {{SIGINT, SIGTERM}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{SIGPIPE, SIGCONT}, 0},
        {{SIGINT, OVER, SIGINT}, SIGNAL_SAVE | SIGNAL_STOP | 4},
        {{OVER, SIGTERM}, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int how = child(rows[i].list);
        if (!WIFEXITED(how) || WEXITSTATUS(how) != rows[i].code) fail_msg("row %zu: wait status %x", i, how);
    }
}

static void test_take(void **state)
{
    (void)state;
    assert_int_equal(signals_install(), ST_OK);
    send(SIGUSR1);
    assert_int_equal(signals_take(), SIGNAL_SAVE);
    assert_int_equal(signals_take(), 0);
    assert_false(signals_stopping());
    send(SIGUSR2);
    assert_true(signals_stopping());
    assert_int_equal(signals_take(), SIGNAL_SAVE | SIGNAL_STOP);
    assert_int_equal(signals_take(), SIGNAL_SAVE | SIGNAL_STOP); /* a stop stays */
}

static void *mask_of_a_thread(void *mask)
{
    pthread_sigmask(SIG_BLOCK, NULL, mask);
    return NULL;
}

/* No handler may run on a thread that computes: neither the installing one nor any started after it. */
static void test_spared(void **state)
{
    (void)state;
    assert_int_equal(signals_install(), ST_OK);
    sigset_t mine, later;
    mask_of_a_thread(&mine);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, mask_of_a_thread, &later), 0);
    pthread_join(thread, NULL);
    static const int spared[] = {SIGUSR1, SIGUSR2, SIGHUP, SIGTERM, SIGINT};
    for (size_t i = 0; i < sizeof spared / sizeof *spared; i++) {
        assert_true(sigismember(&mine, spared[i]));
        assert_true(sigismember(&later, spared[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flags), cmocka_unit_test(test_take), cmocka_unit_test(test_spared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
