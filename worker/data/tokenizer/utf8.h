/* utf8.h — code points of text that is known to be UTF-8, and the GPT-2 byte alphabet. */
#ifndef TRIMPOT_TOK_UTF8_H
#define TRIMPOT_TOK_UTF8_H

#include <stddef.h>

#include "kernels/base/text.h"

/* Code point at s and its length. Never reads beyond n; a bad byte counts as itself. n > 0. */
static inline int utf8_get(const char *s, size_t n, size_t *len)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t want = p[0] < 0xc0 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    *len = want <= n ? want : 1;
    if (*len == 1) return p[0];
    int c = p[0] & (0x7f >> want);
    for (size_t i = 1; i < want; i++) c = c << 6 | (p[i] & 0x3f);
    return c;
}

/* Start of the character that ends at `end` > 0. */
static inline size_t utf8_before(const char *s, size_t end)
{
    do end--;
    while (end > 0 && ((unsigned char)s[end] & 0xc0) == 0x80);
    return end;
}

static inline size_t utf8_put(char to[4], int c)
{
    if (c < 0x80) return to[0] = (char)c, 1;
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)((0xf00 >> n & 0xff) | c);
    return n;
}

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Bytes of valid UTF-8 that s begins with; *bad: bytes of the one mistake behind them, 0 at the end of s. */
size_t utf8_good(const char *s, size_t n, size_t *bad);

/* Appends s with each maximal malformed part replaced by U+FFFD (as Python's errors="replace"). */
void utf8_repair(struct buf *out, const char *s, size_t n);

/* GPT-2: printable Latin-1 bytes are themselves, the other 68 follow from U+0100 in order. */
static inline int alphabet_of_byte(unsigned char b)
{
    if (b <= 32) return 256 + b;
    if (b >= 127 && b <= 160) return 256 + 33 + (b - 127);
    return b == 173 ? 323 : b;
}

/* -1: not of the alphabet. */
static inline int byte_of_alphabet(int c)
{
    if (c >= 256) return c <= 288 ? c - 256 : c <= 322 ? c - 256 - 33 + 127 : c == 323 ? 173 : -1;
    return c < 0 || alphabet_of_byte((unsigned char)c) != c ? -1 : c;
}

#endif
