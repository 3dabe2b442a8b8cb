/* tokenizer.json (huggingface/tokenizers): the model and the added tokens; tok_components.c has the pipelines. The
 * vocabulary and the merges are streamed (tok_scan.h), the rest is a jansson tree. */
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "worker/data/tokenizer/tok_scan.h"
#include "worker/data/tokenizer/tokenizer_impl.h"

/* ---- added tokens ---- */

status tok_load_added(struct tokenizer *t, const json_t *o, int64_t id)
{
    const char *text;
    size_t n;
    TRY(tok_json_text(o, "content", &text, &n));
    struct tok_added token = {
        .special = tok_json_flag(o, "special", false),
        .single_word = tok_json_flag(o, "single_word", false),
        .lstrip = tok_json_flag(o, "lstrip", false),
        .rstrip = tok_json_flag(o, "rstrip", false),
        .normalized = tok_json_flag(o, "normalized", !tok_json_flag(o, "special", false)),
    };
    int32_t own = tok_vocab_id(&t->vocab, text, n); /* the model's own id wins over the file's, as in HF */
    if (own >= 0) id = own;
    if (id < 0 || id >= TOK_MAX_IDS)
        FAIL(ST_CORRUPT, "'%.40s': id %" PRId64 " is not in 0 … %d", text, id, TOK_MAX_IDS - 1);
    token.id = (int32_t)id;
    return tok_added_add(t, token, text, n);
}

static status load_added(struct tokenizer *t, const json_t *list)
{
    size_t i;
    json_t *o;
    if (list && !json_is_null(list) && !json_is_array(list)) FAIL(ST_CORRUPT, "added_tokens is not a list");
    json_array_foreach(list, i, o)
    {
        const json_t *id = json_object_get(o, "id");
        status st = tok_load_added(t, o, json_is_integer(id) ? json_integer_value(id) : -1);
        if (st) return status_prefix(st, "added_tokens[%zu]", i);
    }
    return ST_OK;
}

/* ---- the model ---- */

status tok_read_vocab(struct tok_vocab *v, const char *whole, struct tok_part part)
{
    struct tok_scanner s = {whole, part.at, part.at + part.n, {0}};
    status st = ST_OK;
    if (!tok_scan_take(&s, '{')) return tok_scan_bad(&s, "an object of pieces and ids");
    bool more = !tok_scan_take(&s, '}');
    while (more) {
        int64_t id;
        TRY_DONE(tok_scan_string(&s));
        if (!tok_scan_take(&s, ':')) TRY_DONE(tok_scan_bad(&s, "':'"));
        TRY_DONE(tok_scan_int(&s, &id));
        TRY_DONE(tok_vocab_add(v, id, s.text.data, s.text.len));
        TRY_DONE(tok_scan_next(&s, '}', &more));
    }
    TRY_DONE(tok_scan_end(&s));
done:
    tok_scan_close(&s);
    return st ? status_prefix(st, "vocab") : ST_OK;
}

static int shown(size_t n) { return n < 40 ? (int)n : 40; }

status tok_add_merge(struct tokenizer *t, size_t rank, const char *pair, size_t na, size_t nb)
{
    int32_t left = tok_vocab_id(&t->vocab, pair, na), right = tok_vocab_id(&t->vocab, pair + na, nb);
    int32_t id = tok_vocab_id(&t->vocab, pair, na + nb);
    if (left < 0 || right < 0 || id < 0)
        FAIL(ST_CORRUPT, "merge %zu, '%.*s' and '%.*s': %s is not in the vocabulary", rank, shown(na), pair, shown(nb),
             pair + na,
             left < 0    ? "the left piece"
             : right < 0 ? "the right piece"
                         : "what they make together");
    if (rank >= UINT32_MAX) FAIL(ST_CORRUPT, "more than 2^32 merges");
    tok_map_put(&t->pairs, (uint64_t)(uint32_t)left << 32 | (uint32_t)right, (uint64_t)rank << 32 | (uint32_t)id);
    return ST_OK;
}

/* "a b", or ["a", "b"]: leaves "a b" in s->text. A piece with a space in it can only come as a pair. */
static status scan_merge(struct tok_scanner *s, struct buf *pair, size_t *left)
{
    buf_clear(pair);
    if (tok_scan_take(s, '[')) {
        TRY(tok_scan_string(s));
        buf_add(pair, s->text.data, *left = s->text.len);
        if (!tok_scan_take(s, ',')) return tok_scan_bad(s, "','");
        TRY(tok_scan_string(s));
        buf_add(pair, s->text.data, s->text.len);
        return tok_scan_take(s, ']') ? ST_OK : tok_scan_bad(s, "']'");
    }
    TRY(tok_scan_string(s));
    const char *space = memchr(s->text.data, ' ', s->text.len);
    *left = space ? (size_t)(space - s->text.data) : 0;
    size_t right = space ? s->text.len - *left - 1 : 0;
    if (!space || memchr(space + 1, ' ', right)) return tok_scan_bad(s, "\"a b\" or [\"a\", \"b\"] before this place");
    buf_add(pair, s->text.data, *left);
    buf_add(pair, space + 1, right);
    return ST_OK;
}

static status read_merges(struct tokenizer *t, const char *whole, struct tok_part part)
{
    struct tok_scanner s = {whole, part.at, part.at + part.n, {0}};
    struct buf pair = {0};
    status st = ST_OK;
    size_t left;
    tok_scan_take(&s, '[');
    bool more = !tok_scan_take(&s, ']');
    for (size_t rank = 0; more; rank++) {
        TRY_DONE(scan_merge(&s, &pair, &left));
        TRY_DONE(tok_add_merge(t, rank, pair.data, left, pair.len - left));
        TRY_DONE(tok_scan_next(&s, ']', &more));
    }
done:
    tok_scan_close(&s);
    buf_release(&pair);
    return st ? status_prefix(st, "merges") : ST_OK;
}

static status load_model(struct tokenizer *t, const json_t *o, const char *whole, struct tok_part vocab,
                         struct tok_part merges)
{
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *type = json_object_get(o, "type"), *dropout = json_object_get(o, "dropout");
    if (!json_is_object(o)) FAIL(ST_CORRUPT, "has no model");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        FAIL(ST_NOT_BUILT, "type '%s' is not built in (known: BPE)",
             json_is_string(type) ? json_string_value(type) : "?");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        FAIL(ST_NOT_BUILT, "dropout %g: ids would be random; set it to null", json_number_value(dropout));
    for (int i = 0; i < 2; i++)
        if (json_string_length(json_object_get(o, empty[i])))
            FAIL(ST_NOT_BUILT, "%s '%s' is not built in", empty[i], json_string_value(json_object_get(o, empty[i])));
    if (!vocab.at || !merges.at) FAIL(ST_CORRUPT, "has no %s", vocab.at ? "list 'merges'" : "object 'vocab'");
    TRY(tok_read_vocab(&t->vocab, whole, vocab));
    TRY(read_merges(t, whole, merges));
    const json_t *unk = json_object_get(o, "unk_token");
    if (json_is_string(unk)) {
        t->unk = tok_vocab_id(&t->vocab, json_string_value(unk), json_string_length(unk));
        if (t->unk < 0) FAIL(ST_CORRUPT, "unk_token '%s' is not in the vocabulary", json_string_value(unk));
    }
    if (tok_json_flag(o, "byte_fallback", false)) tok_byte_pieces(t);
    t->fuse_unk = tok_json_flag(o, "fuse_unk", false);
    t->ignore_merges = tok_json_flag(o, "ignore_merges", false);
    t->by_pair = true;
    t->segment = tok_bpe_segment;
    return ST_OK;
}

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

static bool any_step(const struct tok_steps *s, tok_step_run *run)
{
    for (int i = 0; i < s->n; i++)
        if (s->v[i].run == run) return true;
    return false;
}

status tok_read_json(struct tokenizer *t, const char *data, size_t n)
{
    json_t *root = NULL;
    struct tok_part vocab, merges;
    struct buf rest = {0};
    status st;
    TRY_DONE(tok_scan_model(data, n, &vocab, &merges, &rest));
    TRY_DONE(tok_load_json(rest.data, rest.len, 0, &root));
    st = load_model(t, json_object_get(root, "model"), data, vocab, merges);
    if (st) TRY_DONE(status_prefix(st, "model"));
    TRY_DONE(tok_load_pipeline(t, root));
    TRY_DONE(load_added(t, json_object_get(root, "added_tokens")));
    t->kind = any_step(&t->pre_tokenizer, step_bytes) ? "byte-level BPE"
              : t->byte_id['a'] >= 0                  ? "byte-fallback BPE"
                                                      : "BPE";
done:
    buf_release(&rest);
    json_decref(root);
    return st;
}

status tok_read_added(struct tokenizer *t, const char *data, size_t n)
{
    json_t *root = NULL;
    struct tok_part vocab, merges;
    struct buf rest = {0};
    status st;
    TRY_DONE(tok_scan_model(data, n, &vocab, &merges, &rest));
    TRY_DONE(tok_load_json(rest.data, rest.len, 0, &root));
    TRY_DONE(load_added(t, json_object_get(root, "added_tokens")));
done:
    buf_release(&rest);
    json_decref(root);
    return st;
}
