/* host.h — the optimizer on the host (torchao's CPUOffloadOptimizer): states are in the host's memory and never leave it, the host's
 * cores step, and what crosses is gradients and weights, window by window.
 *
 *   index       |window 0    |window 1    |window 2    |window 3 …       of HOST_WINDOW elements; tensors are cut anywhere
 *   device      gradients, weights, working copies of adapters
 *   pinned      three slots: of one window gradients, weights, working copies; the step's scalars
 *   host        states, all of them, as vectors over the index (optim.h)
 *
 *   gradients down   [0 → a][1 → b][2 → c]      [3 → a]   [4 → b] …
 *   step on the host        [  0    ][  1    ][  2    ][  3    ] …           op_update of the CPU backend, in the order of the index
 *   weights up                       [a → 0]  [b → 1]  [c → 2]  …            s goes on when the last is up
 *
 * Whole steps: what s has queued before comes first, and it waits for all of it at the end. Tensors that step in the backward
 * (optimizer_in_bwd) go down one by one, each as soon as its gradient is there; s waits until that is on the host, since its memory is
 * the next one's, and for the weights only at the end.
 *
 * Elementwise updates are the same bits on every backend (kernels/formulas.h), so that this is the optimizer on the device, bit for bit;
 * clipping, the guard and the schedule are the device's scalars, which come down with each window. A step that is not usable carries
 * weights down and up again as they are.
 *
 * Streams and events are the device's; the update is a call on the host in one of them (backend.h), over memory that no stream touches
 * meanwhile, through a stream of the CPU's own table: the one place where two tables are used. By label, waits:
 *
 *   stream   waits until                                       label
 *   down     gradients and scalars are final                   gradients final
 *   down     what the slot had before is up                    slot free
 *   step     the window is down                                gradients down
 *   up       the window is updated                             weights updated
 *   s        gradients of this range are down                  gradients taken
 *   s        all weights are up                                weights up */
#ifndef TRIMPOT_OPTIM_HOST_H
#define TRIMPOT_OPTIM_HOST_H

#include "collectives/own.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"
#include "worker/memory/pager.h"

struct optim;

enum { HOST_SLOTS = 3, HOST_WINDOW = 4 << 20 /* elements */ };

/* One window's update: who, what, where. */
struct host_update {
    struct optim *o;
    struct range r;
    dtype grad_dt;
    int64_t step;
    int slot;
};

struct optim_host {
    struct stream *down, *step, *up; /* NULL: the optimizer is the device's */
    struct stream *cpu;              /* of the CPU's table */
    struct event *final, *taken, *all_up;
    struct event *is_down[HOST_SLOTS], *updated[HOST_SLOTS], *free[HOST_SLOTS];
    int64_t window; /* elements */
    void *grad[HOST_SLOTS], *weights[HOST_SLOTS], *work[HOST_SLOTS];
    double *scalars[HOST_SLOTS];
    void *states[PAGER_VECTORS]; /* the host's */
    struct host_update *update;  /* by turns, as many as two steps can have: the host may be a step ahead */
    int64_t n_updates, next;
};

status host_open(struct optim *o);
void host_release(struct optim *o);
/* row: of the plan, per vector. */
void host_layout(struct optim *o, struct arena *host, struct arena *pinned, const char *const row[PAGER_VECTORS]);
void host_zero(struct optim *o);

/* As optim_range and optim_rest, whose work they do. */
status host_range(struct optim *o, tensor grad, tensor scalars, int64_t step, struct range r);
status host_rest(struct optim *o);

/* Stored elements of a vector, where the host finds them; what is queued is waited for. */
status host_states(struct optim *o, int vector, int64_t at, void **out);

#endif
