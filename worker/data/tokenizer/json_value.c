#include "worker/data/tokenizer/json_value.h"

#include <inttypes.h>

status tok_load_json(const char *data, size_t n, size_t flags, json_t **root)
{
    json_error_t e;
    *root = json_loadb(data, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | flags, &e);
    if (!*root) FAIL(ST_CORRUPT, "line %d, column %d: %s", e.line, e.column, e.text);
    if (json_is_object(*root)) return ST_OK;
    json_decref(*root);
    *root = NULL;
    FAIL(ST_CORRUPT, "is not a JSON object");
}

bool tok_json_flag(const json_t *o, const char *key, bool missing)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : missing;
}

status tok_json_text(const json_t *o, const char *key, const char **text, size_t *n)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v)) FAIL(ST_CORRUPT, "'%s' is missing or not a string", key);
    *text = json_string_value(v);
    *n = json_string_length(v);
    return ST_OK;
}

status tok_load_added(struct tokenizer *t, const json_t *o, int64_t id, bool special)
{
    const char *text;
    size_t n;
    TRY(tok_json_text(o, "content", &text, &n));
    struct tok_added token = {
        .special = special,
        .single_word = tok_json_flag(o, "single_word", false),
        .lstrip = tok_json_flag(o, "lstrip", false),
        .rstrip = tok_json_flag(o, "rstrip", false),
        .normalized = tok_json_flag(o, "normalized", !special),
    };
    int32_t own = tok_vocab_id(&t->model.vocab, text, n);
    if (own >= 0) id = own;
    if (id < 0 || id >= TOK_MAX_IDS) FAIL(ST_CORRUPT, "'%.40s': id %" PRId64 " is not in 0 … %d", text, id, TOK_MAX_IDS - 1);
    token.id = (int32_t)id;
    return tok_added_add(&t->added, token, text, n);
}
