/* train.h — the training run: `trimpot run`. */
#ifndef TRIMPOT_TRAIN_H
#define TRIMPOT_TRAIN_H

#include "collectives/comm.h"
#include "configs/config.h"

enum train_request { TRAIN_SAVE = 1, TRAIN_STOP = 2 };

struct train_hooks {
    unsigned (*requests)(void); /* what signals have asked for since the last call; ORed over ranks each step */
    bool json;                  /* the objects of metrics.jsonl on stdout as well */
};

/* Opens, trains, saves, exports. ST_STOPPED after a committed save on request. */
status train(const struct config *cfg, struct comm *comm, const struct train_hooks *hooks);

#endif
