/* charsmap.h — SentencePiece's precompiled_charsmap: a Darts double array and a pool of replacements. */
#ifndef TRIMPOT_TOK_CHARSMAP_H
#define TRIMPOT_TOK_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

struct tok_charsmap {
    uint32_t *unit;
    size_t units;
    char *pool; /* NUL-terminated strings; a NUL was added behind the last */
    size_t pool_n;
};
status tok_charsmap_read(struct tok_charsmap *m, const unsigned char *blob, size_t n);
void tok_charsmap_release(struct tok_charsmap *m);
/* Bytes of the longest source that text begins with, 0: none; *to (NUL-terminated) replaces them. */
size_t tok_charsmap_match(const struct tok_charsmap *m, const char *text, size_t n, const char **to);

#endif
