/* Bad rows, bad files, bad settings: the code by kind and a message with the place, the value and what to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "tests/data/data_config.h"
#include "tests/data/fake_tokenizer.h"
#include "worker/data/dataset.h"

static char path[] = "/tmp/trimpot-errors-XXXXXX", *paths[1] = {path};

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

#define GOOD          "{\"input\":\"a\",\"output\":\"b\"}\n"
#define ONE(messages) "{\"messages\":[" messages "]}"
#define USER          "{\"role\":\"user\",\"content\":\"u\"}"
#define BOT           "{\"role\":\"assistant\",\"content\":\"a\"}"

static const struct bad {
    enum data_kind kind;
    const char *map[2]; /* column_map: expected, actual */
    const char *column, *conversation_column, *split, *source;
    enum conversation style;
    const char *text;
    status code;
    const char *says; /* "@" stands for the path */
} table[] = {
    /* files */
    {.text = "", .code = ST_DATA, .says = "@: the file is empty"},
    {.text = "[]", .code = ST_DATA, .says = "@: an empty list"},
    {.text = "[" GOOD, .code = ST_DATA, .says = "@:1: the list is not closed"},
    {.text = GOOD "{\"input\":", .code = ST_DATA, .says = "@:2: column 9 of the row: not valid JSON"},
    {.text = GOOD "{\"input\":\"\xc3\x28\"}", .code = ST_DATA, .says = "@:2: byte 11 of the row (0xc3) is not UTF-8"},
    {.text = "garbage", .code = ST_DATA, .says = "@:1: column"},
    {.source = "csv", .text = "input,output\n1\n", .code = ST_DATA, .says = "@:2: 1 values, but the header names 2"},
    {.source = "arrow", .text = "ARROW1", .code = ST_NOT_BUILT, .says = "arrow files have no reader yet; convert"},
    {.split = "validation", .text = GOOD, .code = ST_CONFIG_RUNTIME, .says = "dataset.split: 'validation'"},
    {.split = "train[:0%]", .text = GOOD, .code = ST_CONFIG_RUNTIME, .says = "of 1 rows is empty"},
    /* rows */
    {.text = GOOD "[1]\n", .code = ST_DATA, .says = "@:2: a row is an object {\"column\": value, …}, found a list of 1"},
    {.text = "\"text\"\n", .code = ST_DATA, .says = "@:1: a row is an object {\"column\": value, …}, found the string"},
    {.text = GOOD "{\"input\":\"a\"}\n", .code = ST_DATA, .says = "@:2: output: expected a string, found nothing; every row"},
    {.text = GOOD "{\"input\":\"a\",\"output\":5}\n", .code = ST_DATA, .says = "@:2: output: expected a string, found the number 5"},
    {.text = GOOD "{\"input\":\"a\",\"output\":null}\n", .code = ST_DATA, .says = "@:2: output: expected a string, found null"},
    {.text = GOOD "{\"input\":[\"a\"],\"output\":\"b\"}\n", .code = ST_DATA, .says = "@:2: input: expected a string, found a list of 1"},
    {.text = "{\"text\":\"a\"}\n{\"txt\":\"a\"}\n", .code = ST_DATA, .says = "@:2: text: expected a string"},
    {.text = "{\"instruction\":\"a\",\"output\":\"b\",\"input\":3}",
     .code = ST_DATA,
     .says = "@:1: input: expected a string, found the number 3"},
    /* shapes */
    {.text = "{\"a\":1,\"b\":2}", .code = ST_DATA, .says = "@:1: no known shape: the row has the columns a, b; expected messages"},
    {.text = "{}", .code = ST_DATA, .says = "the row has the columns none"},
    {.text = "{\"ask\":\"a\",\"say\":\"b\"}", .code = ST_DATA, .says = "dataset.column_map={input: …, output: …}"},
    {.text = "{\"chosen\":\"a\",\"rejected\":\"b\"}", .code = ST_DATA, .says = "preference rows (chosen, rejected)"},
    {.text = "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":true}",
     .code = ST_DATA,
     .says = "KTO rows (prompt with a true/false label)"},
    {.kind = DATA_INSTRUCT,
     .text = "{\"instruction\":\"a\",\"input\":\"b\",\"output\":\"c\"}",
     .code = ST_DATA,
     .says = "@:1: instruction: found the string \"a\": this shape has no place for it"},
    {.kind = DATA_ALPACA, .text = GOOD, .code = ST_DATA, .says = "expected instruction and output"},
    {.kind = DATA_QA, .text = "{\"q\":\"a\",\"answer\":\"b\"}", .code = ST_DATA, .says = "expected question and answer"},
    {.kind = DATA_CHAT, .text = GOOD, .code = ST_DATA, .says = "expected messages; or conversations"},
    {.kind = DATA_COMPLETION, .text = GOOD, .code = ST_DATA, .says = "expected text"},
    {.kind = DATA_COMPLETION, .column = "body", .text = GOOD, .code = ST_DATA, .says = "expected body"},
    {.map = {"inputs", "q"}, .text = GOOD, .code = ST_CONFIG_RUNTIME, .says = "column_map keys are"},
    {.map = {"input", "q"}, .column = "text", .text = GOOD, .code = ST_CONFIG_RUNTIME, .says = "fit no one shape together"},
    {.map = {"input", "q"}, .text = GOOD, .code = ST_DATA, .says = "the columns input, output; expected"},
    {.conversation_column = "talk", .text = GOOD, .code = ST_DATA, .says = "expected talk"},
    /* conversations */
    {.text = "{\"messages\":\"hello\"}", .code = ST_DATA, .says = "@:1: messages: expected a list of messages, found the string"},
    {.text = ONE(""), .code = ST_DATA, .says = "messages: no message in it; a conversation needs"},
    {.text = ONE(USER), .code = ST_DATA, .says = "messages: 1 message; a conversation needs"},
    {.text = ONE("3"), .code = ST_DATA, .says = "messages[0]: expected an object with role and content, found the number 3"},
    {.text = ONE(USER ",{\"content\":\"x\"}"), .code = ST_DATA, .says = "messages[1]: no \"role\""},
    {.text = ONE(USER ",{\"role\":\"assistant\"}"), .code = ST_DATA, .says = "messages[1]: no \"content\""},
    {.text = ONE(USER ",{\"role\":\"robot\",\"content\":\"x\"}"),
     .code = ST_DATA,
     .says = "messages[1].role: unknown role: the string \"robot\""},
    {.text = ONE(USER ",{\"role\":4,\"content\":\"x\"}"), .code = ST_DATA, .says = "messages[1].role: unknown role: the number 4"},
    {.text = ONE(USER ",{\"role\":\"assistant\",\"content\":null}"),
     .code = ST_DATA,
     .says = "messages[1].content: expected a string or a list"},
    {.text = ONE("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}," BOT),
     .code = ST_DATA,
     .says = "messages[0].content[0]: a part of type image_url: only text"},
    {.text = ONE("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"words\":\"x\"}]}," BOT),
     .code = ST_DATA,
     .says = "messages[0].content[0].text: expected a string, found nothing"},
    {.text = ONE(USER ",{\"role\":\"assistant\",\"content\":\"a\",\"thinking\":\"so\",\"reasoning\":\"otherwise\"}"),
     .code = ST_DATA,
     .says = "messages[1].reasoning: its thinking says otherwise; keep one"},
    {.text = ONE("{\"role\":\"user\",\"content\":[5]}," BOT), .code = ST_DATA, .says = "messages[0].content[0]: expected a part"},
    {.text = ONE(USER "," USER "," BOT), .code = ST_DATA, .says = "messages[1]: two user messages in a row"},
    {.text = ONE(BOT "," USER),
     .code = ST_DATA,
     .says = "messages[0]: an assistant message must follow a user's or a tool's, this follows nothing"},
    {.text = ONE(USER "," BOT "," BOT),
     .code = ST_DATA,
     .says = "messages[2]: an assistant message must follow a user's or a tool's, this follows assistant"},
    {.text = ONE(USER "," BOT ",{\"role\":\"system\",\"content\":\"s\"}"),
     .code = ST_DATA,
     .says = "messages[2]: a system message must come first"},
    {.text = ONE(USER ",{\"role\":\"tool\",\"content\":\"s\"}," BOT), .code = ST_DATA, .says = "messages[1]: a tool's message must follow"},
    {.text = "{\"conversations\":[{\"from\":\"robot\",\"value\":\"x\"}]}", .code = ST_DATA, .says = "conversations[0].from: unknown role"},
    {.style = CONVERSATION_SHAREGPT, .text = ONE(USER "," BOT), .code = ST_DATA, .says = "messages[0]: no \"from\""},
    {.style = CONVERSATION_OPENAI,
     .text = "{\"conversations\":[{\"from\":\"human\",\"value\":\"x\"}]}",
     .code = ST_DATA,
     .says = "conversations[0]: no \"role\""},
    /* nothing left */
    {.text = ONE(USER ",{\"role\":\"assistant\",\"content\":[]}," USER),
     .code = ST_DATA,
     .says = "nothing to train on: of 1 rows 1 have no supervised token"},
};

static void check(const struct bad *b, size_t i)
{
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct config_pair map = {(char *)b->map[0], (char *)b->map[1]};
    struct dataset *d = NULL;
    set.kind = b->kind;
    set.column = (char *)b->column;
    set.conversation_column = (char *)b->conversation_column;
    set.split = (char *)b->split;
    set.source = (char *)b->source;
    set.conversation_style = b->style;
    set.column_map = &map;
    set.n_column_map = b->map[0] != NULL;
    set.data_files = paths;
    set.n_data_files = 1;
    assert_int_equal(file_replace(path, b->text, strlen(b->text)), ST_OK);
    struct buf says = {0};
    for (const char *p = b->says; *p; p++) {
        if (*p == '@')
            buf_text(&says, path);
        else
            buf_add(&says, p, 1);
    }
    status st = dataset_open(&c, &set, 1, TORCHTUNE(&fake_bare, NULL), &d);
    if (st != b->code || !strstr(status_message(), says.data))
        fail_msg("case %zu (%s): %s: '%s' lacks '%s'", i, b->text, status_name(st), status_message(), says.data);
    assert_null(d);
    buf_release(&says);
}

static void every_bad_input(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) check(&table[i], i);
}

static void files_that_are_not_there(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct dataset *d;
    assert_int_equal(dataset_open(&c, &set, 1, TORCHTUNE(&fake_bare, NULL), &d), ST_CONFIG_RUNTIME);
    set.source = "yahma/alpaca-cleaned";
    assert_int_equal(dataset_open(&c, &set, 1, TORCHTUNE(&fake_bare, NULL), &d), ST_CONFIG_RUNTIME);
    assert_non_null(strstr(status_message(), "dataset.source: 'yahma/alpaca-cleaned' is not on this machine"));
    char *missing[] = {"/nonexistent/rows.jsonl"}, *folder[] = {"/tmp"}, *parquet[] = {"/nonexistent/rows.parquet"};
    set.n_data_files = 1;
    set.data_files = missing;
    assert_int_equal(dataset_open(&c, &set, 1, TORCHTUNE(&fake_bare, NULL), &d), ST_IO);
    assert_non_null(strstr(status_message(), missing[0]));
    set.data_files = folder;
    assert_int_equal(dataset_open(&c, &set, 1, TORCHTUNE(&fake_bare, NULL), &d), ST_IO);
    set.data_files = parquet;
    assert_int_equal(dataset_open(&c, &set, 1, TORCHTUNE(&fake_bare, NULL), &d), ST_NOT_BUILT);
}

/* What must not be refused: the shapes by name, by map, by component. */
static void shapes_that_are_fine(void **state)
{
    (void)state;
    static const struct {
        enum data_kind kind;
        const char *map[3][2], *column, *conversation_column, *text, *prompt, *answer;
    } fine[] = {
        {.text = GOOD, .prompt = "a", .answer = "b"},
        {.text = "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":3}", .prompt = "a", .answer = "b"},
        {.text = "{\"question\":\"a\",\"answer\":\"b\",\"text\":\"ab\"}", .prompt = "a", .answer = "b"},
        {.kind = DATA_INSTRUCT,
         .map = {{"input", "q"}, {"output", "a"}},
         .text = "{\"q\":\"x\",\"a\":\"y\",\"input\":\"n\",\"output\":\"n\"}",
         .prompt = "x",
         .answer = "y"},
        {.map = {{"input", "q"}, {"output", "a"}}, .text = "{\"q\":\"x\",\"a\":\"y\"}", .prompt = "x", .answer = "y"},
        {.kind = DATA_INSTRUCT,
         .map = {{"input", "instruction"}, {"output", "response"}},
         .text = "{\"instruction\":\"x\",\"response\":\"y\"}",
         .prompt = "x",
         .answer = "y"},
        {.map = {{"messages", "chosen"}}, .text = "{\"chosen\":[" USER "," BOT "],\"rejected\":[]}", .prompt = "u", .answer = "a"},
        {.conversation_column = "talk", .text = "{\"talk\":[" USER "," BOT "]}", .prompt = "u", .answer = "a"},
        {.conversation_column = "talk",
         .text = "{\"talk\":[{\"from\":\"human\",\"value\":\"u\"},{\"from\":\"gpt\",\"value\":\"a\"}]}",
         .prompt = "u",
         .answer = "a"},
        {.text = "{\"conversations\":[" USER "," BOT "]}", .prompt = "u", .answer = "a"},
        {.column = "body", .text = "{\"body\":\"b\",\"messages\":[]}", .prompt = "", .answer = "b"},
        {.kind = DATA_COMPLETION, .text = "{\"text\":\"b\",\"input\":\"\",\"output\":\"\"}", .prompt = "", .answer = "b"},
        {.text = "{\"messages\":[" USER "," BOT "],\"tools\":null}", .prompt = "u", .answer = "a"},
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        struct config_pair map[3];
        struct dataset *d;
        struct prompts p;
        set.kind = fine[i].kind;
        set.column_map = map;
        for (int k = 0; k < 3 && fine[i].map[k][0]; k++)
            map[set.n_column_map++] = (struct config_pair){(char *)fine[i].map[k][0], (char *)fine[i].map[k][1]};
        set.column = (char *)fine[i].column;
        set.conversation_column = (char *)fine[i].conversation_column;
        set.data_files = paths;
        set.n_data_files = 1;
        assert_int_equal(file_replace(path, fine[i].text, strlen(fine[i].text)), ST_OK);
        if (dataset_open(&c, &set, 1, TORCHTUNE(&fake_tiny, NULL), &d)) fail_msg("case %zu: %s", i, status_message());
        bool is_text = !*fine[i].prompt;
        assert_int_equal(dataset_prompts(&c, &set, TORCHTUNE(&fake_tiny, NULL), &p), is_text ? ST_DATA : ST_OK);
        const struct document *doc;
        dataset_item(d, 0, &doc);
        char *text = is_text ? tokenizer_decode(&fake_tiny, doc->ids, (size_t)doc->n, true, NULL)
                             : tokenizer_decode(&fake_tiny, p.ids[0].v, p.ids[0].n, true, NULL);
        assert_string_equal(text, is_text ? fine[i].answer : fine[i].prompt);
        if (!is_text) assert_string_equal(p.answers[0], fine[i].answer);
        free(text);
        prompts_release(&p);
        dataset_close(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_bad_input), cmocka_unit_test(files_that_are_not_there),
                                       cmocka_unit_test(shapes_that_are_fine)};
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
