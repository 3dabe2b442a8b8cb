/* The whole pipeline against torchtune: real tokenizers, the shared data sets, every family, mask and cut. Expected ids and
 * labels come from torchtune's own code (golden/torchtune.json, make_golden.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "tests/data/data_config.h"
#include "worker/data/dataset.h"

static char *shared(const char *folder, const char *file)
{
    const char *root = getenv("TRIMPOT_SHARED");
    return mem_printf("%s/data/%s/%s", root ? root : TRIMPOT_SOURCE_DIR "/../shared", folder, file);
}

static const char *text_of(const json_t *c, const char *key) { return json_string_value(json_object_get(c, key)); }

/* torchtune numbers Llama 3's specials from 128000 whatever the size of the vocabulary; ours follow it. */
static int32_t theirs(const struct tokenizer *tok, int32_t id)
{
    int32_t first = tokenizer_id(tok, "<|begin_of_text|>");
    return first >= 0 && id >= first ? id - first + 128000 : id;
}

static uint64_t fnv(uint64_t h, int32_t v)
{
    for (int b = 0; b < 32; b += 8) h = (h ^ ((uint32_t)v >> b & 255)) * 0x100000001B3ull;
    return h;
}

static uint64_t fnv_document(uint64_t h, const struct tokenizer *tok, const struct document *doc)
{
    h = fnv(h, (int32_t)doc->n);
    for (int64_t t = 0; t < doc->n; t++) h = fnv(h, theirs(tok, doc->ids[t]));
    for (int64_t t = 0; t < doc->n; t++) h = fnv(h, theirs(tok, doc->labels[t]));
    return h;
}

static void compare_first(const json_t *c, const struct tokenizer *tok, const struct document *doc, const char *what)
{
    const json_t *first = json_array_get(json_object_get(c, "first"), 0);
    const json_t *ids = json_object_get(first, "ids"), *labels = json_object_get(first, "labels");
    assert_int_equal(doc->n, json_array_size(ids));
    for (int64_t t = 0; t < doc->n; t++) {
        int64_t id = json_integer_value(json_array_get(ids, (size_t)t));
        int64_t label = json_integer_value(json_array_get(labels, (size_t)t));
        if (theirs(tok, doc->ids[t]) != id || theirs(tok, doc->labels[t]) != label)
            fail_msg("%s: token %lld is %d label %d, torchtune has %lld label %lld", what, (long long)t, doc->ids[t], doc->labels[t],
                     (long long)id, (long long)label);
    }
}

static enum data_kind kind_of(const char *word)
{
    return !strcmp(word, "chat") ? DATA_CHAT : !strcmp(word, "alpaca") ? DATA_ALPACA : DATA_INSTRUCT;
}

static enum masking masking_of(const char *word)
{
    return !strcmp(word, "train_on_all")    ? MASK_TRAIN_ON_ALL
           : !strcmp(word, "train_on_last") ? MASK_TRAIN_ON_LAST
                                            : MASK_TRAIN_ON_ASSISTANT;
}

/* phi4 borrows the words of a vocabulary whose neighbours say that it is Qwen's: it lies alone. */
static struct tokenizer *open_tokenizer(const json_t *c)
{
    struct tokenizer *tok;
    char *path = shared("tokenizers", text_of(c, "tokenizer")), alone[] = "/tmp/trimpot-vocab-XXXXXX", *link = NULL;
    char *merges = text_of(c, "merges") ? shared("tokenizers", text_of(c, "merges")) : NULL;
    struct tokenizer_hint hint = {.merges_file = merges, .family = text_of(c, "family")};
    if (!strcmp(hint.family, "phi4")) {
        char *there = realpath(path, NULL);
        assert_non_null(mkdtemp(alone));
        link = mem_printf("%s/vocab.json", alone);
        assert_int_equal(symlink(there, link), 0);
        free(there);
    }
    if (tokenizer_open(link ? link : path, &hint, &tok)) fail_msg("%s", status_message());
    if (link) {
        unlink(link);
        rmdir(alone);
    }
    free(link);
    free(path);
    free(merges);
    return tok;
}

static void check_case(const json_t *c, const struct tokenizer *tok)
{
    struct config config = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct config_pair map[4];
    struct dataset *d;
    char *file = shared("", text_of(c, "file")), *split = NULL;
    int64_t rows = json_integer_value(json_object_get(c, "rows"));
    char *what = mem_printf("%s, %s, %s", text_of(c, "family"), text_of(c, "file"), text_of(c, "masking"));
    const json_t *cut = json_object_get(c, "max_seq_len"), *columns = json_object_get(c, "column_map");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)columns, key, value) map[set.n_column_map++] =
        (struct config_pair){(char *)key, (char *)json_string_value(value)};
    set.column_map = map;
    set.kind = kind_of(text_of(c, "kind"));
    set.masking = masking_of(text_of(c, "masking"));
    set.data_files = &file;
    set.n_data_files = 1;
    set.split = split = mem_printf("train[:%lld]", (long long)rows);
    config.tokenizer.max_seq_len = json_is_integer(cut) ? json_integer_value(cut) : -1;
    config.tokenizer.prompt_template = (char *)text_of(c, "prompt_template");
    const struct chat_format *format = TORCHTUNE(tok, text_of(c, "family"));
    if (dataset_open(&config, &set, 1, format, &d)) fail_msg("%s: %s", what, status_message());
    assert_int_equal(dataset_items(d), rows);
    uint64_t h = 0xCBF29CE484222325ull;
    for (int64_t i = 0; i < rows; i++) {
        const struct document *doc;
        assert_int_equal(dataset_item(d, i, &doc), 1);
        if (i == 0) compare_first(c, tok, doc, what);
        h = fnv_document(h, tok, doc);
    }
    char hex[20];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)h);
    if (strcmp(hex, text_of(c, "hash"))) fail_msg("%s: some of %lld rows differ from torchtune's", what, (long long)rows);
    dataset_close(d);
    free(file);
    free(split);
    free(what);
}

static void the_same_as_torchtune(void **state)
{
    (void)state;
    json_error_t error;
    json_t *cases = json_load_file(TRIMPOT_SOURCE_DIR "/tests/data/golden/torchtune.json", 0, &error);
    assert_non_null(cases);
    assert_true(json_array_size(cases) >= 40);
    struct tokenizer *tok = NULL;
    const char *family = "";
    size_t i;
    const json_t *c;
    json_array_foreach(cases, i, c)
    {
        if (strcmp(family, text_of(c, "family"))) {
            tokenizer_close(tok);
            tok = open_tokenizer(c);
            family = text_of(c, "family");
        }
        check_case(c, tok);
    }
    tokenizer_close(tok);
    json_decref(cases);
}

/* The shapes are found without being named, and every row of the shared sets is usable. */
static void the_shared_sets_by_shape(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *file;
        int64_t rows, kept;
    } sets[] = {
        {"gsm8k", "train.jsonl", 7473, 7473},          {"instruct", "alpaca_en_demo.json", 999, 999},
        {"instruct", "identity.json", 91, 91},         {"tokenizers/torchtune-assets", "chat_tiny.json", 1, 1},
        {"text", "tinyshakespeare.txt", 40000, 32777}, /* 7,223 lines are empty, and Qwen2 has no BOS */
    };
    char *path = shared("tokenizers", "qwen2/vocab.json"), *merges = shared("tokenizers", "qwen2/merges.txt");
    struct tokenizer_hint hint = {.merges_file = merges, .family = "qwen2"};
    struct tokenizer *tok;
    if (tokenizer_open(path, &hint, &tok)) fail_msg("%s", status_message());
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        struct config config = config_defaults();
        struct config_dataset set = dataset_defaults();
        struct dataset *d;
        char *file = shared(sets[i].folder, sets[i].file);
        set.data_files = &file;
        set.n_data_files = 1;
        double begin = clock_s();
        const struct chat_format *format = TORCHTUNE(tok, "qwen2");
        if (dataset_open(&config, &set, 1, format, &d)) fail_msg("%s", status_message());
        const struct dataset_stats *s = dataset_stats(d);
        print_message("%s: %lld rows, %lld tokens, %lld supervised, %.2f s\n", sets[i].file, (long long)s->rows, (long long)s->tokens,
                      (long long)s->supervised, clock_s() - begin);
        assert_int_equal(s->rows, sets[i].rows);
        assert_int_equal(s->kept, sets[i].kept);
        assert_int_equal(s->unsupervised, sets[i].rows - sets[i].kept);
        assert_true(s->supervised > 0 && s->supervised < s->tokens);
        char *shown = dataset_preview(d, tok, false);
        assert_non_null(strstr(shown, i < 4 ? "[[<|im_start|>assistant\n" : "[["));
        free(shown);
        dataset_close(d);
        free(file);
    }
    tokenizer_close(tok);
    free(path);
    free(merges);
}

int main(void)
{
    log_init(0, 1, LOG_QUIET);
    char *there = shared("gsm8k", "test.jsonl");
    if (!file_exists(there)) {
        printf("SKIPPED: %s is not there; set TRIMPOT_SHARED to compare with torchtune\n", there);
        free(there);
        return 77;
    }
    free(there);
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_same_as_torchtune), cmocka_unit_test(the_shared_sets_by_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
