/* signals.h — what other programs ask of a run.
 *
 *   USR1              save at the next step boundary, go on
 *   USR2, TERM, HUP   save at the next step boundary, then every rank exits 85; a second TERM, 5 s after the first or later,
 *                     exits at once
 *   INT               the same; a second INT within 5 s exits at once
 *   CONT, PIPE, XFSZ  ignored
 *
 * Signals only set flags, on a thread of their own. Delivery is uneven over ranks, so the flags are ORed in the step
 * record and acted upon by all ranks together. */
#ifndef TRIMPOT_SIGNALS_H
#define TRIMPOT_SIGNALS_H

#include <stdbool.h>

#include "kernels/base/status.h"

enum signal_flag { SIGNAL_SAVE = 1, SIGNAL_STOP = 2 }; /* stop implies save */

/* For every verb, before it writes anything: a file that reaches the limit on file sizes (ulimit -f) is then a failed write,
 * as on a full disk, and not the end of the process. */
void signals_prepare(void);

/* Before MPI is started and before the first parallel region: a signal must find its answer, not the end of the process, from the
 * first moment on, and only threads started later are spared. ST_FAIL without a thread. */
status signals_install(void);

/* Flags received since the last take; a stop stays set, a save is taken once. Ranks OR the result. */
unsigned signals_take(void);

/* Has a stop been asked for? For loops before the first step (loading, tokenising), which then end with ST_STOPPED. */
bool signals_stopping(void);

/* The run is over, its exit code is known: what comes now changes nothing. srun -K1 sends TERM to all ranks when the first exits. */
void signals_end(void);

#endif
