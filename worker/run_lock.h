/* run_lock.h — one output folder, one run.
 *
 *   OUTPUT/run.lock     one line of JSON: host, boot id, pid namespace, pid, the process's start time, job, restart count,
 *                       when it began, a nonce, and a beat of fixed width, rewritten in place
 *
 * Rank 0 holds it. No flock, no fcntl lock: a file that is linked into place and beats every RUN_LOCK_BEAT_S seconds works on
 * NFS, Lustre and a laptop alike. Clocks of machines are never compared: the age of a beat is the file's own modification
 * time against that of a file written to the same folder just now; and as some file systems stamp with the writer's clock,
 * no age alone takes a lock from anybody: whoever may live on another host is watched for RUN_LOCK_FRESH_S at least.
 *
 * Found a lock (run_lock_record.c, the first that holds):
 *   its process is gone, same host (host name, boot id, pid namespace)      taken over, said
 *   its process lives, same host                                            refused at once
 *   same Slurm job, lower restart count: the predecessor of a requeue       taken over, said
 *   another host, beat younger than RUN_LOCK_FRESH_S                        refused at once
 *   another host, older, or from the future                                 watched, said: as soon as it beats, refused;
 *                                                                           unchanged until RUN_LOCK_STALE_S old, taken over, said
 *   not a lock, or unreadable                                               refused, with the remedy
 *
 * Taking over renames over the old file, waits, and reads back: of two that try, the last one has it and the other is refused.
 * Who was taken over notices at its next beat. And it writes nothing before it has noticed: whoever has not seen its own lock
 * for RUN_LOCK_FRESH_S (it was stopped, suspended, cut off) looks at the file itself before it writes anything more, and no
 * lock is taken from a process that may live before it was silent for longer than that.
 *
 * A lock that somebody removed by hand is put back. One that is gone after such a silence is lost: another run may have had
 * the folder and ended. */
#ifndef TRIMPOT_RUN_LOCK_H
#define TRIMPOT_RUN_LOCK_H

#include "collectives/comm.h"
#include "kernels/base/status.h"

enum { RUN_LOCK_BEAT_S = 2, RUN_LOCK_FRESH_S = 10, RUN_LOCK_STALE_S = 60, RUN_LOCK_SHARED_S = 10 };

struct run_lock;

/* Collective: rank 0 makes the folder if need be and takes the lock; every other rank then finds the same nonce in its own view
 * of the folder within RUN_LOCK_SHARED_S, or the folder is not shared between the hosts (ST_USAGE naming host and folder; as
 * every other refusal). `requests` (train_hooks', or NULL) ends a watch by TRAIN_STOP: ST_NOT_SAVED. *out = NULL on failure,
 * and the folder is left as it was found. */
status run_lock_take(const char *output_dir, struct comm *comm, unsigned (*requests)(void), struct run_lock **out);

/* Is the lock still this run's, by the file itself? ST_USAGE naming who has it now; ST_IO where the file does not tell. Rank 0
 * asks before each commit; on other ranks always ST_OK. */
status run_lock_check(struct run_lock *l);

/* Is it known to be lost? A flag and a clock, and the file itself only after a silence: for every step. Any rank, any time;
 * always false but on rank 0. */
bool run_lock_lost(struct run_lock *l);

/* 32 characters that name this run, the same on all ranks and of no other run. */
const char *run_lock_nonce(const struct run_lock *l);

/* Removes the file if it is still this run's, and the folder if this run made it and left nothing there. NULL is fine. */
void run_lock_release(struct run_lock *l);

#endif
