/* Every id as the packages tokenizers, sentencepiece and tiktoken give it: golden/files.json for the files of the
 * shared data, golden/pipelines.json for every component of tokenizer.json. Both made by make_golden.py. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tokenizer/test_shared.h"
#include "worker/data/tokenizer/utf8.h"
#include "worker/data/tokenizer/open.h"

static json_t *golden(const char *name)
{
    char *path = mem_printf(TRIMPOT_SOURCE_DIR "/tests/tokenizer/golden/%s", name);
    json_error_t e;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (!root) fail_msg("%s: line %d: %s", path, e.line, e.text);
    free(path);
    return root;
}

/* Counts instead of stopping at once, so that one run shows everything that differs. */
static int wrong;

static void differs(const char *who, const char *what, const json_t *string, const struct ids *got)
{
    if (wrong++ >= 20) return;
    char *text = json_dumps(string, JSON_ENCODE_ANY);
    printf("%s: %s of %s:", who, what, text);
    for (size_t i = 0; got && i < got->n && i < 60; i++) printf(" %d", (int)got->v[i]);
    printf("\n");
    free(text);
}

static void expect_ids(const char *who, const char *what, const json_t *string, const json_t *want, struct ids *got)
{
    bool same = json_array_size(want) == got->n;
    for (size_t i = 0; same && i < got->n; i++) same = json_integer_value(json_array_get(want, i)) == got->v[i];
    if (!same) differs(who, what, string, got);
    got->n = 0;
}

static void expect_text(const char *who, const json_t *string, const json_t *want, const char *got, size_t n)
{
    struct buf text = {0};
    buf_add(&text, "", 0);
    utf8_repair(&text, got, n);
    if (json_string_length(want) != text.len || memcmp(json_string_value(want), text.data, text.len) != 0) {
        differs(who, "decoded text", string, NULL);
        if (wrong <= 20) printf("    want '%s'\n    got  '%s'\n", json_string_value(want), text.data);
    }
    buf_release(&text);
}

static void check_file(const json_t *strings, const json_t *c)
{
    const char *file = json_string_value(json_object_get(c, "file"));
    struct tokenizer_hint hint = {.family = json_string_value(json_object_get(c, "family"))};
    struct tokenizer *t = NULL;
    char *name = mem_printf("tokenizers/%s", file), *path = shared_path(name);
    free(name);
    if (!path) skip();
    if (tokenizer_open(path, &hint, &t)) fail_msg("%s", status_message());
    struct ids got = {0};
    size_t i;
    json_t *s;
    json_array_foreach(strings, i, s)
    {
        const char *text = json_string_value(s);
        size_t n = json_string_length(s), bytes;
        const json_t *document = json_array_get(json_object_get(c, "document"), i);
        const json_t *specials = json_array_get(json_object_get(c, "specials"), i);
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        const json_t *decoded = json_object_get(json_object_get(c, "decoded"), key);
        assert_int_equal(tokenizer_encode(t, text, n, false, &got), ST_OK);
        char *back = tokenizer_decode(t, got.v, got.n, false, &bytes);
        expect_ids(file, "ids", s, json_array_get(json_object_get(c, "ids"), i), &got);
        expect_text(file, s, decoded ? decoded : s, back, bytes);
        free(back);
        assert_int_equal(tokenizer_encode_document(t, text, n, &got), ST_OK);
        if (json_is_array(document)) expect_ids(file, "document", s, document, &got);
        got.n = 0;
        assert_int_equal(tokenizer_encode(t, text, n, true, &got), ST_OK);
        if (specials) expect_ids(file, "ids with specials", s, specials, &got);
        got.n = 0;
    }
    free(got.v);
    tokenizer_close(t);
    free(path);
}

static void every_file(void **state)
{
    (void)state;
    json_t *root = golden("files.json"), *c;
    size_t i;
    wrong = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c) check_file(json_object_get(root, "strings"), c);
    json_decref(root);
    assert_int_equal(wrong, 0);
}

/* The tokenizer.json of a case: its parts around the shared model. */
static char *compose(const json_t *root, const json_t *parts)
{
    json_t *o = json_pack("{s:s, s:n, s:n}", "version", "1.0", "truncation", "padding");
    json_t *model = json_copy(json_object_get(root, json_object_get(parts, "byte_model") ? "byte_model" : "model"));
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)parts, key, v) json_object_set(o, key, v);
    json_object_foreach(json_object_get(parts, "model"), key, v) json_object_set(model, key, v);
    json_object_set_new(o, "model", model);
    char *text = json_dumps(o, 0);
    json_decref(o);
    return text;
}

static void check_pipeline(const json_t *root, const json_t *c)
{
    const json_t *parts = json_object_get(c, "parts");
    char *text = compose(root, parts), *shown = json_dumps(parts, 0);
    char *name = mem_printf("%s %.300s", json_string_value(json_object_get(c, "name")), shown);
    struct tok_source source = {.path = name, .kind = "tokenizer.json", .data = text, .n = strlen(text)};
    struct tokenizer *t = NULL;
    struct ids got = {0};
    size_t i;
    json_t *s;
    if (tokenizer_from_memory(&source, &t)) fail_msg("%s", status_message());
    json_array_foreach(json_object_get(root, "strings"), i, s)
    {
        const json_t *plain = json_array_get(json_object_get(c, "ids"), i);
        const json_t *decoded = json_array_get(json_object_get(c, "decoded"), i);
        size_t bytes;
        assert_int_equal(tokenizer_encode(t, json_string_value(s), json_string_length(s), false, &got), ST_OK);
        if (plain) expect_ids(name, "ids", s, plain, &got);
        got.n = 0;
        assert_int_equal(tokenizer_encode_document(t, json_string_value(s), json_string_length(s), &got), ST_OK);
        char *back = tokenizer_decode(t, got.v, got.n, true, &bytes);
        expect_ids(name, "document", s, json_array_get(json_object_get(c, "document"), i), &got);
        if (decoded) expect_text(name, s, decoded, back, bytes);
        free(back);
    }
    free(got.v);
    tokenizer_close(t);
    free(name);
    free(shown);
    free(text);
}

static void every_component(void **state)
{
    (void)state;
    json_t *root = golden("pipelines.json"), *c;
    size_t i;
    wrong = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c) check_pipeline(root, c);
    json_decref(root);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_file), cmocka_unit_test(every_component)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
