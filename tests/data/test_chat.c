/* What a row means: every shape, every key beside it, every flag, part and call; what is trained on and what a chat
 * template gets to see. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "tests/data/data_config.h"
#include "worker/data/rows/chat.h"
#include "worker/data/rows/rows.h"

/* "system: text | user: text | assistant: {trained}", "+" behind the role where it has extras. Caller frees. */
static char *show(const struct chat *c)
{
    struct buf b = {0};
    buf_text(&b, "");
    for (int i = 0; i < c->n; i++) {
        const struct message *m = &c->messages[i];
        buf_printf(&b, "%s%s%s: %s", i ? " | " : "", role_name(m->role), m->extras ? "+" : "", m->trained ? "{" : "");
        for (int k = m->first; k < m->first + m->n; k++) buf_add(&b, c->parts[k].text, c->parts[k].n);
        buf_text(&b, m->trained ? "}" : "");
    }
    return b.data;
}

static status read_row(const struct config_dataset *set, const char *text, struct chat *c, json_t **row)
{
    struct shape shape;
    if (rows_parse(text, strlen(text), row)) fail_msg("%s: %s", text, status_message());
    TRY(shape_detect(set, *row, &shape));
    if (shape.kind != SHAPE_TEXT) return shape_messages(&shape, *row, c);
    const char *content;
    size_t n;
    TRY(shape_text(&shape, *row, c, &content, &n));
    chat_begin(c, ROLE_ASSISTANT, !c->untrained, true);
    chat_part(c, content, n, false);
    return ST_OK;
}

/* `want` is what show() gives, or "!" and a piece of the message of a ST_DATA failure. */
static void check(const struct config_dataset *set, const char *text, const char *want)
{
    struct chat c = {0};
    json_t *row = NULL;
    status st = read_row(set, text, &c, &row);
    if (*want == '!') {
        if (st != ST_DATA || !strstr(status_message(), want + 1))
            fail_msg("%s: %s: '%s' lacks '%s'", text, status_name(st), st ? status_message() : "", want + 1);
        assert_null(c.json);
    } else if (st) {
        fail_msg("%s: %s", text, status_message());
    } else {
        char *got = show(&c);
        if (strcmp(got, want)) fail_msg("%s: '%s', not '%s'", text, got, want);
        assert_true(!c.json || (int)json_array_size(c.json) == c.n);
        free(got);
    }
    json_decref(row);
    chat_release(&c);
}

static void check_auto(const char *text, const char *want)
{
    struct config_dataset set = dataset_defaults();
    check(&set, text, want);
}

#define COUNT(table) (sizeof(table) / sizeof *(table))
struct row_case { const char *row, *want; };

static void check_all(const struct row_case *table, size_t n)
{
    for (size_t i = 0; i < n; i++) check_auto(table[i].row, table[i].want);
}

/* ---- flags ------------------------------------------------------------------------------------------------------ */

/* Each flag, in both styles, on a user's and on an assistant's turn, under each strategy. */
static void flags_on_turns(void **state)
{
    (void)state;
    enum { OFF = -1, NEUTRAL, ON };
    static const struct { const char *json; int means; } flags[] = {
        {"\"weight\":0", OFF},        {"\"weight\":1", NEUTRAL},      {"\"weight\":0.0", OFF},    {"\"weight\":false", OFF},
        {"\"weight\":true", NEUTRAL}, {"\"weight\":1.0", NEUTRAL},    {"\"loss_weight\":0", OFF}, {"\"loss_weight\":1", NEUTRAL},
        {"\"train\":false", OFF},     {"\"train\":0", OFF},           {"\"train\":true", ON},     {"\"train\":1", ON},
        {"\"trainable\":false", OFF}, {"\"trainable\":true", ON},     {"\"loss\":false", OFF},    {"\"loss\":true", ON},
        {"\"loss\":0", OFF},          {"\"training\":false", OFF},    {"\"training\":true", ON},  {"\"masked\":true", OFF},
        {"\"masked\":1", OFF},         {"\"loss_mask\":0", OFF},        {"\"masked\":false", NEUTRAL},  {"\"weight\":null", NEUTRAL}, {"\"train\":null", NEUTRAL},
        {"\"masked\":null", NEUTRAL}, {"\"Train\":false", OFF},       {"\"weight\":1,\"train\":false", OFF},
        {"\"masked\":false,\"loss\":true", ON},                       {"\"weight\":0,\"masked\":true,\"train\":false", OFF},
    };
    static const char *const words[2][4] = {{"messages", "role", "content", "assistant"}, {"conversations", "from", "value", "gpt"}};
    static const struct { enum masking masking; bool user, first, last; } strategies[] = {
        {MASK_DEFAULT, false, true, true}, {MASK_TRAIN_ON_ASSISTANT, false, true, true},
        {MASK_TRAIN_ON_ALL, true, true, true}, {MASK_TRAIN_ON_LAST, false, false, true}};
    for (size_t f = 0; f < COUNT(flags); f++) {
        for (int style = 0; style < 2; style++) {
            for (int on = 0; on < 4; on++) { /* the turn that has the flag */
                const char *const *w = words[style];
                struct buf row = {0};
                buf_printf(&row, "{\"%s\":[", w[0]);
                for (int t = 0; t < 4; t++)
                    buf_printf(&row, "%s{\"%s\":\"%s\",\"%s\":\"t%d\"%s%s}", t ? "," : "", w[1], t % 2 ? w[3] : "user", w[2], t,
                               t == on ? "," : "", t == on ? flags[f].json : "");
                buf_text(&row, "]}");
                for (size_t m = 0; m < COUNT(strategies); m++) {
                    struct config_dataset set = dataset_defaults();
                    set.masking = strategies[m].masking;
                    bool trained[4] = {strategies[m].user, strategies[m].first, strategies[m].user, strategies[m].last};
                    if (flags[f].means) trained[on] = flags[f].means == ON;
                    char *want = mem_printf("user: %st0%s | assistant: %st1%s | user: %st2%s | assistant: %st3%s",
                                            trained[0] ? "{" : "", trained[0] ? "}" : "", trained[1] ? "{" : "",
                                            trained[1] ? "}" : "", trained[2] ? "{" : "", trained[2] ? "}" : "",
                                            trained[3] ? "{" : "", trained[3] ? "}" : "");
                    check(&set, row.data, want);
                    free(want);
                }
                buf_release(&row);
            }
        }
    }
}

#define ONE(messages)  "{\"messages\":[" messages "]}"
#define U(text)        "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text)        "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define A_WITH(more)   "{\"role\":\"assistant\",\"content\":\"a\"," more "}"
#define TURNS          U("u") "," A("a")

static void flags_refused(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {ONE(U("u") "," A_WITH("\"weight\":0.5")), "!messages[1].weight: found the number 0.5: losses are not scaled"},
        {ONE(U("u") "," A_WITH("\"weight\":2")), "!messages[1].weight: found the number 2"},
        {ONE(U("u") "," A_WITH("\"weight\":\"0\"")), "!messages[1].weight: found the string \"0\""},
        {ONE(U("u") "," A_WITH("\"loss_weight\":-1")), "!messages[1].loss_weight"},
        {ONE(U("u") "," A_WITH("\"train\":\"false\"")), "!messages[1].train: found the string \"false\": expected true or false"},
        {ONE(U("u") "," A_WITH("\"loss\":0.25")), "!messages[1].loss: found the number 0.25"},
        {ONE(U("u") "," A_WITH("\"masked\":[]")), "!messages[1].masked: found a list of 0"},
        {ONE(U("u") "," A_WITH("\"trainable\":{}")), "!messages[1].trainable"},
        {ONE(U("u") "," A_WITH("\"train\":true,\"weight\":0")), "!messages[1].train contradicts weight"},
        {ONE(U("u") "," A_WITH("\"masked\":true,\"loss\":true")), "!messages[1].loss contradicts masked"},
        {ONE(U("u") "," A_WITH("\"train\":true,\"training\":false")), "!messages[1].train contradicts training"},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"u\",\"weight\":0.1}]}", "!conversations[0].weight"},
        {"{\"prompt\":[{\"role\":\"user\",\"content\":\"u\",\"weight\":3}],\"completion\":\"c\"}", "!prompt[0].weight"},
        /* of the row */
        {"{\"weight\":0.5,\"messages\":[" TURNS "]}", "!weight: found the number 0.5"},
        {"{\"weight\":\"half\",\"text\":\"t\"}", "!weight: found the string \"half\""},
        {"{\"loss\":1.75,\"input\":\"u\",\"output\":\"a\"}", "!loss: found the number 1.75"},
        {"{\"train\":true,\"masked\":true,\"input\":\"u\",\"output\":\"a\"}", "!train contradicts masked"},
    };
    check_all(table, COUNT(table));
}

static void flags_of_a_row(void **state)
{
    (void)state;
    static const char *const off[] = {"\"weight\":0", "\"loss_weight\":0.0", "\"train\":false", "\"trainable\":0", "\"loss\":false",
                                      "\"training\":false", "\"masked\":true", "\"weight\":\"0\"", "\"train\":\"False\"",
                                      "\"WEIGHT\":0"};
    static const char *const none[] = {"\"weight\":1", "\"train\":true", "\"masked\":false", "\"loss\":null", "\"weight\":\"1.0\"",
                                       "\"train\":\" \""};
    static const struct { const char *rest, *plain, *trained; } rows[] = {
        {"\"messages\":[" TURNS "]}", "user: u | assistant: a", "user: u | assistant: {a}"},
        {"\"conversations\":[{\"from\":\"human\",\"value\":\"u\"},{\"from\":\"gpt\",\"value\":\"a\",\"train\":true}]}",
         "user: u | assistant: a", "user: u | assistant: {a}"},
        {"\"question\":\"u\",\"answer\":\"a\"}", "user: u | assistant: a", "user: u | assistant: {a}"},
        {"\"text\":\"t\"}", "assistant: t", "assistant: {t}"},
    };
    for (size_t r = 0; r < COUNT(rows); r++) {
        for (size_t i = 0; i < COUNT(off) + COUNT(none); i++) {
            bool is_off = i < COUNT(off);
            char *row = mem_printf("{%s,%s", is_off ? off[i] : none[i - COUNT(off)], rows[r].rest);
            check_auto(row, is_off ? rows[r].plain : rows[r].trained);
            free(row);
        }
    }
}

/* ---- shapes ----------------------------------------------------------------------------------------------------- */

static void plain_pairs(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"prompt", "completion"}, {"prompt", "response"},  {"Question", "Answer"},    {"question", "answer"}, {"QUESTION", "ANSWER"},
        {"query", "response"},    {"Query", "Response"},   {"input", "output"},       {"Input", "Output"},    {"problem", "solution"},
        {"question", "response"}, {"prompt", "answer"},    {"Prompt", "Completion"},  {"user", "assistant"},  {"human", "assistant"},
        {"question", "answers"},  {"problem", "answer"},   {"Problem", "Solution"},   {"input", "response"},  {"prompt", "output"},
    };
    for (size_t i = 0; i < COUNT(pairs); i++) {
        char *row = mem_printf("{\"id\":7,\"%s\":\"hi\",\"%s\":\"yo\"}", pairs[i][0], pairs[i][1]);
        check_auto(row, "user: hi | assistant: {yo}");
        free(row);
    }
    static const struct row_case table[] = {
        {"{\"Messages\":[" TURNS "]}", "user: u | assistant: {a}"},
        {"{\"conversation\":[" TURNS "]}", "user: u | assistant: {a}"},
        {"{\"Text\":\"t\"}", "assistant: {t}"},
        {"{\"question\":\"u\",\"Question\":\"x\",\"answer\":\"a\"}", "user: u | assistant: {a}"},
        {"{\"question\":\"q\",\"answers\":[\"only\"]}", "user: q | assistant: {only}"},
        {"{\"question\":\"q\",\"answers\":[\"one\",\"two\"]}", "!answers: expected a string, found a list of 2"},
        {"{\"question\":\"q\",\"answers\":{\"text\":[\"a\"],\"answer_start\":[0]}}", "!answers: expected a string, found an object of 2"},
    };
    check_all(table, COUNT(table));
}

#define BELOW      "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
#define BELOW_WITH "Below is an instruction that describes a task, paired with an input that provides further context. Write a response " \
                   "that appropriately completes the request.\n\n"

static void instructions(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {"{\"instruction\":\"I\",\"output\":\"O\"}", "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {O}"},
        {"{\"instruction\":\"I\",\"response\":\"O\"}", "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {O}"},
        {"{\"instruction\":\"I\",\"input\":null,\"output\":\"O\"}", "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {O}"},
        {"{\"Instruction\":\"I\",\"Input\":\"X\",\"Output\":\"O\"}",
         "user: " BELOW_WITH "### Instruction:\nI\n\n### Input:\nX\n\n### Response:\n | assistant: {O}"},
        {"{\"instruction\":\"I\",\"context\":\"C\",\"response\":\"O\",\"category\":\"x\"}", /* dolly */
         "user: " BELOW_WITH "### Instruction:\nI\n\n### Input:\nC\n\n### Response:\n | assistant: {O}"},
        {"{\"instruction\":\"I\",\"context\":\"\",\"response\":\"O\"}", "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {O}"},
        {"{\"instruction\":\"I\",\"context\":\"C\",\"input\":\"X\",\"output\":\"O\"}", "!input and context: both would be the input"},
        {"{\"question\":\"Q\",\"context\":\"C\",\"answer\":\"A\"}", "user: C\n\nQ | assistant: {A}"},
        {"{\"question\":\"Q\",\"context\":\" \",\"answer\":\"A\"}", "user: Q | assistant: {A}"},
        {"{\"question\":\"Q\",\"context\":[\"C\"],\"answer\":\"A\"}", "!context: expected a string, found a list of 1"},
        {"{\"prompt\":[" U("u") "],\"completion\":\"A\",\"context\":\"C\"}", "!context: beside a list of messages"},
        {"{\"instruction\":\"I\",\"question\":\"Q\",\"answer\":\"\"}", "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {}"},
        {"{\"instruction\":\"I\",\"prompt\":\"Q\",\"completion\":\"\"}", "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {}"},
        {"{\"instruction\":\"I\",\"query\":\"Q\",\"output\":null,\"response\":\"R\"}",
         "user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {R}"},
        {"{\"instruction\":\"I\",\"problem\":\"Q\",\"solution\":\"A\"}", "!instruction: found the string \"I\": this shape has no place"},
        {"{\"instruction\":\"\",\"problem\":\"Q\",\"solution\":\"A\"}", "user: Q | assistant: {A}"},
    };
    check_all(table, COUNT(table));
}

static void prompt_and_completion_messages(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {"{\"prompt\":[{\"role\":\"system\",\"content\":\"s\"}," U("u") "],\"completion\":[" A("a") "]}",
         "system: s | user: u | assistant: {a}"},
        {"{\"prompt\":[" U("u") "," A("b") "," U("v") "],\"completion\":[" A("a") "]}",
         "user: u | assistant: b | user: v | assistant: {a}"},
        {"{\"prompt\":[" U("u") "," A_WITH("\"train\":true") "," U("v") "],\"completion\":\"x\"}",
         "user: u | assistant: {a} | user: v | assistant: {x}"},
        {"{\"prompt\":\"p\",\"completion\":[" A("a") "," U("v") "," A("b") "]}", "user: p | assistant: {a} | user: v | assistant: {b}"},
        {"{\"prompt\":[{\"from\":\"human\",\"value\":\"u\"}],\"completion\":[{\"from\":\"gpt\",\"value\":\"a\"}]}", "user: u | assistant: {a}"},
        {"{\"prompt\":[" U("u") "],\"response\":\"a\"}", "user: u | assistant: {a}"},
        {"{\"prompt\":[],\"completion\":\"a\"}", "!prompt: expected a string, found a list of 0"},
        {"{\"prompt\":[" U("u") "],\"completion\":5}", "!completion: expected a string, found the number 5"},
    };
    check_all(table, COUNT(table));
    struct config_dataset set = dataset_defaults();
    set.masking = MASK_TRAIN_ON_ALL;
    check(&set, "{\"prompt\":[" U("u") "," A("b") "," U("v") "],\"completion\":[" A("a") "]}",
          "user: {u} | assistant: {b} | user: {v} | assistant: {a}");
    set.masking = MASK_TRAIN_ON_LAST;
    check(&set, "{\"prompt\":[" U("u") "],\"completion\":[" A("a") "," U("v") "," A("b") "]}",
          "user: u | assistant: a | user: v | assistant: {b}");
}

/* ---- beside the shape ------------------------------------------------------------------------------------------- */

/* system and system_prompt in front of every shape that has turns; refused beside text. */
static void system_beside_every_shape(void **state)
{
    (void)state;
    static const char *const shapes[] = {
        "\"messages\":[" TURNS "]}", "\"conversations\":[{\"from\":\"human\",\"value\":\"u\"},{\"from\":\"gpt\",\"value\":\"a\"}]}",
        "\"prompt\":\"u\",\"completion\":\"a\"}", "\"Question\":\"u\",\"Answer\":\"a\"}", "\"input\":\"u\",\"output\":\"a\"}",
        "\"prompt\":[" U("u") "],\"completion\":[" A("a") "]}"};
    static const struct { const char *key; bool there; } keys[] = {
        {"\"system\":\"S\"", true},   {"\"system_prompt\":\"S\"", true}, {"\"System\":\"S\"", true},
        {"\"system\":\"\"", false},   {"\"system\":null", false},        {"\"system\":\" \\n\"", false},
        {"\"system\":\"S\",\"system_prompt\":\"S\"", true},              {"\"system\":[{\"type\":\"text\",\"text\":\"S\"}]", true},
        {"\"system\":\"S\",\"system_prompt\":\"\"", true}};
    for (size_t s = 0; s < COUNT(shapes); s++) {
        for (size_t k = 0; k < COUNT(keys); k++) {
            char *row = mem_printf("{%s,%s", keys[k].key, shapes[s]);
            check_auto(row, keys[k].there ? "system: S | user: u | assistant: {a}" : "user: u | assistant: {a}");
            free(row);
        }
        struct config_dataset set = dataset_defaults();
        set.new_system_prompt = "N";
        char *row = mem_printf("{\"system\":\"S\",%s", shapes[s]);
        check(&set, row, "system: N | user: u | assistant: {a}");
        free(row);
    }
    static const struct row_case table[] = {
        {"{\"system\":\"S\",\"messages\":[{\"role\":\"system\",\"content\":\"S\"}," TURNS "]}", "system: S | user: u | assistant: {a}"},
        {"{\"system\":\"S\",\"messages\":[{\"role\":\"system\",\"content\":\"T\"}," TURNS "]}",
         "!system: the conversation has another system message, messages[0]; keep one, or set dataset.new_system_prompt"},
        {"{\"system\":\"S\",\"system_prompt\":\"T\",\"messages\":[" TURNS "]}", "!system and system_prompt say different things"},
        {"{\"system\":5,\"messages\":[" TURNS "]}", "!system: expected a string or a list"},
        {"{\"system\":\"S\",\"text\":\"t\"}", "!system: found the string \"S\": a text row is learned as it stands"},
        {"{\"system\":\" \",\"text\":\"t\"}", "assistant: {t}"},
        {"{\"system\":\"S\",\"instruction\":\"I\",\"output\":\"O\"}",
         "system: S | user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {O}"},
    };
    check_all(table, COUNT(table));
    struct config_dataset set = dataset_defaults();
    set.new_system_prompt = "N";
    check(&set, "{\"system\":\"S\",\"messages\":[{\"role\":\"system\",\"content\":\"T\"}," TURNS "]}", "system: N | user: u | assistant: {a}");
}

static void history(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {"{\"instruction\":\"I\",\"output\":\"O\",\"history\":[[\"q\",\"a\"],[\"r\",\"b\"]]}",
         "user: q | assistant: {a} | user: r | assistant: {b} | user: " BELOW "### Instruction:\nI\n\n### Response:\n | assistant: {O}"},
        {"{\"system\":\"S\",\"history\":[[\"q\",\"a\"]],\"question\":\"Q\",\"answer\":\"A\"}",
         "system: S | user: q | assistant: {a} | user: Q | assistant: {A}"},
        {"{\"history\":[{\"user\":\"q\",\"assistant\":\"a\"}],\"prompt\":\"Q\",\"response\":\"A\"}",
         "user: q | assistant: {a} | user: Q | assistant: {A}"},
        {"{\"history\":[" U("q") "," A_WITH("\"weight\":0") "],\"prompt\":\"Q\",\"response\":\"A\"}",
         "user: q | assistant: a | user: Q | assistant: {A}"},
        {"{\"history\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"a\"}],\"input\":\"Q\",\"output\":\"A\"}",
         "user: q | assistant: {a} | user: Q | assistant: {A}"},
        {"{\"history\":\"[[\\\"q\\\",\\\"a\\\"]]\",\"input\":\"Q\",\"output\":\"A\"}", "user: q | assistant: {a} | user: Q | assistant: {A}"},
        {"{\"history\":[],\"input\":\"Q\",\"output\":\"A\"}", "user: Q | assistant: {A}"},
        {"{\"history\":null,\"input\":\"Q\",\"output\":\"A\"}", "user: Q | assistant: {A}"},
        {"{\"history\":\"\",\"input\":\"Q\",\"output\":\"A\"}", "user: Q | assistant: {A}"},
        {"{\"history\":\"[]\",\"input\":\"Q\",\"output\":\"A\"}", "user: Q | assistant: {A}"},
        {"{\"history\":[[\"q\"]],\"input\":\"Q\",\"output\":\"A\"}", "!history[0]: expected [\"question\", \"answer\"]"},
        {"{\"history\":[[\"q\",null]],\"input\":\"Q\",\"output\":\"A\"}", "!history[0]: expected"},
        {"{\"history\":[\"q\",\"a\"],\"input\":\"Q\",\"output\":\"A\"}", "!history[0]: expected"},
        {"{\"history\":[{\"user\":\"q\",\"assistant\":\"a\",\"mood\":\"x\"}],\"input\":\"Q\",\"output\":\"A\"}", "!history[0]: expected"},
        {"{\"history\":{\"a\":1},\"input\":\"Q\",\"output\":\"A\"}", "!history: expected a list, found an object of 1"},
        {"{\"history\":\"[('q','a')]\",\"input\":\"Q\",\"output\":\"A\"}", "!history: expected a list, or one as JSON text"},
        {"{\"history\":[[\"q\",\"a\"]],\"messages\":[" TURNS "]}", "!history: found a list of 1: put the earlier turns in front"},
    };
    check_all(table, COUNT(table));
}

static void lost_things_are_refused(void **state)
{
    (void)state;
    static const char *const keys[] = {"images", "image", "audios", "audio", "videos", "video"};
    static const char *const said[] = {"[\"x.png\"]", "\"x.png\"", "{\"path\":\"x\"}", "[{}]"};
    static const char *const empty[] = {"[]", "\"\"", "null", "{}"};
    static const struct { const char *row, *plain; } rows[] = {
        {"{\"%s\":%s,\"messages\":[" TURNS "]}", "user: u | assistant: {a}"}, {"{\"%s\":%s,\"input\":\"u\",\"output\":\"a\"}", "user: u | assistant: {a}"},
        {"{\"%s\":%s,\"text\":\"t\"}", "assistant: {t}"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"u\",\"%s\":%s}," A("a") "]}", "user: u | assistant: {a}"}};
    for (size_t k = 0; k < COUNT(keys); k++) {
        for (size_t r = 0; r < COUNT(rows); r++) {
            for (size_t v = 0; v < 4; v++) {
                struct buf row = {0}, want = {0};
                const char *at = strstr(rows[r].row, "%s");
                buf_add(&row, rows[r].row, (size_t)(at - rows[r].row));
                buf_printf(&row, "%s\":%s%s", keys[k], said[v], at + strlen("%s\":%s"));
                buf_printf(&want, "!%s: found", keys[k]);
                check_auto(row.data, want.data);
                buf_clear(&row);
                buf_add(&row, rows[r].row, (size_t)(at - rows[r].row));
                buf_printf(&row, "%s\":%s%s", keys[k], empty[v], at + strlen("%s\":%s"));
                check_auto(row.data, rows[r].plain);
                buf_release(&row);
                buf_release(&want);
            }
        }
    }
    static const struct row_case table[] = {
        {"{\"documents\":[{\"title\":\"x\"}],\"messages\":[" TURNS "]}", "!documents: found a list of 1"},
        {"{\"chat_template_kwargs\":{\"enable_thinking\":false},\"messages\":[" TURNS "]}", "!chat_template_kwargs: found an object of 1"},
        {ONE(U("u") ",{\"role\":\"assistant\",\"content\":\"\",\"refusal\":\"no\"}"), "!messages[1].refusal: found"},
        {ONE(U("u") "," A_WITH("\"refusal\":null")), "user: u | assistant: {a}"},
        {ONE(U("u") "," A_WITH("\"train_detail\":[{\"begin_offset\":0,\"end_offset\":1,\"train\":false}]")), "!messages[1].train_detail: found"},
    };
    check_all(table, COUNT(table));
}

/* ---- contents, roles -------------------------------------------------------------------------------------------- */

static void parts(void **state)
{
    (void)state;
#define WITH(content) "{\"messages\":[{\"role\":\"user\",\"content\":" content "}," A("a") "]}"
    static const struct row_case table[] = {
        {WITH("[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"text\",\"text\":\"y\"}]"), "user: xy | assistant: {a}"},
        {WITH("[{\"type\":\"text\",\"value\":\"x\"}]"), "user: x | assistant: {a}"},
        {WITH("[{\"type\":\"text\",\"content\":\"x\"}]"), "user: x | assistant: {a}"},
        {WITH("[{\"type\":\"text\",\"text\":null,\"value\":\"x\"}]"), "user: x | assistant: {a}"},
        {WITH("[\"x\",\"y\"]"), "user: xy | assistant: {a}"},
        {WITH("[\"x\",{\"text\":\"y\"}]"), "user: xy | assistant: {a}"},
        {WITH("[{\"type\":\"text\",\"text\":\"x\",\"image\":null}]"), "user: x | assistant: {a}"},
        {WITH("[{\"type\":\"text\",\"text\":\"x\",\"image\":\"y.png\"}]"), "!messages[0].image: found the string"},
        {WITH("[{\"type\":\"image\",\"image\":\"x\"}]"), "!messages[0].content[0]: a part of type image: only text"},
        {WITH("[{\"type\":\"audio\"}]"), "!a part of type audio: only text"},
        {WITH("[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"video\"}]"), "!messages[0].content[1]: a part of type video"},
        {WITH("[{\"type\":\"image_url\",\"text\":\"x\"}]"), "!a part of type image_url"},
        {WITH("[{\"image\":\"x\"}]"), "!messages[0].content[0]: a part of type nothing"},
        {WITH("[{\"type\":\"text\"}]"), "!messages[0].content[0].text: expected a string, found nothing"},
        {WITH("[5]"), "!messages[0].content[0]: expected a part {\"type\": \"text\", \"text\": …}, found the number 5"},
        {WITH("{\"type\":\"text\",\"text\":\"x\"}"), "!messages[0].content: expected a string or a list"},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":[{\"type\":\"text\",\"value\":\"x\"}]},{\"from\":\"gpt\",\"value\":\"a\"}]}",
         "user: x | assistant: {a}"},
    };
    check_all(table, COUNT(table));
}

static void check_json(const char *text, const char *want, const char *tools)
{
    struct config_dataset set = dataset_defaults();
    struct chat c = {0};
    json_t *row = NULL;
    if (read_row(&set, text, &c, &row)) fail_msg("%s: %s", text, status_message());
    char *got = json_dumps(c.json, JSON_COMPACT), *got_tools = c.tools ? json_dumps(c.tools, JSON_COMPACT) : NULL;
    assert_string_equal(got, want);
    assert_true(!got_tools == !tools);
    if (tools) assert_string_equal(got_tools, tools);
    free(got);
    free(got_tools);
    json_decref(row);
    chat_release(&c);
}

static void roles(void **state)
{
    (void)state;
    static const struct { const char *role, *shown, *written; } table[] = {
        {"system", "system: x", "system"},       {"developer", "system: x", "developer"}, {"user", "user: x", "user"},
        {"human", "user: x", "user"},            {"User", "user: x", "user"},             {"assistant", "assistant: {x}", "assistant"},
        {"gpt", "assistant: {x}", "assistant"},  {"model", "assistant: {x}", "assistant"}, {"bot", "assistant: {x}", "assistant"},
        {"chatgpt", "assistant: {x}", "assistant"}, {"tool", "ipython: x", "tool"},       {"ipython", "ipython: x", "ipython"},
        {"function", "ipython: x", "tool"},      {"observation", "ipython: x", "tool"}};
    for (size_t i = 0; i < COUNT(table); i++) {
        for (int sharegpt = 0; sharegpt < 2; sharegpt++) {
            char *row = mem_printf(sharegpt ? "{\"conversations\":[{\"from\":\"%s\",\"value\":\"x\"}]}"
                                            : "{\"messages\":[{\"role\":\"%s\",\"content\":\"x\"}]}", table[i].role);
            char *want = mem_printf("[{\"role\":\"%s\",\"content\":\"x\"}]", table[i].written);
            check_auto(row, table[i].shown);
            check_json(row, want, NULL);
            free(row);
            free(want);
        }
    }
    check_auto(ONE("{\"role\":\"robot\",\"content\":\"x\"}"), "!messages[0].role: unknown role: the string \"robot\"");
    /* A message in the other style of its list is read as what it is, unless the configuration says one. */
    check_auto(ONE(U("u") ",{\"from\":\"gpt\",\"value\":\"a\"}"), "user: u | assistant: {a}");
    struct config_dataset set = dataset_defaults();
    set.conversation_style = CONVERSATION_OPENAI;
    check(&set, ONE(U("u") ",{\"from\":\"gpt\",\"value\":\"a\"}"), "!messages[1]: no \"role\"");
}

/* ---- what only a template can render ---------------------------------------------------------------------------- */

#define CALL    "{\"name\":\"w\",\"arguments\":{\"n\":5}}"
#define WRAPPED "{\"type\":\"function\",\"function\":" CALL "}"

static void reasoning_and_calls(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {ONE(U("u") "," A_WITH("\"reasoning_content\":\"r\"")), "user: u | assistant+: {a}"},
        {ONE(U("u") "," A_WITH("\"thinking\":\"r\"")), "user: u | assistant+: {a}"},
        {ONE(U("u") "," A_WITH("\"reasoning\":\"r\"")), "user: u | assistant+: {a}"},
        {ONE(U("u") "," A_WITH("\"reasoning_content\":\"\"")), "user: u | assistant: {a}"},
        {ONE(U("u") "," A_WITH("\"thinking\":null")), "user: u | assistant: {a}"},
        {ONE(U("u") "," A_WITH("\"tool_calls\":[]")), "user: u | assistant: {a}"},
        {ONE(U("u") "," A_WITH("\"tool_calls\":null,\"function_call\":null")), "user: u | assistant: {a}"},
        {ONE(U("u") ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[" WRAPPED "]}"), "user: u | assistant+: {}"},
        {ONE(U("u") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" WRAPPED "]}"), "user: u | assistant+: {}"},
        {ONE(U("u") ",{\"role\":\"assistant\",\"tool_calls\":[" WRAPPED "]}"), "user: u | assistant+: {}"},
        {ONE(U("u") ",{\"role\":\"assistant\",\"function_call\":" CALL "}"), "user: u | assistant+: {}"},
        {ONE(U("u") ",{\"role\":\"assistant\",\"content\":null}"), "!messages[1].content: expected a string or a list"},
        {ONE(U("u") ",{\"role\":\"assistant\"}"), "!messages[1]: no \"content\""},
        {ONE(U("u") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]}"), "!messages[1].content: expected"},
        {ONE(U("u") "," A_WITH("\"tool_calls\":5")), "!messages[1].tool_calls: expected a list, found the number 5"},
        {ONE(U("u") "," A_WITH("\"tool_calls\":[5]")), "!messages[1].tool_calls[0]: expected an object"},
        {ONE(U("u") "," A_WITH("\"function_call\":{\"arguments\":{}}")), "!messages[1].function_call: expected a call"},
        {ONE(U("u") "," A_WITH("\"function_call\":" CALL ",\"tool_calls\":[" WRAPPED "]")), "!messages[1].tool_calls: the message has another call"},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"u\"},{\"from\":\"function_call\",\"value\":\"not json\"}]}",
         "!conversations[1].value: the call is not JSON"},
        {"{\"tools\":5,\"messages\":[" TURNS "]}", "!tools: expected a list, found the number 5"},
        {"{\"tools\":[5],\"messages\":[" TURNS "]}", "!tools[0]: expected an object that describes a tool"},
        {"{\"tools\":\"nonsense\",\"messages\":[" TURNS "]}", "!tools: expected a list, or one as JSON text"},
        {"{\"tools\":[{}],\"functions\":[{}],\"messages\":[" TURNS "]}", "!tools and functions"},
        {"{\"question\":\"q\",\"answer\":\"a\",\"reasoning_content\":\"r\"}", "user: q | assistant+: {a}"},
        {"{\"question\":\"q\",\"answer\":\"a\",\"thinking\":\"\"}", "user: q | assistant: {a}"},
        {ONE("{\"role\":\"system\",\"content\":\"s\",\"tools\":[{}]}," TURNS), "system+: s | user: u | assistant: {a}"},
    };
    check_all(table, COUNT(table));
}

static void what_a_template_sees(void **state)
{
    (void)state;
    check_json(ONE(U("u") ",{\"content\":\"a\",\"weight\":1,\"role\":\"assistant\",\"thinking\":\"r\",\"mood\":3,\"masked\":false}"),
               "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\",\"thinking\":\"r\",\"mood\":3}]", NULL);
    check_json(ONE(U("u") ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" WRAPPED "]},{\"role\":\"tool\",\"content\":\"5\","
                          "\"name\":\"w\",\"tool_call_id\":\"i\"}"),
               "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" WRAPPED "]},"
               "{\"role\":\"tool\",\"content\":\"5\",\"name\":\"w\",\"tool_call_id\":\"i\"}]", NULL);
    check_json(ONE(U("u") ",{\"role\":\"assistant\",\"function_call\":" CALL "}"),
               "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"tool_calls\":[" WRAPPED "]}]", NULL);
    check_json(ONE(U("u") ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":\"[" "{\\\"id\\\":1}" "]\"}"),
               "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":1}]}]", NULL);
    check_json("{\"conversations\":[{\"from\":\"human\",\"value\":\"u\"},{\"from\":\"function_call\",\"value\":\"{\\\"name\\\":\\\"w\\\","
               "\\\"arguments\\\":{\\\"n\\\":5}}\"},{\"from\":\"observation\",\"value\":\"6\"},{\"from\":\"gpt\",\"value\":\"a\"}]}",
               "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[" WRAPPED "]},"
               "{\"role\":\"tool\",\"content\":\"6\"},{\"role\":\"assistant\",\"content\":\"a\"}]", NULL);
    check_json("{\"system\":\"S\",\"history\":[[\"q\",\"b\"]],\"input\":\"u\",\"output\":\"a\"}",
               "[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"b\"},"
               "{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]", NULL);
    check_json(ONE("{\"role\":\"user\",\"content\":[\"x\",{\"type\":\"text\",\"text\":\"y\"}]}"), "[{\"role\":\"user\",\"content\":\"xy\"}]", NULL);
    check_json("{\"question\":\"q\",\"answer\":\"a\",\"reasoning_content\":\"r\"}",
               "[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"r\"}]", NULL);
    /* tools */
    const char *plain = "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]";
    const char *tools = "[{\"type\":\"function\",\"function\":{\"name\":\"w\"}}]";
    check_json("{\"functions\":[{\"name\":\"w\"}],\"messages\":[" TURNS "]}", plain, tools);
    check_json("{\"functions\":\"[{\\\"name\\\":\\\"w\\\"}]\",\"messages\":[" TURNS "]}", plain, tools);
    check_json("{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"w\"}}],\"messages\":[" TURNS "]}", plain, tools);
    check_json("{\"tools\":\"[{\\\"name\\\":\\\"w\\\"}]\",\"input\":\"u\",\"output\":\"a\"}", plain, "[{\"name\":\"w\"}]");
    static const char *const none[] = {"[]", "null", "\"\"", "\"[]\"", "{}"};
    for (size_t i = 0; i < COUNT(none); i++) {
        char *row = mem_printf("{\"tools\":%s,\"messages\":[" TURNS "]}", none[i]);
        check_json(row, plain, NULL);
        free(row);
    }
}

/* ---- which shape, which keys are left --------------------------------------------------------------------------- */

static void shapes_in_order(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {"{\"question\":\"q\",\"answer\":\"a\",\"prompt\":\"p\",\"completion\":\"c\"}", "user: p | assistant: {c}"},
        {"{\"messages\":[" TURNS "],\"conversations\":[]}", "user: u | assistant: {a}"},
        {"{\"prompt\":\"p\",\"completion\":\"c\",\"messages\":[" TURNS "]}", "user: u | assistant: {a}"},
        {"{\"messages\":null,\"question\":\"q\",\"answer\":\"a\"}", "user: q | assistant: {a}"},
        {"{\"text\":\"qa\",\"question\":\"q\",\"answer\":\"a\"}", "user: q | assistant: {a}"},
        {"{\"problem\":\"p\",\"solution\":\"s\",\"answer\":\"a\"}", "user: p | assistant: {s}"},
        /* lists as JSON text, as CSV has them */
        {"{\"messages\":\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"u\\\"}]\"}", "user: u"},
        {"{\"conversations\":\" [{\\\"from\\\":\\\"human\\\",\\\"value\\\":\\\"u\\\"}]\"}", "user: u"},
        {"{\"messages\":\"[{'role': 'user', 'content': 'u'}]\"}", "!messages: expected a list, or one as JSON text (Python"},
        {"{\"messages\":\"hello\"}", "!messages: expected a list of messages, found the string \"hello\""},
        {"{\"messages\":[]}", "!messages: no message in it"},
        {"{\"messages\":\"[]\"}", "!messages: no message in it"},
        {"{\"system\":\"s\",\"messages\":[]}", "!messages: no message in it"},
    };
    check_all(table, COUNT(table));
}

static void rows_of_another_shape(void **state)
{
    (void)state;
    struct config_dataset set = dataset_defaults();
    struct shape shape;
    struct chat c = {0};
    json_t *first, *other;
    static const struct { const char *first, *other, *says; } table[] = {
        {"{\"messages\":[" TURNS "]}", "{\"question\":\"q\",\"answer\":\"a\"}",
         "messages: found nothing; this row looks like question/answer, the data set is read as messages"},
        {"{\"question\":\"q\",\"answer\":\"a\"}", "{\"question\":null,\"answer\":null,\"text\":\"t\"}",
         "question: found null; this row looks like text, the data set is read as question/answer"},
        {"{\"text\":\"t\"}", "{\"instruction\":\"q\",\"output\":\"a\"}", "text: found nothing; this row looks like alpaca"},
        {"{\"input\":\"q\",\"output\":\"a\"}", "{\"chosen\":[],\"rejected\":[]}", "looks like preference rows (chosen, rejected)"},
        {"{\"input\":\"q\",\"output\":\"a\"}", "{\"input\":\"q\"}", "output: expected a string, found nothing"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        const char *text;
        size_t n;
        first = json_loads(table[i].first, 0, NULL);
        other = json_loads(table[i].other, 0, NULL);
        assert_int_equal(shape_detect(&set, first, &shape), ST_OK);
        status st = shape.kind == SHAPE_TEXT ? shape_text(&shape, other, &c, &text, &n) : shape_messages(&shape, other, &c);
        if (st != ST_DATA || !strstr(status_message(), table[i].says)) fail_msg("case %zu: %s", i, status_message());
        json_decref(first);
        json_decref(other);
    }
    chat_release(&c);
}

static void check_unused(const struct unused *u, const char *columns, const char *in_messages)
{
    const struct key_names *sets[2] = {&u->columns, &u->in_messages};
    const char *want[2] = {columns, in_messages};
    for (int k = 0; k < 2; k++) {
        struct buf b = {0};
        buf_text(&b, "");
        for (int i = 0; i < sets[k]->n; i++) buf_printf(&b, "%s%s", i ? " " : "", sets[k]->v[i]);
        assert_string_equal(b.data, want[k]);
        buf_release(&b);
    }
}

static void keys_that_nothing_uses(void **state)
{
    (void)state;
    static const struct { const char *row, *columns, *in_messages; } table[] = {
        {"{\"id\":1,\"source\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"u\",\"id\":2,\"ts\":3}]}", "id source", "id ts"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"u\",\"name\":\"n\",\"weight\":1}],\"tools\":[],\"system\":\"s\",\"x\":null}", "", ""},
        {"{\"prompt\":\"p\",\"completion\":\"c\",\"question\":\"q\",\"answer\":\"a\"}", "answer question", ""},
        {"{\"question\":\"q\",\"Question\":\"x\",\"answer\":\"a\"}", "Question", ""},
        {"{\"text\":\"t\",\"meta\":{},\"tools\":[1]}", "meta tools", ""},
        {"{\"instruction\":\"i\",\"output\":\"o\",\"text\":\"t\",\"category\":\"c\"}", "category text", ""},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"u\",\"markdown\":null,\"role2\":\"x\"}]}", "", "role2"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"u\",\"cache_control\":{}}]}]}", "", "cache_control"},
    };
    struct config_dataset set = dataset_defaults();
    for (size_t i = 0; i < COUNT(table); i++) {
        struct chat c = {0};
        json_t *row = NULL;
        if (read_row(&set, table[i].row, &c, &row)) fail_msg("%s: %s", table[i].row, status_message());
        check_unused(&c.unused, table[i].columns, table[i].in_messages);
        json_decref(row);
        chat_release(&c);
    }
    /* Over rows, in any order, the same; bounded. */
    struct unused ways[2] = {0}, all = {0};
    for (int i = 0; i < 200; i++) {
        for (int k = 0; k < 2; k++) {
            char *name = mem_printf("k%03d", k ? i : 199 - i);
            unused_add(&ways[k].columns, name, json_true());
            free(name);
        }
    }
    unused_merge(&all, &ways[1]);
    unused_merge(&all, &ways[0]);
    assert_int_equal(all.columns.n, UNUSED_MOST);
    assert_true(all.columns.more && ways[0].columns.more);
    for (int i = 0; i < UNUSED_MOST; i++) {
        assert_string_equal(ways[0].columns.v[i], ways[1].columns.v[i]);
        assert_string_equal(ways[0].columns.v[i], all.columns.v[i]);
    }
    unused_release(&ways[0]);
    unused_release(&ways[1]);
    unused_release(&all);
}

/* Order is judged where a rendering asks for it. */
static void order(void **state)
{
    (void)state;
    static const struct row_case table[] = {
        {ONE(U("u")), "messages: 1 message; a conversation needs"},
        {ONE(U("u") "," U("v") "," A("a")), "messages[1]: two user messages in a row"},
        {ONE(A("a") "," U("u")), "messages[0]: an assistant message must follow a user's or a tool's, this follows nothing"},
        {ONE(U("u") "," A("a") ",{\"role\":\"system\",\"content\":\"s\"}"), "messages[2]: a system message must come first"},
        {ONE(U("u") ",{\"role\":\"tool\",\"content\":\"s\"}"), "messages[1]: a tool's message must follow"},
        {"{\"system\":\"s\",\"messages\":[" A("a") "]}", "messages[0]: an assistant message must follow a user's or a tool's, this follows system"},
        {"{\"history\":[[\"q\",\"a\"]],\"prompt\":[" A("a") "],\"completion\":\"c\"}", "prompt[0]: an assistant message"},
        {ONE(TURNS), NULL},
    };
    struct config_dataset set = dataset_defaults();
    for (size_t i = 0; i < COUNT(table); i++) {
        struct chat c = {0};
        json_t *row = NULL;
        assert_int_equal(read_row(&set, table[i].row, &c, &row), ST_OK);
        status st = chat_check_order(&c);
        if (table[i].want ? st != ST_DATA || !strstr(status_message(), table[i].want) : st)
            fail_msg("%s: '%s' lacks '%s'", table[i].row, status_message(), table[i].want);
        json_decref(row);
        chat_release(&c);
    }
}

int main(void)
{
    log_init(0, 1, LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_on_turns), cmocka_unit_test(flags_refused), cmocka_unit_test(flags_of_a_row),
        cmocka_unit_test(plain_pairs), cmocka_unit_test(instructions), cmocka_unit_test(prompt_and_completion_messages),
        cmocka_unit_test(system_beside_every_shape), cmocka_unit_test(history), cmocka_unit_test(lost_things_are_refused),
        cmocka_unit_test(parts), cmocka_unit_test(roles), cmocka_unit_test(reasoning_and_calls),
        cmocka_unit_test(what_a_template_sees), cmocka_unit_test(shapes_in_order), cmocka_unit_test(rows_of_another_shape),
        cmocka_unit_test(keys_that_nothing_uses), cmocka_unit_test(order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
