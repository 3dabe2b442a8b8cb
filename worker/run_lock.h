/* run_lock.h — one output folder, one run.
 *
 *   OUTPUT/run.lock     one line of JSON: host, boot id, pid namespace, pid, the process's start time, job, restart count,
 *                       when it began, a nonce, and a beat of fixed width, rewritten in place
 *
 * Rank 0 holds it. No flock, no fcntl lock: a file that is linked into place and beats every RUN_LOCK_BEAT_S seconds works on
 * NFS, Lustre and a laptop alike. Times of different machines are never compared: the age of a beat is the file's own
 * modification time against that of a probe file written to the same folder just now.
 *
 * Found a lock:
 *   its process is gone, same host (host name, boot id, pid namespace)      taken over, said
 *   its process lives, same host                                            refused at once
 *   same Slurm job, lower restart count: the predecessor of a requeue       taken over, said
 *   another host, beat younger than RUN_LOCK_FRESH_S                        refused at once
 *   another host, older, or from the future                                 watched: as soon as it beats, refused; once unchanged
 *                                                                           for RUN_LOCK_STALE_S by our own clock or by age, taken over, said
 *   not a lock, or unreadable                                               refused, with the remedy
 *
 * Taking over renames over the old file, waits, and reads back: of two that try, the last one has it and the other is refused.
 * Who was taken over notices at its next beat or before its next commit, writes nothing more, and ends. */
#ifndef TRIMPOT_RUN_LOCK_H
#define TRIMPOT_RUN_LOCK_H

#include "collectives/comm.h"
#include "kernels/base/status.h"

enum { RUN_LOCK_BEAT_S = 2, RUN_LOCK_FRESH_S = 10, RUN_LOCK_STALE_S = 60 };

struct run_lock;

/* Collective: rank 0 makes the folder if need be and takes the lock; every other rank then finds the same nonce in its own view
 * of the folder within 10 s, or the folder is not shared between the hosts (ST_USAGE naming host and folder; as every other
 * refusal). *out = NULL on failure. The folder is left as it was found where the lock is refused. */
status run_lock_take(const char *output_dir, struct comm *comm, struct run_lock **out);

/* Rank 0: is the lock still this run's, by the file itself? ST_OK, or ST_USAGE naming who has it now. Before each commit. */
status run_lock_check(struct run_lock *l);

/* Has a beat found it lost? Reads one flag; any rank, any time; always false but on rank 0. */
bool run_lock_lost(const struct run_lock *l);

/* Removes the file if it is still this run's. NULL is fine. */
void run_lock_release(struct run_lock *l);

#endif
