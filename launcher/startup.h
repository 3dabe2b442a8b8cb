/* startup.h — what must be the same on all ranks, before anything is read or written. */
#ifndef TRIMPOT_STARTUP_H
#define TRIMPOT_STARTUP_H

#include "collectives/comm.h"
#include "configs/config.h"

/* Command line, program, instruction set, C library. Nothing in a world of one. */
status startup_check(struct comm *comm, int argc, char **argv);

/* The configuration as it was resolved: files may differ where the command line does not. */
status startup_check_config(struct comm *comm, const struct config *cfg);

#endif
