/* Every row of the shared data sets, byte-level (Qwen2) and SentencePiece (Mistral, whose dummy prefix decoding takes
 * away again): decode(encode(x)) == x, and ids equal those of the packages (a hash over all: golden/rows.json). Every
 * other row with special tokens parsed, as no row has any. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tokenizer/test_shared.h"
#include "worker/data/tokenizer/tokenizer.h"

static const char *const TOKENIZERS[] = {"qwen2", "mistral-v3/mistral_instruct_tokenizer_240323.model.v3"};
enum { N = sizeof TOKENIZERS / sizeof *TOKENIZERS };

struct run {
    struct tokenizer *tok[N];
    struct ids ids;
    size_t texts, bytes, tokens[N]; /* tokens and hash: of one file */
    uint64_t hash[N];
};

static void check(struct run *r, const char *text, size_t n)
{
    for (int i = 0; i < N; i++) {
        size_t bytes;
        r->ids.n = 0;
        assert_int_equal(tokenizer_encode(r->tok[i], text, n, r->texts & 1, &r->ids), ST_OK);
        char *back = tokenizer_decode(r->tok[i], r->ids.v, r->ids.n, true, &bytes);
        if (bytes != n || memcmp(back, text, n) != 0)
            fail_msg("%s: '%.200s' came back as '%.200s'", tokenizer_describe(r->tok[i]), text, back);
        free(back);
        r->tokens[i] += r->ids.n;
        for (size_t k = 0; k < r->ids.n; k++) r->hash[i] = (r->hash[i] ^ (uint32_t)r->ids.v[k]) * 0x100000001b3u;
    }
    r->texts++;
    r->bytes += n;
}

/* Every string anywhere in a JSON value. */
static void check_json(struct run *r, json_t *v)
{
    size_t i;
    const char *key;
    json_t *member;
    if (json_is_string(v)) check(r, json_string_value(v), json_string_length(v));
    json_array_foreach(v, i, member) check_json(r, member);
    json_object_foreach(v, key, member) check_json(r, member);
}

static bool check_file(struct run *r, const char *name)
{
    char *path = shared_path(name), *text;
    size_t n;
    if (!path) return false;
    for (int i = 0; i < N; i++) {
        r->tokens[i] = 0;
        r->hash[i] = 0xcbf29ce484222325u;
    }
    assert_int_equal(file_read(path, 1 << 30, &text, &n), ST_OK);
    bool lines = strstr(name, ".jsonl") != NULL;
    if (strstr(name, ".txt"))
        check(r, text, n);
    else
        for (char *at = text, *end; at && *at; at = end) {
            end = lines ? strchr(at, '\n') : NULL;
            size_t len = end ? (size_t)(end++ - at) : strlen(at);
            json_t *v = json_loadb(at, len, JSON_ALLOW_NUL, NULL);
            assert_non_null(v);
            check_json(r, v);
            json_decref(v);
        }
    free(text);
    free(path);
    return true;
}

static void every_row(void **state)
{
    static const char *const files[] = {"gsm8k/train.jsonl", "gsm8k/test.jsonl", "instruct/alpaca_en_demo.json", "instruct/identity.json",
                                        "text/tinyshakespeare.txt"};
    (void)state;
    struct run r = {0};
    json_error_t e;
    json_t *golden = json_load_file(TRIMPOT_SOURCE_DIR "/tests/tokenizer/golden/rows.json", 0, &e);
    if (!golden) fail_msg("rows.json: %s", e.text);
    for (int i = 0; i < N; i++) {
        char *name = mem_printf("tokenizers/%s", TOKENIZERS[i]), *path = shared_path(name);
        if (!path) skip();
        if (tokenizer_open(path, NULL, &r.tok[i])) fail_msg("%s", status_message());
        free(name);
        free(path);
    }
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        if (!check_file(&r, files[k])) skip();
        for (int i = 0; i < N; i++) {
            char hash[24];
            const json_t *want = json_object_get(json_object_get(golden, files[k]), TOKENIZERS[i]);
            snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r.hash[i]);
            assert_int_equal(json_integer_value(json_array_get(want, 0)), r.tokens[i]);
            assert_string_equal(json_string_value(json_array_get(want, 1)), hash);
        }
    }
    printf("%zu texts, %zu bytes\n", r.texts, r.bytes);
    assert_true(r.texts > 19000);
    for (int i = 0; i < N; i++) tokenizer_close(r.tok[i]);
    free(r.ids.v);
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
