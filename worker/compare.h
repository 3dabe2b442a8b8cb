/* compare.h — `plan --compare`: what each memory technique saves and costs in the run that was planned. */
#ifndef TRIMPOT_COMPARE_H
#define TRIMPOT_COMPARE_H

#include "worker/technique.h"

/* A row per technique that such a recipe has, of the run with it off and with it on, everything else as configured: a table, or one
 * object per line. Plans x many times and leaves it planned as it was. Made by every rank alike. */
status compare(struct session *x, const struct gpu *asked, bool json, struct buf *out);

#endif
