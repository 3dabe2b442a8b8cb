/* hash128.h — XXH3-128, at once or as a stream. Internal to checkpoints/. */
#ifndef TRIMPOT_HASH128_H
#define TRIMPOT_HASH128_H

#include <stdbool.h>
#include <stddef.h>

#define XXH_STATIC_LINKING_ONLY /* the size of a state */
#include <xxhash.h>

typedef struct {
    unsigned char byte[16];
} hash128; /* canonical byte order */

hash128 hash_bytes(const void *data, size_t n);
bool hash_equal(hash128 a, hash128 b);
const char *hash_text(hash128 h);                /* 32 hex digits; a ring of 4 static buffers per thread */
bool hash_parse(const char *text, hash128 *out); /* from the first 32 characters; false (also for NULL) if not hex */

struct hash_stream {
    XXH3_state_t state;
};
void hash_stream_init(struct hash_stream *s);
void hash_stream_add(struct hash_stream *s, const void *data, size_t n);
hash128 hash_stream_end(struct hash_stream *s); /* of all bytes added; the stream starts anew */

#endif
