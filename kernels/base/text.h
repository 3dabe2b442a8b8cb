/* text.h — growable strings, the nearest word, and whole files. */
#ifndef TRIMPOT_TEXT_H
#define TRIMPOT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"

/* A growable byte string, always NUL-terminated once something was added. Zero-initialise; buf_release frees. */
struct buf {
    char *data;
    size_t len, cap;
};

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_text(struct buf *b, const char *text);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3), nonnull(2)));
void buf_clear(struct buf *b); /* keeps the memory */
void buf_release(struct buf *b);

/* Text from outside as a terminal or a JSON reader may see it: control characters but newline and tab become '?', bytes
 * that are no UTF-8 become U+FFFD, one for each beginning of a character. */
void buf_tame(struct buf *b, const char *s, size_t n);

/* A path as one word of a shell's command line, for commands that are printed to be pasted: quoted only where it must be,
 * control characters as $'\n' (bash, zsh), ./ before a leading -. */
void buf_shell_path(struct buf *b, const char *path);

/* malloc/realloc/strdup that end the process with exit code 11 and a message when the host is out of memory.
 * For small control structures only: tensors live in arenas. */
void *mem_alloc(size_t bytes); /* zeroed */
void *mem_grow(void *p, size_t bytes);
char *mem_strdup(const char *s);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The candidate with the least edit distance (a swap of neighbours counts 1, letter case nothing), if it is near enough to be meant;
 * else NULL. */
const char *text_nearest(const char *word, const char *const *candidates, int n);

bool text_is_utf8(const char *s, size_t n, size_t *bad_at);

/* 1.5 GB, 23.0 MB, 512 B: SI units, a ring of 8 static buffers. */
const char *text_bytes(double bytes);

#endif
