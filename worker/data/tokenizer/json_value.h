/* json_value.h — what the readers of JSON files share. */
#ifndef TRIMPOT_TOK_JSON_VALUE_H
#define TRIMPOT_TOK_JSON_VALUE_H

#include <jansson.h>
#include <stdbool.h>

#include "worker/data/tokenizer/parts.h"

/* An object; ST_CORRUPT with line and column. flags: jansson's, more. */
status tok_load_json(const char *data, size_t n, size_t flags, json_t **root);
bool tok_json_flag(const json_t *o, const char *key, bool missing);
status tok_json_text(const json_t *o, const char *key, const char **text, size_t *n);
/* An added token: {"content", "special", "lstrip", …}. A piece of the model with that text keeps its id, as in HF. */
status tok_load_added(struct tokenizer *t, const json_t *token, int64_t id, bool special);

#endif
