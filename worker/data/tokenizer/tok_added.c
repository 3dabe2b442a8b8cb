/* Added tokens: found in text leftmost longest before anything else happens to it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/tok_utf8.h"
#include "worker/data/tokenizer/tokenizer_impl.h"

const struct tok_added *tok_added_find(const struct tokenizer *t, const char *text, size_t n)
{
    int32_t i;
    return n && tok_trie_longest(&t->added_all, text, n, &i) == n ? &t->added[i] : NULL;
}

const struct tok_added *tok_added_of_id(const struct tokenizer *t, int32_t id)
{
    uint64_t i = tok_map_get(&t->added_by_id, (uint64_t)(uint32_t)id);
    return i == TOK_NONE ? NULL : &t->added[i];
}

status tok_added_add(struct tokenizer *t, struct tok_added token, const char *text, size_t n)
{
    const struct tok_added *same = tok_added_find(t, text, n), *taken = tok_added_of_id(t, token.id);
    if (n == 0) FAIL(ST_CORRUPT, "an added token with id %" PRId32 " has no text", token.id);
    if (n > TOK_MAX_PIECE_BYTES)
        FAIL(ST_CORRUPT, "an added token of %zu bytes; the limit is %d", n, TOK_MAX_PIECE_BYTES);
    if (same && same->id == token.id) return ST_OK;
    if (same) FAIL(ST_CORRUPT, "added token '%.40s' has two ids, %" PRId32 " and %" PRId32, text, same->id, token.id);
    if (taken)
        FAIL(ST_CORRUPT, "id %" PRId32 " belongs to two added tokens, '%.40s' and '%.40s'", token.id, taken->text,
             text);
    if ((t->n_added & (t->n_added - 1)) == 0)
        t->added = mem_grow(t->added, (t->n_added ? 2 * (size_t)t->n_added : 1) * sizeof *t->added);
    token.text = mem_alloc(n + 1);
    token.n = n;
    memcpy(token.text, text, n);
    tok_trie_add(&t->added_all, text, n, t->n_added);
    tok_map_put(&t->added_by_id, (uint64_t)(uint32_t)token.id, (uint64_t)t->n_added);
    t->added[t->n_added++] = token;
    return ST_OK;
}

status tok_added_finish(struct tokenizer *t)
{
    struct tok_work w = {0};
    status st = ST_OK;
    for (int32_t i = 0; i < t->n_added; i++) {
        struct tok_added *a = &t->added[i];
        if (!a->normalized) {
            tok_trie_add(&t->added_raw, a->text, a->n, i);
            continue;
        }
        /* Looked for in normalised text, so its own text is normalised too, and that is what decoding shows. */
        tok_spans_clear(&w.in);
        tok_span_add(&w.in, a->text, a->n, true);
        TRY_DONE(tok_steps_run(&t->normalizer, &w));
        if (w.in.v[0].n == 0) continue;
        tok_trie_add(&t->added_normalized, w.in.text.data + w.in.v[0].at, w.in.v[0].n, i);
        a->form = mem_alloc(w.in.v[0].n + 1);
        a->form_n = w.in.v[0].n;
        memcpy(a->form, w.in.text.data + w.in.v[0].at, a->form_n);
    }
done:
    tok_work_release(&w);
    return st;
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
static const struct tok_added *longest_at(const struct tokenizer *t, const struct tok_trie *trie, const char *text,
                                          size_t at, size_t n, struct tok_specials specials, size_t *next)
{
    int32_t index;
    size_t len = tok_trie_longest(trie, text + at, n - at, &index);
    *next = at + (len ? len : 1);
    while (len && t->added[index].special) {
        if (!specials.found) return NULL;
        if (!specials.quoted || !memchr(specials.quoted + at, 1, len)) break;
        if (!memchr(specials.quoted + at, 0, len)) return NULL;
        *next = at + 1;
        len = tok_trie_longest(trie, text + at, len - 1, &index);
    }
    if (!len) return NULL;
    *next = at + len;
    return &t->added[index];
}

void tok_added_next(const struct tokenizer *t, const struct tok_trie *trie, const char *text, size_t n,
                    struct tok_specials specials, struct tok_scan *s)
{
    s->token = NULL;
    s->last = s->end;
    while (s->search < n) {
        size_t at = s->search;
        const struct tok_added *a = longest_at(t, trie, text, at, n, specials, &s->search);
        size_t end = s->search;
        if (!a) continue;
        if (a->single_word && (word_before(text, at) || word_at(text + end, n - end))) continue;
        if (a->rstrip) end += tok_spaces_ahead(text + end, n - end);
        if (a->lstrip) at -= tok_spaces_behind(text, at);
        if (a->lstrip && at < s->last) at = s->last; /* an earlier token swallowed those spaces */
        if (at >= end) continue;
        s->at = at;
        s->start = at > s->last ? at : s->last;
        s->end = end;
        s->token = a;
        return;
    }
}
