#include "configs/scalar.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool scalar_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *out = !strcmp(text, yes[i]);
            return true;
        }
    return false;
}

bool scalar_int(const char *text, int64_t *out)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (!*digits || digits[strspn(digits, "0123456789")]) return false;
    errno = 0;
    *out = strtoll(text, NULL, 10);
    return errno == 0;
}

bool scalar_float(const char *text, bool infinite, double *out)
{
    static const char *const inf[] = {"inf", ".inf", "+.inf", ".Inf", ".INF", "Infinity"};
    for (size_t i = 0; i < sizeof inf / sizeof *inf; i++)
        if (!strcmp(text, inf[i])) {
            *out = INFINITY;
            return infinite;
        }
    if (!*text || text[strspn(text, "0123456789+-.eE")]) return false;
    char *end;
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

bool scalar_bytes(const char *text, int64_t *out)
{
    static const struct {
        const char *suffix;
        double scale;
    } units[] = {{"", 1},      {"B", 1},        {"kB", 1e3},     {"KB", 1e3},     {"MB", 1e6},    {"GB", 1e9},
                 {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    size_t digits = strspn(text, "0123456789.");
    if (!digits || digits > 32) return false;
    char number[40], *end;
    memcpy(number, text, digits);
    number[digits] = 0;
    double x = strtod(number, &end);
    if (*end) return false;
    const char *suffix = text + digits + strspn(text + digits, " ");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcmp(suffix, units[i].suffix) && x * units[i].scale < 0x1p62) {
            *out = (int64_t)(x * units[i].scale);
            return true;
        }
    return false;
}

/* The shortest text that reads back to the same double. */
void scalar_write_double(double x, struct buf *out)
{
    char text[40];
    if (isnan(x)) {
        buf_text(out, "null");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    buf_text(out, text);
}

/* One character of valid UTF-8. */
static uint32_t decode(const char *s, int *n)
{
    unsigned char first = (unsigned char)*s;
    *n = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t c = *n == 1 ? first : first & (0xffu >> (*n + 1));
    for (int i = 1; i < *n; i++) c = c << 6 | ((unsigned char)s[i] & 0x3fu);
    return c;
}

/* Characters that YAML takes as they are inside double quotes, on one line. */
static bool yaml_prints(uint32_t c)
{
    return c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0) && c != 0x2028 && c != 0x2029 && c != 0xfeff && c != 0xfffe && c != 0xffff;
}

void scalar_quote(const char *text, struct buf *out)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    static const char *const null[] = {"null", "Null", "NULL", "None"};
    bool bare = *text && *text != '-' && !text[strspn(text, safe)];
    for (size_t i = 0; i < sizeof null / sizeof *null; i++) bare = bare && strcmp(text, null[i]) != 0;
    if (bare) {
        buf_text(out, text);
        return;
    }
    buf_text(out, "\"");
    for (const char *s = text; *s;) {
        int n = 1;
        uint32_t c = decode(s, &n);
        if (!strncmp(s, "${", 2))
            buf_text(out, "\\\\$"); /* \${ once YAML has read it: not a reference */
        else if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", (int)c);
        else if (!yaml_prints(c))
            buf_printf(out, "\\U%08x", (unsigned)c);
        else
            buf_add(out, s, (size_t)n);
        s += n;
    }
    buf_text(out, "\"");
}
