/* What surrounds the ids: special tokens and their roles, hints, broken UTF-8, threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tokenizer/test_shared.h"
#include "worker/data/tokenizer/open.h"

static struct tokenizer *open_shared(const char *name, const struct tokenizer_hint *hint)
{
    char *path = shared_path(name);
    struct tokenizer *t = NULL;
    if (!path) skip();
    if (tokenizer_open(path, hint, &t)) fail_msg("%s", status_message());
    free(path);
    return t;
}

static void roles(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int32_t size, bos, eos, pad;
        const char *describe;
    } want[] = {
        {"tokenizers/qwen2", 151646, -1, 151645, 151643, "vocab.json: byte-level BPE, 151646 ids"},
        {"tokenizers/mistral-v3/mistral_instruct_tokenizer_240323.model.v3", 32768, 1, 2, -1,
         "mistral_instruct_tokenizer_240323.model.v3: SentencePiece BPE, 32768 ids"},
        {"tokenizers/torchtune-assets/tiktoken_small.model", 2256, 2000, 2001, 2004, "tiktoken_small.model: tiktoken BPE, 2256 ids"},
        {"tokenizers/torchtune-assets/m.model", 2000, 1, 2, -1, "m.model: SentencePiece Unigram, 2000 ids"},
        {"tokenizers/torchtune-assets/sentencepiece.model", 32000, -1, 1, 0, "sentencepiece.model: SentencePiece Unigram, 32000 ids"},
        {"tokenizers/torchtune-assets/tiny_bpe_tokenizer.json", 2003, -1, 2002, 2000, "tiny_bpe_tokenizer.json: byte-level BPE, 2003 ids"},
        {"tokenizers/torchtune-assets/tokenizer_gemma_cropped.json", 87, 2, 1, 0, "tokenizer_gemma_cropped.json: BPE, 87 ids"},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct tokenizer *t = open_shared(want[i].file, NULL);
        assert_string_equal(tokenizer_describe(t), want[i].describe);
        assert_int_equal(tokenizer_size(t), want[i].size);
        assert_int_equal(tokenizer_bos(t), want[i].bos);
        assert_int_equal(tokenizer_eos(t), want[i].eos);
        assert_int_equal(tokenizer_pad(t), want[i].pad);
        for (int32_t id = -2; id < tokenizer_size(t) + 2; id++) {
            const char *piece = tokenizer_piece(t, id);
            if (piece) assert_int_equal(tokenizer_id(t, piece), id);
        }
        assert_null(tokenizer_piece(t, tokenizer_size(t)));
        assert_int_equal(tokenizer_id(t, "no such piece at all"), -1);
        if (want[i].eos >= 0) assert_true(tokenizer_is_special(t, want[i].eos));
        assert_false(tokenizer_is_special(t, tokenizer_id(t, "a")));
        tokenizer_close(t);
    }
}

static void hints(void **state)
{
    (void)state;
    char *merges = shared_path("tokenizers/qwen2/merges.txt"),
         *specials = shared_path("tokenizers/torchtune-assets/tiny_bpe_tokenizer.json");
    if (!merges || !specials) skip();
    struct tokenizer_hint hint = {.merges_file = merges, .family = "qwen2_5"};
    struct tokenizer *t = open_shared("tokenizers/qwen2/vocab.json", &hint);
    assert_int_equal(tokenizer_id(t, "<|im_end|>"), 151645);
    tokenizer_close(t);
    /* the added tokens of that file take 2000, 2001, 2002; the 2000 base tokens are tiktoken's */
    hint = (struct tokenizer_hint){.special_tokens_path = specials, .family = "llama3"};
    t = open_shared("tokenizers/torchtune-assets/tiktoken_small.model", &hint);
    assert_int_equal(tokenizer_size(t), 2003);
    assert_int_equal(tokenizer_id(t, "<|im_end|>"), 2002);
    tokenizer_close(t);
    free(merges);
    free(specials);
}

static void llama3_specials(void **state)
{
    (void)state;
    static const struct {
        int32_t offset;
        const char *piece;
    } want[] = {
        {0, "<|begin_of_text|>"},
        {1, "<|end_of_text|>"},
        {2, "<|reserved_special_token_0|>"},
        {4, "<|finetune_right_pad_id|>"},
        {5, "<|reserved_special_token_2|>"},
        {6, "<|start_header_id|>"},
        {7, "<|end_header_id|>"},
        {8, "<|eom_id|>"},
        {9, "<|eot_id|>"},
        {10, "<|python_tag|>"},
        {11, "<|reserved_special_token_3|>"},
        {255, "<|reserved_special_token_247|>"},
    };
    struct tokenizer *t = open_shared("tokenizers/torchtune-assets/tiktoken_small.model", NULL);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) assert_int_equal(tokenizer_id(t, want[i].piece), 2000 + want[i].offset);
    tokenizer_close(t);
}

static void broken_utf8(void **state)
{
    (void)state;
    /* text, and what Python's bytes.decode("utf-8", "replace") makes of it */
    static const struct {
        const char *text, *repaired;
    } rows[] = {
        {"a\xff"
         "b",
         "a\ufffd"
         "b"},
        {"\xe4\xb8", "\ufffd"},
        {"\xe4\xb8x", "\ufffdx"},
        {"\xf0\x9f\x98", "\ufffd"},
        {"\xc0\xaf", "\ufffd\ufffd"},
        {"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
        {"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
        {"\x80\x80", "\ufffd\ufffd"},
        {"\xe0\x80\xaf", "\ufffd\ufffd\ufffd"},
    };
    struct tokenizer *t = open_shared("tokenizers/qwen2", NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct ids ids = {0};
        assert_int_equal(tokenizer_encode(t, rows[i].text, strlen(rows[i].text), true, &ids), ST_OK);
        char *back = tokenizer_decode(t, ids.v, ids.n, false, NULL);
        assert_string_equal(back, rows[i].repaired);
        free(back);
        free(ids.v);
    }
    tokenizer_close(t);
}

/* SentencePiece's dummy prefix: before the text, not behind each special token. */
static void dummy_prefix(void **state)
{
    (void)state;
    struct tokenizer *t = open_shared("tokenizers/mistral-v3/mistral_instruct_tokenizer_240323.model.v3", NULL);
    struct ids ids = {0};
    assert_int_equal(tokenizer_encode(t, "Hello<s>Hello Hello", 19, true, &ids), ST_OK);
    static const char *const want[] = {"▁Hello", "<s>", "Hello", "▁Hello"};
    assert_int_equal(ids.n, 4);
    for (size_t i = 0; i < ids.n; i++) assert_string_equal(tokenizer_piece(t, ids.v[i]), want[i]);
    ids.n = 0;
    assert_int_equal(tokenizer_encode(t, "<s>", 3, false, &ids), ST_OK);
    assert_true(ids.n > 1 && !tokenizer_is_special(t, ids.v[0]));
    free(ids.v);
    tokenizer_close(t);
}

/* A lone half of a character is kept as bytes by decoding. */
static void partial_characters(void **state)
{
    (void)state;
    struct tokenizer *t = open_shared("tokenizers/qwen2", NULL);
    struct ids ids = {0};
    assert_int_equal(tokenizer_encode(t, " 😶", 5, false, &ids), ST_OK);
    assert_int_equal(ids.n, 2);
    size_t bytes;
    char *half = tokenizer_decode(t, ids.v, 1, false, &bytes);
    assert_true(bytes > 1 && bytes < 5 && memcmp(half, " 😶", bytes) == 0);
    free(half);
    char *none = tokenizer_decode(t, NULL, 0, true, &bytes);
    assert_int_equal(bytes, 0);
    assert_string_equal(none, "");
    free(none);
    free(ids.v);
    tokenizer_close(t);
}

struct job {
    const struct tokenizer *t;
    struct ids ids;
};

static void *encode_in_thread(void *arg)
{
    struct job *j = arg;
    static const char text[] = "Threads share a tokenizer: 1234 words, 😶 and <|im_end|> too.\n";
    for (int i = 0; i < 200; i++) {
        if (i < 199) j->ids.n = 0;
        if (tokenizer_encode(j->t, text, sizeof text - 1, true, &j->ids)) j->ids.n = 0;
    }
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    struct tokenizer *t = open_shared("tokenizers/qwen2", NULL);
    struct job jobs[THREADS] = {0};
    pthread_t id[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i].t = t;
        assert_int_equal(pthread_create(&id[i], NULL, encode_in_thread, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(id[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_true(jobs[i].ids.n > 10 && jobs[i].ids.n == jobs[0].ids.n);
        assert_memory_equal(jobs[i].ids.v, jobs[0].ids.v, jobs[0].ids.n * sizeof *jobs[0].ids.v);
    }
    for (int i = 0; i < THREADS; i++) free(jobs[i].ids.v);
    tokenizer_close(t);
}

/* A tokenizer.json of Llama 3 without any configuration, in a directory of model_type llama. */
static void guessed_roles(void **state)
{
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[{\"id\":2,\"content\":\"<|begin_of_text|>\",\"special\":true},{\"id\":3,\"content\":"
        "\"<|end_of_text|>\",\"special\":true}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    const char *const model_config[] = {NULL, "{\"model_type\":\"llama\"}", "{not json"};
    for (int i = 0; i < 3; i++) {
        struct tok_source source = {.path = "f",
                                    .kind = "tokenizer.json",
                                    .data = json,
                                    .n = sizeof json - 1,
                                    .model_config = model_config[i],
                                    .model_type = i == 2 ? "llama" : NULL};
        struct tokenizer *t = NULL;
        assert_int_equal(tokenizer_from_memory(&source, &t), ST_OK);
        assert_int_equal(tokenizer_bos(t), 2);
        assert_int_equal(tokenizer_eos(t), 3);
        tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles),       cmocka_unit_test(hints),         cmocka_unit_test(llama3_specials),
        cmocka_unit_test(broken_utf8), cmocka_unit_test(dummy_prefix),  cmocka_unit_test(partial_characters),
        cmocka_unit_test(threads),     cmocka_unit_test(guessed_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
