/* watch.h — which ranks are alive, and where each one stands.
 *
 *   rank 0 ◀──── TCP ──── rank 1          One thread per rank, one connection per rank to rank 0 and one to the deputy
 *     ▲  ▲                                (the lowest rank on another host, else rank 1), which steps in when rank 0 is
 *     │  └─────── TCP ──── rank 2         the one that died. Nothing else goes over them: no data, no decisions of a run.
 *     └────────── TCP ──── rank 3
 *
 * Launchers differ in what they do when a rank dies (srun without -K1: nothing), none sees a stopped process or a cut
 * network, and none knows the step. Here a closed connection tells at once that a rank ended without a word (kill -9,
 * a crash, out of memory), and silence tells after `peer_timeout` seconds that it is stopped or cut off. The survivor in
 * charge names the cause once (rank, host, step, phase), gives the launcher a moment to keep its own exit code, and ends
 * the job: 17 for a death, 21 for silence, the rank's own code where it said one.
 *
 * A world is a process: the state is the process's own, as the log's is. A world of one has no thread and no socket. */
#ifndef TRIMPOT_WATCH_H
#define TRIMPOT_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "collectives/comm.h"

enum watch_phase {
    WATCH_START,   /* until the configuration is read */
    WATCH_DATA,    /* rows, tokenising */
    WATCH_LOAD,    /* weights, checkpoint */
    WATCH_COMPUTE, /* forward and backward of the micro-batches */
    WATCH_REDUCE,
    WATCH_UPDATE,
    WATCH_EVAL,
    WATCH_SAVE,
    WATCH_EXPORT,
    WATCH_PHASES
};

/* Collective, after comm_open. Never fails the run: where ranks cannot reach each other (a firewall between the nodes)
 * each host that is not watched is named in one warning with the remedy. */
void watch_open(struct comm *c);

/* The main thread is now here. step: the one being made, the last one for evaluation, save and export; from 1 as in
 * metrics.jsonl, 0 = none yet. One store: callable in the loop. */
void watch_at(enum watch_phase phase, int64_t step);

/* Seconds of silence after which a peer is given up; 0 = never. Until told, 30. */
void watch_timeout(double seconds);

/* A launcher, or a person, asked this rank to stop: should it be killed later, that was no accident. For signal handlers. */
void watch_asked_to_stop(void);

/* " (rank 2 of 4 on HOST, step 41, reduction)": where this rank stands; "" in a world of one. The thread's own buffer. */
const char *watch_place(void);

/* This rank ends the job for a reason of its own and prints it: the others name no second cause. Before fn->abort. */
void watch_tell(int code);

/* Is the job being ended, its cause named by another? Waits so long for it. A rank whose MPI calls fail because a peer is
 * gone has nothing to add. */
bool watch_blamed(double wait_s);

/* All ranks end in order: from here on a closed connection means nothing. After a barrier, before fn->close. */
void watch_close(void);

#endif
