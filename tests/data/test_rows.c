/* The scanner finds rows and their lines in every container; slices follow Hugging Face; bad files name their place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/data/rows/rows.h"

static void check_rows(enum rows_kind kind, const char *text, int n, const char *const *rows, const unsigned *lines)
{
    struct rows r;
    if (rows_scan(&r, "file", text, strlen(text), kind)) fail_msg("%s: %s", text, status_message());
    assert_int_equal(r.n, n);
    for (int i = 0; i < n; i++) {
        json_t *row;
        if (rows_get(&r, i, &row)) fail_msg("%s: %s", text, status_message());
        char *dumped = json_dumps(row, JSON_COMPACT | JSON_ENCODE_ANY);
        assert_string_equal(dumped, rows[i]);
        assert_int_equal(r.spans[i].line, lines[i]);
        free(dumped);
        json_decref(row);
    }
    rows_close(&r);
}

#define ROWS(...)                                                                                                                          \
    (const char *const[]) { __VA_ARGS__ }
#define LINES(...)                                                                                                                         \
    (const unsigned[]) { __VA_ARGS__ }

static void containers(void **state)
{
    (void)state;
    check_rows(ROWS_JSON, "[{\"a\":\"1\"},{\"a\":\"2\"}]", 2, ROWS("{\"a\":\"1\"}", "{\"a\":\"2\"}"), LINES(1, 1));
    check_rows(ROWS_JSON, "\xEF\xBB\xBF \n[\n {\"a\":\n\"x\"}\n ,\n{\"b\":[{}]}]\n\n", 2, ROWS("{\"a\":\"x\"}", "{\"b\":[{}]}"),
               LINES(3, 6));
    /* Brackets, commas and quotes inside strings are text. */
    check_rows(ROWS_JSON, "[{\"a\":\"],[{\\\"}\"},\"\\\\\"]", 2, ROWS("{\"a\":\"],[{\\\"}\"}", "\"\\\\\""), LINES(1, 1));
    check_rows(ROWS_JSON, "{\"a\":\"1\"}\r\n\n  \n{\"a\":\"2\"}", 2, ROWS("{\"a\":\"1\"}", "{\"a\":\"2\"}"), LINES(1, 4));
    check_rows(ROWS_JSON, "\"x\"\n", 1, ROWS("\"x\""), LINES(1));
    check_rows(ROWS_JSON, "{\"n\":123456789012345678901234567890}", 1, ROWS("{\"n\":1.2345678901234568e29}"), LINES(1));
    check_rows(ROWS_TEXT, "a\n\nb\r\nc\rd\n", 5,
               ROWS("{\"text\":\"a\"}", "{\"text\":\"\"}", "{\"text\":\"b\"}", "{\"text\":\"c\"}", "{\"text\":\"d\"}"),
               LINES(1, 2, 3, 4, 5));
    check_rows(ROWS_TEXT, "{\"a\"", 1, ROWS("{\"text\":\"{\\\"a\\\"\"}"), LINES(1));
}

static void csv(void **state)
{
    (void)state;
    check_rows(ROWS_CSV, "a,b\n1,\"x, \"\"y\"\"\nz\"\r\n\r\n,\n\"\",q", 3,
               ROWS("{\"a\":\"1\",\"b\":\"x, \\\"y\\\"\\nz\"}", "{\"a\":\"\",\"b\":\"\"}", "{\"a\":\"\",\"b\":\"q\"}"), LINES(2, 5, 6));
    check_rows(ROWS_TSV, "\xEF\xBB\xBF\"a\"\tb\n1,2\t5\" nail\n", 1, ROWS("{\"a\":\"1,2\",\"b\":\"5\\\" nail\"}"), LINES(2));
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"a,b\n", "file: a header and no rows"},
        {"", "file: the file is empty"},
        {"a,a\n1,2\n", "file:1: two columns are called 'a'"},
        {"a,\xff\n1,2\n", "file:1: the name of column 2 is not"},
        {"a,b\n\"1,2\n3", "file:2: a quoted value that begins here is not closed"},
        {"\"a\"x,b\n1,2\n", "file:1: 'x' after a closing quote"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rows r;
        assert_int_equal(rows_scan(&r, "file", bad[i].text, strlen(bad[i].text), ROWS_CSV), ST_DATA);
        if (!strstr(status_message(), bad[i].says)) fail_msg("'%s' lacks '%s'", status_message(), bad[i].says);
    }
    static const struct {
        const char *text, *says;
    } bad_row[] = {
        {"a,b\n1,2,3\n", "file:2: 3 values, but the header names 2 columns; quote values that contain a comma"},
        {"a,b\n1\n", "file:2: 1 values"},
        {"a,b\n\"1\"x,2\n3,4\n", "file:2: 'x' after a closing quote"},
        {"a,b\n1,\xff\n", "file:2: column b is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad_row / sizeof *bad_row; i++) {
        struct rows r;
        json_t *row;
        assert_int_equal(rows_scan(&r, "file", bad_row[i].text, strlen(bad_row[i].text), ROWS_CSV), ST_OK);
        assert_int_equal(rows_get(&r, 0, &row), ST_DATA);
        if (!strstr(status_message(), bad_row[i].says)) fail_msg("'%s' lacks '%s'", status_message(), bad_row[i].says);
        rows_close(&r);
    }
}

static void bad_files(void **state)
{
    (void)state;
    static const struct {
        enum rows_kind kind;
        const char *text, *says;
    } table[] = {
        {ROWS_JSON, "", "file: the file is empty"},
        {ROWS_JSON, " \n\t\n", "file: the file is empty"},
        {ROWS_TEXT, "", "file: the file is empty"},
        {ROWS_JSON, "[]", "file: an empty list"},
        {ROWS_JSON, "[", "file:1: the list is not closed"},
        {ROWS_JSON, "[{\"a\":1},\n{\"a\":2", "file:2: the list is not closed: the file ends in or after row 2"},
        {ROWS_JSON, "[{\"a\":\"x},\n", "file:1: the list is not closed"},
        {ROWS_JSON, "[{},\n]", "file:2: expected a row, found ']'"},
        {ROWS_JSON, "[{},,{}]", "file:1: expected a row, found ','"},
        {ROWS_JSON, "[{}]\n{}", "file:2: text after the end of the list"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct rows r;
        assert_int_equal(rows_scan(&r, "file", table[i].text, strlen(table[i].text), table[i].kind), ST_DATA);
        if (!strstr(status_message(), table[i].says)) fail_msg("'%s' lacks '%s'", status_message(), table[i].says);
    }
}

static void bad_rows(void **state)
{
    (void)state;
    char deep[300] = "[{\"a\":";
    for (int i = 0; i < 64; i++) strcat(deep, "[");
    for (int i = 0; i < 64; i++) strcat(deep, "]");
    strcat(deep, "}]");
    const struct {
        enum rows_kind kind;
        const char *text;
        int row;
        const char *says;
    } table[] = {
        {ROWS_JSON, "{\"a\":1}\n{\"a\":}\n", 1, "file:2: column 6 of the row: not valid JSON"},
        {ROWS_JSON, "{\n\"a\": 1\n}\n", 0, "every line must be one complete row"},
        {ROWS_JSON, "[{\"a\":1},\n{\"a\":1,\n\"a\":2}]", 1, "file:3: column 3 of the row: not valid JSON: duplicate"},
        {ROWS_JSON, "{\"a\":\"\xff\"}", 0, "file:1: byte 7 of the row (0xff) is not UTF-8"},
        {ROWS_JSON, "{\"a\":\"\\ud800\"}", 0, "file:1: column"},
        {ROWS_JSON, "{\"a\":1} {\"b\":2}", 0, "file:1: column"},
        {ROWS_JSON, "{\"a\":1e999}", 0, "file:1: column"},
        {ROWS_JSON, "{'a':1}", 0, "file:1: column 2 of the row"},
        {ROWS_JSON, "{\"a\":NaN}", 0, "file:1: column"},
        {ROWS_JSON, deep, 0, "nested more than 64 deep"},
        {ROWS_TEXT, "fine\nbad \xc3(\n", 1, "file:2: byte 5 of the line (0xc3) is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct rows r;
        json_t *row;
        assert_int_equal(rows_scan(&r, "file", table[i].text, strlen(table[i].text), table[i].kind), ST_OK);
        assert_int_equal(rows_get(&r, table[i].row, &row), ST_DATA);
        if (!strstr(status_message(), table[i].says)) fail_msg("'%s' lacks '%s'", status_message(), table[i].says);
        rows_close(&r);
    }
}

/* Quotes as people write them in TSV: a field is quoted when its quotes close at a tab or the line's end. */
static void tsv(void **state)
{
    (void)state;
    check_rows(ROWS_TSV, "q\ta\n\"Hi\" she said\t\"yes\"\nplain\t6\" nail\n\"a\tb\"\t\"two\nlines\"\n\"open\tx\n", 4,
               ROWS("{\"q\":\"\\\"Hi\\\" she said\",\"a\":\"yes\"}", "{\"q\":\"plain\",\"a\":\"6\\\" nail\"}",
                    "{\"q\":\"a\\tb\",\"a\":\"two\\nlines\"}", "{\"q\":\"\\\"open\",\"a\":\"x\"}"),
               LINES(2, 3, 4, 6));
    check_rows(ROWS_TSV, "q\ta\r\n\"say \"\"x\"\"\"\t\"\"\r\n'a'\tb, c\r\n", 2,
               ROWS("{\"q\":\"say \\\"x\\\"\",\"a\":\"\"}", "{\"q\":\"'a'\",\"a\":\"b, c\"}"), LINES(2, 3));
    check_rows(ROWS_CSV, "\xEF\xBB\xBFq,a\n1,2\n", 1, ROWS("{\"q\":\"1\",\"a\":\"2\"}"), LINES(2));
}

#define UTF16LE "{\0\"\0t\0e\0x\0t\0\"\0:\0\"\0a\0\"\0}\0\n\0"
#define UTF16BE "\0{\0\"\0t\0e\0x\0t\0\"\0:\0\"\0a\0\"\0}\0\n"

/* Files that are something else say what they are, and what to do. */
static void other_bytes(void **state)
{
    (void)state;
#define BYTES(text) text, sizeof(text) - 1
    static const struct {
        const char *bytes;
        size_t n;
        status code;
        const char *says;
    } files[] = {
        {BYTES("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"), ST_DATA,
         "file: a Git LFS pointer, not the data itself; run `git lfs pull`"},
        {BYTES("\xFF\xFE" UTF16LE), ST_DATA, "file: the text is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"},
        {BYTES("\xFE\xFF" UTF16BE), ST_DATA, "the text is UTF-16, not"},
        {BYTES(UTF16LE), ST_DATA, "the text is UTF-16LE, not UTF-8; convert it: iconv -f UTF-16LE"},
        {BYTES(UTF16BE), ST_DATA, "the text is UTF-16BE, not"},
        {BYTES("\xFF\xFE\0\0{\0\0\0}\0\0\0"), ST_DATA, "the text is UTF-32, not"},
        {BYTES("PAR1\x15\x04"), ST_NOT_BUILT, "the file is Parquet, whatever its name"},
        {BYTES("\x1F\x8B\x08\0"), ST_NOT_BUILT, "the file is gzip"},
        {BYTES("\x28\xB5\x2F\xFD\0"), ST_NOT_BUILT, "the file is zstd"},
        {BYTES("ARROW1\0\0"), ST_NOT_BUILT, "the file is Arrow"},
        {BYTES("PK\x03\x04"), ST_NOT_BUILT, "the file is zip (or .xlsx)"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        for (int kind = ROWS_JSON; kind <= ROWS_TSV; kind++) {
            struct rows r;
            assert_int_equal(rows_scan(&r, "file", files[i].bytes, files[i].n, (enum rows_kind)kind), files[i].code);
            if (!strstr(status_message(), files[i].says)) fail_msg("'%s' lacks '%s'", status_message(), files[i].says);
        }
    }
}

/* Texts in the encodings people's files come in; each is named with the command that mends it. */
static void encodings(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } table[] = {
        {"Caf\xE9 cr\xE8me, d\xE9j\xE0 vu", "it looks like WINDOWS-1252; convert the file: iconv -f WINDOWS-1252 -t UTF-8 IN > OUT"},
        {"It\x92s \x93quoted\x94 text \x96 from Word", "it looks like WINDOWS-1252"},
        {"Gr\xFC\xDF"
         "e aus M\xFCnchen, na\xEFve Fa\xE7"
         "ade",
         "it looks like WINDOWS-1252"},
        {"\xE4", "it looks like WINDOWS-1252"},
        /* こんにちは、世界。今日はいい天気ですね */
        {"\x82\xB1\x82\xF1\x82\xC9\x82\xBF\x82\xCD\x81\x41\x90\xA2\x8A\x45\x81\x42\x8D\xA1\x93\xFA\x82\xCD\x82\xA2\x82\xA2\x93\x56\x8B\x43"
         "\x82\xC5\x82\xB7\x82\xCB",
         "it looks like CP932"},
        {"\xA4\xB3\xA4\xF3\xA4\xCB\xA4\xC1\xA4\xCF\xA1\xA2\xC0\xA4\xB3\xA6\xA1\xA3\xBA\xA3\xC6\xFC\xA4\xCF\xA4\xA4\xA4\xA4\xC5\xB7\xB5\xA4"
         "\xA4\xC7\xA4\xB9\xA4\xCD",
         "it looks like EUC-JP"},
        /* 你好，世界。今天天气很好，我们去公园吧 */
        {"\xC4\xE3\xBA\xC3\xA3\xAC\xCA\xC0\xBD\xE7\xA1\xA3\xBD\xF1\xCC\xEC\xCC\xEC\xC6\xF8\xBA\xDC\xBA\xC3\xA3\xAC\xCE\xD2\xC3\xC7\xC8\xA5\xB9\xAB"
         "\xD4\xB0\xB0\xC9",
         "it looks like GB18030"},
        /* 안녕하세요 세계 오늘 날씨가 좋네요 */
        {"\xBE\xC8\xB3\xE7\xC7\xCF\xBC\xBC\xBF\xE4 \xBC\xBC\xB0\xE8 \xBF\xC0\xB4\xC3 \xB3\xAF\xBE\xBE\xB0\xA1 \xC1\xC1\xB3\xD7\xBF\xE4",
         "it looks like CP949"},
        /* Привет, мир! Сегодня хорошая погода */
        {"\xCF\xF0\xE8\xE2\xE5\xF2, \xEC\xE8\xF0! \xD1\xE5\xE3\xEE\xE4\xED\xFF \xF5\xEE\xF0\xEE\xF8\xE0\xFF \xEF\xEE\xE3\xEE\xE4\xE0",
         "it looks like WINDOWS-1251"},
        {"\xF0\xD2\xC9\xD7\xC5\xD4, \xCD\xC9\xD2! \xF3\xC5\xC7\xCF\xC4\xCE\xD1 \xC8\xCF\xD2\xCF\xDB\xC1\xD1 \xD0\xCF\xC7\xCF\xC4\xC1",
         "it looks like KOI8-R"},
        {"na\xC3\xAFve caf\xC3\xA9, \xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C \xFF broken",
         "the rest around it is UTF-8: mend these bytes"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        static const char *const files[] = {"{\"text\":\"%s\"}\n", "%s\n", "text,n\n\"%s\",1\n", "text\tn\n%s\t1\n"};
        for (int kind = ROWS_JSON; kind <= ROWS_TSV; kind++) {
            char file[300];
            struct rows r;
            json_t *row;
            const char *at = strstr(files[kind], "%s");
            snprintf(file, sizeof file, "%.*s%s%s", (int)(at - files[kind]), files[kind], table[i].text, at + 2);
            assert_int_equal(rows_scan(&r, "file", file, strlen(file), (enum rows_kind)kind), ST_OK);
            assert_int_equal(rows_get(&r, 0, &row), ST_DATA);
            if (!strstr(status_message(), table[i].says)) fail_msg("'%s' lacks '%s'", status_message(), table[i].says);
            rows_close(&r);
        }
    }
}

/* Templates print numbers: 5 is not 5.0, and what is too large for an integer is still a number. */
static void numbers(void **state)
{
    (void)state;
    check_rows(ROWS_JSON, "{\"a\":5,\"b\":5.0,\"c\":-9007199254740993}", 1, ROWS("{\"a\":5,\"b\":5.0,\"c\":-9007199254740993}"), LINES(1));
    json_t *v;
    assert_int_equal(rows_parse("[1]", 3, &v), ST_OK);
    json_decref(v);
    assert_int_equal(rows_parse("[1", 2, &v), ST_DATA);
    assert_null(v);
    char deep[200];
    memset(deep, '[', sizeof deep);
    assert_int_equal(rows_parse(deep, sizeof deep, &v), ST_DATA);
    assert_non_null(strstr(status_message(), "nested more than 64 deep"));
}

/* Bounds as datasets.ReadInstruction(rounding="closest") gives them. */
static void slices(void **state)
{
    (void)state;
    static const struct {
        const char *split;
        int64_t n, first, end;
    } table[] = {
        {NULL, 7, 0, 7},
        {"train", 7, 0, 7},
        {"train[:95%]", 100, 0, 95},
        {"train[95%:]", 100, 95, 100},
        {"train[:95%]", 999, 0, 949},
        {"train[95%:]", 999, 949, 999},
        {"train[:50%]", 5, 0, 2},
        {"train[50%:]", 5, 2, 5},
        {"train[:50%]", 7, 0, 4},
        {"train[:3]", 7, 0, 3},
        {"train[3:]", 7, 3, 7},
        {"train[2:4]", 7, 2, 4},
        {"train[-2:]", 7, 5, 7},
        {"train[:-2]", 7, 0, 5},
        {"train[-10%:]", 50, 45, 50},
        {"train[:100]", 7, 0, 7},
        {"train[-100:]", 7, 0, 7},
        {"train[10%:20%]", 30, 3, 6},
        {"train[:]", 7, 0, 7},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int64_t first, end;
        assert_int_equal(rows_slice(table[i].split, table[i].n, &first, &end), ST_OK);
        assert_int_equal(first, table[i].first);
        assert_int_equal(end, table[i].end);
    }
    static const char *const bad[] = {"test",         "train[",     "train[5]",   "train[:5%",
                                      "train[:101%]", "train[a:]",  "train+test", "train[7:]",
                                      "train[4:2]",   "train[:0%]", "train[:5]x", "train[:99999999999999999999]",
                                      "trainer[:5]",  "",           "train[+1:]", "train[1:2:3]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t first, end;
        if (rows_slice(bad[i], 7, &first, &end) != ST_CONFIG_RUNTIME) fail_msg("'%s' was accepted", bad[i]);
        assert_non_null(strstr(status_message(), bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(containers),  cmocka_unit_test(csv),       cmocka_unit_test(bad_files),
                                       cmocka_unit_test(bad_rows),    cmocka_unit_test(slices),    cmocka_unit_test(tsv),
                                       cmocka_unit_test(other_bytes), cmocka_unit_test(encodings), cmocka_unit_test(numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
