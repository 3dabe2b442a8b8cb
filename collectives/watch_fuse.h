/* watch_fuse.h — what ends this process if nobody else does, and its launcher. */
#ifndef TRIMPOT_WATCH_FUSE_H
#define TRIMPOT_WATCH_FUSE_H

/* _exit(code) in so many seconds, whatever the others wait for: an abort, a terminal that nobody reads. */
void watch_fuse(int code, double seconds);

/* mpirun waits for ever for a host that has vanished, though all ranks it can reach are dead. Where this process is its child, it
 * is killed in so many seconds, by a process that outlives this one. */
void watch_fuse_launcher(double seconds);

#endif
