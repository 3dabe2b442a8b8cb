#include "worker/data/tokenizer/utf8.h"

size_t utf8_good(const char *s, size_t n, size_t *bad)
{
    size_t good = n;
    *bad = 0;
    if (text_is_utf8(s, n, &good)) return n;
    /* The longest beginning of a sequence that could have become valid is one mistake. */
    unsigned char c = (unsigned char)s[good];
    size_t more = c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 0;
    for (size_t k = 0; k <= more && good + k < n; k++, ++*bad) {
        unsigned char d = (unsigned char)s[good + k];
        unsigned char low = k == 1 && c == 0xe0 ? 0xa0 : k == 1 && c == 0xf0 ? 0x90 : 0x80;
        unsigned char high = k == 1 && c == 0xed ? 0x9f : k == 1 && c == 0xf4 ? 0x8f : 0xbf;
        if (k > 0 && (d < low || d > high)) break;
    }
    return good;
}

void utf8_repair(struct buf *out, const char *s, size_t n)
{
    for (size_t i = 0, good, bad; i < n; i += good + bad) {
        good = utf8_good(s + i, n - i, &bad);
        buf_add(out, s + i, good);
        if (bad) buf_text(out, UTF8_REPLACEMENT);
    }
}
