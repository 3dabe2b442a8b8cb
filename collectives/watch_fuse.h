/* watch_fuse.h — threads that do nothing but wait, all signals blocked in them, and end this process if nobody else does; and
 * what ends its launcher. */
#ifndef TRIMPOT_WATCH_FUSE_H
#define TRIMPOT_WATCH_FUSE_H

#include <pthread.h>
#include <stdbool.h>

/* A thread with a small stack that no signal is delivered to. False with errno where there is none. */
bool watch_thread(pthread_t *thread, void *(*run)(void *));

/* _exit(code) in so many seconds, whatever the others wait for: an abort, a terminal that nobody reads. */
void watch_fuse(int code, double seconds);

/* mpirun waits for ever for a host that has vanished, though all ranks it can reach are dead. Where this process is its child, it
 * is killed in so many seconds, by a process that outlives this one. */
void watch_fuse_launcher(double seconds);

#endif
