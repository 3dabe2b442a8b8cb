/* thread.h — threads beside those that compute. */
#ifndef TRIMPOT_THREAD_H
#define TRIMPOT_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* A thread with a small stack that no signal is delivered to: a handler belongs on a thread of its own (launcher/signals.c
 * says why). False with errno where there is none. */
bool thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

#endif
