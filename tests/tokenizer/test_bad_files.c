/* Bad tokenizer files: each is refused with the right status and a message that names the file, the place and the
 * value. One row per way of being bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/file.h"
#include "kernels/base/text.h"
#include "worker/data/tokenizer/open.h"

#define VOCAB             "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3}"
#define MODEL             "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"
#define JSON(parts)       "{\"version\":\"1.0\"," parts "," MODEL "}"
#define MODEL_WITH(parts) "{\"model\":{\"type\":\"BPE\"," parts "}}"

struct bad {
    const char *what, *kind, *data;
    status st;
    const char *says;
    const char *merges, *config, *special_map, *added;
};

/* clang-format off */
static const struct bad TEXTS[] = {
    {"empty", "tokenizer.json", "", ST_CORRUPT, "line 1, column 1: a JSON object expected"},
    {"not an object", "tokenizer.json", "[1]", ST_CORRUPT, "a JSON object expected"},
    {"cut short", "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0", ST_CORRUPT, "the rest of a value expected"},
    {"not UTF-8", "tokenizer.json", "{\"a\":\n\"\xff\"}", ST_CORRUPT, "line 2, column 2: UTF-8 expected"},
    {"too deep", "tokenizer.json", "{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1", ST_CORRUPT, "nesting of at most 64"},
    {"duplicate key", "tokenizer.json", JSON("\"a\":1,\"a\":2"), ST_CORRUPT, "duplicate object key"},
    {"duplicate model", "tokenizer.json", "{" MODEL "," MODEL "}", ST_CORRUPT, "duplicate object key"},
    {"no model", "tokenizer.json", "{}", ST_CORRUPT, "model: has no model"},
    {"no vocab", "tokenizer.json", MODEL_WITH("\"merges\":[]"), ST_CORRUPT, "model: has no object 'vocab'"},
    {"no merges", "tokenizer.json", MODEL_WITH(VOCAB), ST_CORRUPT, "model: has no list 'merges'"},
    {"Unigram", "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}", ST_NOT_BUILT, "model: type 'Unigram' is not built in (known: BPE)"},
    {"WordPiece", "tokenizer.json", "{\"model\":{\"type\":\"WordPiece\"}}", ST_NOT_BUILT, "'WordPiece'"},
    {"dropout", "tokenizer.json", MODEL_WITH("\"dropout\":0.1," VOCAB ",\"merges\":[]"), ST_NOT_BUILT, "dropout 0.1"},
    {"prefix", "tokenizer.json", MODEL_WITH("\"continuing_subword_prefix\":\"##\"," VOCAB ",\"merges\":[]"), ST_NOT_BUILT, "continuing_subword_prefix '##'"},
    {"suffix", "tokenizer.json", MODEL_WITH("\"end_of_word_suffix\":\"</w>\"," VOCAB ",\"merges\":[]"), ST_NOT_BUILT, "end_of_word_suffix '</w>'"},
    {"id not a number", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":\"0\"},\"merges\":[]"), ST_CORRUPT, "a whole number (an id) expected"},
    {"id not whole", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":0.5},\"merges\":[]"), ST_CORRUPT, "a whole number"},
    {"id negative", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":-1},\"merges\":[]"), ST_CORRUPT, "a whole number"},
    {"id huge", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":99999999},\"merges\":[]"), ST_CORRUPT, "id 99999999 is not in 0 … 4194303"},
    {"id overflows", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":99999999999999999999},\"merges\":[]"), ST_CORRUPT, "a whole number"},
    {"id twice", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), ST_CORRUPT, "id 0 belongs to two pieces, 'a' and 'b'"},
    {"piece twice", "tokenizer.json", MODEL_WITH("\"vocab\":{\"a\":0,\"\\u0061\":1},\"merges\":[]"), ST_CORRUPT, "piece 'a' has two ids, 0 and 1"},
    {"empty piece", "tokenizer.json", MODEL_WITH("\"vocab\":{\"\":0},\"merges\":[]"), ST_CORRUPT, "id 0: empty piece"},
    {"lone surrogate", "tokenizer.json", MODEL_WITH("\"vocab\":{\"\\ud800\":0},\"merges\":[]"), ST_CORRUPT, "hexadecimal digits of a character"},
    {"bad escape", "tokenizer.json", MODEL_WITH("\"vocab\":{\"\\q\":0},\"merges\":[]"), ST_CORRUPT, "an escape"},
    {"newline in a string", "tokenizer.json", MODEL_WITH("\"vocab\":{\"\n\":0},\"merges\":[]"), ST_CORRUPT, "the end of the string"},
    {"merge of one", "tokenizer.json", MODEL_WITH(VOCAB ",\"merges\":[\"ab\"]"), ST_CORRUPT, "merges: line 1"},
    {"merge of three", "tokenizer.json", MODEL_WITH(VOCAB ",\"merges\":[\"a b a\"]"), ST_CORRUPT, "\"a b\" or [\"a\", \"b\"]"},
    {"merge triple", "tokenizer.json", MODEL_WITH(VOCAB ",\"merges\":[[\"a\",\"b\",\"a\"]]"), ST_CORRUPT, "']' expected"},
    {"merge of numbers", "tokenizer.json", MODEL_WITH(VOCAB ",\"merges\":[[1,2]]"), ST_CORRUPT, "a string expected"},
    {"merge of nothing known", "tokenizer.json", MODEL_WITH(VOCAB ",\"merges\":[\"a x\"]"), ST_CORRUPT, "merge 0, 'a' and 'x': the right piece is not in the vocabulary"},
    {"merge into nothing known", "tokenizer.json", MODEL_WITH(VOCAB ",\"merges\":[\"b a\"]"), ST_CORRUPT, "what they make together"},
    {"unk not in vocab", "tokenizer.json", MODEL_WITH("\"unk_token\":\"<x>\"," VOCAB ",\"merges\":[]"), ST_CORRUPT, "unk_token '<x>'"},
    {"normalizer unknown", "tokenizer.json", JSON("\"normalizer\":{\"type\":\"BertNormalizer\"}"), ST_NOT_BUILT, "normalizer: type 'BertNormalizer' is not built in (known: NFC"},
    {"Precompiled", "tokenizer.json", JSON("\"normalizer\":{\"type\":\"Precompiled\"}"), ST_NOT_BUILT, "'Precompiled'"},
    {"normalizer without type", "tokenizer.json", JSON("\"normalizer\":{}"), ST_CORRUPT, "normalizer: 'type' is missing"},
    {"normalizer in Sequence unknown", "tokenizer.json", JSON("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}"), ST_NOT_BUILT, "'Nmt'"},
    {"Sequence of nothing", "tokenizer.json", JSON("\"normalizer\":{\"type\":\"Sequence\"}"), ST_CORRUPT, "Sequence without a list 'normalizers'"},
    {"Replace without content", "tokenizer.json", JSON("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}"), ST_CORRUPT, "normalizer: Replace: 'content'"},
    {"Replace without pattern", "tokenizer.json", JSON("\"normalizer\":{\"type\":\"Replace\",\"content\":\"a\"}"), ST_CORRUPT, "neither a String nor a Regex"},
    {"pre-tokenizer unknown", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"), ST_NOT_BUILT, "pre_tokenizer: type 'UnicodeScripts'"},
    {"behaviour unknown", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Maybe\"}"), ST_NOT_BUILT, "pre_tokenizer: Split: 'behavior': 'Maybe'"},
    {"pattern broken", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}"), ST_CORRUPT, "pattern '(a'"},
    {"pattern of other engines", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h\"},\"behavior\":\"Isolated\"}"), ST_NOT_BUILT, "pattern uses \\h"},
    {"pattern with verbs", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(*COMMIT)a\"},\"behavior\":\"Isolated\"}"), ST_NOT_BUILT, "(?… group"},
    {"class in class", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}"), ST_NOT_BUILT, "a class inside a class"},
    {"prepend scheme", "tokenizer.json", JSON("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"last\"}"), ST_NOT_BUILT, "'prepend_scheme': 'last'"},
    {"decoder unknown", "tokenizer.json", JSON("\"decoder\":{\"type\":\"WordPiece\"}"), ST_NOT_BUILT, "decoder: type 'WordPiece'"},
    {"decoder Strip of nothing", "tokenizer.json", JSON("\"decoder\":{\"type\":\"Strip\",\"content\":\"\",\"start\":1,\"stop\":0}"), ST_CORRUPT, "'content' is empty"},
    {"decoder Strip negative", "tokenizer.json", JSON("\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}"), ST_CORRUPT, "not a count"},
    {"post-processor unknown", "tokenizer.json", JSON("\"post_processor\":{\"type\":\"RobertaProcessing\"}"), ST_NOT_BUILT, "post_processor: type 'RobertaProcessing'"},
    {"template without text", "tokenizer.json", JSON("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"), ST_CORRUPT, "'single' has 0 places for the text"},
    {"template token unknown", "tokenizer.json", JSON("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],\"special_tokens\":{}}"), ST_CORRUPT, "'<s>' is not in its special_tokens"},
    {"template id unknown", "tokenizer.json", JSON("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"s\":{\"ids\":[77]}}}"), ST_CORRUPT, "id 77 is not in the vocabulary"},
    {"added token without text", "tokenizer.json", JSON("\"added_tokens\":[{\"id\":9}]"), ST_CORRUPT, "added_tokens[0]: 'content'"},
    {"added token empty", "tokenizer.json", JSON("\"added_tokens\":[{\"id\":9,\"content\":\"\"}]"), ST_CORRUPT, "has no text"},
    {"added token without id", "tokenizer.json", JSON("\"added_tokens\":[{\"content\":\"x\"}]"), ST_CORRUPT, "'x': id -1"},
    {"added token id huge", "tokenizer.json", JSON("\"added_tokens\":[{\"id\":99999999999,\"content\":\"x\"}]"), ST_CORRUPT, "id 99999999999"},
    {"added id twice", "tokenizer.json", JSON("\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":9,\"content\":\"y\"}]"), ST_CORRUPT, "id 9 belongs to two added tokens, 'x' and 'y'"},
    {"added text twice", "tokenizer.json", JSON("\"added_tokens\":[{\"id\":9,\"content\":\"x\"},{\"id\":8,\"content\":\"x\"}]"), ST_CORRUPT, "'x' has two ids, 9 and 8"},
    {"added tokens no list", "tokenizer.json", JSON("\"added_tokens\":{\"x\":1}"), ST_CORRUPT, "added_tokens is not a list"},
    {"config broken", "tokenizer.json", JSON("\"added_tokens\":[]"), ST_CORRUPT, "tokenizer_config.json: line 1", NULL, "{,"},
    {"config is a list", "tokenizer.json", JSON("\"added_tokens\":[]"), ST_CORRUPT, "tokenizer_config.json: is not a JSON object", NULL, "[]"},
    {"config id broken", "tokenizer.json", JSON("\"added_tokens\":[]"), ST_CORRUPT, "'x7' is not an id", NULL, "{\"added_tokens_decoder\":{\"x7\":{\"content\":\"y\"}}}"},
    {"config id taken", "tokenizer.json", JSON("\"added_tokens\":[{\"id\":9,\"content\":\"x\"}]"), ST_CORRUPT, "added_tokens_decoder[9]: id 9 belongs to two", NULL, "{\"added_tokens_decoder\":{\"9\":{\"content\":\"y\"}}}"},

    {"decoder is a list", "tokenizer.json", JSON("\"added_tokens\":[]"), ST_CORRUPT, "added_tokens_decoder is not an object", NULL, "{\"added_tokens_decoder\":[]}"},
    {"map broken", "tokenizer.json", JSON("\"added_tokens\":[]"), ST_CORRUPT, "special_tokens_map.json: line 1", NULL, NULL, "{,"},
    {"added_tokens.json broken", "tokenizer.json", JSON("\"added_tokens\":[]"), ST_CORRUPT, "added_tokens.json: is not a JSON object", NULL, NULL, NULL, "[]"},
    {"added_tokens.json without id", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "added_tokens.json: 'x': not an id in 0 … 4194303", "a b\n", NULL, NULL, "{\"x\":\"y\"}"},
    {"added_tokens.json id broken", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "added_tokens.json: 'x': not an id", "a b\n", NULL, NULL, "{\"x\":3.5}"},
    {"added_tokens.json id negative", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "added_tokens.json: 'x': not an id", "a b\n", NULL, NULL, "{\"x\":-1}"},
    {"added_tokens.json id huge", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "added_tokens.json: 'x': not an id", "a b\n", NULL, NULL, "{\"x\":1e300}"},
    {"added_tokens.json id twice", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "added_tokens.json: id 5 belongs to two", "a b\n", NULL, NULL, "{\"x\":5,\"y\":5}"},
    {"added_tokens.json empty text", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "added_tokens.json: an added token with id 5 has no text", "a b\n", NULL, NULL, "{\"\":5}"},
    {"class unknown", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_NOT_BUILT, "tokenizer_class 'MyTokenizer' is not built in", "a b\n", "{\"tokenizer_class\":\"MyTokenizer\"}"},

    {"vocab broken", "vocab.json", "{\"a\":0,", ST_CORRUPT, "vocab: line 1, column 8: a string expected", "a b\n"},
    {"vocab with more behind", "vocab.json", "{\"a\":0} x", ST_CORRUPT, "the end of the file expected", "a b\n"},
    {"vocab not UTF-8", "vocab.json", "{\"\xc3\":0}", ST_CORRUPT, "is not UTF-8", "a b\n"},
    {"vocab without merges", "vocab.json", "{\"a\":0}", ST_USAGE, "needs its merges.txt", NULL},
    {"merges line of one", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "merges line 2: 'ab' is not two pieces", "#version: 0.2\nab\n"},
    {"merges line of three", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "merges line 1: 'a b c' is not two pieces", "a b c\n"},
    {"merges line unknown", "vocab.json", "{\"a\":0,\"b\":1,\"ab\":2}", ST_CORRUPT, "merges line 3: merge 1, 'q' and 'a': the left piece", "#version: 0.2\na b\nq a\n"},

    {"no base64", "tiktoken", "AA== 0\n!!!! 1\n", ST_CORRUPT, "line 2: '!!!! 1' is not base64, space, rank"},
    {"no rank", "tiktoken", "AA==\n", ST_CORRUPT, "line 1: 'AA==' is not base64"},
    {"rank no number", "tiktoken", "AA== x\n", ST_CORRUPT, "rank 'x' is not a number"},
    {"rank too large", "tiktoken", "AA== 999999999\n", ST_CORRUPT, "id 999999999 is not in"},
    {"rank too long", "tiktoken", "AA== 9999999999\n", ST_CORRUPT, "is not base64, space, rank"},
    {"rank twice", "tiktoken", "AA== 0\nAQ== 0\n", ST_CORRUPT, "line 2: id 0 belongs to two"},
    {"bytes missing", "tiktoken", "AA== 0\nAQ== 1\n", ST_CORRUPT, "byte 0x02 has no token"},
    {"pickle", "tiktoken", "\x80\x02}q\x01.", ST_CORRUPT, "line 1"},
    {"empty model", "tiktoken", "", ST_CORRUPT, "byte 0x00 has no token"},
};

#define BYTES(s) s, sizeof(s) - 1
#define UNK "\x0a\x09\x0a\x05<unk>\x18\x02"
#define A "\x0a\x08\x0a\x01" "a\x15\0\0\0\0"

static const struct {
    const char *what, *data;
    size_t n;
    status st;
    const char *says;
} MODELS[] = {
    {"nothing", BYTES(""), ST_CORRUPT, "has no pieces"},
    {"cut short", BYTES("\x0a\x09\x0a\x05<un"), ST_CORRUPT, "malformed protobuf: not a SentencePiece model, or cut short"},
    {"field 0", BYTES("\x02\x00"), ST_CORRUPT, "malformed protobuf"},
    {"varint without end", BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), ST_CORRUPT, "malformed protobuf"},
    {"group", BYTES("\x0b\x0c"), ST_CORRUPT, "malformed protobuf"},
    {"length beyond", BYTES("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), ST_CORRUPT, "malformed protobuf"},
    {"piece malformed", BYTES("\x0a\x02\x0a\x05"), ST_CORRUPT, "piece 0: malformed protobuf"},
    {"no unknown piece", BYTES(A), ST_CORRUPT, "unk_id 0 is not a piece of type unknown"},
    {"unk out of range", BYTES(UNK "\x12\x03\xc0\x02\x07"), ST_CORRUPT, "unk_id 7"},
    {"empty piece", BYTES(UNK "\x0a\x00"), ST_CORRUPT, "id 1: empty piece"},
    {"piece not UTF-8", BYTES(UNK "\x0a\x03\x0a\x01\xff"), ST_CORRUPT, "piece 1: not UTF-8 text"},
    {"piece twice", BYTES(UNK A A), ST_CORRUPT, "piece 'a' has two ids, 1 and 2"},
    {"type unknown", BYTES(UNK "\x0a\x05\x0a\x01" "a\x18\x09"), ST_CORRUPT, "piece 1: type 9 is unknown"},
    {"type unused", BYTES(UNK "\x0a\x05\x0a\x01" "a\x18\x05"), ST_NOT_BUILT, "piece 1: type unused is not built in"},
    {"score NaN", BYTES(UNK "\x0a\x08\x0a\x01" "a\x15\0\0\xc0\x7f"), ST_CORRUPT, "piece 1: score is not finite"},
    {"model_type word", BYTES(UNK A "\x12\x02\x18\x03"), ST_NOT_BUILT, "model_type 3 is not built in (known: 1 unigram, 2 BPE)"},
    {"charsmap too short", BYTES(UNK A "\x1a\x05\x12\x03" "abc"), ST_CORRUPT, "precompiled_charsmap of 3 bytes"},
    {"charsmap table beyond", BYTES(UNK A "\x1a\x0a\x12\x08\xff\xff\x00\x00" "abcd"), ST_CORRUPT, "precompiled_charsmap of 8 bytes says its table has 65535"},
    {"denormalizer", BYTES(UNK A "\x2a\x06\x12\x04" "abcd"), ST_NOT_BUILT, "denormalizer_spec"},
};

/* clang-format on */

static int wrong;

static void expect(const struct tok_source *s, const char *what, status want, const char *says)
{
    struct tokenizer *t = NULL;
    status st = tokenizer_from_memory(s, &t);
    if (st == want && strstr(status_message(), says) && strncmp(status_message(), s->path, strlen(s->path)) == 0) return;
    printf("%s (%s): status %d, want %d; message '%s', want '%s'\n", what, s->kind, st, want, st ? status_message() : "", says);
    tokenizer_close(t);
    wrong++;
}

static void every_bad_file(void **state)
{
    (void)state;
    wrong = 0;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        const struct bad *b = &TEXTS[i];
        struct tok_source s = {.path = "dir/file",
                               .kind = b->kind,
                               .data = b->data,
                               .n = strlen(b->data),
                               .merges = b->merges,
                               .merges_n = b->merges ? strlen(b->merges) : 0,
                               .config = b->config,
                               .special_map = b->special_map,
                               .added = b->added};
        expect(&s, b->what, b->st, b->says);
    }
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        struct tok_source s = {.path = "dir/file", .kind = "sentencepiece", .data = MODELS[i].data, .n = MODELS[i].n};
        expect(&s, MODELS[i].what, MODELS[i].st, MODELS[i].says);
    }
    printf("%zu bad files\n", sizeof TEXTS / sizeof *TEXTS + sizeof MODELS / sizeof *MODELS);
    assert_int_equal(wrong, 0);
}

/* The rows above differ from these by one thing each, so these must open. */
static void good_neighbours_open(void **state)
{
    (void)state;
    const struct tok_source good[] = {
        {.path = "f", .kind = "tokenizer.json", .data = JSON("\"added_tokens\":[]"), .n = strlen(JSON("\"added_tokens\":[]"))},
        {.path = "f", .kind = "vocab.json", .data = "{\"a\":0,\"b\":1,\"ab\":2}\n", .n = 21, .merges = "#version\na b\n", .merges_n = 13},
        {.path = "f", .kind = "sentencepiece", .data = UNK A, .n = sizeof(UNK A) - 1},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct tokenizer *t = NULL;
        if (tokenizer_from_memory(&good[i], &t)) fail_msg("%s: %s", good[i].kind, status_message());
        tokenizer_close(t);
    }
}

/* Paths, through tokenizer_open. */
static void bad_paths(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    char dir[] = "/tmp/trimpot-tok-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(tokenizer_open("/nonexistent/tokenizer.json", NULL, &t), ST_IO);
    assert_non_null(strstr(status_message(), "/nonexistent/tokenizer.json: cannot open"));
    assert_int_equal(tokenizer_open(dir, NULL, &t), ST_IO);
    assert_non_null(strstr(status_message(), "has no tokenizer.json, tokenizer.model or vocab.json"));
    char *vocab = mem_printf("%s/vocab.json", dir);
    assert_int_equal(file_replace(vocab, "{\"a\":0}", 7), ST_OK);
    assert_int_equal(tokenizer_open(dir, NULL, &t), ST_IO);
    assert_non_null(strstr(status_message(), "/merges.txt: cannot open"));
    struct tokenizer_hint hint = {.merges_file = "/nonexistent/m.txt"};
    assert_int_equal(tokenizer_open(vocab, &hint, &t), ST_IO);
    assert_non_null(strstr(status_message(), "/nonexistent/m.txt"));
    hint = (struct tokenizer_hint){.merges_file = vocab, .special_tokens_path = "/nonexistent/s.json"};
    assert_int_equal(tokenizer_open(vocab, &hint, &t), ST_IO);
    assert_non_null(strstr(status_message(), "/nonexistent/s.json"));
    assert_null(t);
    free(vocab);
    assert_int_equal(file_remove_tree(dir), ST_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_bad_file), cmocka_unit_test(good_neighbours_open),
                                       cmocka_unit_test(bad_paths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
