/* evaluate.h — mean token loss of a data set, forward only. */
#ifndef TRIMPOT_EVALUATE_H
#define TRIMPOT_EVALUATE_H

#include "worker/session.h"

/* Items in file order, `batch` at a time, dealt to the ranks in turn; the same bits on every number of ranks.
 * NAN when nothing is supervised. Collective. */
status evaluate(struct session *x, const struct dataset *d, int64_t batch, double *loss);

#endif
