#include "checkpoints/hash128.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static hash128 canonical(XXH128_hash_t x)
{
    XXH128_canonical_t c;
    hash128 h;
    XXH128_canonicalFromHash(&c, x);
    memcpy(h.byte, c.digest, sizeof h.byte);
    return h;
}

hash128 hash_bytes(const void *data, size_t n) { return canonical(XXH3_128bits(data, n)); }

bool hash_equal(hash128 a, hash128 b) { return memcmp(a.byte, b.byte, sizeof a.byte) == 0; }

const char *hash_text(hash128 h)
{
    static _Thread_local char ring[4][33];
    static _Thread_local int next;
    char *out = ring[next++ & 3];
    for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", h.byte[i]);
    return out;
}

bool hash_parse(const char *text, hash128 *out)
{
    if (!text || strspn(text, "0123456789abcdef") < 32) return false;
    for (int i = 0; i < 16; i++) {
        unsigned byte = 0;
        sscanf(text + 2 * i, "%2x", &byte);
        out->byte[i] = (unsigned char)byte;
    }
    return true;
}

void hash_stream_init(struct hash_stream *s)
{
    XXH3_INITSTATE(&s->state);
    XXH3_128bits_reset(&s->state);
}

void hash_stream_add(struct hash_stream *s, const void *data, size_t n) { XXH3_128bits_update(&s->state, data, n); }

hash128 hash_stream_end(struct hash_stream *s)
{
    hash128 h = canonical(XXH3_128bits_digest(&s->state));
    XXH3_128bits_reset(&s->state);
    return h;
}
