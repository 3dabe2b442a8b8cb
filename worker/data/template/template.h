/* template.h — chat templates: the Jinja that Hugging Face model directories carry, rendered with provenance.
 *
 *   text ─ template_compile ─▶ struct template ─ template_render(variables) ─▶ text, and for every byte who wrote it
 *
 * The environment is the one of transformers' apply_chat_template: trim_blocks and lstrip_blocks on, loop controls,
 * {% generation %}, raise_exception, strftime_now, namespace, range, tojson without HTML escapes. A template is outside
 * data: compiling and rendering are bounded in depth, steps and output, nothing recurses without a limit, and a
 * construct outside the subset is refused with template, line and construct. A compiled template is immutable: several
 * threads may render it, each into its own output.
 *
 * Provenance. Every string value knows for each of its bytes the origin of that byte; slicing, joining, trimming,
 * splitting, replacing and tojson keep it. So the caller learns where each message went, finds text of a user that only
 * looks like a special token, and sees when a template drops what a row gave it. */
#ifndef TRIMPOT_TEMPLATE_H
#define TRIMPOT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "kernels/base/status.h"
#include "kernels/base/text.h"

struct template;

/* name: for messages, a file or "tokenizer_config.json: chat_template". ST_CORRUPT "NAME:LINE: …" for bad syntax,
 * ST_NOT_BUILT for Jinja that exists and is outside the subset. */
status template_compile(const char *name, const char *text, size_t n, struct template **out);
void template_free(struct template *t);

/* Whether the template says this word anywhere in its code: as a variable, an attribute or a string. */
bool template_mentions(const struct template *t, const char *word);
/* Whether it has a {% generation %} block. */
bool template_marks_generation(const struct template *t);

struct template_vars {
    const json_t *messages; /* a list of objects */
    const json_t *tools;    /* a list; NULL: the variable is None, as transformers passes it */
    const json_t *extra;    /* an object of further variables: bos_token, eos_token, enable_thinking, …; may be NULL */
    size_t n_messages;      /* only the first so many of the list; SIZE_MAX: all */
    bool add_generation_prompt;
    int64_t now; /* seconds since 1970, for strftime_now, in local time */
};

/* Who wrote a byte: the template (and `extra`), or one key of one message, or the tools. Keys of messages are told apart
 * as the caller needs them; everything else a message holds (name, …) is MESSAGE_OTHER. */
enum template_field {
    TEMPLATE_ITSELF = 0,
    MESSAGE_CONTENT = 1,
    MESSAGE_REASONING = 2, /* reasoning_content, reasoning, thinking */
    MESSAGE_CALLS = 3,     /* tool_calls, function_call */
    MESSAGE_OTHER = 4,
    TEMPLATE_TOOLS = 5,
    MESSAGE_ROLE = 6,
};
/* field in the low 3 bits, index of the message above them. */
typedef uint32_t template_origin;
static inline enum template_field origin_field(template_origin o) { return (enum template_field)(o & 7); }
static inline size_t origin_message(template_origin o) { return o >> 3; }

struct template_span {
    size_t begin, end;
}; /* bytes of the text */

/* Zero-initialise; reused from row to row, template_text_release at the end. */
struct template_text {
    struct buf text;
    template_origin *origin; /* [text.len] */
    size_t cap_origin;
    struct template_span *generation; /* what {% generation %} blocks wrote, in order */
    size_t n_generation, cap_generation;
};
void template_text_release(struct template_text *t);

/* ST_DATA when the template itself raises (raise_exception's words are in the message), when a variable it needs is
 * undefined or of another type, when a limit is met, and ST_NOT_BUILT for what shows only now: all "NAME:LINE: …".
 * Messages are shown as transformers shows them: keys that are null are absent, and the first of reasoning_content,
 * thinking and reasoning is found under the first two names. */
status template_render(const struct template *t, const struct template_vars *vars, struct template_text *out);

#endif
