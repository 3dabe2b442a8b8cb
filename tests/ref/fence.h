/* fence.h — a device that is none: `inner` (the CPU), behind a fence.
 *
 *   tensor memory   inaccessible (mprotect) but while an op or a copy runs: whoever touches it from the host dies there
 *   pinned memory   inaccessible while an op runs: ops work on tensor memory
 *   time            with a seed, every call only queues; ops, copies and host calls run when the host waits for them, in an
 *                   order that is legal (each stream in its own order, waits after what they wait for) and otherwise
 *                   chosen by the seed: nothing that is not ordered by an event or a wait happens in the order it was written
 *
 * A wait that is missing anywhere is then a wrong number, the same one each time. The environment decides:
 *   TRIMPOT_FENCE       unset or "now": calls run at once; "any", "last", "first": queued, and run in any order; what the host
 *                       does not wait for as late as possible; or before everything else
 *   TRIMPOT_FENCE_SEED  of the order, a number
 *   TRIMPOT_FENCE_JOINS set: weights and activations are laid out for products that are joined (joins_products, kernels/backend.h)
 *   TRIMPOT_FENCE_WITHOUT  the label of a wait (event_wait, event_sync, sync) that is left out: a test shows that it is missed */
#ifndef TRIMPOT_FENCE_H
#define TRIMPOT_FENCE_H

#include "kernels/backend.h"

/* The wrapped table. One fence at a time. */
const struct backend *fence_wrap(const struct backend *inner);

#endif
