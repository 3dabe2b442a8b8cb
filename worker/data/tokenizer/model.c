#include "worker/data/tokenizer/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tok_model_init(struct tok_model *m)
{
    *m = (struct tok_model){.unk = -1};
    memset(m->byte_id, 0xff, sizeof m->byte_id);
}

void tok_model_release(struct tok_model *m)
{
    tok_vocab_release(&m->vocab);
    tok_map_release(&m->pairs);
    tok_trie_release(&m->pieces);
    tok_trie_release(&m->user_defined);
    free(m->rank);
    free(m->score);
}

void tok_byte_pieces(struct tok_model *m)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        m->byte_id[b] = tok_vocab_id(&m->vocab, name, 6);
    }
}

bool tok_has_bytes(const struct tok_model *m, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (m->byte_id[(unsigned char)text[i]] < 0) return false;
    return true;
}

static int shown(size_t n) { return n < 40 ? (int)n : 40; }

status tok_add_merge(struct tok_model *m, size_t rank, const char *pair, size_t left_n, size_t right_n)
{
    int32_t left = tok_vocab_id(&m->vocab, pair, left_n), right = tok_vocab_id(&m->vocab, pair + left_n, right_n);
    int32_t id = tok_vocab_id(&m->vocab, pair, left_n + right_n);
    if (left < 0 || right < 0 || id < 0)
        FAIL(ST_CORRUPT, "merge %zu, '%.*s' and '%.*s': %s is not in the vocabulary", rank, shown(left_n), pair, shown(right_n),
             pair + left_n,
             left < 0    ? "the left piece"
             : right < 0 ? "the right piece"
                         : "what they make together");
    if (rank >= UINT32_MAX) FAIL(ST_CORRUPT, "more than 2^32 merges");
    tok_map_put(&m->pairs, (uint64_t)(uint32_t)left << 32 | (uint32_t)right, (uint64_t)rank << 32 | (uint32_t)id);
    return ST_OK;
}

status tok_push_unknown(const struct tok_model *m, const struct tok_spans *s, size_t at, size_t end, struct tok_sink *out)
{
    const char *text = s->text.data + at;
    if (tok_has_bytes(m, text, end - at))
        for (size_t i = at; i < end; i++) tok_emit(out, m->byte_id[(unsigned char)s->text.data[i]], s, i, i + 1);
    else if (m->unk >= 0)
        tok_emit(out, m->unk, s, at, end);
    else
        FAIL(ST_DATA, "no piece for '%.*s', and the file has no unknown token", shown(end - at), text);
    return ST_OK;
}
