/* header.h — what a run says about itself before step 1, and after the last. */
#ifndef TRIMPOT_HEADER_H
#define TRIMPOT_HEADER_H

#include "worker/snapshot.h"

void header_print(const struct session *x);
void header_farewell(const struct session *x, const struct progress *at);

#endif
