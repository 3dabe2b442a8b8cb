#include "worker/data/tokenizer/json_file.h"

#include <jansson.h>
#include <string.h>

#include "worker/data/tokenizer/components.h"
#include "worker/data/tokenizer/json_value.h"
#include "worker/data/tokenizer/pretokenise.h"
#include "worker/data/tokenizer/segment.h"

/* The vocabulary and the merges are streamed (json_scan.h), the rest is a jansson tree. */

static status load_added(struct tokenizer *t, const json_t *list)
{
    size_t i;
    json_t *o;
    if (list && !json_is_null(list) && !json_is_array(list)) FAIL(ST_CORRUPT, "added_tokens is not a list");
    json_array_foreach(list, i, o)
    {
        const json_t *id = json_object_get(o, "id");
        status st = tok_load_added(t, o, json_is_integer(id) ? json_integer_value(id) : -1, tok_json_flag(o, "special", false));
        if (st) return status_prefix(st, "added_tokens[%zu]", i);
    }
    return ST_OK;
}

/* ---- the model ---- */

status tok_read_vocab(struct tok_vocab *v, const char *whole, struct tok_extent part)
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

static status read_merges(struct tok_model *m, const char *whole, struct tok_extent part)
{
    struct tok_scanner s = {whole, part.at, part.at + part.n, {0}};
    struct buf pair = {0};
    status st = ST_OK;
    size_t left;
    tok_scan_take(&s, '[');
    bool more = !tok_scan_take(&s, ']');
    for (size_t rank = 0; more; rank++) {
        TRY_DONE(scan_merge(&s, &pair, &left));
        TRY_DONE(tok_add_merge(m, rank, pair.data, left, pair.len - left));
        TRY_DONE(tok_scan_next(&s, ']', &more));
    }
done:
    tok_scan_close(&s);
    buf_release(&pair);
    return st ? status_prefix(st, "merges") : ST_OK;
}

static status load_model(struct tok_model *m, const json_t *o, const char *whole, struct tok_extent vocab, struct tok_extent merges)
{
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *type = json_object_get(o, "type"), *dropout = json_object_get(o, "dropout");
    if (!json_is_object(o)) FAIL(ST_CORRUPT, "has no model");
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0))
        FAIL(ST_NOT_BUILT, "type '%s' is not built in (known: BPE)", json_is_string(type) ? json_string_value(type) : "?");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        FAIL(ST_NOT_BUILT, "dropout %g: ids would be random; set it to null", json_number_value(dropout));
    for (int i = 0; i < 2; i++)
        if (json_string_length(json_object_get(o, empty[i])))
            FAIL(ST_NOT_BUILT, "%s '%s' is not built in", empty[i], json_string_value(json_object_get(o, empty[i])));
    if (!vocab.at || !merges.at) FAIL(ST_CORRUPT, "has no %s", vocab.at ? "list 'merges'" : "object 'vocab'");
    TRY(tok_read_vocab(&m->vocab, whole, vocab));
    TRY(read_merges(m, whole, merges));
    const json_t *unk = json_object_get(o, "unk_token");
    if (json_is_string(unk)) {
        m->unk = tok_vocab_id(&m->vocab, json_string_value(unk), json_string_length(unk));
        if (m->unk < 0) FAIL(ST_CORRUPT, "unk_token '%s' is not in the vocabulary", json_string_value(unk));
    }
    if (tok_json_flag(o, "byte_fallback", false)) tok_byte_pieces(m);
    m->fuse_unk = tok_json_flag(o, "fuse_unk", false);
    m->ignore_merges = tok_json_flag(o, "ignore_merges", false);
    m->by_pair = true;
    m->segment = tok_bpe_segment;
    return ST_OK;
}

static bool any_step(const struct tok_steps *s, tok_step_run *run)
{
    for (int i = 0; i < s->n; i++)
        if (s->v[i].run == run) return true;
    return false;
}

/* A tokenizer.json but its two long lists, which are only found. *root is the caller's, on success. */
static status load_rest(const char *data, size_t n, struct tok_extent *vocab, struct tok_extent *merges, json_t **root)
{
    struct buf rest = {0};
    *root = NULL;
    status st = tok_scan_model(data, n, vocab, merges, &rest);
    if (!st) st = tok_load_json(rest.data, rest.len, 0, root);
    buf_release(&rest);
    return st;
}

status tok_read_json(struct tokenizer *t, const char *data, size_t n)
{
    json_t *root;
    struct tok_extent vocab, merges;
    status st;
    TRY(load_rest(data, n, &vocab, &merges, &root));
    st = load_model(&t->model, json_object_get(root, "model"), data, vocab, merges);
    if (st) TRY_DONE(status_prefix(st, "model"));
    TRY_DONE(tok_load_pipeline(t, root));
    TRY_DONE(load_added(t, json_object_get(root, "added_tokens")));
    t->kind = any_step(&t->pre_tokenizer, step_bytes) ? "byte-level BPE" : t->model.byte_id['a'] >= 0 ? "byte-fallback BPE" : "BPE";
done:
    json_decref(root);
    return st;
}

status tok_read_added(struct tokenizer *t, const char *data, size_t n)
{
    json_t *root;
    struct tok_extent vocab, merges;
    TRY(load_rest(data, n, &vocab, &merges, &root));
    status st = load_added(t, json_object_get(root, "added_tokens"));
    json_decref(root);
    return st;
}
