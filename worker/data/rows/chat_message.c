/* chat_message.c — lists of messages, in the openai style (role, content) and the sharegpt style (from, value). */
#include <string.h>
#include <strings.h>

#include "worker/data/rows/chat_read.h"
#include "worker/data/rows/rows.h"

struct style {
    const char *role, *content;
};
static const struct style styles[2] = {{"role", "content"}, {"from", "value"}}; /* [sharegpt] */

/* What a role is called, whatever the letter case. `written`: chat templates know it under this name. */
static const struct role_word {
    const char *name, *written;
    enum role role;
    bool call; /* the content is a call, as JSON text */
} role_words[] = {
    {"system", "system", ROLE_SYSTEM, false},
    {"developer", "developer", ROLE_SYSTEM, false},
    {"user", "user", ROLE_USER, false},
    {"human", "user", ROLE_USER, false},
    {"prompter", "user", ROLE_USER, false},
    {"assistant", "assistant", ROLE_ASSISTANT, false},
    {"gpt", "assistant", ROLE_ASSISTANT, false},
    {"model", "assistant", ROLE_ASSISTANT, false},
    {"bot", "assistant", ROLE_ASSISTANT, false},
    {"chatgpt", "assistant", ROLE_ASSISTANT, false},
    {"bing", "assistant", ROLE_ASSISTANT, false},
    {"bard", "assistant", ROLE_ASSISTANT, false},
    {"function_call", "assistant", ROLE_ASSISTANT, true},
    {"tool_call", "assistant", ROLE_ASSISTANT, true},
    {"tool", "tool", ROLE_TOOL, false},
    {"ipython", "ipython", ROLE_TOOL, false},
    {"function", "tool", ROLE_TOOL, false},
    {"observation", "tool", ROLE_TOOL, false},
    {"function_response", "tool", ROLE_TOOL, false},
    {"tool_response", "tool", ROLE_TOOL, false},
};

struct reading {
    const struct style *style;
    struct chat *c;
    json_t *out;         /* the message in c->json */
    char place[96];      /* "messages[1]." */
    bool called;         /* it has calls */
    const char *thought; /* the key of its reasoning, NULL: none */
    struct flags flags;
};

static status read_role(const struct reading *r, const json_t *value, const struct role_word **out)
{
    const char *word = json_string_value(value);
    for (size_t k = 0; word && k < sizeof role_words / sizeof *role_words; k++) {
        if (strcasecmp(word, role_words[k].name)) continue;
        *out = &role_words[k];
        return ST_OK;
    }
    FAIL(ST_DATA, "%s%s: unknown role: %s; use system, user, assistant or tool (sharegpt: system, human, gpt)", r->place, r->style->role,
         json_says(value));
}

/* ---- content ---------------------------------------------------------------------------------------------------- */

/* Of a part that is an object. */
static status part_text(const char *place, const char *key, size_t k, const json_t *part, struct chat *c, const json_t **text)
{
    static const char *const words[] = {"text", "value", "content"};
    const char *type = json_string_value(json_object_get(part, "type")), *name;
    json_t *value;
    *text = NULL;
    for (size_t i = 0; !json_is_string(*text) && i < sizeof words / sizeof *words; i++) *text = json_object_get(part, words[i]);
    if (type ? strcmp(type, "text") && strcmp(type, "input_text") && strcmp(type, "output_text") : !*text)
        FAIL(ST_DATA, "%s%s[%zu]: a part of type %s: only text can be trained on; remove it", place, key, k,
             type ? type : json_says(json_object_get(part, "type")));
    if (!json_is_string(*text))
        FAIL(ST_DATA, "%s%s[%zu].text: expected a string, found %s", place, key, k, json_says(json_object_get(part, "text")));
    json_object_foreach((json_t *)part, name, value)
    {
        const struct key *known = key_find(name, IN_MESSAGE);
        if (value == *text || !strcmp(name, "type")) continue;
        if (known && known->use == USE_REFUSED) TRY(refuse_said(known, name, value, place));
        unused_add(&c->unused.in_messages, name, value);
    }
    return ST_OK;
}

static status read_part(const char *place, const char *key, size_t k, const json_t *part, struct chat *c, struct buf *joined)
{
    const json_t *text = part;
    if (json_is_object(part)) TRY(part_text(place, key, k, part, c, &text));
    if (!json_is_string(text))
        FAIL(ST_DATA, "%s%s[%zu]: expected a part {\"type\": \"text\", \"text\": …}, found %s", place, key, k, json_says(part));
    chat_part(c, json_string_value(text), json_string_length(text), false);
    buf_add(joined, json_string_value(text), json_string_length(text));
    return ST_OK;
}

/* Parts of the last message, and its content as one string (a new reference). */
static status read_content(const char *place, const char *key, const json_t *value, struct chat *c, json_t **text)
{
    struct buf joined = {0};
    const json_t *part;
    size_t k;
    status st = ST_OK;
    if (json_is_string(value)) {
        chat_part(c, json_string_value(value), json_string_length(value), false);
        *text = json_incref((json_t *)value);
        return ST_OK;
    }
    if (!json_is_array(value))
        FAIL(ST_DATA,
             "%s%s: expected a string or a list of {\"type\": \"text\"} parts, found %s; give the message a "
             "text",
             place, key, json_says(value));
    buf_text(&joined, "");
    json_array_foreach(value, k, part) TRY_DONE(read_part(place, key, k, part, c, &joined));
    *text = json_stringn(joined.data, joined.len);
done:
    buf_release(&joined);
    return st;
}

status read_system(const char *column, const json_t *value, struct chat *c)
{
    json_t *message = json_pack("{s:s}", "role", "system"), *text;
    chat_begin(c, ROLE_SYSTEM, false, true);
    c->messages[c->n - 1].column = column;
    json_array_append_new(c->json, message);
    TRY(read_content("", column, value, c, &text));
    json_object_set_new(message, "content", text);
    return ST_OK;
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

json_t *wrap_function(const json_t *function)
{
    const json_t *type = json_object_get(function, "type");
    if (json_is_string(type) && json_object_get(function, "function")) return json_incref((json_t *)function);
    return json_pack("{s:s, s:O}", "type", "function", "function", function);
}

static status add_call(struct reading *r, const char *key, const json_t *call)
{
    if (!json_is_object(call) || !json_is_string(json_object_get(call, "name")))
        FAIL(ST_DATA, "%s%s: expected a call {\"name\": …, \"arguments\": …}, found %s", r->place, key, json_says(call));
    json_t *calls = json_object_get(r->out, "tool_calls");
    if (!json_is_array(calls)) {
        calls = json_array();
        json_object_set_new(r->out, "tool_calls", calls);
    }
    json_array_append_new(calls, wrap_function(call));
    return ST_OK;
}

/* sharegpt's function_call turn: its value is a call, or a list of them, as JSON text. */
static status read_call_turn(struct reading *r, const json_t *value)
{
    const char *key = r->style->content;
    const json_t *call = value, *each;
    json_t *parsed;
    size_t i;
    if (json_is_string(value)) {
        if (rows_parse(json_string_value(value), json_string_length(value), &parsed))
            return status_prefix(ST_DATA, "%s%s: the call is not JSON", r->place, key);
        json_array_append_new(r->c->parsed, parsed);
        call = parsed;
    }
    if (!json_is_array(call))
        TRY(add_call(r, key, call));
    else
        json_array_foreach(call, i, each) TRY(add_call(r, key, each));
    r->called = true;
    json_object_set_new(r->out, "content", json_string(""));
    chat_part(r->c, "", 0, false);
    return ST_OK;
}

static status take_calls(struct reading *r, const char *name, const json_t *value)
{
    const json_t *list, *call;
    size_t i;
    TRY(read_list(r->place, name, value, r->c, &list));
    if (!list && !r->called) json_object_set(r->out, name, (json_t *)value);
    if (!list) return ST_OK;
    json_array_foreach(list, i, call) if (!json_is_object(call))
        FAIL(ST_DATA, "%s%s[%zu]: expected an object that is a call, found %s", r->place, name, i, json_says(call));
    if (r->called) FAIL(ST_DATA, "%s%s: the message has another call beside; keep one", r->place, name);
    json_object_set(r->out, "tool_calls", (json_t *)list);
    r->called = true;
    return ST_OK;
}

static status take_call(struct reading *r, const char *name, const json_t *value)
{
    if (!is_said(value)) return ST_OK;
    if (r->called) FAIL(ST_DATA, "%s%s: the message has another call beside; keep one", r->place, name);
    TRY(add_call(r, name, value));
    r->called = true;
    return ST_OK;
}

/* ---- one message ------------------------------------------------------------------------------------------------ */

/* A template renders one of them; the others would be lost. */
static status one_reasoning(struct reading *r, const char *name, const json_t *value)
{
    if (!is_said(value)) return ST_OK;
    if (r->thought && !json_equal(json_object_get(r->out, r->thought), value))
        FAIL(ST_DATA, "%s%s: its %s says otherwise; keep one", r->place, name, r->thought);
    r->thought = name;
    return ST_OK;
}

/* A key beside role and content. Flags do not go to the template, what is a call goes as one. */
static status take_key(struct reading *r, const char *name, json_t *value)
{
    const struct key *key = key_find(name, IN_MESSAGE);
    struct message *m = &r->c->messages[r->c->n - 1];
    switch (key ? key->use : USE_PASSED) {
    case USE_WEIGHT:
    case USE_TRAIN:
    case USE_MASKED:
        return flags_read(&r->flags, key, name, value, r->place);
    case USE_CALLS:
        return take_calls(r, name, value);
    case USE_CALL:
        return take_call(r, name, value);
    case USE_REASONING:
        TRY(one_reasoning(r, name, value));
        m->extras |= is_said(value);
        break;
    case USE_EXTRA:
        m->extras |= is_said(value);
        break;
    case USE_REFUSED:
        TRY(refuse_said(key, name, value, r->place));
        break;
    default:
        break;
    }
    if (!key) unused_add(&r->c->unused.in_messages, name, value);
    json_object_set(r->out, name, value);
    return ST_OK;
}

static const struct style *style_of(const struct shape *s, const json_t *message)
{
    const struct style *own = &styles[s->sharegpt], *other = &styles[!s->sharegpt];
    bool is_other = !s->strict && !json_object_get(message, own->role) && json_object_get(message, other->role);
    return is_other ? other : own;
}

static status fail_missing(const struct reading *r, const char *column, size_t i, const char *key)
{
    FAIL(ST_DATA, "%s[%zu]: no \"%s\"; a message is {\"%s\": …, \"%s\": …} (dataset.conversation_style)", column, i, key, r->style->role,
         r->style->content);
}

static status read_text(struct reading *r, const char *column, size_t i, const json_t *message)
{
    const json_t *content = json_object_get(message, r->style->content);
    const struct message *m = &r->c->messages[r->c->n - 1];
    json_t *text;
    if (m->extras && !content) json_object_del(r->out, "content"); /* a call needs no words */
    if (m->extras && (!content || json_is_null(content))) return ST_OK;
    if (!content) return fail_missing(r, column, i, r->style->content);
    TRY(read_content(r->place, r->style->content, content, r->c, &text));
    json_object_set_new(r->out, "content", text);
    return ST_OK;
}

static status read_message(const struct shape *s, const char *column, size_t i, const json_t *message, bool context, struct chat *c)
{
    struct reading r = {.style = style_of(s, message), .c = c};
    const struct role_word *role = NULL;
    const char *name;
    json_t *value;
    if (!json_is_object(message))
        FAIL(ST_DATA, "%s[%zu]: expected an object with %s and %s, found %s", column, i, r.style->role, r.style->content,
             json_says(message));
    snprintf(r.place, sizeof r.place, "%.60s[%zu].", column, i);
    if (!json_object_get(message, r.style->role)) return fail_missing(&r, column, i, r.style->role);
    TRY(read_role(&r, json_object_get(message, r.style->role), &role));
    if (role->role == ROLE_SYSTEM && s->system) return ST_OK;
    chat_begin(c, role->role, false, role->role != ROLE_TOOL);
    if (role->role == ROLE_TOOL && c->n > 1) c->messages[c->n - 2].ends_turn = false;
    r.out = json_pack("{s:s}", "role", role->written);
    json_array_append_new(c->json, r.out);
    json_object_set_new(r.out, "content", json_null()); /* its place among the keys */
    if (role->call) TRY(read_call_turn(&r, json_object_get(message, r.style->content)));
    json_object_foreach((json_t *)message, name, value) if (strcmp(name, r.style->role) && strcmp(name, r.style->content))
        TRY(take_key(&r, name, value));
    struct message *m = &c->messages[c->n - 1];
    m->extras |= r.called;
    m->context = context;
    m->said = r.flags.off ? -1 : r.flags.on ? 1 : 0;
    m->column = column;
    m->at = (int)i;
    return role->call ? ST_OK : read_text(&r, column, i, message);
}

status read_messages(const struct shape *s, const char *column, const json_t *list, bool context, struct chat *c)
{
    const json_t *message;
    size_t i;
    json_array_foreach(list, i, message) TRY(read_message(s, column, i, message, context, c));
    return ST_OK;
}
