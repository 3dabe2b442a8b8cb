/* chat_read.h — how the readers of rows share their work. Private to rows/. */
#ifndef TRIMPOT_CHAT_READ_H
#define TRIMPOT_CHAT_READ_H

#include "worker/data/rows/chat.h"

/* A new message with this text, in parts and in c->json. */
status chat_say(struct chat *c, enum role role, const char *text, size_t n);

/* A list of messages, appended. `context`: they are a prompt. */
status read_messages(const struct shape *s, const char *column, const json_t *list, bool context, struct chat *c);
/* A system message from a column: a string, or a list of text parts. */
status read_system(const char *column, const json_t *value, struct chat *c);
/* The earlier turns of a pair: [[question, answer], …] or messages. */
status read_history(const struct shape *s, const char *column, const json_t *value, struct chat *c);

/* What a row says beside its shape's columns. */
struct beside {
    const json_t *system, *history, *context, *tools, *functions, *reasoning;
    const char *system_key, *history_key, *context_key, *reasoning_key;
    struct flags flags;
};

status read_chat(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c);
status read_pair(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c);
status read_alpaca(const struct shape *s, const json_t *row, const struct beside *b, struct chat *c);

/* A list that may come as JSON text (CSV has nothing else, and some JSON files do it too). *list is NULL when there is
 * nothing in it. Owned by c. */
status read_list(const char *place, const char *key, const json_t *value, struct chat *c, const json_t **list);

status column_string(const json_t *row, const char *column, const char **text, size_t *n);

/* Functions or calls without their wrapping: {"type": "function", "function": …}. A new reference. */
json_t *wrap_function(const json_t *function);

#endif
