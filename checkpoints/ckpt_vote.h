/* ckpt_vote.h — how ranks agree on one outcome with one message. Internal to checkpoints/. */
#ifndef TRIMPOT_CKPT_VOTE_H
#define TRIMPOT_CKPT_VOTE_H

#include "collectives/comm.h"

/* Collective. Every rank says how it fared and all return the same: ST_OK when all are, else the code and message of
 * the lowest rank that failed, with its number in front. */
status vote_all(struct comm *c, status mine);

/* Collective. All return rank 0's outcome with its message. */
status vote_root(struct comm *c, status mine);

#endif
