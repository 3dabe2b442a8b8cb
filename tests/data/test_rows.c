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

#define ROWS(...) (const char *const[]){__VA_ARGS__}
#define LINES(...) (const unsigned[]){__VA_ARGS__}

static void containers(void **state)
{
    (void)state;
    check_rows(ROWS_JSON, "[{\"a\":\"1\"},{\"a\":\"2\"}]", 2, ROWS("{\"a\":\"1\"}", "{\"a\":\"2\"}"), LINES(1, 1));
    check_rows(ROWS_JSON, "\xEF\xBB\xBF \n[\n {\"a\":\n\"x\"}\n ,\n{\"b\":[{}]}]\n\n", 2,
               ROWS("{\"a\":\"x\"}", "{\"b\":[{}]}"), LINES(3, 6));
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
               ROWS("{\"a\":\"1\",\"b\":\"x, \\\"y\\\"\\nz\"}", "{\"a\":\"\",\"b\":\"\"}", "{\"a\":\"\",\"b\":\"q\"}"),
               LINES(2, 5, 6));
    check_rows(ROWS_TSV, "\xEF\xBB\xBF\"a\"\tb\n1,2\t5\" nail\n", 1, ROWS("{\"a\":\"1,2\",\"b\":\"5\\\" nail\"}"), LINES(2));
    static const struct { const char *text, *says; } bad[] = {
        {"a,b\n", "file: a header and no rows"},        {"", "file: the file is empty"},
        {"a,a\n1,2\n", "file:1: two columns are called 'a'"}, {"a,\xff\n1,2\n", "file:1: the name of column 2 is not"},
        {"a,b\n\"1,2\n3", "file:2: a quoted value that begins here is not closed"},
        {"a,b\n\"1\"x,2\n", "file:2: 'x' after a closing quote"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rows r;
        assert_int_equal(rows_scan(&r, "file", bad[i].text, strlen(bad[i].text), ROWS_CSV), ST_DATA);
        if (!strstr(status_message(), bad[i].says)) fail_msg("'%s' lacks '%s'", status_message(), bad[i].says);
    }
    static const struct { const char *text, *says; } bad_row[] = {
        {"a,b\n1,2,3\n", "file:2: 3 values, but the header names 2 columns; quote values that contain a comma"},
        {"a,b\n1\n", "file:2: 1 values"},
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
    static const struct { enum rows_kind kind; const char *text, *says; } table[] = {
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
    const struct { enum rows_kind kind; const char *text; int row; const char *says; } table[] = {
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

/* Bounds as datasets.ReadInstruction(rounding="closest") gives them. */
static void slices(void **state)
{
    (void)state;
    static const struct { const char *split; int64_t n, first, end; } table[] = {
        {NULL, 7, 0, 7},           {"train", 7, 0, 7},          {"train[:95%]", 100, 0, 95}, {"train[95%:]", 100, 95, 100},
        {"train[:95%]", 999, 0, 949},  {"train[95%:]", 999, 949, 999}, {"train[:50%]", 5, 0, 2}, {"train[50%:]", 5, 2, 5},
        {"train[:50%]", 7, 0, 4},  {"train[:3]", 7, 0, 3},      {"train[3:]", 7, 3, 7},      {"train[2:4]", 7, 2, 4},
        {"train[-2:]", 7, 5, 7},   {"train[:-2]", 7, 0, 5},     {"train[-10%:]", 50, 45, 50}, {"train[:100]", 7, 0, 7},
        {"train[-100:]", 7, 0, 7}, {"train[10%:20%]", 30, 3, 6}, {"train[:]", 7, 0, 7},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        int64_t first, end;
        assert_int_equal(rows_slice(table[i].split, table[i].n, &first, &end), ST_OK);
        assert_int_equal(first, table[i].first);
        assert_int_equal(end, table[i].end);
    }
    static const char *const bad[] = {"test",        "train[",       "train[5]",    "train[:5%",   "train[:101%]",
                                      "train[a:]",   "train+test",   "train[7:]",   "train[4:2]",  "train[:0%]",
                                      "train[:5]x",  "train[:99999999999999999999]", "trainer[:5]", "", "train[+1:]",
                                      "train[1:2:3]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t first, end;
        if (rows_slice(bad[i], 7, &first, &end) != ST_CONFIG_RUNTIME) fail_msg("'%s' was accepted", bad[i]);
        assert_non_null(strstr(status_message(), bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(containers), cmocka_unit_test(csv), cmocka_unit_test(bad_files),
                                       cmocka_unit_test(bad_rows), cmocka_unit_test(slices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
