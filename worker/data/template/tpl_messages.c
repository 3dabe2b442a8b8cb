/* What transformers does to messages before a template sees them. */
#include <string.h>

#include "worker/data/template/template.h"

/* A key without a value is no key; reasoning goes by the two names that templates know. */
static json_t *one_message(const json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *out = json_object(), *value, *reasoning = NULL;
    const char *key;
    for (size_t i = sizeof names / sizeof *names; i-- > 0;) {
        value = json_object_get(message, names[i]);
        if (value && !json_is_null(value)) reasoning = value;
    }
    if (reasoning) json_object_set(out, "thinking", reasoning);
    json_object_foreach((json_t *)message, key, value)
        if (!json_is_null(value)) json_object_set(out, key, value);
    if (reasoning) json_object_set(out, "reasoning_content", reasoning);
    return out;
}

json_t *template_messages(const json_t *messages)
{
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach(messages, i, message)
        json_array_append_new(out, json_is_object(message) ? one_message(message) : json_incref(message));
    return out;
}
