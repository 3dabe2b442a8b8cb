#include "worker/data/tokenizer/config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static status open_one(const char *name, const char *text, json_t **root)
{
    /* model_max_length is 1000000000000000019884624838656 in most of these files: no integer of ours holds it */
    status st = text ? tok_load_json(text, strlen(text), JSON_DECODE_INT_AS_REAL, root) : ST_OK;
    return st ? status_prefix(st, "%s", name) : ST_OK;
}

status tok_config_open(struct tok_config *c, const char *config, const char *map, const char *added, const char *model)
{
    TRY(open_one("tokenizer_config.json", config, &c->config));
    TRY(open_one("special_tokens_map.json", map, &c->map));
    TRY(open_one("added_tokens.json", added, &c->added));
    /* the model's file is judged by whoever opens the model */
    if (model) c->model = json_loads(model, JSON_DECODE_INT_AS_REAL, NULL);
    return ST_OK;
}

void tok_config_close(struct tok_config *c)
{
    json_decref(c->config);
    json_decref(c->map);
    json_decref(c->added);
    json_decref(c->model);
    *c = (struct tok_config){0};
}

static const char *token_text(const json_t *v) { return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v); }

/* transformers reads special_tokens_map.json only without an added_tokens_decoder, and then it wins. Here it also fills
 * what the other leaves out. */
static const json_t *named(const struct tok_config *c, const char *key)
{
    bool map_first = !json_object_get(c->config, "added_tokens_decoder");
    const json_t *first = json_object_get(map_first ? c->map : c->config, key);
    return first ? first : json_object_get(map_first ? c->config : c->map, key);
}

const char *tok_config_text(const struct tok_config *c, const char *key) { return token_text(named(c, key)); }
bool tok_config_null(const struct tok_config *c, const char *key) { return json_is_null(named(c, key)); }

int tok_config_flag(const struct tok_config *c, const char *key)
{
    const json_t *v = json_object_get(c->config, key);
    return json_is_boolean(v) ? json_is_true(v) : -1;
}

const char *tok_config_model_type(const struct tok_config *c) { return json_string_value(json_object_get(c->model, "model_type")); }

const struct tok_class *tok_config_class(const struct tok_config *c, const char **name)
{
    const json_t *v = json_object_get(c->config, "tokenizer_class");
    *name = json_string_value(v ? v : json_object_get(c->model, "tokenizer_class"));
    return *name ? tok_class_find(*name) : NULL;
}

/* ---- added tokens ---- */

/* A list of the vocabulary's own knows better, where it knows the text. */
static bool known(const struct tokenizer *t, bool own_added, const char *text)
{
    return own_added && text && tok_added_find(&t->added, text, strlen(text));
}

/* "id": token */
static status decoder_entries(struct tokenizer *t, json_t *entries, bool own_added)
{
    const char *key;
    json_t *token;
    if (entries && !json_is_object(entries)) FAIL(ST_CORRUPT, "added_tokens_decoder is not an object");
    json_object_foreach(entries, key, token)
    {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end) FAIL(ST_CORRUPT, "added_tokens_decoder: '%.40s' is not an id", key);
        if (known(t, own_added, token_text(token))) continue;
        status st = tok_load_added(t, token, id, tok_json_flag(token, "special", false));
        if (st) return status_prefix(st, "added_tokens_decoder[%s]", key);
    }
    return ST_OK;
}

static const char *const NAMES[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
enum { N_NAMES = sizeof NAMES / sizeof *NAMES };

static bool is_named(const struct tok_config *c, const char *text)
{
    for (int i = 0; i < N_NAMES; i++) {
        const char *name = tok_config_text(c, NAMES[i]);
        if (name && strcmp(name, text) == 0) return true;
    }
    return false;
}

static bool in_list(const json_t *list, const char *text)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (token_text(v) && strcmp(token_text(v), text) == 0) return true;
    return false;
}

static const char *const LISTS[] = {"additional_special_tokens", "extra_special_tokens"};

static int32_t next_id(const struct tokenizer *t)
{
    int32_t next = t->model.vocab.ids;
    for (int32_t i = 0; i < t->added.n; i++)
        if (t->added.v[i].id >= next) next = t->added.v[i].id + 1;
    return next;
}

/* added_tokens.json: "text": id, special where another file calls it so. */
static status added_entries(const struct tok_config *c, struct tokenizer *t, bool own_added)
{
    const char *text;
    json_t *v;
    json_object_foreach(c->added, text, v)
    {
        if (known(t, own_added, text)) continue;
        double id = json_is_number(v) ? json_number_value(v) : -1;
        if (!(id >= 0 && id < TOK_MAX_IDS) || id != (int32_t)id)
            FAIL(ST_CORRUPT, "added_tokens.json: '%.40s': not an id in 0 … %d", text, TOK_MAX_IDS - 1);
        bool special = is_named(c, text);
        for (int i = 0; i < 2; i++) special = special || in_list(named(c, LISTS[i]), text);
        struct tok_added token = {.id = (int32_t)id, .special = special, .normalized = !special};
        int32_t own = tok_vocab_id(&t->model.vocab, text, strlen(text));
        if (own >= 0)
            token.id = own;
        else if (own_added && tok_added_of_id(&t->added, token.id))
            token.id = next_id(t);
        status st = tok_added_add(&t->added, token, text, strlen(text));
        if (st) return status_prefix(st, "added_tokens.json");
    }
    return ST_OK;
}

/* A token named as special is one. Where it has no id, it gets the next, if the file is transformers' own. */
static status ensure_special(const struct tok_config *c, struct tokenizer *t, const json_t *token, const char *text)
{
    if (!text || !*text || tok_added_find(&t->added, text, strlen(text))) return ST_OK;
    int32_t id = tok_vocab_id(&t->model.vocab, text, strlen(text));
    if (id < 0 && !json_object_get(c->config, "tokenizer_class")) return ST_OK;
    if (id < 0) id = next_id(t);
    if (json_is_object(token)) return tok_load_added(t, token, id, true);
    return tok_added_add(&t->added, (struct tok_added){.id = id, .special = true}, text, strlen(text));
}

static status named_tokens(const struct tok_config *c, struct tokenizer *t, const struct tok_class *class)
{
    const struct tok_class none = {0};
    if (!class) class = &none;
    const char *const usual[N_NAMES] = {class->bos, class->eos, class->unk, NULL, class->pad, NULL, class->mask};
    for (int i = 0; i < N_NAMES; i++) {
        const json_t *token = named(c, NAMES[i]);
        TRY(ensure_special(c, t, token, token ? token_text(token) : usual[i]));
    }
    for (const char *const *more = class->more; more && *more; more++) TRY(ensure_special(c, t, NULL, *more));
    return ST_OK;
}

/* Lists, and names of the model's own such as image_token. */
static status further_tokens(const struct tok_config *c, struct tokenizer *t)
{
    const char *key;
    json_t *v;
    size_t k;
    json_object_foreach(c->config, key, v)
    {
        size_t n = strlen(key);
        bool further = n > 6 && strcmp(key + n - 6, "_token") == 0;
        for (int i = 0; i < N_NAMES; i++) further = further && strcmp(key, NAMES[i]) != 0;
        if (further && json_is_string(v)) TRY(ensure_special(c, t, v, json_string_value(v)));
    }
    for (int i = 0; i < 2; i++) {
        json_t *list = (json_t *)(uintptr_t)named(c, LISTS[i]);
        json_array_foreach(list, k, v) TRY(ensure_special(c, t, v, token_text(v)));
        json_object_foreach(list, key, v) TRY(ensure_special(c, t, v, token_text(v)));
    }
    return ST_OK;
}

status tok_config_added(const struct tok_config *c, struct tokenizer *t, bool own_added, const struct tok_class *class)
{
    json_t *decoder = json_object_get(c->config, "added_tokens_decoder");
    status st = decoder_entries(t, decoder, own_added);
    if (!st && !decoder) TRY(added_entries(c, t, own_added));
    if (!st) st = named_tokens(c, t, class);
    if (!st) st = further_tokens(c, t);
    return st ? status_prefix(st, "tokenizer_config.json") : ST_OK;
}
