/* SentencePiece .model: protobuf ModelProto, walked by hand. Field numbers are those of
 * sentencepiece_model.proto. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/tok_utf8.h"
#include "worker/data/tokenizer/tokenizer_impl.h"

/* ---- protobuf wire format ---- */

struct wire {
    const unsigned char *at, *end;
};

struct field {
    int number;
    enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 } type;
    uint64_t value; /* varint, fixed */
    struct wire bytes;
};

static bool varint(struct wire *w, uint64_t *v)
{
    *v = 0;
    for (int shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        unsigned char b = *w->at++;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) return true;
    }
    return false;
}

static bool fixed(struct wire *w, int bytes, uint64_t *v)
{
    *v = 0;
    if (w->end - w->at < bytes) return false;
    for (int i = 0; i < bytes; i++) *v |= (uint64_t)*w->at++ << (8 * i);
    return true;
}

/* The next field: false at the end, *bad set when the bytes are not protobuf. */
static bool next_field(struct wire *w, struct field *f, bool *bad)
{
    uint64_t key;
    if (*bad || w->at >= w->end) return false;
    *bad = true;
    if (!varint(w, &key) || key >> 3 == 0 || key >> 3 > INT32_MAX) return false;
    f->number = (int)(key >> 3);
    switch (key & 7) {
    case WIRE_VARINT:
        *bad = !varint(w, &f->value);
        break;
    case WIRE_64:
        *bad = !fixed(w, 8, &f->value);
        break;
    case WIRE_32:
        *bad = !fixed(w, 4, &f->value);
        break;
    case WIRE_BYTES:
        if (!varint(w, &f->value) || f->value > (uint64_t)(w->end - w->at)) return false;
        f->bytes = (struct wire){w->at, w->at + f->value};
        w->at = f->bytes.end;
        *bad = false;
        break;
    default:
        return false;
    }
    f->type = (int)(key & 7);
    return !*bad;
}

/* ---- precompiled_charsmap ---- */

status tok_charsmap_read(struct tok_charsmap *m, const unsigned char *blob, size_t n)
{
    uint32_t trie = 0;
    struct wire w = {blob, blob + n};
    uint64_t v;
    if (fixed(&w, 4, &v)) trie = (uint32_t)v;
    if (n < 8 || trie == 0 || trie % 4 || trie > n - 4)
        FAIL(ST_CORRUPT, "precompiled_charsmap of %zu bytes says its table has %" PRIu32, n, trie);
    m->units = trie / 4;
    m->unit = mem_alloc(trie);
    for (size_t i = 0; i < m->units; i++) {
        fixed(&w, 4, &v);
        m->unit[i] = (uint32_t)v;
    }
    m->pool_n = n - 4 - trie;
    m->pool = mem_alloc(m->pool_n + 1);
    memcpy(m->pool, w.at, m->pool_n);
    return ST_OK;
}

/* Darts-clone units: label in bits 0-7 and 31, "value follows" in bit 8, offset to the children in the rest. */
size_t tok_charsmap_match(const struct tok_charsmap *m, const char *text, size_t n, const char **to)
{
    size_t best = 0;
    if (!m->units) return 0;
    uint32_t unit = m->unit[0], at = 0;
    for (size_t i = 0; i < n; i++) {
        at ^= (unit >> 10) << ((unit & 512) >> 6);
        at ^= (unsigned char)text[i];
        if (at >= m->units) break;
        unit = m->unit[at];
        if ((unit & 0x800000ffu) != (unsigned char)text[i]) break;
        if (!(unit & 256)) continue;
        uint32_t leaf = at ^ (unit >> 10) << ((unit & 512) >> 6);
        uint32_t where = leaf < m->units ? m->unit[leaf] & 0x7fffffffu : UINT32_MAX;
        if (where >= m->pool_n) continue;
        best = i + 1;
        *to = m->pool + where;
    }
    return best;
}

/* ---- the model ---- */

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

struct model {
    float *score; /* [n] */
    unsigned char *type;
    int32_t n, cap;
    int64_t model_type, unk, bos, eos, pad, byte_fallback, suffix; /* as in trainer_spec */
    bool dummy_prefix, trim, escape;
    struct wire charsmap;
};

static status read_piece(struct tokenizer *t, struct model *m, struct wire w)
{
    struct field f;
    struct wire text = {0};
    uint64_t type = PIECE_NORMAL;
    uint32_t score = 0;
    bool bad = false;
    while (next_field(&w, &f, &bad)) {
        if (f.number == 1 && f.type == WIRE_BYTES) text = f.bytes;
        if (f.number == 2 && f.type == WIRE_32) score = (uint32_t)f.value;
        if (f.number == 3 && f.type == WIRE_VARINT) type = f.value;
    }
    if (m->n == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 1024;
        m->score = mem_grow(m->score, (size_t)m->cap * sizeof *m->score);
        m->type = mem_grow(m->type, (size_t)m->cap);
    }
    const char *piece = (const char *)text.at;
    size_t n = (size_t)(text.end - text.at);
    if (bad) FAIL(ST_CORRUPT, "piece %" PRId32 ": malformed protobuf", m->n);
    if (type < PIECE_NORMAL || type > PIECE_BYTE)
        FAIL(ST_CORRUPT, "piece %" PRId32 ": type %" PRIu64 " is unknown", m->n, type);
    if (type == PIECE_UNUSED) FAIL(ST_NOT_BUILT, "piece %" PRId32 ": type unused is not built in", m->n);
    if (n && (!text_is_utf8(piece, n, NULL) || memchr(piece, 0, n)))
        FAIL(ST_CORRUPT, "piece %" PRId32 ": not UTF-8 text", m->n);
    memcpy(&m->score[m->n], &score, sizeof score);
    if (!(m->score[m->n] - m->score[m->n] == 0)) FAIL(ST_CORRUPT, "piece %" PRId32 ": score is not finite", m->n);
    m->type[m->n] = (unsigned char)type;
    return tok_vocab_add(&t->vocab, m->n++, piece ? piece : "", n);
}

static status read_trainer(struct model *m, struct wire w)
{
    const struct {
        int number;
        int64_t *to;
    } members[] = {{3, &m->model_type}, {24, &m->suffix}, {35, &m->byte_fallback}, {40, &m->unk}, {41, &m->bos},
                   {42, &m->eos},       {43, &m->pad}};
    struct field f;
    bool bad = false;
    while (next_field(&w, &f, &bad))
        for (size_t i = 0; i < sizeof members / sizeof *members; i++)
            if (f.type == WIRE_VARINT && f.number == members[i].number) *members[i].to = (int32_t)f.value;
    if (bad) FAIL(ST_CORRUPT, "trainer_spec: malformed protobuf");
    return ST_OK;
}

static status read_normalizer(struct model *m, struct wire w)
{
    struct field f;
    bool bad = false;
    while (next_field(&w, &f, &bad)) {
        if (f.number == 2 && f.type == WIRE_BYTES) m->charsmap = f.bytes;
        if (f.type != WIRE_VARINT) continue;
        if (f.number == 3) m->dummy_prefix = f.value;
        if (f.number == 4) m->trim = f.value;
        if (f.number == 5) m->escape = f.value;
    }
    if (bad) FAIL(ST_CORRUPT, "normalizer_spec: malformed protobuf");
    return ST_OK;
}

static status read_denormalizer(struct wire w)
{
    struct model m = {0};
    TRY(read_normalizer(&m, w));
    if (m.charsmap.at != m.charsmap.end)
        FAIL(ST_NOT_BUILT, "denormalizer_spec with a precompiled_charsmap is not built in");
    return ST_OK;
}

static status read_model(struct tokenizer *t, struct model *m, struct wire w)
{
    struct field f;
    bool bad = false;
    while (next_field(&w, &f, &bad)) {
        if (f.type != WIRE_BYTES) continue;
        if (f.number == 1) TRY(read_piece(t, m, f.bytes));
        if (f.number == 2) TRY(read_trainer(m, f.bytes));
        if (f.number == 3) TRY(read_normalizer(m, f.bytes));
        if (f.number == 5) TRY(read_denormalizer(f.bytes));
    }
    if (bad) FAIL(ST_CORRUPT, "malformed protobuf: not a SentencePiece model, or cut short");
    if (m->n == 0) FAIL(ST_CORRUPT, "has no pieces: not a SentencePiece model");
    if (m->unk < 0 || m->unk >= m->n || m->type[m->unk] != PIECE_UNKNOWN)
        FAIL(ST_CORRUPT, "trainer_spec: unk_id %" PRId64 " is not a piece of type unknown", m->unk);
    if (m->model_type != MODEL_UNIGRAM && m->model_type != MODEL_BPE)
        FAIL(ST_NOT_BUILT, "model_type %" PRId64 " is not built in (known: 1 unigram, 2 BPE)", m->model_type);
    return ST_OK;
}

struct by_score {
    float score;
    int32_t id;
};

static int descending(const void *a, const void *b)
{
    float x = ((const struct by_score *)a)->score, y = ((const struct by_score *)b)->score;
    return (x < y) - (x > y);
}

static bool in_text(const struct model *m, int32_t id)
{
    return m->type[id] == PIECE_NORMAL || m->type[id] == PIECE_USER;
}

/* Highest score merges first; equal scores are equal ranks, so that the leftmost pair wins. */
static void rank_by_score(struct tokenizer *t, const struct model *m)
{
    struct by_score *order = mem_alloc((size_t)m->n * sizeof *order);
    t->rank = mem_alloc((size_t)m->n * sizeof *t->rank);
    for (int32_t i = 0; i < m->n; i++) order[i] = (struct by_score){m->score[i], i};
    qsort(order, (size_t)m->n, sizeof *order, descending);
    uint32_t rank = 0;
    for (int32_t i = 0; i < m->n; i++) {
        rank += i > 0 && order[i].score != order[i - 1].score;
        t->rank[order[i].id] = in_text(m, order[i].id) ? rank : UINT32_MAX;
    }
    free(order);
}

static void unigram_scores(struct tokenizer *t, struct model *m)
{
    float least = 3.402823466e38f, most = -least;
    for (int32_t i = 0; i < m->n; i++) {
        size_t n;
        const char *piece = tok_vocab_piece(&t->vocab, i, &n);
        if (m->type[i] == PIECE_NORMAL && m->score[i] < least) least = m->score[i];
        if (m->type[i] == PIECE_NORMAL && m->score[i] > most) most = m->score[i];
        if (in_text(m, i)) tok_trie_add(&t->pieces, piece, n, i);
    }
    t->unk_score = least - 10.0f;
    t->user_score = most;
    t->score = m->score;
    m->score = NULL;
}

static status special_pieces(struct tokenizer *t, const struct model *m)
{
    for (int32_t i = 0; i < m->n; i++) {
        size_t n;
        const char *piece = tok_vocab_piece(&t->vocab, i, &n);
        if (m->type[i] == PIECE_USER) tok_trie_add(&t->user_defined, piece, n, i);
        if (m->type[i] == PIECE_CONTROL || m->type[i] == PIECE_UNKNOWN)
            TRY(tok_added_add(t, (struct tok_added){.id = i, .special = true}, piece, n));
    }
    return ST_OK;
}

/* The decoder of HF's Llama files does what SentencePiece does. */
static status pipeline(struct tokenizer *t, const struct model *m)
{
    struct tok_step *s = tok_steps_add(&t->normalizer, step_spm);
    s->charsmap = &t->charsmap;
    s->keep = &t->user_defined;
    s->options = (m->dummy_prefix ? SPM_DUMMY_PREFIX : 0) | (m->trim ? SPM_TRIM : 0) | (m->escape ? SPM_ESCAPE : 0) |
                 (m->suffix ? SPM_SUFFIX : 0);
    s = tok_steps_add(&t->decoder, step_replace);
    s->text = mem_strdup(" ");
    s->text_n = 1;
    TRY(tok_regex_open(&s->regex, SPACE_MARK, strlen(SPACE_MARK), REGEX_LITERAL));
    if (m->byte_fallback) tok_steps_add(&t->decoder, decode_fallback);
    tok_steps_add(&t->decoder, decode_fuse);
    if ((!m->dummy_prefix && !m->trim) || m->suffix) return ST_OK;
    s = tok_steps_add(&t->decoder, decode_strip);
    s->text = mem_strdup(" ");
    s->text_n = 1;
    s->left = 1;
    return ST_OK;
}

static int32_t if_piece(const struct model *m, int64_t id) { return id >= 0 && id < m->n ? (int32_t)id : -1; }

status tok_read_spm(struct tokenizer *t, const unsigned char *data, size_t n)
{
    struct model m = {
        .model_type = MODEL_UNIGRAM, .bos = 1, .eos = 2, .pad = -1, .dummy_prefix = true, .trim = true, .escape = true};
    status st;
    TRY_DONE(read_model(t, &m, (struct wire){data, data + n}));
    if (m.charsmap.at != m.charsmap.end)
        TRY_DONE(tok_charsmap_read(&t->charsmap, m.charsmap.at, (size_t)(m.charsmap.end - m.charsmap.at)));
    TRY_DONE(special_pieces(t, &m));
    TRY_DONE(pipeline(t, &m));
    if (m.byte_fallback) tok_byte_pieces(t);
    t->unk = (int32_t)m.unk;
    t->bos = if_piece(&m, m.bos);
    t->eos = if_piece(&m, m.eos);
    t->pad = if_piece(&m, m.pad);
    if (m.model_type == MODEL_BPE)
        rank_by_score(t, &m);
    else
        unigram_scores(t, &m);
    t->segment = m.model_type == MODEL_BPE ? tok_bpe_segment : tok_unigram_segment;
    t->kind = m.model_type == MODEL_BPE ? "SentencePiece BPE" : "SentencePiece Unigram";
done:
    free(m.score);
    free(m.type);
    return st;
}
