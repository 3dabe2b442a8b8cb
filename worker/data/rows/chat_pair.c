/* chat_pair.c — rows that are a list of messages, a prompt and its answer, or an instruction in alpaca's words. */
#include <string.h>

#include "worker/data/rows/chat_read.h"
#include "worker/data/rows/rows.h"

status column_string(const json_t *row, const char *column, const char **text, size_t *n)
{
    const json_t *v = row_column(row, column);
    if (!json_is_string(v))
        FAIL(ST_DATA, "%s: expected a string, found %s; %s", column, json_says(v),
             v ? "quote the value or map another column" : "every row needs this column (dataset.column_map renames)");
    *text = json_string_value(v);
    *n = json_string_length(v);
    return ST_OK;
}

status read_list(const char *place, const char *key, const json_t *value, struct chat *c, const json_t **list)
{
    *list = NULL;
    if (!is_said(value)) return ST_OK;
    if (json_is_string(value)) {
        json_t *parsed;
        if (rows_parse(json_string_value(value), json_string_length(value), &parsed))
            return status_prefix(ST_DATA,
                                 "%s%s: expected a list, or one as JSON text (Python's own way of writing lists "
                                 "is not JSON)",
                                 place, key);
        json_array_append_new(c->parsed, parsed);
        value = parsed;
    }
    if (!json_is_array(value)) FAIL(ST_DATA, "%s%s: expected a list, found %s", place, key, json_says(value));
    if (json_array_size(value)) *list = value;
    return ST_OK;
}

static bool is_message_list(const json_t *v)
{
    const json_t *first = json_array_get(v, 0);
    return json_object_get(first, "role") || json_object_get(first, "from");
}

static status say_column(struct chat *c, enum role role, const char *column, const char *text, size_t n)
{
    TRY(chat_say(c, role, text, n));
    c->messages[c->n - 1].column = column;
    return ST_OK;
}

status read_chat(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c)
{
    const char *column = s->columns[0], *text;
    const json_t *list = row_column(row, column);
    (void)b;
    if (json_is_string(list)) {
        text = json_string_value(list);
        if (text[strspn(text, " \t\r\n")] == '[')
            TRY(read_list("", column, list, c, &list));
        else
            FAIL(ST_DATA, "%s: expected a list of messages, found %s", column, json_says(list));
    } else if (!json_is_array(list)) {
        FAIL(ST_DATA, "%s: expected a list of messages, found %s", column, json_says(list));
    }
    return list ? read_messages(s, column, list, false, c) : ST_OK;
}

/* ---- earlier turns ---------------------------------------------------------------------------------------------- */

static const json_t *either(const json_t *turn, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (row_column(turn, words[i])) return row_column(turn, words[i]);
    return NULL;
}

static status read_turn(const char *column, size_t i, const json_t *turn, struct chat *c)
{
    static const char *const asks[] = {"user", "human", "prompt", "question", "instruction", "query", "input"};
    static const char *const says[] = {"assistant", "gpt", "bot", "response", "answer", "output", "completion"};
    bool list = json_is_array(turn);
    const json_t *both[2] = {list ? json_array_get(turn, 0) : either(turn, asks, sizeof asks / sizeof *asks),
                             list ? json_array_get(turn, 1) : either(turn, says, sizeof says / sizeof *says)};
    size_t size = list ? json_array_size(turn) : json_object_size(turn);
    if (size != 2 || !json_is_string(both[0]) || !json_is_string(both[1]))
        FAIL(ST_DATA,
             "%s[%zu]: expected [\"question\", \"answer\"], {\"user\": …, \"assistant\": …} or a message, "
             "found %s",
             column, i, json_says(turn));
    for (int k = 0; k < 2; k++) {
        TRY(chat_say(c, k ? ROLE_ASSISTANT : ROLE_USER, json_string_value(both[k]), json_string_length(both[k])));
        c->messages[c->n - 1].column = column;
        c->messages[c->n - 1].at = (int)i;
    }
    return ST_OK;
}

status read_history(const struct shape *s, const char *column, const json_t *value, struct chat *c)
{
    const json_t *list, *turn;
    size_t i;
    TRY(read_list("", column, value, c, &list));
    if (is_message_list(list)) return read_messages(s, column, list, false, c);
    json_array_foreach(list, i, turn) TRY(read_turn(column, i, turn, c));
    return ST_OK;
}

/* ---- pairs ------------------------------------------------------------------------------------------------------ */

static status take_reasoning(const struct beside *b, struct chat *c)
{
    if (!b->reasoning) return ST_OK;
    struct message *m = &c->messages[c->n - 1];
    if (m->role != ROLE_ASSISTANT) FAIL(ST_DATA, "%s: the row has no answer it could belong to; remove it", b->reasoning_key);
    m->extras = true;
    json_object_set(json_array_get(c->json, (size_t)c->n - 1), b->reasoning_key, (json_t *)b->reasoning);
    return ST_OK;
}

static status beside_text(const char *key, const json_t *value, const char **text, size_t *n)
{
    if (!json_is_string(value)) FAIL(ST_DATA, "%s: expected a string, found %s; write it as text", key, json_says(value));
    *text = json_string_value(value);
    *n = json_string_length(value);
    return ST_OK;
}

/* What the question is about stands in front of it. c->prompt is complete before a part points into it. */
static status read_prompt(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c)
{
    const char *column = s->columns[0], *text, *context;
    const json_t *value = row_column(row, column);
    size_t n, n_context;
    if (is_message_list(value)) {
        if (b->context)
            FAIL(ST_DATA, "%s: beside a list of messages it has no place; write it into a message, or remove it", b->context_key);
        return read_messages(s, column, value, true, c);
    }
    TRY(column_string(row, column, &text, &n));
    if (b->context) {
        TRY(beside_text(b->context_key, b->context, &context, &n_context));
        buf_add(&c->prompt, context, n_context);
        buf_text(&c->prompt, "\n\n");
        buf_add(&c->prompt, text, n);
        text = c->prompt.data;
        n = c->prompt.len;
    }
    return say_column(c, ROLE_USER, column, text, n);
}

static status read_answer(const struct shape *s, const json_t *row, struct chat *c)
{
    const char *column = s->columns[1], *text;
    const json_t *value = row_column(row, column), *only = json_array_get(value, 0);
    size_t n;
    if (is_message_list(value)) return read_messages(s, column, value, false, c);
    if (!strcasecmp(column, "answers") && json_array_size(value) == 1 && json_is_string(only))
        return say_column(c, ROLE_ASSISTANT, column, json_string_value(only), json_string_length(only));
    TRY(column_string(row, column, &text, &n));
    return say_column(c, ROLE_ASSISTANT, column, text, n);
}

status read_pair(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c)
{
    TRY(read_prompt(s, row, b, c));
    TRY(read_answer(s, row, c));
    return take_reasoning(b, c);
}

/* Dolly calls the input "context". */
static status alpaca_input(const struct shape *s, const json_t *row, const struct beside *b, const char **input, size_t *n)
{
    const json_t *v = row_column(row, s->columns[2]);
    *n = 0;
    if (v && !json_is_null(v)) TRY(column_string(row, s->columns[2], input, n));
    if (!b->context) return ST_OK;
    if (*n) FAIL(ST_DATA, "%s and %s: both would be the input; join them into one", s->columns[2], b->context_key);
    return beside_text(b->context_key, b->context, input, n);
}

status read_alpaca(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c)
{
    const char *instruction, *input = NULL, *output;
    size_t n_instruction, n_input, n_output;
    TRY(column_string(row, s->columns[0], &instruction, &n_instruction));
    TRY(column_string(row, s->columns[1], &output, &n_output));
    TRY(alpaca_input(s, row, b, &input, &n_input));
    buf_text(&c->prompt, "Below is an instruction that describes a task");
    if (n_input) buf_text(&c->prompt, ", paired with an input that provides further context");
    buf_text(&c->prompt, ". Write a response that appropriately completes the request.\n\n### Instruction:\n");
    buf_add(&c->prompt, instruction, n_instruction);
    if (n_input) {
        buf_text(&c->prompt, "\n\n### Input:\n");
        buf_add(&c->prompt, input, n_input);
    }
    buf_text(&c->prompt, "\n\n### Response:\n");
    TRY(say_column(c, ROLE_USER, s->columns[0], c->prompt.data, c->prompt.len));
    TRY(say_column(c, ROLE_ASSISTANT, s->columns[1], output, n_output));
    return take_reasoning(b, c);
}
