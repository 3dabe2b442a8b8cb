/* thread.h — threads beside the one that main() runs on. No signal is delivered to them: a handler belongs on a thread
 * of its own (launcher/signals.c says why). */
#ifndef TRIMPOT_THREAD_H
#define TRIMPOT_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* One that waits and watches: its stack is small. False with errno where there is none. */
bool thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* One that computes: its stack is as large as any (`ulimit -s`). */
bool thread_start_computing(pthread_t *thread, void *(*run)(void *), void *arg);

#endif
