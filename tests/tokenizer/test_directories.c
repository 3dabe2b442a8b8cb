/* What a directory's other files do to its vocabulary: golden/directories.json has what transformers says (made by
 * make_directories.py), the tables here what is refused, and what is done otherwise on purpose. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/tokenizer/test_shared.h"
#include "worker/data/tokenizer/tokenizer.h"

static char dir[64];

static void fresh_directory(void)
{
    if (*dir) assert_int_equal(file_remove_tree(dir), ST_OK);
    strcpy(dir, "/tmp/trimpot-tok-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static int end_directory(void **state)
{
    (void)state;
    if (*dir) file_remove_tree(dir);
    return *dir = 0;
}

static void put_text(const char *name, const char *text)
{
    char *path = mem_printf("%s/%s", dir, name);
    assert_int_equal(file_replace(path, text, strlen(text)), ST_OK);
    free(path);
}

/* A file of the shared data, under another name; false: it is not there. */
static bool put_shared(const char *name, const char *source)
{
    char *from = mem_printf("tokenizers/%s", source), *path = shared_path(from), *to = mem_printf("%s/%s", dir, name);
    bool there = path != NULL;
    if (there) assert_int_equal(symlink(path, to), 0);
    free(from);
    free(path);
    free(to);
    return there;
}

/* A file of the golden's own, in hexadecimal. */
static void put_hex(const char *name, const char *hex)
{
    char *path = mem_printf("%s/%s", dir, name);
    struct buf bytes = {0};
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2) buf_add(&bytes, (char[]){(char)byte}, 1);
    assert_int_equal(file_replace(path, bytes.data, bytes.len), ST_OK);
    buf_release(&bytes);
    free(path);
}

static int wrong;

static bool same_ids(const struct ids *got, const json_t *want)
{
    bool same = json_array_size(want) == got->n;
    for (size_t i = 0; same && i < got->n; i++) same = json_integer_value(json_array_get(want, i)) == got->v[i];
    return same;
}

static void expect_ids(const char *texts, const char *what, const json_t *string, const struct ids *got, const json_t *want)
{
    if (same_ids(got, want) || wrong++ >= 20) return;
    char *text = json_dumps(string, JSON_ENCODE_ANY), *ids = json_dumps(want, 0);
    printf("%s\n  %s of %s:", texts, what, text);
    for (size_t i = 0; i < got->n; i++) printf(" %d", (int)got->v[i]);
    printf("\n  want %s\n", ids);
    free(text);
    free(ids);
}

static void check_strings(const struct tokenizer *t, const char *texts, const json_t *strings, const json_t *c)
{
    const struct ids *prefix, *suffix;
    struct ids got = {0}, document = {0};
    size_t i;
    json_t *s;
    tokenizer_around(t, &prefix, &suffix);
    expect_ids(texts, "prefix", NULL, prefix, json_object_get(c, "prefix"));
    expect_ids(texts, "suffix", NULL, suffix, json_object_get(c, "suffix"));
    json_array_foreach(strings, i, s)
    {
        const char *text = json_string_value(s);
        size_t n = json_string_length(s);
        got.n = document.n = 0;
        assert_int_equal(tokenizer_encode(t, text, n, true, &got), ST_OK);
        expect_ids(texts, "ids", s, &got, json_array_get(json_object_get(c, "ids"), i));
        assert_int_equal(tokenizer_encode_document(t, text, n, &document), ST_OK);
        assert_int_equal(document.n, prefix->n + got.n + suffix->n);
        assert_memory_equal(document.v + prefix->n, got.v, got.n * sizeof *got.v);
    }
    free(got.v);
    free(document.v);
}

static void check_case(const json_t *root, const json_t *c)
{
    const char *name;
    json_t *v;
    fresh_directory();
    json_object_foreach(json_object_get(c, "files"), name, v)
    {
        size_t own = (size_t)json_integer_value(json_object_get(v, "model"));
        if (json_is_object(v))
            put_hex(name, json_string_value(json_array_get(json_object_get(root, "models"), own)));
        else if (!put_shared(name, json_string_value(v)))
            skip();
    }
    json_object_foreach(json_object_get(c, "texts"), name, v)
    {
        char *file = mem_printf("%s.json", name), *text = json_dumps(v, 0);
        put_text(file, text);
        free(file);
        free(text);
    }
    struct tokenizer *t = NULL;
    if (tokenizer_open(dir, NULL, &t)) fail_msg("%s", status_message());
    char *texts = json_dumps(json_object_get(c, "texts"), 0);
    check_strings(t, texts, json_object_get(root, "strings"), c);
    const struct {
        const char *name;
        int32_t id;
    } roles[] = {{"bos", tokenizer_bos(t)}, {"eos", tokenizer_eos(t)}, {"pad", tokenizer_pad(t)}};
    for (int i = 0; i < 3; i++) {
        json_int_t want = json_integer_value(json_object_get(c, roles[i].name));
        if (want == roles[i].id || wrong++ >= 20) continue;
        printf("%s\n  %s is %d; want %d\n", texts, roles[i].name, (int)roles[i].id, (int)want);
    }
    free(texts);
    tokenizer_close(t);
}

static void as_transformers(void **state)
{
    (void)state;
    json_error_t e;
    json_t *root = json_load_file(TRIMPOT_SOURCE_DIR "/tests/tokenizer/golden/directories.json", 0, &e), *c;
    if (!root) fail_msg("directories.json: line %d: %s", e.line, e.text);
    size_t i;
    wrong = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c) check_case(root, c);
    printf("%zu directories\n", json_array_size(json_object_get(root, "cases")));
    json_decref(root);
    assert_int_equal(wrong, 0);
}

static const struct refused {
    const char *file, *source; /* of the shared data; NULL: `text` */
    const char *text, *config, *model_config;
    status st;
    const char *says[3];
} REFUSED[] = {
    {"tekken.json",
     NULL,
     "{\"config\":{},\"vocab\":[]}",
     NULL,
     NULL,
     ST_NOT_BUILT,
     {"/tekken.json", "Mistral's tekken format", "save_pretrained"}},
    {"qwen.tiktoken", NULL, "AA== 0\n", NULL, NULL, ST_NOT_BUILT, {"/qwen.tiktoken", "first Qwen", "save_pretrained"}},
    {"spiece.model", NULL, "x", NULL, NULL, ST_NOT_BUILT, {"T5", "save_pretrained"}},
    {"vocab.txt", NULL, "[PAD]\n", NULL, NULL, ST_NOT_BUILT, {"WordPiece", "save_pretrained"}},
    {"readme", NULL, "x", NULL, NULL, ST_IO, {"has no tokenizer.json, tokenizer.model or vocab.json"}},
    {"tokenizer.model",
     "torchtune-assets/m.model",
     NULL,
     "{\"tokenizer_class\":\"XLNetTokenizer\"}",
     NULL,
     ST_NOT_BUILT,
     {"'XLNetTokenizer' is not built in", "LlamaTokenizer", "save_pretrained"}},
    {"tokenizer.model",
     "torchtune-assets/m.model",
     NULL,
     "{\"tokenizer_class\":\"T5TokenizerFast\"}",
     NULL,
     ST_NOT_BUILT,
     {"'T5TokenizerFast'"}},
    {"tokenizer.model",
     "torchtune-assets/m.model",
     NULL,
     "{\"tokenizer_class\":\"GPT2Tokenizer\"}",
     NULL,
     ST_NOT_BUILT,
     {"'GPT2Tokenizer'"}},
    {"vocab.json",
     "qwen2/vocab.json",
     NULL,
     "{\"tokenizer_class\":\"RobertaTokenizer\"}",
     NULL,
     ST_NOT_BUILT,
     {"'RobertaTokenizer' is not built in", "Qwen2Tokenizer"}},
    {"vocab.json", "qwen2/vocab.json", NULL, "{\"tokenizer_class\":\"LlamaTokenizer\"}", NULL, ST_NOT_BUILT, {"'LlamaTokenizer'"}},
    {"tokenizer.model",
     "torchtune-assets/tiktoken_small.model",
     NULL,
     NULL,
     "{\"model_type\":\"llama4\"}",
     ST_NOT_BUILT,
     {"Llama 4", "split pattern", "save_pretrained"}},
    {"tokenizer.model", "torchtune-assets/tiktoken_small.model", NULL, NULL, "{\"model_type\":\"llama4_text\"}", ST_NOT_BUILT, {"Llama 4"}},
    {"tokenizer.model",
     "torchtune-assets/tiktoken_small.model",
     NULL,
     "{\"tokenizer_class\":\"QWenTokenizer\"}",
     NULL,
     ST_NOT_BUILT,
     {"'QWenTokenizer'"}},
};

static void refused(void **state)
{
    (void)state;
    wrong = 0;
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        const struct refused *r = &REFUSED[i];
        struct tokenizer *t = NULL;
        fresh_directory();
        if (r->source && !put_shared(r->file, r->source)) skip();
        if (!r->source) put_text(r->file, r->text);
        if (strcmp(r->file, "vocab.json") == 0 && !put_shared("merges.txt", "qwen2/merges.txt")) skip();
        if (r->config) put_text("tokenizer_config.json", r->config);
        if (r->model_config) put_text("config.json", r->model_config);
        status st = tokenizer_open(dir, NULL, &t);
        bool same = st == r->st;
        for (int k = 0; k < 3 && r->says[k]; k++) same = same && strstr(status_message(), r->says[k]);
        if (!same) printf("%zu, %s: status %d, '%s'\n", i, r->file, st, st ? status_message() : ""), wrong++;
        if (!st) tokenizer_close(t);
    }
    assert_int_equal(wrong, 0);
}

/* A tiktoken file of 200,000 pieces is Llama 4's or o200k's, whatever stands beside it; torchtune's component decides.
 */
static void known_by_size(void **state)
{
    (void)state;
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf text = {0};
    for (int i = 0; i < 256; i++) buf_printf(&text, "%c%c== %d\n", digit[i >> 2], digit[(i & 3) << 4], i);
    for (int i = 256; i < 200000; i++) /* pieces of three bytes, none of them worth anything */
        buf_printf(&text, "%c%c%c%c %d\n", digit[i & 63], digit[i >> 6 & 63], digit[i >> 12 & 63], 'A', i);
    struct tokenizer *t = NULL;
    fresh_directory();
    put_text("tokenizer.model", text.data);
    assert_int_equal(tokenizer_open(dir, NULL, &t), ST_NOT_BUILT);
    assert_non_null(strstr(status_message(), "Llama 4"));
    struct tokenizer_hint hint = {.family = "llama3_tokenizer"};
    assert_int_equal(tokenizer_open(dir, &hint, &t), ST_OK);
    tokenizer_close(t);
    buf_release(&text);
}

/* On purpose unlike transformers: a bare file without a class is read as SentencePiece reads it, with the family's BOS;
 * Llama 3's file has its special tokens; a component of torchtune's decides over the class. */
static void on_purpose(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    const struct ids *prefix, *suffix;
    fresh_directory();
    if (!put_shared("tokenizer.model", "mistral-v3/mistral_instruct_tokenizer_240323.model.v3")) skip();
    assert_int_equal(tokenizer_open(dir, NULL, &t), ST_OK);
    tokenizer_around(t, &prefix, &suffix);
    assert_true(prefix->n == 1 && prefix->v[0] == 1 && suffix->n == 0);
    tokenizer_close(t);

    put_text("tokenizer_config.json", "{\"tokenizer_class\":\"XLNetTokenizer\"}");
    struct tokenizer_hint hint = {.family = "mistral_tokenizer"};
    assert_int_equal(tokenizer_open(dir, &hint, &t), ST_OK);
    tokenizer_close(t);

    fresh_directory();
    if (!put_shared("tokenizer.model", "torchtune-assets/tiktoken_small.model")) skip();
    put_text("config.json", "{\"model_type\":\"llama\"}");
    put_text("tokenizer_config.json", "{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}");
    assert_int_equal(tokenizer_open(dir, NULL, &t), ST_OK);
    assert_int_equal(tokenizer_id(t, "<|eot_id|>"), 2009);
    tokenizer_around(t, &prefix, &suffix);
    assert_true(prefix->n == 1 && prefix->v[0] == 2000 && suffix->n == 0);
    tokenizer_close(t);
}

/* The model's type of the hint stands in for a config.json that is not there, and gives way to the class. */
static void model_type_decides_last(void **state)
{
    (void)state;
    static const char text[] = "ied 4 ½";
    struct ids classed = {0}, typed = {0};
    struct tokenizer *t = NULL;
    fresh_directory();
    if (!put_shared("vocab.json", "qwen2/vocab.json") || !put_shared("merges.txt", "qwen2/merges.txt")) skip();
    struct tokenizer_hint hint = {.model_type = "qwen2"};
    assert_int_equal(tokenizer_open(dir, &hint, &t), ST_OK);
    assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, true, &typed), ST_OK);
    assert_int_equal(tokenizer_id(t, "<|im_end|>"), 151645);
    tokenizer_close(t);
    put_text("tokenizer_config.json", "{\"tokenizer_class\":\"Qwen2Tokenizer\"}");
    hint.model_type = "llama";
    assert_int_equal(tokenizer_open(dir, &hint, &t), ST_OK);
    assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, true, &classed), ST_OK);
    tokenizer_close(t);
    assert_true(classed.n == typed.n);
    assert_memory_equal(classed.v, typed.v, typed.n * sizeof *typed.v);
    free(classed.v);
    free(typed.v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_transformers), cmocka_unit_test(refused), cmocka_unit_test(known_by_size),
                                       cmocka_unit_test(on_purpose), cmocka_unit_test(model_type_decides_last)};
    return cmocka_run_group_tests(tests, NULL, end_directory);
}
