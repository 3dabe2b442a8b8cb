#include "worker/data/rows/rows_bytes.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/text.h"

/* ---- whole files ------------------------------------------------------------------------------------------------ */

static status judge_format(const struct rows *r)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *format;
    } formats[] = {
        {"PAR1", 4, "Parquet"},
        {"ARROW1", 6, "Arrow"},
        {"\xFF\xFF\xFF\xFF", 4, "Arrow"},
        {"FEA1", 4, "Feather"},
        {"\x1F\x8B", 2, "gzip"},
        {"\x28\xB5\x2F\xFD", 4, "zstd"},
        {"\xFD"
         "7zXZ",
         5, "xz"},
        {"BZh9", 4, "bzip2"},
        {"PK\x03\x04", 4, "zip (or .xlsx)"},
        {"\x89HDF", 4, "HDF5"},
    };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (r->bytes >= formats[i].n && !memcmp(r->data, formats[i].magic, formats[i].n))
            FAIL(ST_NOT_BUILT,
                 "%s: the file is %s, whatever its name, which has no reader yet; unpack it or convert it "
                 "to JSONL",
                 r->name, formats[i].format);
    return ST_OK;
}

/* Text in UTF-16 has a zero in every other byte as long as it is mostly ASCII. */
static const char *utf16_by_zeros(const struct rows *r)
{
    size_t n = r->bytes < 4096 ? r->bytes & ~(size_t)1 : 4096, zeros[2] = {0};
    for (size_t i = 0; i < n; i++) zeros[i % 2] += r->data[i] == 0;
    if (n >= 4 && zeros[1] > n / 5 && zeros[0] * 50 <= n) return "UTF-16LE";
    if (n >= 4 && zeros[0] > n / 5 && zeros[1] * 50 <= n) return "UTF-16BE";
    return NULL;
}

static status judge_encoding(const struct rows *r)
{
    static const struct {
        const char *bom;
        size_t n;
        const char *name;
    } marks[] = {{"\xFF\xFE\0\0", 4, "UTF-32"}, {"\0\0\xFE\xFF", 4, "UTF-32"}, {"\xFF\xFE", 2, "UTF-16"}, {"\xFE\xFF", 2, "UTF-16"}};
    const char *name = NULL;
    for (size_t i = 0; !name && i < sizeof marks / sizeof *marks; i++)
        if (r->bytes >= marks[i].n && !memcmp(r->data, marks[i].bom, marks[i].n)) name = marks[i].name;
    if (!name) name = utf16_by_zeros(r);
    if (!name) return ST_OK;
    FAIL(ST_DATA, "%s: the text is %s, not UTF-8; convert it: iconv -f %s -t UTF-8 IN > OUT", r->name, name, name);
}

status bytes_judge(const struct rows *r)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/";
    if (r->bytes >= sizeof pointer - 1 && !memcmp(r->data, pointer, sizeof pointer - 1))
        FAIL(ST_DATA, "%s: a Git LFS pointer, not the data itself; run `git lfs pull` in its repository", r->name);
    TRY(judge_format(r));
    return judge_encoding(r);
}

/* ---- single rows ------------------------------------------------------------------------------------------------ */

/* Counts over bytes from 0x80 up. Pairs are read as double-byte encodings read them: a high byte takes the next. */
struct census {
    int utf8, stray;  /* characters of several bytes that are UTF-8; bytes that belong to none */
    int runs, high;   /* runs of high bytes, and the bytes in them */
    int upper, lower; /* 0xC0-0xDF, 0xE0-0xFF */
    int pairs, unpaired;
    int low_trail;                          /* second bytes below 0x80 */
    int kana_sjis, kana_euc, hangul, hanzi; /* by first byte; hanzi: both from 0xA1 up */
};

static size_t utf8_length(const unsigned char *p, size_t n)
{
    size_t bad;
    for (size_t len = 2; len <= 4 && len <= n; len++)
        if (text_is_utf8((const char *)p, len, &bad)) return len;
    return 0;
}

static void count_bytes(const unsigned char *p, size_t n, struct census *c)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x80) continue;
        size_t len = utf8_length(p + i, n - i);
        c->utf8 += len > 0;
        c->stray += !len;
        if (len) i += len - 1;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x80) continue;
        c->high++;
        c->runs += i == 0 || p[i - 1] < 0x80;
        c->upper += p[i] >= 0xC0 && p[i] < 0xE0;
        c->lower += p[i] >= 0xE0;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x80) continue;
        unsigned lead = p[i], trail = i + 1 < n ? p[i + 1] : 0;
        if (lead == 0x80 || lead == 0xFF || trail < 0x40 || trail == 0x7F || trail == 0xFF) {
            c->unpaired++;
            continue;
        }
        c->pairs++;
        c->low_trail += trail < 0x80;
        c->kana_sjis += (lead == 0x82 && trail >= 0x9F) || (lead == 0x83 && trail <= 0x96);
        c->kana_euc += (lead == 0xA4 || lead == 0xA5) && trail >= 0xA1;
        c->hangul += lead >= 0xB0 && lead <= 0xC8 && trail >= 0xA1;
        c->hanzi += lead >= 0xB0 && lead <= 0xF7 && trail >= 0xA1;
        i++;
    }
}

static const char *guess(const struct census *c)
{
    bool double_byte = c->pairs >= 4 && c->unpaired * 20 <= c->pairs && c->high > c->runs + c->runs / 2;
    if (double_byte && c->kana_sjis * 3 >= c->pairs) return "CP932";
    if (double_byte && c->kana_euc * 3 >= c->pairs) return "EUC-JP";
    if (double_byte && c->low_trail * 5 >= c->pairs) return "BIG5";
    if (double_byte && c->hangul * 10 >= c->pairs * 9) return "CP949";
    if (double_byte && c->hanzi * 3 >= c->pairs * 2) return "GB18030";
    bool words = c->high >= 3 * c->runs && c->upper + c->lower > c->high * 9 / 10;
    if (words) return c->lower > c->upper ? "WINDOWS-1251" : "KOI8-R";
    return "WINDOWS-1252";
}

const char *bytes_remedy(const struct rows *r, size_t at)
{
    enum { LOOKED_AT = 1 << 16 };
    static _Thread_local char text[200];
    struct census c = {0};
    size_t left = r->bytes - at;
    count_bytes(r->data + at, left < LOOKED_AT ? left : LOOKED_AT, &c);
    if (c.utf8 > 4 * c.stray)
        snprintf(text, sizeof text,
                 "the rest around it is UTF-8: mend these bytes, or drop them with iconv -c -f UTF-8 "
                 "-t UTF-8 IN > OUT");
    else
        snprintf(text, sizeof text, "it looks like %s; convert the file: iconv -f %s -t UTF-8 IN > OUT", guess(&c), guess(&c));
    return text;
}
