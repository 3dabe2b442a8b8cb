#include "kernels/base/text.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p)
{
    if (!p) {
        fprintf(stderr, "trimpot: out of host memory\n");
        exit(ST_OOM);
    }
    return p;
}

void *mem_alloc(size_t bytes) { return checked(calloc(1, bytes ? bytes : 1)); }
void *mem_grow(void *p, size_t bytes) { return checked(realloc(p, bytes ? bytes : 1)); }
char *mem_strdup(const char *s) { return checked(strdup(s)); }

char *mem_printf(const char *fmt, ...)
{
    char *out = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    return checked(n < 0 ? NULL : out);
}

static void reserve(struct buf *b, size_t more)
{
    if (b->len + more + 1 <= b->cap) return;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->len + more + 1) cap *= 2;
    b->data = mem_grow(b->data, cap);
    b->cap = cap;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    reserve(b, n);
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
}

void buf_text(struct buf *b, const char *text) { buf_add(b, text, strlen(text)); }

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n > 0) {
        reserve(b, (size_t)n);
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

static bool same_letter(char a, char b) { return tolower((unsigned char)a) == tolower((unsigned char)b); }

/* Optimal string alignment distance, whatever the letter case; words are short. */
static int distance(const char *a, const char *b)
{
    enum { MAX = 128 };
    int la = (int)strlen(a), lb = (int)strlen(b);
    if (la >= MAX || lb >= MAX) return MAX;
    int d[MAX][MAX];
    for (int i = 0; i <= la; i++) d[i][0] = i;
    for (int j = 0; j <= lb; j++) d[0][j] = j;
    for (int i = 1; i <= la; i++)
        for (int j = 1; j <= lb; j++) {
            int best = d[i - 1][j - 1] + !same_letter(a[i - 1], b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) && same_letter(a[i - 2], b[j - 1]);
            if (swapped && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[la][lb];
}

const char *text_nearest(const char *word, const char *const *candidates, int n)
{
    const char *best = NULL;
    int letters = (int)strlen(word), least = letters > 4 ? letters / 3 + 2 : 2; /* of a short word one slip at most */
    for (int i = 0; i < n; i++) {
        int d = distance(word, candidates[i]);
        if (d < least) {
            least = d;
            best = candidates[i];
        }
    }
    return best;
}

bool text_is_utf8(const char *s, size_t n, size_t *bad_at)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0;
    while (i < n) {
        unsigned c = p[i];
        size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        bool good = len && i + len <= n;
        for (size_t k = 1; good && k < len; k++) good = (p[i + k] & 0xc0) == 0x80;
        if (good && len == 3) good = !(c == 0xe0 && p[i + 1] < 0xa0) && !(c == 0xed && p[i + 1] >= 0xa0);
        if (good && len == 4) good = !(c == 0xf0 && p[i + 1] < 0x90) && !(c == 0xf4 && p[i + 1] >= 0x90);
        if (!good) {
            if (bad_at) *bad_at = i;
            return false;
        }
        i += len;
    }
    return true;
}

/* Bytes that one U+FFFD stands for where s is no UTF-8: as much as begins a character, at least one. What Unicode recommends
 * and other programs do. */
static size_t broken_character(const char *s, size_t n)
{
    unsigned char lead = (unsigned char)*s;
    size_t more = lead >= 0xC2 && lead < 0xE0 ? 1 : lead >= 0xE0 && lead < 0xF0 ? 2 : lead >= 0xF0 && lead < 0xF5 ? 3 : 0, i;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (i = 1; i < n && i <= more && (unsigned char)s[i] >= low && (unsigned char)s[i] <= high; i++) low = 0x80, high = 0xBF;
    return i;
}

void buf_tame(struct buf *b, const char *s, size_t n)
{
    size_t at = 0, bad;
    buf_add(b, "", 0);
    while (at < n) {
        size_t good = text_is_utf8(s + at, n - at, &bad) ? n - at : bad;
        for (size_t end = at + good; at < end; at++) {
            unsigned char c = (unsigned char)s[at];
            bool c1 = c == 0xC2 && (unsigned char)s[at + 1] < 0xA0; /* U+0080 … U+009F */
            buf_add(b, c1 || c == 0x7F || (c < 0x20 && c != '\n' && c != '\t') ? "?" : &s[at], 1);
            at += c1;
        }
        if (at == n) break;
        buf_text(b, "\xEF\xBF\xBD");
        at += broken_character(s + at, n - at);
    }
}

void buf_shell_path(struct buf *b, const char *path)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+,:@%";
    bool bare = *path && !path[strspn(path, plain)], escaped = !text_is_utf8(path, strlen(path), NULL);
    for (const char *p = path; *p; p++) escaped = escaped || (unsigned char)*p < 0x20 || *p == 0x7F;
    buf_text(b, bare ? "" : escaped ? "$'" : "'");
    if (*path == '-') buf_text(b, "./");
    for (const char *p = path; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (escaped && (c < 0x20 || c >= 0x7F))
            buf_printf(b, "\\%03o", c);
        else if (escaped && (c == '\'' || c == '\\'))
            buf_printf(b, "\\%c", c);
        else if (c == '\'')
            buf_text(b, "'\\''");
        else
            buf_add(b, p, 1);
    }
    buf_text(b, bare ? "" : "'");
}

const char *text_bytes(double bytes)
{
    static _Thread_local char ring[8][24];
    static _Thread_local unsigned next;
    char *out = ring[next++ % 8];
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    int u = 0;
    while (bytes >= 1000 && u < 4) {
        bytes /= 1000;
        u++;
    }
    snprintf(out, sizeof ring[0], u ? "%.*f %s" : "%.*f %s", u == 0 ? 0 : bytes < 10 ? 2 : bytes < 100 ? 1 : 0, bytes, unit[u]);
    return out;
}
