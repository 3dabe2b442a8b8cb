/* tokenizer_config.json and special_tokens_map.json: which tokens are special, and who is bos, eos, pad. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/tokenizer_impl.h"

status tok_config_open(struct tok_config *c, const char *config, const char *special_map)
{
    /* model_max_length is 1000000000000000019884624838656 in most of these files: no integer of ours holds it */
    const size_t flags = JSON_DECODE_INT_AS_REAL;
    status st = config ? tok_load_json(config, strlen(config), flags, &c->config) : ST_OK;
    if (st) return status_prefix(st, "tokenizer_config.json");
    st = special_map ? tok_load_json(special_map, strlen(special_map), flags, &c->map) : ST_OK;
    return st ? status_prefix(st, "special_tokens_map.json") : ST_OK;
}

void tok_config_close(struct tok_config *c)
{
    json_decref(c->config);
    json_decref(c->map);
    *c = (struct tok_config){0};
}

static const char *token_text(const json_t *v)
{
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

const char *tok_config_text(const struct tok_config *c, const char *key)
{
    const char *text = token_text(json_object_get(c->config, key));
    return text ? text : token_text(json_object_get(c->map, key));
}

int tok_config_flag(const struct tok_config *c, const char *key)
{
    const json_t *v = json_object_get(c->config, key);
    return json_is_boolean(v) ? json_is_true(v) : -1;
}

/* A token named as special is one, if any vocabulary has it. */
static status ensure_special(struct tokenizer *t, const char *text)
{
    int32_t id = text && *text ? tok_vocab_id(&t->vocab, text, strlen(text)) : -1;
    if (id < 0 || tok_added_find(t, text, strlen(text))) return ST_OK;
    return tok_added_add(t, (struct tok_added){.id = id, .special = true}, text, strlen(text));
}

static status decoder_entries(struct tokenizer *t, json_t *entries)
{
    const char *key;
    json_t *token;
    if (entries && !json_is_object(entries)) FAIL(ST_CORRUPT, "added_tokens_decoder is not an object");
    json_object_foreach(entries, key, token)
    {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end) FAIL(ST_CORRUPT, "added_tokens_decoder: '%.40s' is not an id", key);
        status st = tok_load_added(t, token, id);
        if (st) return status_prefix(st, "added_tokens_decoder[%s]", key);
    }
    return ST_OK;
}

status tok_config_added(const struct tok_config *c, struct tokenizer *t)
{
    static const char *const named[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    status st = decoder_entries(t, json_object_get(c->config, "added_tokens_decoder"));
    for (size_t i = 0; !st && i < sizeof named / sizeof *named; i++)
        st = ensure_special(t, tok_config_text(c, named[i]));
    size_t i;
    json_t *more;
    json_array_foreach(json_object_get(c->config, "additional_special_tokens"), i, more) if (!st) st =
        ensure_special(t, token_text(more));
    return st ? status_prefix(st, "tokenizer_config.json") : ST_OK;
}
