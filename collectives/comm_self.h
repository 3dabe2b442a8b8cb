/* comm_self.h — the world of one rank. */
#ifndef TRIMPOT_COMM_SELF_H
#define TRIMPOT_COMM_SELF_H

#include "collectives/comm.h"

void comm_self_open(struct comm *out);

#endif
