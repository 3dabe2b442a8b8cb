/* tokenizer_encode_rendered: the ids of tokenizer_encode, where each is from, and special tokens that a quotation takes
 * away. Every string and every pipeline of the goldens, and cases by hand. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tokenizer/test_shared.h"
#include "worker/data/tokenizer/open.h"
#include "worker/data/tokenizer/parts.h"

struct rendered {
    struct ids ids, from, to;
};

static void release(struct rendered *r)
{
    free(r->ids.v);
    free(r->from.v);
    free(r->to.v);
    *r = (struct rendered){0};
}

static json_t *golden(const char *name)
{
    char *path = mem_printf(TRIMPOT_SOURCE_DIR "/tests/tokenizer/golden/%s", name);
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    free(path);
    return root;
}

static int wrong;

static bool same_ids(const struct ids *a, const struct ids *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->v, b->v, a->n * sizeof *a->v) == 0);
}

/* Bytes of the text that no id stands for; -1 if places are out of order or out of bounds. */
static int64_t uncovered(const struct rendered *r, size_t n)
{
    int64_t gaps = 0, end = 0;
    for (size_t i = 0; i < r->ids.n; i++) {
        bool order = i == 0 || (r->from.v[i] >= r->from.v[i - 1] && r->to.v[i] >= r->to.v[i - 1]);
        if (!order || r->from.v[i] < 0 || r->from.v[i] >= r->to.v[i] || r->to.v[i] > (int64_t)n) return -1;
        if (r->from.v[i] > end) gaps += r->from.v[i] - end;
        end = r->to.v[i];
    }
    return gaps + (int64_t)n - end;
}

/* What holds for every text and tokenizer. may_drop: some step of it drops bytes. */
static void check(const char *who, const struct tokenizer *t, const char *text, size_t n, bool may_drop)
{
    struct rendered r = {0};
    struct ids want = {0};
    unsigned char *quoted = mem_alloc(n + 1);
    for (int all = 0; all < 2; all++) {
        memset(quoted, all ? 7 : 0, n);
        want.n = r.ids.n = r.from.n = r.to.n = 0;
        assert_int_equal(tokenizer_encode(t, text, n, !all, &want), ST_OK);
        assert_int_equal(tokenizer_encode_rendered(t, text, n, quoted, &r.ids, &r.from, &r.to), ST_OK);
        int64_t gaps = uncovered(&r, n);
        if (same_ids(&r.ids, &want) && (gaps == 0 || (gaps > 0 && may_drop))) continue;
        if (wrong++ < 20)
            printf("%s, all %s, '%s': ids %s, %lld bytes belong to no id\n", who, all ? "quoted" : "free", text,
                   same_ids(&r.ids, &want) ? "equal" : "differ", (long long)gaps);
    }
    free(quoted);
    free(want.v);
    release(&r);
}

static void every_file(void **state)
{
    (void)state;
    json_t *root = golden("files.json"), *c, *s;
    size_t i, k;
    wrong = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c)
    {
        const char *file = json_string_value(json_object_get(c, "file"));
        char *name = mem_printf("tokenizers/%s", file), *path = shared_path(name);
        struct tokenizer *t = NULL;
        if (!path) skip();
        struct tokenizer_hint hint = {.family = json_string_value(json_object_get(c, "family"))};
        if (tokenizer_open(path, &hint, &t)) fail_msg("%s", status_message());
        /* runs of spaces become one space; characters without a piece disappear */
        bool drops = strcmp(t->kind, "SentencePiece Unigram") == 0 || t->model.unk < 0;
        json_array_foreach(json_object_get(root, "strings"), k, s) check(file, t, json_string_value(s), json_string_length(s), drops);
        tokenizer_close(t);
        free(name);
        free(path);
    }
    json_decref(root);
    assert_int_equal(wrong, 0);
}

static char *compose(const json_t *root, const json_t *parts)
{
    json_t *o = json_object(), *model = json_copy(json_object_get(root, json_object_get(parts, "byte_model") ? "byte_model" : "model"));
    json_object_update(o, (json_t *)(uintptr_t)parts);
    json_object_update(model, json_object_get(parts, "model"));
    json_object_set_new(o, "model", model);
    char *text = json_dumps(o, 0);
    json_decref(o);
    return text;
}

static void every_component(void **state)
{
    (void)state;
    json_t *root = golden("pipelines.json"), *c, *s;
    size_t i, k;
    wrong = 0;
    json_array_foreach(json_object_get(root, "cases"), i, c)
    {
        const json_t *parts = json_object_get(c, "parts");
        char *text = compose(root, parts), *shown = json_dumps(parts, 0);
        struct tok_source source = {.path = "f", .kind = "tokenizer.json", .data = text, .n = strlen(text)};
        struct tokenizer *t = NULL;
        if (tokenizer_from_memory(&source, &t)) fail_msg("%s", status_message());
        bool drops = strstr(shown, "Removed") || strstr(shown, "Whitespace") || strstr(shown, "\"Strip\"") ||
                     t->model.unk < 0; /* then a character without a piece disappears */
        json_array_foreach(json_object_get(root, "strings"), k, s) check(shown, t, json_string_value(s), json_string_length(s), drops);
        tokenizer_close(t);
        free(shown);
        free(text);
    }
    json_decref(root);
    assert_int_equal(wrong, 0);
}

/* ---- by hand: a small model with every letter, and what is expected, written as slices ---- */

#define LETTERS                                                                                                                            \
    "\"<s>\":0,\"</s>\":1,\"a\":2,\"b\":3,\"ab\":4,\"▁\":5,\"▁a\":6,\"▁ab\":7,\"é\":8,\"x\":9,\"<unk>\":10,\"y\":11,"               \
    "\" \":12,\"가\":13,\"i\":14"
#define WITH(parts, model)                                                                                                                 \
    "{" parts "\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true},{\"id\":1,\"content\":\"</s>\","                          \
    "\"special\":true,\"rstrip\":true},{\"id\":20,\"content\":\"<t>\",\"special\":false},{\"id\":21,"                                      \
    "\"content\":\"<s>x\",\"special\":true},{\"id\":22,\"content\":\"<N>\",\"special\":true,\"normalized\":true}],"                        \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true," model "\"vocab\":{" LETTERS "},"                              \
    "\"merges\":[\"a b\",\"▁ a\",\"▁ ab\"]}}"
#define NORMALIZER(type) "\"normalizer\":{\"type\":\"" type "\"},"
#define METASPACE        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},"
#define LLAMA                                                                                                                              \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},{\"type\":"                         \
    "\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]},"

struct slice {
    const char *piece, *text; /* text NULL: from and to are given */
    int32_t from, to;
};

static const struct {
    const char *what, *json, *text, *quoted; /* quoted: 'q' per quoted byte; NULL none */
    struct slice want[12];
} CASES[] = {
    {"plain", WITH("", ""), "ab a", NULL, {{"ab", "ab"}, {" ", " "}, {"a", "a"}}},
    {"prepended space belongs to what follows", WITH(LLAMA, ""), "ab a", NULL, {{"▁ab", "ab"}, {"▁a", " a"}}},
    {"alone, too", WITH(LLAMA, ""), "xab", NULL, {{"▁", "x"}, {"x", "x"}, {"ab", "ab"}}},
    {"composed", WITH(NORMALIZER("NFC"), ""), "ae\u0301b", NULL, {{"a", "a"}, {"é", "e\u0301"}, {"b", "b"}}},
    {"Hangul", WITH(NORMALIZER("NFC"), ""), "a\u1100\u1161b", NULL, {{"a", "a"}, {"가", "\u1100\u1161"}, {"b", "b"}}},
    {"lowercase of two characters",
     WITH(NORMALIZER("Lowercase"), ""),
     "A\u0130B",
     NULL,
     {{"a", "A"}, {"i", "\u0130"}, {"<unk>", "\u0130"}, {"b", "B"}}},
    {"stripped", WITH(NORMALIZER("Strip"), ""), "  ab  ", NULL, {{"ab", NULL, 2, 4}}},
    {"Metaspace puts a space in front of the first text", WITH(METASPACE, ""), "ab", NULL, {{"▁ab", "ab"}}},
    {"but not where something was stripped", WITH(NORMALIZER("Strip") METASPACE, ""), " ab", NULL, {{"ab", "ab"}}},
    {"broken UTF-8",
     WITH("", ""),
     "a\xe4\xb8"
     "b\xff",
     NULL,
     {{"a", "a"}, {"<unk>", "\xe4\xb8"}, {"b", "b"}, {"<unk>", "\xff"}}},
    {"swallowed space belongs to the token", WITH("", ""), "a</s>  b", NULL, {{"a", "a"}, {"</s>", "</s>  "}, {"b", "b"}}},
    {"unknown characters are one", WITH("", ""), "a汉字b", NULL, {{"a", "a"}, {"<unk>", "汉字"}, {"b", "b"}}},
    {"special", WITH("", ""), "<s>a<s>xy", NULL, {{"<s>", "<s>"}, {"a", "a"}, {"<s>x", "<s>x"}, {"y", "y"}}},
    {"quoted", WITH("", ""), "a<s>b<s>", " qqq    ", {{"a", "a"}, {"<unk>", "<s>"}, {"b", "b"}, {"<s>", "<s>"}}},
    {"quoted in part", WITH("", ""), "a<s>b", "   q ", {{"a", "a"}, {"<unk>", "<s>"}, {"b", "b"}}},
    {"a shorter one in front of a quotation", WITH("", ""), "<s>xy", "   qq", {{"<s>", "<s>"}, {"x", "x"}, {"y", "y"}}},
    {"one behind a quotation that looks like its beginning", WITH("", ""), "<<s>a", "q    ", {{"<unk>", "<"}, {"<s>", "<s>"}, {"a", "a"}}},
    {"not special, so found in a quotation", WITH("", ""), "a<t>b", "qqqqq", {{"a", "a"}, {"<t>", "<t>"}, {"b", "b"}}},
    {"normalised, free", WITH(NORMALIZER("Lowercase"), ""), "A<N>b", NULL, {{"a", "A"}, {"<N>", "<N>"}, {"b", "b"}}},
    {"normalised, quoted",
     WITH(NORMALIZER("Lowercase"), ""),
     "A<N>b<N>",
     "  q     ",
     {{"a", "A"}, {"<unk>", "<N>"}, {"b", "b"}, {"<N>", "<N>"}}},
    {"quoted behind broken UTF-8", WITH("", ""), "\xff\xff<s>", "  qqq", {{"<unk>", "\xff\xff<s>"}}},
    {"not quoted behind broken UTF-8", WITH("", ""), "\xff\xff<s>", "qq   ", {{"<unk>", "\xff\xff"}, {"<s>", "<s>"}}},
};

static void by_hand(void **state)
{
    (void)state;
    wrong = 0;
    for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
        struct tok_source source = {.path = CASES[k].what, .kind = "tokenizer.json", .data = CASES[k].json, .n = strlen(CASES[k].json)};
        struct tokenizer *t = NULL;
        struct rendered r = {0};
        const char *text = CASES[k].text;
        unsigned char *quoted = (unsigned char *)(CASES[k].quoted ? mem_strdup(CASES[k].quoted) : NULL);
        for (size_t i = 0; quoted && quoted[i]; i++) quoted[i] = quoted[i] == 'q';
        if (tokenizer_from_memory(&source, &t)) fail_msg("%s", status_message());
        assert_int_equal(tokenizer_encode_rendered(t, text, strlen(text), quoted, &r.ids, &r.from, &r.to), ST_OK);
        size_t n = 0;
        for (const struct slice *s = CASES[k].want; s->piece; s++, n++) {
            const char *piece = n < r.ids.n ? tokenizer_piece(t, r.ids.v[n]) : "nothing";
            int32_t from = n < r.ids.n ? r.from.v[n] : 0, to = n < r.ids.n ? r.to.v[n] : 0;
            bool place = s->text ? strlen(s->text) == (size_t)(to - from) && !memcmp(text + from, s->text, strlen(s->text))
                                 : from == s->from && to == s->to;
            if (place && strcmp(piece, s->piece) == 0) continue;
            printf("%s: id %zu is '%s' for '%.*s'; want '%s'\n", CASES[k].what, n, piece, to - from, text + from, s->piece);
            wrong++;
        }
        if (n != r.ids.n) printf("%s: %zu ids\n", CASES[k].what, r.ids.n), wrong++;
        tokenizer_close(t);
        free(quoted);
        release(&r);
    }
    assert_int_equal(wrong, 0);
}

/* A byte-level vocabulary without normal forms: the slice is what the id decodes to, byte by byte. */
static void bytes_of_ids(void **state)
{
    (void)state;
    static const char text[] = "Hello 😶 wörld\n\n  你好 <|im_end|>1234 \xf0\x9f nul\0e\u0301";
    struct tokenizer *t = NULL;
    struct rendered r = {0};
    char *path = shared_path("tokenizers/torchtune-assets/tiktoken_small.model");
    if (!path) skip();
    assert_int_equal(tokenizer_open(path, NULL, &t), ST_OK);
    assert_int_equal(tokenizer_encode_rendered(t, text, sizeof text - 1, NULL, &r.ids, &r.from, &r.to), ST_OK);
    for (size_t i = 0; i < r.ids.n; i++) {
        size_t n = (size_t)(r.to.v[i] - r.from.v[i]), bytes;
        char *back = tokenizer_decode(t, &r.ids.v[i], 1, false, &bytes);
        bool broken = memchr(text + r.from.v[i], 0xf0, n) && memchr(text + r.from.v[i], 0x9f, n) && n == 2;
        if (!broken) assert_int_equal(bytes, n);
        if (!broken) assert_memory_equal(back, text + r.from.v[i], n);
        free(back);
    }
    assert_int_equal(uncovered(&r, sizeof text - 1), 0);
    release(&r);
    tokenizer_close(t);
    free(path);
}

/* What was in the lists stays, and does not matter; and nobody need want the places. */
static void appended(void **state)
{
    (void)state;
    static const char json[] = WITH("", "");
    struct tok_source source = {.path = "f", .kind = "tokenizer.json", .data = json, .n = sizeof json - 1};
    struct tokenizer *t = NULL;
    struct rendered r = {0};
    static const int32_t from[] = {77, 0, 3, 0}, to[] = {99, 3, 4, 1};
    assert_int_equal(tokenizer_from_memory(&source, &t), ST_OK);
    ids_push(&r.ids, 5);
    ids_push(&r.from, 77);
    ids_push(&r.to, 99);
    assert_int_equal(tokenizer_encode_rendered(t, "<s>a", 4, NULL, &r.ids, &r.from, &r.to), ST_OK);
    assert_int_equal(tokenizer_encode_rendered(t, "a", 1, NULL, &r.ids, &r.from, &r.to), ST_OK);
    assert_true(r.ids.n == 4 && r.from.n == 4 && r.to.n == 4);
    assert_memory_equal(r.from.v, from, sizeof from);
    assert_memory_equal(r.to.v, to, sizeof to);
    assert_int_equal(tokenizer_encode_rendered(t, "<s>a", 4, (const unsigned char *)"\1\1\1", &r.ids, NULL, NULL), ST_OK);
    assert_true(r.ids.n == 6 && r.ids.v[4] == 10);
    release(&r);
    tokenizer_close(t);
}

/* Marks without end on one character, and long runs that compose. */
static void long_clusters(void **state)
{
    (void)state;
    static const char *const units[] = {"\u0301", "\u0f73", "\u1161", "e\u0301"};
    static const char json[] = WITH(NORMALIZER("NFC"), "");
    struct tok_source source = {.path = "f", .kind = "tokenizer.json", .data = json, .n = sizeof json - 1};
    struct tokenizer *t = NULL;
    assert_int_equal(tokenizer_from_memory(&source, &t), ST_OK);
    for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
        struct buf text = {0};
        buf_text(&text, "e");
        for (int i = 0; i < 3000; i++) buf_text(&text, units[k]);
        check(units[k], t, text.data, text.len, false);
        buf_release(&text);
    }
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_file),   cmocka_unit_test(every_component), cmocka_unit_test(by_hand),
                                       cmocka_unit_test(bytes_of_ids), cmocka_unit_test(appended),        cmocka_unit_test(long_clusters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
