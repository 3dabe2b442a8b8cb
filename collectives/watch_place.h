/* watch_place.h — where the main thread stands, as one number that travels. */
#ifndef TRIMPOT_WATCH_PLACE_H
#define TRIMPOT_WATCH_PLACE_H

#include <stdint.h>

enum { WATCH_PLACE_BYTES = 160 };

/* Once the ranks know each other: what watch_place says beside the place. */
void watch_place_open(int rank, int ranks, const char *host);

int64_t watch_place_packed(void);                                    /* of this rank, now; from any thread */
void watch_place_text(int64_t packed, char text[WATCH_PLACE_BYTES]); /* "step 41, reduction"; "load" */

#endif
