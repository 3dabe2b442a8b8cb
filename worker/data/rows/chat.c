/* chat.c — messages: growing them, reading them out of a row, checking their order, deciding who is trained on. */
#include "worker/data/rows/chat.h"

#include <stdlib.h>
#include <string.h>

#include "worker/data/rows/rows.h"

void chat_clear(struct chat *c)
{
    c->n = c->n_parts = 0;
    buf_clear(&c->prompt);
}

void chat_release(struct chat *c)
{
    free(c->messages);
    free(c->parts);
    buf_release(&c->prompt);
    *c = (struct chat){0};
}

void chat_begin(struct chat *c, enum role role, bool trained, bool ends_turn)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 8;
        c->messages = mem_grow(c->messages, (size_t)c->cap * sizeof *c->messages);
    }
    c->messages[c->n++] =
        (struct message){.role = role, .trained = trained, .ends_turn = ends_turn, .first = c->n_parts};
}

void chat_part(struct chat *c, const char *text, size_t n, bool literal)
{
    if (c->n_parts == c->cap_parts) {
        c->cap_parts = c->cap_parts ? c->cap_parts * 2 : 16;
        c->parts = mem_grow(c->parts, (size_t)c->cap_parts * sizeof *c->parts);
    }
    c->parts[c->n_parts++] = (struct part){.text = text, .n = n, .literal = literal};
    c->messages[c->n - 1].n++;
}

const char *role_name(enum role role)
{
    static const char *const names[ROLE_COUNT] = {"system", "user", "assistant", "ipython"};
    return names[role];
}

const char *masking_name(enum masking m)
{
    static const char *const names[] = {"default", "train_on_all", "train_on_assistant", "train_on_last"};
    return names[m];
}

static const struct {
    const char *name;
    enum role role;
} role_words[] = {
    {"system", ROLE_SYSTEM},       {"user", ROLE_USER}, {"assistant", ROLE_ASSISTANT},
    {"tool", ROLE_TOOL},           {"ipython", ROLE_TOOL},
    {"human", ROLE_USER},          {"gpt", ROLE_ASSISTANT}, /* sharegpt */
};

static status read_role(const json_t *value, const char *column, size_t i, const char *key, enum role *role)
{
    const char *word = json_string_value(value);
    for (size_t k = 0; word && k < sizeof role_words / sizeof *role_words; k++) {
        if (strcmp(word, role_words[k].name)) continue;
        *role = role_words[k].role;
        return ST_OK;
    }
    FAIL(ST_DATA, "%s[%zu].%s: unknown role: %s; use system, user, assistant or tool (sharegpt: system, human, gpt)",
         column, i, key, json_says(value));
}

static status read_content(const json_t *value, const char *column, size_t i, const char *key, struct chat *c)
{
    if (json_is_string(value)) {
        chat_part(c, json_string_value(value), json_string_length(value), false);
        return ST_OK;
    }
    if (!json_is_array(value))
        FAIL(ST_DATA, "%s[%zu].%s: expected a string or a list of {\"type\": \"text\"} parts, found %s; give the "
             "message a text", column, i, key, json_says(value));
    size_t k;
    const json_t *part;
    json_array_foreach(value, k, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_object_get(part, "text");
        if (!type || strcmp(type, "text"))
            FAIL(ST_DATA, "%s[%zu].%s[%zu]: a part of type %s: only text can be trained on; remove it", column, i, key,
                 k, type ? type : json_says(json_object_get(part, "type")));
        if (!json_is_string(text))
            FAIL(ST_DATA, "%s[%zu].%s[%zu].text: expected a string, found %s", column, i, key, k, json_says(text));
        chat_part(c, json_string_value(text), json_string_length(text), false);
    }
    return ST_OK;
}

static status read_message(const struct shape *s, const json_t *message, size_t i, struct chat *c)
{
    const char *column = s->columns[0], *role_key = s->sharegpt ? "from" : "role";
    const char *content_key = s->sharegpt ? "value" : "content";
    if (!json_is_object(message))
        FAIL(ST_DATA, "%s[%zu]: expected an object with %s and %s, found %s", column, i, role_key, content_key,
             json_says(message));
    const json_t *calls = json_object_get(message, "tool_calls");
    if (calls && !json_is_null(calls) && json_array_size(calls))
        FAIL(ST_DATA, "%s[%zu].tool_calls: structured tool calls are not rendered; write the call into %s as the model "
             "shall say it", column, i, content_key);
    if (!json_object_get(message, role_key))
        FAIL(ST_DATA, "%s[%zu]: no \"%s\"; a message is {\"%s\": …, \"%s\": …} (dataset.conversation_style)", column, i,
             role_key, role_key, content_key);
    enum role role = ROLE_USER;
    TRY(read_role(json_object_get(message, role_key), column, i, role_key, &role));
    if (role == ROLE_SYSTEM && s->system) return ST_OK;
    chat_begin(c, role, false, role != ROLE_TOOL);
    if (!json_object_get(message, content_key))
        FAIL(ST_DATA, "%s[%zu]: no \"%s\"; a message is {\"%s\": …, \"%s\": …} (dataset.conversation_style)", column, i,
             content_key, role_key, content_key);
    TRY(read_content(json_object_get(message, content_key), column, i, content_key, c));
    if (role == ROLE_TOOL && c->n > 1) c->messages[c->n - 2].ends_turn = false;
    return ST_OK;
}

/* A conversation alternates: [system] user assistant user assistant …; tools answer assistants. */
static status check_order(const struct chat *c, const char *column)
{
    if (c->n < 2)
        FAIL(ST_DATA, "%s: %d message%s; a conversation needs a user and an assistant message", column, c->n,
             c->n == 1 ? "" : "s");
    for (int i = 0; i < c->n; i++) {
        enum role role = c->messages[i].role, last = i ? c->messages[i - 1].role : ROLE_COUNT;
        if (role == ROLE_SYSTEM && i > 0) FAIL(ST_DATA, "%s[%d]: a system message must come first; move it", column, i);
        if (role == ROLE_ASSISTANT && last != ROLE_USER && last != ROLE_TOOL)
            FAIL(ST_DATA, "%s[%d]: an assistant message must follow a user's or a tool's, this follows %s; "
                 "join or remove it", column, i, i ? role_name(last) : "nothing");
        if (role == ROLE_USER && last == ROLE_USER)
            FAIL(ST_DATA, "%s[%d]: two user messages in a row; join them", column, i);
        if (role == ROLE_TOOL && last != ROLE_ASSISTANT && last != ROLE_TOOL)
            FAIL(ST_DATA, "%s[%d]: a tool's message must follow an assistant's", column, i);
    }
    return ST_OK;
}

static void mask(struct chat *c, enum masking masking)
{
    bool last_seen = false;
    for (int i = c->n - 1; i >= 0; i--) {
        struct message *m = &c->messages[i];
        bool assistant = m->role == ROLE_ASSISTANT;
        if (m->role == ROLE_SYSTEM) m->trained = false;
        else if (masking == MASK_TRAIN_ON_ALL) m->trained = true;
        else if (masking == MASK_TRAIN_ON_LAST) m->trained = assistant && !last_seen;
        else m->trained = assistant;
        last_seen |= assistant;
    }
}

static status column_string(const json_t *row, const char *column, const char **text, size_t *n)
{
    const json_t *v = json_object_get(row, column);
    if (!json_is_string(v))
        FAIL(ST_DATA, "%s: expected a string, found %s; %s", column, json_says(v),
             v ? "quote the value or map another column" : "every row needs this column (dataset.column_map renames)");
    *text = json_string_value(v);
    *n = json_string_length(v);
    return ST_OK;
}

static void add_system(const struct shape *s, struct chat *c)
{
    if (!s->system) return;
    chat_begin(c, ROLE_SYSTEM, false, true);
    chat_part(c, s->system, strlen(s->system), false);
}

static status read_chat(const struct shape *s, const json_t *row, struct chat *c)
{
    const json_t *list = json_object_get(row, s->columns[0]), *message;
    const json_t *tools = json_object_get(row, "tools");
    if (!json_is_array(list))
        FAIL(ST_DATA, "%s: expected a list of messages, found %s", s->columns[0], json_says(list));
    const char *listed = json_string_value(tools);
    if (json_array_size(tools) || (listed && *listed && strcmp(listed, "[]")))
        FAIL(ST_DATA, "tools: tool descriptions are not rendered; write them into the system message");
    size_t i;
    json_array_foreach(list, i, message) TRY(read_message(s, message, i, c));
    return check_order(c, s->columns[0]);
}

/* The prompt goes through c->prompt: it is complete before a part points into it. */
static status read_alpaca(const struct shape *s, const json_t *row, struct chat *c)
{
    const char *instruction, *input = NULL, *output;
    size_t n_instruction, n_input = 0, n_output;
    TRY(column_string(row, s->columns[0], &instruction, &n_instruction));
    TRY(column_string(row, s->columns[1], &output, &n_output));
    const json_t *v = json_object_get(row, s->columns[2]);
    if (v && !json_is_null(v)) TRY(column_string(row, s->columns[2], &input, &n_input));
    buf_text(&c->prompt, "Below is an instruction that describes a task");
    if (n_input) buf_text(&c->prompt, ", paired with an input that provides further context");
    buf_text(&c->prompt, ". Write a response that appropriately completes the request.\n\n### Instruction:\n");
    buf_add(&c->prompt, instruction, n_instruction);
    if (n_input) {
        buf_text(&c->prompt, "\n\n### Input:\n");
        buf_add(&c->prompt, input, n_input);
    }
    buf_text(&c->prompt, "\n\n### Response:\n");
    chat_begin(c, ROLE_USER, false, true);
    chat_part(c, c->prompt.data, c->prompt.len, false);
    chat_begin(c, ROLE_ASSISTANT, false, true);
    chat_part(c, output, n_output, false);
    return ST_OK;
}

static status read_pair(const struct shape *s, const json_t *row, struct chat *c)
{
    static const enum role roles[2] = {ROLE_USER, ROLE_ASSISTANT};
    for (int i = 0; i < 2; i++) {
        const char *text;
        size_t n;
        TRY(column_string(row, s->columns[i], &text, &n));
        chat_begin(c, roles[i], false, true);
        chat_part(c, text, n, false);
    }
    return ST_OK;
}

static status need_object(const json_t *row)
{
    if (!json_is_object(row)) FAIL(ST_DATA, "a row is an object {\"column\": value, …}, found %s", json_says(row));
    return ST_OK;
}

status shape_messages(const struct shape *s, const json_t *row, struct chat *c)
{
    TRY(need_object(row));
    chat_clear(c);
    add_system(s, c);
    static status (*const read[])(const struct shape *, const json_t *, struct chat *) = {
        [SHAPE_CHAT] = read_chat, [SHAPE_ALPACA] = read_alpaca, [SHAPE_PAIR] = read_pair};
    TRY(read[s->kind](s, row, c));
    mask(c, s->masking);
    return ST_OK;
}

status shape_text(const struct shape *s, const json_t *row, const char **text, size_t *n)
{
    TRY(need_object(row));
    return column_string(row, s->columns[0], text, n);
}
