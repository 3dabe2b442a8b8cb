/* From files to items: shifted labels, truncation, splitting, packing, counts, order, hash, preview, validation. The
 * tokenizer is one id per byte (fake_tokenizer.h), so lengths and boundaries can be counted by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <omp.h>

#include <cmocka.h>
#include <jansson.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/philox.h"
#include "tests/data/data_config.h"
#include "tests/data/fake_tokenizer.h"
#include "worker/data/dataset.h"
#include "worker/data/order.h"

static char path[] = "/tmp/trimpot-dataset-XXXXXX", *paths[1] = {path};

static int make_path(void **state)
{
    (void)state;
    log_init(0, 1, LOG_QUIET);
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static status try_open(const struct config *c, struct config_dataset *set, const char *text, const struct tokenizer *tok,
                       struct dataset **d)
{
    assert_int_equal(file_replace(path, text, strlen(text)), ST_OK);
    set->data_files = paths;
    set->n_data_files = 1;
    return dataset_open(c, set, 1, TORCHTUNE(tok, NULL), d);
}

static struct dataset *open_ok(const struct config *c, struct config_dataset *set, const char *text)
{
    struct dataset *d;
    if (try_open(c, set, text, &fake_tiny, &d)) fail_msg("%s", status_message());
    return d;
}

/* Items as "ids|labels;…" with a "/" between an item's documents and "." for -100. */
static char *show_items(const struct dataset *d)
{
    struct buf b = {0};
    for (int64_t i = 0; i < dataset_items(d); i++) {
        const struct document *docs;
        int64_t n = dataset_item(d, i, &docs);
        buf_text(&b, i ? " " : "");
        for (int64_t k = 0; k < n; k++) {
            buf_text(&b, k ? "/" : "");
            for (int64_t t = 0; t < docs[k].n; t++) {
                int32_t id = docs[k].ids[t];
                buf_printf(&b, "%c", id < 256 ? id : id == 256 ? '<' : '>');
            }
            buf_text(&b, "|");
            for (int64_t t = 0; t < docs[k].n; t++) {
                int32_t id = docs[k].labels[t];
                buf_printf(&b, "%c", id == -100 ? '.' : id < 256 ? id : id == 256 ? '<' : '>');
            }
        }
    }
    return b.data;
}

static void assert_items(const struct dataset *d, const char *want)
{
    char *got = show_items(d);
    assert_string_equal(got, want);
    free(got);
}

#define TEXTS "{\"text\":\"abc\"}\n{\"text\":\"\"}\n{\"text\":\"defgh\"}\n"

static void labels_are_shifted(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d = open_ok(&c, &set, "{\"input\":\"Q\",\"output\":\"AB\"}\n{\"input\":\"xy\",\"output\":\"\"}\n");
    assert_items(d, "<QAB>|.AB>. <xy>|..>.");
    const struct dataset_stats *s = dataset_stats(d);
    assert_int_equal(s->rows, 2);
    assert_int_equal(s->kept, 2);
    assert_int_equal(s->tokens, 9);
    assert_int_equal(s->supervised, 4);
    assert_int_equal(s->longest, 5);
    dataset_close(d);

    d = open_ok(&c, &set, TEXTS);
    assert_items(d, "<abc>|abc>. <>|>. <defgh>|defgh>.");
    dataset_close(d);
}

/* One row, each way with rows that are too long: max_seq_len 4, "<" + letters + ">". */
static void too_long(void **state)
{
    (void)state;
    static const struct {
        enum too_long how;
        bool left, chat;
        const char *shown;
        struct dataset_stats stats; /* rows, kept, truncated, dropped, unsupervised, tokens, supervised, longest */
    } table[] = {
        {TOO_LONG_TRUNCATE, false, false, "<abc|abc. <>|>. <def|def.", {3, 3, 2, 0, 0, 10, 7, 4}},
        {TOO_LONG_TRUNCATE, true, false, "abc>|bc>. <>|>. fgh>|gh>.", {3, 3, 2, 0, 0, 10, 7, 4}},
        {TOO_LONG_DROP, false, false, "<>|>.", {3, 1, 0, 2, 0, 2, 1, 2}},
        {TOO_LONG_SPLIT, false, false, "<abc|abc> <>|>. <def|defg gh>|h>.", {3, 3, 0, 0, 0, 13, 11, 4}},
        {TOO_LONG_TRUNCATE, false, true, "<QA>|.A>. <aa>|.a>.", {3, 2, 2, 0, 1, 8, 4, 4}},
        {TOO_LONG_TRUNCATE, true, true, "QAB>|AB>. 345>|..>. bcd>|cd>.", {3, 3, 3, 0, 0, 12, 7, 4}},
        {TOO_LONG_SPLIT, false, true, "<QAB|.AB> 45>|.>. <aab|.abc cd>|d>.", {3, 3, 0, 0, 0, 14, 9, 4}},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        c.tokenizer.max_seq_len = 4;
        c.tokenizer.truncate_left = table[i].left;
        c.on_too_long = table[i].how;
        struct dataset *d = open_ok(&c, &set,
                                    table[i].chat ? "{\"input\":\"Q\",\"output\":\"AB\"}\n"
                                                    "{\"input\":\"12345\",\"output\":\"\"}\n"
                                                    "{\"input\":\"a\",\"output\":\"abcd\"}\n"
                                                  : TEXTS);
        char *got = show_items(d);
        if (strcmp(got, table[i].shown)) print_error("case %zu: %s\n", i, got);
        free(got);
        assert_items(d, table[i].shown);
        assert_memory_equal(dataset_stats(d), &table[i].stats, sizeof table[i].stats);
        dataset_close(d);
    }
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d;
    c.tokenizer.max_seq_len = 5;
    c.on_too_long = TOO_LONG_ERROR;
    assert_int_equal(try_open(&c, &set, TEXTS, &fake_tiny, &d), ST_DATA);
    assert_non_null(strstr(status_message(), ":3: the row has 7 tokens, more than tokenizer.max_seq_len=5"));
}

static void packing(void **state)
{
    (void)state;
    static const struct {
        int64_t max;
        int split;
        const char *shown;
    } table[] = {
        {7, 0, "<abc>|abc>./<>|>. <defgh>|defgh>."},         {7, 1, "<abc>|abc>./<>|>. <defgh>|defgh>."},
        {9, 0, "<abc>|abc>./<>|>. <defgh>|defgh>."},         {9, 1, "<abc>|abc>./<>|>./<d|de efgh>|fgh>."},
        {9, -1, "<abc>|abc>./<>|>./<d|de efgh>|fgh>."}, /* completion splits by default */
        {3, 1, "<ab|abc c>|>./<|> >|./<d|de efg|fgh h>|>."}, {100, 0, "<abc>|abc>./<>|>./<defgh>|defgh>."},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        set.packed = true;
        set.split_across_pack = table[i].split;
        c.tokenizer.max_seq_len = table[i].max;
        struct dataset *d = open_ok(&c, &set, TEXTS);
        char *got = show_items(d);
        if (strcmp(got, table[i].shown)) print_error("case %zu\n", i);
        assert_string_equal(got, table[i].shown);
        free(got);
        assert_int_equal(dataset_stats(d)->tokens, 14);
        assert_int_equal(dataset_stats(d)->supervised, 11);
        dataset_close(d);
    }
}

/* Every token of unsplit documents is in exactly one item, none over the limit, whatever the lengths. */
static void packing_loses_nothing(void **state)
{
    (void)state;
    struct buf b = {0};
    int64_t tokens = 0, rows = 3000;
    for (int64_t i = 0; i < rows; i++) {
        int n = (int)(rng_mix((uint64_t)i) % 30);
        buf_printf(&b, "{\"text\":\"%.*s\"}\n", n, "abcdefghijklmnopqrstuvwxyzabcdef");
        tokens += n + 2;
    }
    for (int split = 0; split < 2; split++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        set.packed = true;
        set.split_across_pack = split;
        c.tokenizer.max_seq_len = 64;
        struct dataset *d = open_ok(&c, &set, b.data);
        assert_int_equal(dataset_stats(d)->tokens, tokens);
        assert_int_equal(dataset_stats(d)->rows, rows);
        assert_true(dataset_stats(d)->longest <= 64);
        assert_true(!split || dataset_items(d) == (tokens + 63) / 64);
        int64_t sample = 0;
        for (int64_t i = 0; i < dataset_items(d); i++) {
            const struct document *docs;
            int64_t n = dataset_item(d, i, &docs);
            for (int64_t k = 0; k < n; k++) assert_int_equal(docs[k].sample, sample++);
        }
        dataset_close(d);
    }
    buf_release(&b);
}

static void order_is_a_permutation(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 5, 16, 63, 64, 65, 100, 1000, 4097};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t n = sizes[s];
        unsigned char *seen = mem_alloc((size_t)n);
        int64_t same_epoch = 0, same_seed = 0, fixed = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t p = order_permute(7, 0, n, i);
            assert_true(p >= 0 && p < n);
            assert_false(seen[p]++);
            same_epoch += p == order_permute(7, 1, n, i);
            same_seed += p == order_permute(8, 0, n, i);
            fixed += p == i;
        }
        if (n >= 100) {
            assert_true(same_epoch < 8); /* a random permutation agrees in one place on average */
            assert_true(same_seed < 8);
            assert_true(fixed < 8);
        }
        free(seen);
    }
    /* Each of 10 items comes first about equally often over 5000 epochs (5 sigma of a binomial: 106). */
    int first[10] = {0}, second[10] = {0};
    for (int64_t e = 0; e < 5000; e++) {
        first[order_permute(1, e, 10, 0)]++;
        second[order_permute(1, e, 10, 1)]++;
    }
    for (int i = 0; i < 10; i++) assert_true(abs(first[i] - 500) < 106 && abs(second[i] - 500) < 106);
    /* Fixed: checkpoints of old runs must resume in the same order. */
    static const int64_t golden[] = {128, 607, 272, 379, 33, 339, 921, 59};
    for (int64_t i = 0; i < 8; i++) assert_int_equal(order_permute(1234, 3, 1000, i), golden[i]);
}

static void order_of_a_set(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d = open_ok(&c, &set, TEXTS);
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(dataset_order(d, 5, false, 2, i), i);
        assert_int_equal(dataset_order(d, 5, true, 2, i), order_permute(5, 2, 3, i));
    }
    dataset_close(d);
}

static void bounds_of_a_batch(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d = open_ok(&c, &set, TEXTS); /* 5, 2, 7 tokens; 4, 1, 6 supervised */
    static const int64_t tokens[] = {0, 7, 12, 14, 21}, supervised[] = {0, 6, 10, 11, 17};
    for (int64_t n = 0; n < 5; n++) {
        assert_int_equal(dataset_longest(d, n), tokens[n]);
        assert_int_equal(dataset_most_supervised(d, n), supervised[n]);
        assert_int_equal(dataset_most_documents(d, n), n);
    }
    assert_int_equal(dataset_longest_document(d), 7);
    dataset_close(d);
    set.packed = true;
    c.tokenizer.max_seq_len = 9;
    d = open_ok(&c, &set, TEXTS); /* 3 documents in the first pack, 1 in the second */
    assert_int_equal(dataset_most_documents(d, 1), 3);
    assert_int_equal(dataset_most_documents(d, 2), 4);
    assert_int_equal(dataset_longest(d, 1), 9);
    dataset_close(d);
}

static void counts_and_slices(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    set.split = "train[1:3]";
    struct dataset *d = open_ok(&c, &set, TEXTS);
    assert_items(d, "<>|>. <defgh>|defgh>.");
    assert_int_equal(dataset_stats(d)->rows, 2);
    dataset_close(d);

    /* Two files are one list of rows; two sets are concatenated. */
    struct config_dataset two[2] = {dataset_defaults(), dataset_defaults()};
    char *twice[] = {path, path};
    two[0].data_files = two[1].data_files = twice;
    two[0].n_data_files = 2;
    two[1].n_data_files = 1;
    two[0].split = "train[2:4]";
    two[1].split = "train[:1]";
    assert_int_equal(dataset_open(&c, two, 2, TORCHTUNE(&fake_tiny, NULL), &d), ST_OK);
    assert_items(d, "<defgh>|defgh>. <abc>|abc>. <abc>|abc>.");
    dataset_close(d);

    two[1].packed = true;
    assert_int_equal(dataset_open(&c, two, 2, TORCHTUNE(&fake_tiny, NULL), &d), ST_CONFIG_RUNTIME);
    set = dataset_defaults();
    set.packed = true;
    assert_int_equal(try_open(&c, &set, TEXTS, &fake_tiny, &d), ST_CONFIG_RUNTIME);
    assert_non_null(strstr(status_message(), "max_seq_len"));
}

static void validation_set(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d = open_ok(&c, &set, TEXTS), *whole = open_ok(&c, &set, TEXTS), *val;
    assert_int_equal(dataset_split(d, 0.34, &val), ST_OK); /* ceil(1.02) = 2 of 3 */
    assert_items(d, "<abc>|abc>.");
    assert_items(val, "<>|>. <defgh>|defgh>.");
    assert_int_equal(dataset_stats(val)->rows, 2);
    assert_int_equal(dataset_stats(val)->supervised, 7);
    assert_int_equal(dataset_stats(d)->kept, 1);
    assert_int_equal(dataset_stats(d)->tokens, 5);
    const struct document *docs;
    dataset_item(val, 0, &docs);
    assert_int_equal(docs->sample, 1);
    assert_true(dataset_hash(d) != dataset_hash(whole));
    struct dataset *none;
    assert_int_equal(dataset_split(d, 0.5, &none), ST_DATA);
    assert_int_equal(dataset_split(whole, 1.0, &none), ST_DATA);
    assert_int_equal(dataset_split(whole, 0.0, &none), ST_DATA);
    assert_items(whole, "<abc>|abc>. <>|>. <defgh>|defgh>.");
    dataset_close(d);
    dataset_close(val);
    dataset_close(whole);
}

static void hash_sees_everything(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    static const char *const files[] = {TEXTS, "{\"text\":\"abc\"}\n", "{\"text\":\"abd\"}\n", "{\"input\":\"a\",\"output\":\"bc\"}\n",
                                        "{\"input\":\"ab\",\"output\":\"c\"}\n"};
    uint64_t seen[8];
    int n = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct dataset *d = open_ok(&c, &set, files[i]), *again = open_ok(&c, &set, files[i]);
        seen[n++] = dataset_hash(d);
        assert_true(dataset_hash(d) == dataset_hash(again));
        dataset_close(d);
        dataset_close(again);
    }
    set.packed = true;
    c.tokenizer.max_seq_len = 9;
    for (set.split_across_pack = 0; set.split_across_pack < 2; set.split_across_pack++) {
        struct dataset *d = open_ok(&c, &set, TEXTS);
        seen[n++] = dataset_hash(d);
        dataset_close(d);
    }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++) assert_true(seen[i] != seen[k]);
}

static void preview_and_prompt(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d = open_ok(&c, &set,
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\\u001b[2J\"},{\"role\":\"assistant\","
                                "\"content\":\"A\\u009b\"},{\"role\":\"user\",\"content\":\"R\"},{\"role\":\"assistant\","
                                "\"content\":\"BC\"}]}");
    char *text = dataset_preview(d, &fake_tiny, false);
    assert_string_equal(text, "<s>Q?[2J[[A?</s>]]<s>R[[BC</s>]]");
    free(text);
    text = dataset_preview(d, &fake_tiny, true);
    assert_string_equal(text, "\033[2m<s>Q?[2J\033[0mA?</s>\033[2m<s>R\033[0mBC</s>");
    free(text);

    dataset_close(d);

    struct prompts p;
    set.data_files = paths;
    set.n_data_files = 1;
    assert_int_equal(dataset_prompts(&c, &set, TORCHTUNE(&fake_tiny, NULL), &p), ST_OK);
    assert_string_equal(p.answers[0], "BC");
    text = tokenizer_decode(&fake_tiny, p.ids[0].v, p.ids[0].n, false, NULL);
    assert_string_equal(text, "<s>Q\033[2JA\xc2\x9b</s><s>R");
    free(text);
    prompts_release(&p);

    /* The assistant's header belongs to the prompt. */
    const char *row = "{\"question\":\"1+1\",\"answer\":\"2\"}";
    file_replace(path, row, strlen(row));
    assert_int_equal(dataset_prompts(&c, &set, TORCHTUNE(&fake_qwen, "qwen2"), &p), ST_OK);
    text = tokenizer_decode(&fake_qwen, p.ids[0].v, p.ids[0].n, false, NULL);
    assert_string_equal(text, "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n");
    assert_string_equal(p.answers[0], "2");
    free(text);
    prompts_release(&p);
}

static void summary(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    c.tokenizer.max_seq_len = 6;
    struct dataset *d = open_ok(&c, &set, TEXTS);
    char *text = dataset_summary(d);
    assert_string_equal(text, "3 rows: 3 kept (1 truncated), 0 too long, 0 unsupervised; 13 tokens, 76.9 % supervised; "
                              "document lengths 5 / 6 / 6 (median / 90 % / longest)");
    free(text);
    dataset_close(d);
    set.packed = true;
    d = open_ok(&c, &set, TEXTS);
    text = dataset_summary(d);
    assert_non_null(strstr(text, "; 3 packs"));
    free(text);
    dataset_close(d);
}

static char *stderr_of(void (*act)(void *context), void *context)
{
    char name[] = "/tmp/trimpot-stderr-XXXXXX", *text;
    int fd = mkstemp(name), saved = dup(2);
    assert_true(fd >= 0 && saved >= 0);
    dup2(fd, 2);
    log_init(0, 1, LOG_INFO);
    act(context);
    log_init(0, 1, LOG_QUIET);
    dup2(saved, 2);
    close(saved);
    close(fd);
    assert_int_equal(file_read(name, 1 << 20, &text, NULL), ST_OK);
    unlink(name);
    return text;
}

struct opening {
    struct config c;
    struct config_dataset set;
    const char *text;
    struct dataset *d;
    status st;
};

static void open_it(void *context)
{
    struct opening *o = context;
    o->st = try_open(&o->c, &o->set, o->text, &fake_tiny, &o->d);
}

#define MIXED "{\"text\":\"a\"}\n{\"text\":5}\n{\"question\":\"q\",\"answer\":\"x\"}\n{\"text\":\"b\"}\n{\"text\":\n{\"text\":6}\n"

/* Bad rows: all are read, all are named, or left out and saved. */
static void bad_rows_stop_or_are_skipped(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d;
    assert_int_equal(try_open(&c, &set, MIXED, &fake_tiny, &d), ST_DATA);
    char *want = mem_printf("4 of 6 rows cannot be used:\n  %s:2: text: expected a string, found the number 5; quote the value or map "
                            "another column\n  %s:3: text: found nothing; this row looks like question/answer, the data set is read "
                            "as text",
                            path, path);
    if (!strstr(status_message(), want)) fail_msg("'%s' lacks '%s'", status_message(), want);
    free(want);
    static const char *const also[] = {":5: column",
                                       "not valid JSON",
                                       ":6: text: expected a string, found the number 6",
                                       "\n  2 × text: expected a string, found the number N; quote",
                                       "\n  1 × column N of the row: not valid",
                                       "leave them out with dataset.on_bad_row=skip"};
    for (size_t i = 0; i < sizeof also / sizeof *also; i++)
        if (!strstr(status_message(), also[i])) fail_msg("'%s' lacks '%s'", status_message(), also[i]);

    struct opening o = {.c = c, .set = set, .text = MIXED};
    o.set.on_bad_row = BAD_ROW_SKIP;
    char *said = stderr_of(open_it, &o), *saved, *summary;
    assert_int_equal(o.st, ST_OK);
    d = o.d;
    assert_non_null(strstr(said, "4 of 6 rows are left out (dataset.on_bad_row=skip):\n  2 × text: expected"));
    free(said);
    assert_items(d, "<a>|a>. <b>|b>.");
    assert_int_equal(dataset_stats(d)->rows, 6);
    assert_int_equal(dataset_stats(d)->kept, 2);
    assert_int_equal(dataset_stats(d)->skipped, 4);
    summary = dataset_summary(d);
    assert_non_null(strstr(summary, "; 4 skipped as bad"));
    free(summary);
    char out[] = "/tmp/trimpot-skipped-XXXXXX";
    close(mkstemp(out));
    assert_int_equal(dataset_save_skipped(d, d, out), ST_OK);
    assert_int_equal(file_read(out, 1 << 20, &saved, NULL), ST_OK);
    static const struct {
        int line;
        const char *reason, *row;
    } lines[] = {{2, "text: expected a string, found the number 5", "{\"text\":5}"},
                 {3, "text: found nothing; this row looks like question/answer", "{\"question\":\"q\",\"answer\":\"x\"}"},
                 {5, "column", "\"{\\\"text\\\":\""},
                 {6, "text: expected a string, found the number 6", "{\"text\":6}"}};
    char *line = saved;
    for (int i = 0; i < 8; i++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        json_t *v = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(v);
        assert_string_equal(json_string_value(json_object_get(v, "file")), path);
        assert_int_equal(json_integer_value(json_object_get(v, "line")), lines[i % 4].line);
        assert_int_equal(strncmp(json_string_value(json_object_get(v, "reason")), lines[i % 4].reason, strlen(lines[i % 4].reason)), 0);
        char *row = json_dumps(json_object_get(v, "row"), JSON_COMPACT | JSON_ENCODE_ANY);
        assert_string_equal(row, lines[i % 4].row);
        free(row);
        json_decref(v);
        line = end + 1;
    }
    assert_int_equal(*line, 0);
    free(saved);
    dataset_close(d);

    /* Nothing skipped: an earlier run's file goes. Nothing left: an error. */
    d = open_ok(&c, &o.set, TEXTS);
    assert_int_equal(dataset_save_skipped(d, NULL, out), ST_OK);
    assert_false(file_exists(out));
    dataset_close(d);
    assert_int_equal(try_open(&c, &o.set, "{\"text\":1}\n{\"text\":2}\n", &fake_tiny, &d), ST_DATA);
    assert_non_null(strstr(status_message(), "2 of 2 rows cannot be used"));
    /* The whole file's faults stop at once. */
    assert_int_equal(try_open(&c, &o.set, "[{\"text\":\"a\"},", &fake_tiny, &d), ST_DATA);
    assert_non_null(strstr(status_message(), "the list is not closed"));
}

static void bad_rows_of_every_container(void **state)
{
    (void)state;
    static const struct {
        const char *source, *text, *row;
    } table[] = {
        {"json", "[{\"text\":\"a\"},\n{\"text\":\n\n[1.50, \"x\\u00e9\"]}]", "\"row\":{\"text\":  [1.50, \"x\\u00e9\"]}}\n"},
        {"csv", "text,n\na,1\n\"b\nc\"\n", "\"row\":\"\\\"b\\nc\\\"\"}\n"},
        {"csv", "text,n\na,1\n\"b\"c,2\n", "\"row\":\"\\\"b\\\"c,2\"}\n"},
        {"csv", "text,system\na,\nb,\"S\nT\"\n", "\"row\":{\"text\":\"b\",\"system\":\"S\\nT\"}}\n"},
        {"text",
         "a\nb\xFF"
         "c\n",
         "\"row\":\"b\xEF\xBF\xBD"
         "c\"}\n"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        char out[] = "/tmp/trimpot-skipped-XXXXXX", *saved;
        close(mkstemp(out));
        set.on_bad_row = BAD_ROW_SKIP;
        set.source = (char *)table[i].source;
        struct dataset *d = open_ok(&c, &set, table[i].text);
        assert_items(d, "<a>|a>.");
        assert_int_equal(dataset_save_skipped(d, NULL, out), ST_OK);
        assert_int_equal(file_read(out, 1 << 20, &saved, NULL), ST_OK);
        if (!strstr(saved, table[i].row)) fail_msg("case %zu: '%s' lacks '%s'", i, saved, table[i].row);
        json_t *v = json_loads(saved, 0, NULL);
        assert_non_null(v);
        json_decref(v);
        free(saved);
        unlink(out);
        dataset_close(d);
    }
}

/* Rows with the same fault are one reason, whatever they quote; what messages say themselves stays. */
static void reasons(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d;
    assert_int_equal(try_open(&c, &set,
                              "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]}\n"
                              "{\"messages\":[{\"role\":\"x1\",\"content\":\"u\"}]}\n{\"messages\":[{\"role\":\"y\",\"content\":\"u\"}]}\n"
                              "{\"messages\":[{\"role\":\"user\",\"content\":5}]}\n{\"messages\":[{\"role\":\"user\",\"content\":6.5}]}\n"
                              "{nonsense\n{rubbish\n",
                              &fake_tiny, &d),
                     ST_DATA);
    static const char *const says[] = {
        "\n  2 × messages[N].role: unknown role: the string \"…\"; use system",
        "\n  2 × messages[N].content: expected a string or a list of {\"type\": \"text\"} parts, found the number N; give",
        "\n  2 × column N of the row: not valid JSON: string or '}' expected near '…'"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        if (!strstr(status_message(), says[i])) fail_msg("'%s' lacks '%s'", status_message(), says[i]);
}

/* At most 20 are named, all are counted. The shape comes from the first row that has one. */
static void many_bad_rows(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d;
    struct buf b = {0};
    buf_text(&b, "5\nnonsense\n{\"a\":1}\n");
    for (int i = 0; i < 3000; i++) buf_printf(&b, i % 3 ? "{\"text\":\"x%d\"}\n" : "{\"text\":%d}\n", i);
    assert_int_equal(try_open(&c, &set, b.data, &fake_tiny, &d), ST_DATA);
    int named = 0;
    for (const char *p = status_message(); (p = strstr(p, path)); p++) named++;
    if (named != 20) fail_msg("%d named: %s", named, status_message());
    assert_non_null(strstr(status_message(), "1003 of 3003 rows cannot be used; the first of them:"));
    assert_non_null(strstr(status_message(), "\n  1000 × text: expected a string, found the number N"));
    set.on_bad_row = BAD_ROW_SKIP;
    d = open_ok(&c, &set, b.data);
    assert_int_equal(dataset_stats(d)->kept, 2000);
    uint64_t hash = dataset_hash(d);
    dataset_close(d);
    omp_set_num_threads(1);
    d = open_ok(&c, &set, b.data);
    assert_true(dataset_hash(d) == hash);
    dataset_close(d);
    omp_set_num_threads(3);
    buf_release(&b);
}

/* Once per data set, in the same order whatever the threads. */
static void columns_that_nothing_uses(void **state)
{
    (void)state;
    struct opening o = {.c = config_defaults(), .set = dataset_defaults()};
    struct buf b = {0};
    for (int i = 0; i < 3000; i++)
        buf_printf(&b,
                   "{\"id\":%d,\"messages\":[{\"role\":\"user\",\"content\":\"u\",\"mid\":1},{\"role\":\"assistant\",\"content\":"
                   "\"a\",\"weight\":1}],\"%s\":\"\"}\n",
                   i, i % 2 ? "source\\u0001" : "date");
    o.text = b.data;
    static const int threads[] = {1, 3};
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(threads[i]);
        char *said = stderr_of(open_it, &o), *want = mem_printf("data: %s: columns not used: date, id, source?; in messages: mid\n", path);
        assert_int_equal(o.st, ST_OK);
        const char *at = strstr(said, want);
        if (!at) fail_msg("'%s' lacks '%s'", said, want);
        assert_null(strstr(at + strlen(want), "not used"));
        free(said);
        free(want);
        dataset_close(o.d);
    }
    o.text = "{\"question\":\"q\",\"answer\":\"a\",\"prompt\":\"p\",\"completion\":\"c\",\"text\":\"t\"}\n";
    char *said = stderr_of(open_it, &o);
    assert_int_equal(o.st, ST_OK);
    assert_items(o.d, "<pc>|.c>.");
    if (!strstr(said, "the rows also fit question/answer; read as prompt/completion") ||
        !strstr(said, "columns not used: answer, question, text"))
        fail_msg("%s", said);
    free(said);
    dataset_close(o.d);
    o.text = "{\"input\":\"q\",\"output\":\"a\"}\n";
    said = stderr_of(open_it, &o);
    assert_null(strstr(said, "not used"));
    assert_null(strstr(said, "also fit"));
    free(said);
    dataset_close(o.d);
    buf_release(&b);
}

/* Rows whose flags leave nothing to learn are counted, not refused. */
static void untrained_rows(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d =
        open_ok(&c, &set, "{\"text\":\"a\",\"weight\":0}\n{\"text\":\"b\",\"weight\":1}\n{\"text\":\"c\",\"masked\":true}\n");
    assert_items(d, "<b>|b>.");
    assert_int_equal(dataset_stats(d)->unsupervised, 2);
    dataset_close(d);
    d = open_ok(&c, &set, "{\"input\":\"q\",\"output\":\"a\",\"train\":false}\n{\"input\":\"r\",\"output\":\"b\"}\n");
    assert_items(d, "<rb>|.b>.");
    assert_int_equal(dataset_stats(d)->unsupervised, 1);
    dataset_close(d);
}

/* `--data rows.tsv` makes dataset.source csv: the name says which of the two it is. */
static void tsv_by_its_name(void **state)
{
    (void)state;
    char *file = mem_printf("%s.tsv", path), *files[] = {file};
    static const char *const sources[] = {"csv", "tsv", NULL};
    const char *text = "Question\tAnswer\tsystem\tid\n\"Hi\" she said, x\ty\t\t7\n";
    assert_int_equal(file_replace(file, text, strlen(text)), ST_OK);
    for (int i = 0; i < 3; i++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        struct dataset *d;
        set.source = (char *)sources[i];
        set.data_files = files;
        set.n_data_files = 1;
        if (dataset_open(&c, &set, 1, TORCHTUNE(&fake_tiny, NULL), &d)) fail_msg("%s", status_message());
        assert_items(d, "<\"Hi\" she said, xy>|................y>.");
        dataset_close(d);
    }
    unlink(file);
    free(file);
}

/* The answer does not depend on threads or batches. */
static void many_rows_keep_their_order(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 5000; i++) buf_printf(&b, "{\"text\":\"%d\"}\n", i);
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d = open_ok(&c, &set, b.data);
    assert_int_equal(dataset_items(d), 5000);
    for (int64_t i = 0; i < 5000; i++) {
        const struct document *docs;
        dataset_item(d, i, &docs);
        char *text = tokenizer_decode(&fake_tiny, docs->ids, (size_t)docs->n, true, NULL);
        assert_int_equal(atoi(text), i);
        free(text);
    }
    uint64_t hash = dataset_hash(d);
    dataset_close(d);
    static const int threads[] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        omp_set_num_threads(threads[i]);
        d = open_ok(&c, &set, b.data);
        assert_true(dataset_hash(d) == hash);
        dataset_close(d);
    }
    /* Of several bad rows the first is reported. */
    buf_text(&b, "{\"text\":1}\n{\"text\":2}\n{}\n");
    assert_int_equal(try_open(&c, &set, b.data, &fake_tiny, &d), ST_DATA);
    assert_non_null(strstr(status_message(), ":5001: text: expected a string, found the number 1"));
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_shifted),
        cmocka_unit_test(too_long),
        cmocka_unit_test(packing),
        cmocka_unit_test(packing_loses_nothing),
        cmocka_unit_test(order_is_a_permutation),
        cmocka_unit_test(order_of_a_set),
        cmocka_unit_test(bounds_of_a_batch),
        cmocka_unit_test(counts_and_slices),
        cmocka_unit_test(validation_set),
        cmocka_unit_test(hash_sees_everything),
        cmocka_unit_test(preview_and_prompt),
        cmocka_unit_test(many_rows_keep_their_order),
        cmocka_unit_test(summary),
        cmocka_unit_test(bad_rows_stop_or_are_skipped),
        cmocka_unit_test(bad_rows_of_every_container),
        cmocka_unit_test(reasons),
        cmocka_unit_test(many_bad_rows),
        cmocka_unit_test(columns_that_nothing_uses),
        cmocka_unit_test(untrained_rows),
        cmocka_unit_test(tsv_by_its_name),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
