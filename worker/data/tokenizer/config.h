/* config.h — the JSON files beside a vocabulary: tokenizer_config.json, special_tokens_map.json, added_tokens.json and
 * the model's config.json. Which tokens are special, who is bos, eos, pad, and what class reads the vocabulary. */
#ifndef TRIMPOT_TOK_CONFIG_H
#define TRIMPOT_TOK_CONFIG_H

#include "worker/data/tokenizer/classes.h"
#include "worker/data/tokenizer/json_value.h"

struct tok_config { /* any may be NULL */
    json_t *config, *map, *added, *model;
};
status tok_config_open(struct tok_config *c, const char *config, const char *map, const char *added, const char *model);
void tok_config_close(struct tok_config *c);
const char *tok_config_text(const struct tok_config *c, const char *key);                /* NULL: absent, or null */
bool tok_config_null(const struct tok_config *c, const char *key);                       /* says null: there is none */
int tok_config_flag(const struct tok_config *c, const char *key);                        /* -1: not said */
const char *tok_config_model_type(const struct tok_config *c);                           /* NULL: not said */
const struct tok_class *tok_config_class(const struct tok_config *c, const char **name); /* *name NULL: not said */

/* Adds what the files call tokens, and gives ids to named special tokens that no vocabulary has, as transformers does.
 * own_added: the vocabulary's file has its own list, which wins. class: defaults of the names; may be NULL. */
status tok_config_added(const struct tok_config *c, struct tokenizer *t, bool own_added, const struct tok_class *class);

#endif
