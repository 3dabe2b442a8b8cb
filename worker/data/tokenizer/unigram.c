/* SentencePiece Unigram: the segmentation of the highest total score (Viterbi over byte positions). */
#include <string.h>

#include "worker/data/tokenizer/segment.h"
#include "worker/data/tokenizer/utf8.h"

struct tok_best { /* of all segmentations of text[0..i) */
    float score;
    int32_t id;
    uint32_t from;
};

static void propose(struct tok_best *b, float score, int32_t id, size_t from)
{
    if (b->from != UINT32_MAX && !(score > b->score)) return;
    *b = (struct tok_best){score, id, (uint32_t)from};
}

status tok_unigram_segment(const struct tok_model *m, struct tok_work *w, const struct tok_spans *s, size_t at, size_t n,
                           struct tok_sink *out)
{
    const char *text = s->text.data + at;
    if (w->cap_best < n + 1) {
        w->cap_best = 2 * n + 1;
        w->best = mem_grow(w->best, w->cap_best * sizeof *w->best);
    }
    struct tok_best *best = w->best;
    for (size_t i = 0; i <= n; i++) best[i] = (struct tok_best){0, -1, UINT32_MAX};
    for (size_t i = 0, len; i < n; i += len) {
        bool single = false;
        uint32_t node = 0;
        utf8_get(text + i, n - i, &len);
        for (size_t end = i; end < n && tok_trie_step(&m->pieces, &node, (unsigned char)text[end]);) {
            int32_t id = m->pieces.value[node];
            end++;
            if (id < 0) continue;
            /* A user-defined piece always wins: its score grows with its length. */
            int32_t user;
            bool is_user = tok_trie_longest(&m->user_defined, text + i, end - i, &user) == end - i;
            float score = is_user ? (float)((double)(end - i) * m->user_score - 0.1) : m->score[id];
            propose(&best[end], score + best[i].score, id, i);
            single = single || end - i == len;
        }
        if (!single) propose(&best[i + len], m->unk_score + best[i].score, -1, i);
    }
    /* Walk back, turning the links round, then forward. */
    size_t next = n;
    for (size_t i = n; i > 0;) {
        size_t from = best[i].from;
        best[i].from = (uint32_t)next;
        next = i;
        i = from;
    }
    for (size_t from = 0, i = next; n > 0;) {
        size_t end = i, last = best[i].from;
        if (best[i].id >= 0)
            tok_emit(out, best[i].id, s, at + from, at + i);
        else {
            while (end < n && best[best[end].from].id < 0) end = best[end].from;
            last = best[end].from;
            TRY(tok_push_unknown(m, s, at + from, at + end, out));
        }
        if (end == n) break;
        from = end;
        i = last;
    }
    return ST_OK;
}
