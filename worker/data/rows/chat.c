/* chat.c — a row's conversation: growing it, what stands beside it in the row, its order, who is trained on. */
#include "worker/data/rows/chat.h"

#include <stdlib.h>
#include <string.h>

#include "worker/data/rows/chat_read.h"
#include "worker/data/rows/rows.h"

/* ---- messages --------------------------------------------------------------------------------------------------- */

static void drop(json_t **v)
{
    json_decref(*v);
    *v = NULL;
}

void chat_clear(struct chat *c)
{
    c->n = c->n_parts = 0;
    c->untrained = false;
    c->column = NULL;
    buf_clear(&c->prompt);
    drop(&c->json);
    drop(&c->tools);
    drop(&c->parsed);
}

void chat_release(struct chat *c)
{
    chat_clear(c);
    free(c->messages);
    free(c->parts);
    buf_release(&c->prompt);
    unused_release(&c->unused);
    *c = (struct chat){0};
}

void chat_begin(struct chat *c, enum role role, bool trained, bool ends_turn)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 8;
        c->messages = mem_grow(c->messages, (size_t)c->cap * sizeof *c->messages);
    }
    c->messages[c->n++] = (struct message){.role = role, .trained = trained, .ends_turn = ends_turn, .first = c->n_parts, .at = -1};
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

status chat_say(struct chat *c, enum role role, const char *text, size_t n)
{
    json_t *message = json_object(), *content = json_stringn(text, n);
    chat_begin(c, role, false, role != ROLE_TOOL);
    chat_part(c, text, n, false);
    json_object_set_new(message, "role", json_string(role_name(role)));
    if (json_object_set_new(message, "content", content) || json_array_append_new(c->json, message))
        FAIL(ST_DATA, "a %s message is not UTF-8 text", role_name(role));
    return ST_OK;
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

/* ---- order and mask --------------------------------------------------------------------------------------------- */

struct at_text {
    char text[80];
};

static struct at_text at(const struct message *m)
{
    struct at_text t;
    if (m->column && m->at >= 0)
        snprintf(t.text, sizeof t.text, "%.50s[%d]", m->column, m->at);
    else
        snprintf(t.text, sizeof t.text, "%.50s", m->column ? m->column : "the system prompt");
    return t;
}

status chat_check_order(const struct chat *c)
{
    if (c->n < 2)
        FAIL(ST_DATA, "%s: %d message%s; a conversation needs a user and an assistant message", c->column, c->n, c->n == 1 ? "" : "s");
    for (int i = 0; i < c->n; i++) {
        const struct message *m = &c->messages[i];
        enum role role = m->role, last = i ? m[-1].role : ROLE_COUNT;
        if (role == ROLE_SYSTEM && i > 0) FAIL(ST_DATA, "%s: a system message must come first; move it", at(m).text);
        if (role == ROLE_ASSISTANT && last != ROLE_USER && last != ROLE_TOOL)
            FAIL(ST_DATA,
                 "%s: an assistant message must follow a user's or a tool's, this follows %s; join or remove "
                 "it",
                 at(m).text, i ? role_name(last) : "nothing");
        if (role == ROLE_USER && last == ROLE_USER) FAIL(ST_DATA, "%s: two user messages in a row; join them", at(m).text);
        if (role == ROLE_TOOL && last != ROLE_ASSISTANT && last != ROLE_TOOL)
            FAIL(ST_DATA, "%s: a tool's message must follow an assistant's", at(m).text);
    }
    return ST_OK;
}

static void mask(struct chat *c, enum masking masking)
{
    bool last_seen = false;
    for (int i = c->n - 1; i >= 0; i--) {
        struct message *m = &c->messages[i];
        bool assistant = m->role == ROLE_ASSISTANT;
        if (m->role == ROLE_SYSTEM)
            m->trained = false;
        else if (masking == MASK_TRAIN_ON_ALL)
            m->trained = true;
        else if (masking == MASK_TRAIN_ON_LAST)
            m->trained = assistant && !last_seen && !m->context;
        else
            m->trained = assistant && !m->context;
        if (m->said) m->trained = m->said > 0;
        if (c->untrained) m->trained = false;
        last_seen |= assistant;
    }
}

/* ---- what stands beside the conversation ------------------------------------------------------------------------ */

/* Two keys for one thing are fine as long as they say the same. */
static status take_one(const json_t **have, const char **have_key, const char *key, const json_t *value)
{
    if (!is_said(value)) return ST_OK;
    if (*have && !json_equal(*have, value)) FAIL(ST_DATA, "%s and %s say different things; keep one", *have_key, key);
    *have = value;
    *have_key = key;
    return ST_OK;
}

static status take_key(const struct shape *s, const struct key *key, const char *name, const json_t *value, struct beside *b,
                       struct chat *c)
{
    switch (key->use) {
    case USE_SYSTEM:
        return take_one(&b->system, &b->system_key, name, value);
    case USE_HISTORY:
        return take_one(&b->history, &b->history_key, name, value);
    case USE_CONTEXT:
        return take_one(&b->context, &b->context_key, name, value);
    case USE_REASONING:
        return take_one(&b->reasoning, &b->reasoning_key, name, value);
    case USE_TOOLS:
        b->tools = value;
        break;
    case USE_FUNCTIONS:
        b->functions = value;
        break;
    case USE_WEIGHT:
    case USE_TRAIN:
    case USE_MASKED:
        return flags_read(&b->flags, key, name, value, "");
    case USE_CONTENT:
        if (!s->mapped) return refuse_said(key, name, value, "");
        unused_add(&c->unused.columns, name, value);
        break;
    case USE_REFUSED:
        return refuse_said(key, name, value, "");
    case USE_CALLS:
    case USE_CALL:
    case USE_EXTRA:
    case USE_PASSED:
        break; /* of messages only */
    }
    return ST_OK;
}

/* Every key of the row but its columns. */
static status look_beside(const struct shape *s, const json_t *row, struct beside *b, struct chat *c)
{
    static const enum key_place places[] = {
        [SHAPE_CHAT] = IN_CHAT, [SHAPE_ALPACA] = IN_PAIR, [SHAPE_PAIR] = IN_PAIR, [SHAPE_TEXT] = IN_TEXT};
    const json_t *columns[3] = {0};
    for (int i = 0; i < 3; i++)
        if (s->columns[i]) columns[i] = row_column(row, s->columns[i]);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)row, name, value)
    {
        if (value == columns[0] || value == columns[1] || value == columns[2]) continue;
        const struct key *key = key_find(name, places[s->kind]);
        if (key)
            TRY(take_key(s, key, name, value, b, c));
        else
            unused_add(&c->unused.columns, name, value);
    }
    c->untrained = b->flags.off != NULL;
    return ST_OK;
}

static status take_tools(const struct beside *b, struct chat *c)
{
    const json_t *tools, *functions, *f;
    size_t i;
    TRY(read_list("", "tools", b->tools, c, &tools));
    TRY(read_list("", "functions", b->functions, c, &functions));
    if (tools && functions) FAIL(ST_DATA, "tools and functions: both describe tools; keep one");
    const json_t *list = tools ? tools : functions;
    json_array_foreach(list, i, f) if (!json_is_object(f))
        FAIL(ST_DATA, "%s[%zu]: expected an object that describes a tool, found %s", tools ? "tools" : "functions", i, json_says(f));
    if (tools) c->tools = json_incref((json_t *)tools);
    if (!functions) return ST_OK;
    c->tools = json_array();
    json_array_foreach(functions, i, f) json_array_append_new(c->tools, wrap_function(f));
    return ST_OK;
}

/* The row's system prompt stands in front; a conversation's own that says the same is the one that stays. */
static status one_system(const struct beside *b, struct chat *c)
{
    if (c->n < 2 || c->messages[0].role != ROLE_SYSTEM || c->messages[1].role != ROLE_SYSTEM) return ST_OK;
    const json_t *ours = json_object_get(json_array_get(c->json, 0), "content");
    const json_t *theirs = json_object_get(json_array_get(c->json, 1), "content");
    if (!json_equal(ours, theirs))
        FAIL(ST_DATA, "%s: the conversation has another system message, %s; keep one, or set dataset.new_system_prompt", b->system_key,
             at(&c->messages[1]).text);
    json_array_remove(c->json, 0);
    memmove(c->messages, c->messages + 1, (size_t)--c->n * sizeof *c->messages);
    return ST_OK;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static status need_object(const json_t *row)
{
    if (!json_is_object(row)) FAIL(ST_DATA, "a row is an object {\"column\": value, …}, found %s", json_says(row));
    return ST_OK;
}

/* A row without the data set's columns may have those of another shape. */
static status need_shape(const struct shape *s, const json_t *row)
{
    for (int i = 0; i < s->required; i++) {
        const json_t *v = row_column(row, s->columns[i]);
        if (v && !json_is_null(v)) continue;
        const char *other = shape_of(row);
        if (other && strcmp(other, s->name))
            FAIL(ST_DATA,
                 "%s: found %s; this row looks like %s, the data set is read as %s (as its first row has it); "
                 "put the rows of each shape into a file and give each its own dataset",
                 s->columns[i], json_says(v), other, s->name);
    }
    return ST_OK;
}

static status read_turns(const struct shape *s, const json_t *row, struct chat *c)
{
    static status (*const read[])(const struct shape *, const json_t *, const struct beside *,
                                  struct chat *) = {[SHAPE_CHAT] = read_chat, [SHAPE_ALPACA] = read_alpaca, [SHAPE_PAIR] = read_pair};
    struct beside b = {0};
    TRY(need_object(row));
    TRY(need_shape(s, row));
    TRY(look_beside(s, row, &b, c));
    TRY(take_tools(&b, c));
    c->column = s->columns[0];
    if (s->system)
        TRY(chat_say(c, ROLE_SYSTEM, s->system, strlen(s->system)));
    else if (b.system)
        TRY(read_system(b.system_key, b.system, c));
    if (b.history) TRY(read_history(s, b.history_key, b.history, c));
    int before = c->n;
    TRY(read[s->kind](s, row, &b, c));
    if (c->n == before) FAIL(ST_DATA, "%s: no message in it; a conversation needs at least one", c->column);
    if (b.system && !s->system) TRY(one_system(&b, c));
    mask(c, s->masking);
    return ST_OK;
}

status shape_messages(const struct shape *s, const json_t *row, struct chat *c)
{
    chat_clear(c);
    c->json = json_array();
    c->parsed = json_array();
    status st = read_turns(s, row, c);
    if (st) drop(&c->json);
    return st;
}

status shape_text(const struct shape *s, const json_t *row, struct chat *c, const char **text, size_t *n)
{
    struct beside b = {0};
    chat_clear(c);
    TRY(need_object(row));
    TRY(need_shape(s, row));
    TRY(look_beside(s, row, &b, c));
    return column_string(row, s->columns[0], text, n);
}
