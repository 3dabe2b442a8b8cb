/* chat_format.h — how the chats of a run become text: decided once per run, shared by all its data sets.
 *
 *   chat_template: model | FILE | name                          → that template
 *   else torchtune_templates, or a tokenizer component          → torchtune's rendering (render_torchtune.h)
 *   else a template in the directory of the adapter that is loaded (what it was trained with),
 *        the tokenizer or the model                             → that template
 *   else                                                        → a built-in template, said loudly
 *
 * Where transformers looks, in its order: chat_template.jinja with additional_chat_templates/, chat_template in
 * tokenizer_config.json (a text, or a list of named ones), chat_template.json. Of named templates "tool_use" serves rows
 * with tools, "default" all others. The variables a template sees besides the row are the special tokens of
 * tokenizer_config.json and special_tokens_map.json, and the configuration's chat_template_kwargs. */
#ifndef TRIMPOT_CHAT_FORMAT_H
#define TRIMPOT_CHAT_FORMAT_H

#include <jansson.h>

#include "configs/config.h"
#include "worker/data/template/template.h"
#include "worker/data/tokenizer/tokenizer.h"

struct chat_template {
    char *name; /* where it stands, for messages */
    char *text; /* NULL: absent */
    size_t n;
    struct template *compiled; /* NULL when broken */
    status broken;             /* why it does not compile: an error only for who needs it */
    char *complaint;
};

enum { CHAT_DEFAULT, CHAT_TOOL_USE, CHAT_TEMPLATES };

struct chat_format {
    const struct tokenizer *tok;
    const char *family; /* torchtune's rendering that fits the tokenizer: "llama3", …; NULL: none does */
    bool torchtune;     /* chats are rendered as torchtune does; a template, if there is one, is for comparison */
    bool built_in;      /* the template is ours, because the model has none */
    struct chat_template templates[CHAT_TEMPLATES];
    json_t *variables;
    int64_t now; /* what strftime_now says */
};

/* tokenizer_path: the tokenizer's directory or file. family as above. now: seconds since 1970; the run's, so that a
 * resumed one says the same date. ST_CONFIG_RUNTIME for an unknown name; ST_IO, ST_CORRUPT for files. Borrows tok. */
status chat_format_open(const struct config *c, const struct tokenizer *tok, const char *tokenizer_path, const char *family, int64_t now,
                        struct chat_format *f);
void chat_format_close(struct chat_format *f);

/* The template for rows with or without tools. Its own failure when it does not compile. */
status chat_format_template(const struct chat_format *f, bool tools, const struct chat_template **t);

/* Built-in templates (chat_named.c). Caller frees both. NULL: no such name. */
char *chat_named(const char *name, const struct tokenizer *tok);
char *chat_named_list(void);
const char *chat_named_for(const char *family);          /* the name that fits a family: its own, else chatml; NULL: no family */
const char *chat_family_told(const struct tokenizer *t); /* whose chats the special tokens are made for; NULL: nobody's */

#endif
