#include "worker/data/tokenizer/added.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/normalise.h"
#include "worker/data/tokenizer/utf8.h"

const struct tok_added *tok_added_find(const struct tok_added_set *a, const char *text, size_t n)
{
    int32_t i;
    return n && tok_trie_longest(&a->all, text, n, &i) == n ? &a->v[i] : NULL;
}

const struct tok_added *tok_added_of_id(const struct tok_added_set *a, int32_t id)
{
    uint64_t i = tok_map_get(&a->by_id, (uint64_t)(uint32_t)id);
    return i == TOK_NONE ? NULL : &a->v[i];
}

status tok_added_add(struct tok_added_set *a, struct tok_added token, const char *text, size_t n)
{
    const struct tok_added *same = tok_added_find(a, text, n), *taken = tok_added_of_id(a, token.id);
    if (n == 0) FAIL(ST_CORRUPT, "an added token with id %" PRId32 " has no text", token.id);
    if (n > TOK_MAX_PIECE_BYTES) FAIL(ST_CORRUPT, "an added token of %zu bytes; the limit is %d", n, TOK_MAX_PIECE_BYTES);
    if (same && same->id == token.id) return ST_OK;
    if (same) FAIL(ST_CORRUPT, "added token '%.40s' has two ids, %" PRId32 " and %" PRId32, text, same->id, token.id);
    if (taken) FAIL(ST_CORRUPT, "id %" PRId32 " belongs to two added tokens, '%.40s' and '%.40s'", token.id, taken->text, text);
    if ((a->n & (a->n - 1)) == 0) a->v = mem_grow(a->v, (a->n ? 2 * (size_t)a->n : 1) * sizeof *a->v);
    token.text = mem_alloc(n + 1);
    token.n = n;
    memcpy(token.text, text, n);
    tok_trie_add(&a->all, text, n, a->n);
    tok_map_put(&a->by_id, (uint64_t)(uint32_t)token.id, (uint64_t)a->n);
    a->v[a->n++] = token;
    return ST_OK;
}

status tok_added_finish(struct tok_added_set *a, const struct tok_steps *normalizer)
{
    struct tok_pass p = {0};
    status st = ST_OK;
    for (int32_t i = 0; i < a->n; i++) {
        struct tok_added *token = &a->v[i];
        if (!token->normalized || a->all_raw) {
            tok_trie_add(&a->raw, token->text, token->n, i);
            continue;
        }
        /* Looked for in normalised text, so its own text is normalised too, and that is what decoding shows. */
        tok_spans_clear(&p.in);
        tok_span_add(&p.in, token->text, token->n, true);
        TRY_DONE(tok_steps_run(normalizer, &p));
        struct tok_part form = tok_part_of(&p.in, 0);
        if (form.n == 0) continue;
        tok_trie_add(&a->normalized, form.text, form.n, i);
        token->form = mem_alloc(form.n + 1);
        token->form_n = form.n;
        memcpy(token->form, form.text, form.n);
    }
done:
    tok_pass_release(&p);
    return st;
}

void tok_added_release(struct tok_added_set *a)
{
    for (int32_t i = 0; i < a->n; i++) {
        free(a->v[i].text);
        free(a->v[i].form);
    }
    free(a->v);
    struct tok_trie *const tries[] = {&a->all, &a->raw, &a->normalized};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) tok_trie_release(tries[i]);
    tok_map_release(&a->by_id);
    *a = (struct tok_added_set){0};
}

static bool word_at(const char *text, size_t n)
{
    size_t len;
    return n && tok_is_word(utf8_get(text, n, &len));
}

static bool word_before(const char *text, size_t end)
{
    size_t at = end ? utf8_before(text, end) : 0;
    return end && word_at(text + at, end - at);
}

/* The longest added token that text[at..n) begins with and that may be found there; *next is where to look if that is
 * none. A special token without a right to be one is passed over whole, as HF does, unless it is quoted in part only:
 * then a shorter one may stand in the part that is not. */
static const struct tok_added *longest_at(const struct tok_added_set *a, const struct tok_trie *trie, const char *text, size_t at, size_t n,
                                          struct tok_specials specials, size_t *next)
{
    int32_t index;
    size_t len = tok_trie_longest(trie, text + at, n - at, &index);
    *next = at + (len ? len : 1);
    while (len && a->v[index].special) {
        if (!specials.found) return NULL;
        if (!specials.quoted || !memchr(specials.quoted + at, 1, len)) break;
        if (!memchr(specials.quoted + at, 0, len)) return NULL;
        *next = at + 1;
        len = tok_trie_longest(trie, text + at, len - 1, &index);
    }
    if (!len) return NULL;
    *next = at + len;
    return &a->v[index];
}

bool tok_added_next(const struct tok_added_set *a, const struct tok_trie *trie, const char *text, size_t n, struct tok_specials specials,
                    struct tok_scan *s)
{
    s->last = s->end;
    while (s->search < n) {
        size_t at = s->search;
        const struct tok_added *token = longest_at(a, trie, text, at, n, specials, &s->search);
        size_t end = s->search;
        if (!token) continue;
        if (token->single_word && (word_before(text, at) || word_at(text + end, n - end))) continue;
        if (token->rstrip) end += tok_spaces_ahead(text + end, n - end);
        if (token->lstrip) at -= tok_spaces_behind(text, at);
        if (token->lstrip && at < s->last) at = s->last; /* an earlier token swallowed those spaces */
        if (at >= end) continue;
        s->at = at;
        s->start = at > s->last ? at : s->last;
        s->end = end;
        s->token = token;
        return true;
    }
    return false;
}
