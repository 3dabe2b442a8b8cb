/* profile.h — the profiler of a run: which steps are traced, and where the traces go (Chrome's JSON, one file per rank and cycle).
 *
 *   step   1 … wait | … warmup | … active |  again, num_cycles times (0: as long as the run lasts)
 *            nothing  traced and   traced      → output_dir/iteration_N/rankR_trace.json, N the last step of the window
 *                     thrown away
 *
 * In the file every stream is a thread with its ops, copies and calls; events are arrows from record to wait, and in `args` each has
 * its number (`seq`) and the number it comes `after`. With `cpu` on a GPU the host is a thread, too: when it queued what. */
#ifndef TRIMPOT_PROFILE_H
#define TRIMPOT_PROFILE_H

#include "configs/config.h"
#include "kernels/backend.h"
#include "kernels/base/arena.h"

struct profile;

/* NULL where the configuration asks for none. *be: the table to use from now on. Before any stream is opened. */
status profile_open(struct profile **out, const struct config *c, int rank, const struct backend **be);
/* The rest takes NULL for nothing. */
void profile_layout(struct profile *p, struct arena *host);
size_t profile_library_bytes(const struct profile *p);
status profile_ready(struct profile *p);
/* Step `step`, from 0, is launched next, by s. A trace that cannot be written is given up with a warning: training goes on. */
status profile_step(struct profile *p, struct stream *s, int64_t step);
status profile_finish(struct profile *p); /* no step follows */
void profile_close(struct profile *p);    /* before its streams are closed */
void profile_release(struct profile *p);  /* after */

#endif
