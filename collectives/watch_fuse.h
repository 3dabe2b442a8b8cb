/* watch_fuse.h — threads that do nothing but wait, all signals blocked in them, and end this process if nobody else does. */
#ifndef TRIMPOT_WATCH_FUSE_H
#define TRIMPOT_WATCH_FUSE_H

#include <pthread.h>
#include <stdbool.h>

/* A thread with a small stack that no signal is delivered to. False with errno where there is none. */
bool watch_thread(pthread_t *thread, void *(*run)(void *));

/* _exit(code) in so many seconds, whatever the others wait for: an abort, a terminal that nobody reads. */
void watch_fuse(int code, double seconds);

#endif
