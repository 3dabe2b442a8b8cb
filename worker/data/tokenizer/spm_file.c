#include "worker/data/tokenizer/spm_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/decode.h"
#include "worker/data/tokenizer/normalise.h"
#include "worker/data/tokenizer/segment.h"
#include "worker/data/tokenizer/utf8.h"

/* A protobuf ModelProto, walked by hand. Field numbers are those of sentencepiece_model.proto. */

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

/* ---- the model ---- */

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

struct proto {
    float *score; /* [n] */
    unsigned char *type;
    int32_t n, cap;
    int64_t model_type, unk, bos, eos, pad, byte_fallback, suffix; /* as in trainer_spec */
    bool dummy_prefix, trim, escape;
    struct wire charsmap;
};

static status read_piece(struct tokenizer *t, struct proto *m, struct wire w)
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
    if (type < PIECE_NORMAL || type > PIECE_BYTE) FAIL(ST_CORRUPT, "piece %" PRId32 ": type %" PRIu64 " is unknown", m->n, type);
    if (type == PIECE_UNUSED) FAIL(ST_NOT_BUILT, "piece %" PRId32 ": type unused is not built in", m->n);
    if (n && (!text_is_utf8(piece, n, NULL) || memchr(piece, 0, n))) FAIL(ST_CORRUPT, "piece %" PRId32 ": not UTF-8 text", m->n);
    memcpy(&m->score[m->n], &score, sizeof score);
    if (!(m->score[m->n] - m->score[m->n] == 0)) FAIL(ST_CORRUPT, "piece %" PRId32 ": score is not finite", m->n);
    m->type[m->n] = (unsigned char)type;
    return tok_vocab_add(&t->model.vocab, m->n++, piece ? piece : "", n);
}

static status read_trainer(struct proto *m, struct wire w)
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

static status read_normalizer(struct proto *m, struct wire w)
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
    struct proto m = {0};
    TRY(read_normalizer(&m, w));
    if (m.charsmap.at != m.charsmap.end) FAIL(ST_NOT_BUILT, "denormalizer_spec with a precompiled_charsmap is not built in");
    return ST_OK;
}

static status read_model(struct tokenizer *t, struct proto *m, struct wire w)
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

static bool in_text(const struct proto *m, int32_t id) { return m->type[id] == PIECE_NORMAL || m->type[id] == PIECE_USER; }

struct by_score {
    float score;
    int32_t id;
};

static int descending(const void *a, const void *b)
{
    const struct by_score *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : (x->id > y->id) - (x->id < y->id);
}

/* Caller frees. */
static struct by_score *by_score(const struct proto *m)
{
    struct by_score *order = mem_alloc((size_t)m->n * sizeof *order);
    for (int32_t i = 0; i < m->n; i++) order[i] = (struct by_score){m->score[i], i};
    qsort(order, (size_t)m->n, sizeof *order, descending);
    return order;
}

/* ---- as SentencePiece itself ---- */

/* Highest score merges first; equal scores are equal ranks, so that the leftmost pair wins. */
static void rank_by_score(struct tok_model *to, const struct proto *m)
{
    struct by_score *order = by_score(m);
    to->rank = mem_alloc((size_t)m->n * sizeof *to->rank);
    uint32_t rank = 0;
    for (int32_t i = 0; i < m->n; i++) {
        rank += i > 0 && order[i].score != order[i - 1].score;
        to->rank[order[i].id] = in_text(m, order[i].id) ? rank : UINT32_MAX;
    }
    to->segment = tok_bpe_segment;
    free(order);
}

/* every: pieces of all types are found in text, as in HF. */
static void unigram_scores(struct tok_model *to, struct proto *m, bool every)
{
    float least = 3.402823466e38f, most = -least;
    for (int32_t i = 0; i < m->n; i++) {
        size_t n;
        const char *piece = tok_vocab_piece(&to->vocab, i, &n);
        if (m->type[i] == PIECE_NORMAL && m->score[i] < least) least = m->score[i];
        if (m->type[i] == PIECE_NORMAL && m->score[i] > most) most = m->score[i];
        if (every || in_text(m, i)) tok_trie_add(&to->pieces, piece, n, i);
    }
    to->unk_score = least - 10.0f;
    to->user_score = most;
    to->score = m->score;
    m->score = NULL;
    to->segment = tok_unigram_segment;
}

/* Pieces of these types become added tokens; only user-defined ones are not special. */
static status add_pieces(struct tokenizer *t, const struct proto *m, unsigned types)
{
    for (int32_t i = 0; i < m->n; i++) {
        size_t n;
        const char *piece = tok_vocab_piece(&t->model.vocab, i, &n);
        struct tok_added token = {.id = i, .special = m->type[i] != PIECE_USER};
        if (types >> m->type[i] & 1) TRY(tok_added_add(&t->added, token, piece, n));
    }
    return ST_OK;
}

static status add_replace(struct tok_steps *steps, const char *pattern, enum tok_regex_syntax syntax, const char *text)
{
    struct tok_step *s = tok_steps_add(steps, step_replace);
    tok_step_text(s, text, strlen(text));
    return tok_regex_open(&s->regex, pattern, strlen(pattern), syntax);
}

/* ▁ to space, bytes, and one space less in front: the decoder of HF's Llama files does what SentencePiece does. */
static status add_decoder(struct tokenizer *t, bool bytes, bool strip)
{
    TRY(add_replace(&t->decoder, SPACE_MARK, REGEX_LITERAL, " "));
    if (bytes) tok_steps_add(&t->decoder, decode_fallback);
    tok_steps_add(&t->decoder, decode_fuse);
    if (!strip) return ST_OK;
    struct tok_step *s = tok_steps_add(&t->decoder, decode_strip);
    tok_step_text(s, " ", 1);
    s->left = 1;
    return ST_OK;
}

static status as_itself(struct tokenizer *t, struct proto *m)
{
    for (int32_t i = 0; i < m->n; i++) {
        size_t n;
        const char *piece = tok_vocab_piece(&t->model.vocab, i, &n);
        if (m->type[i] == PIECE_USER) tok_trie_add(&t->model.user_defined, piece, n, i);
    }
    TRY(add_pieces(t, m, 1u << PIECE_CONTROL | 1u << PIECE_UNKNOWN));
    struct tok_step *s = tok_steps_add(&t->normalizer, step_spm);
    s->charsmap = &t->charsmap;
    s->keep = &t->model.user_defined;
    s->options =
        (m->dummy_prefix ? SPM_DUMMY_PREFIX : 0) | (m->trim ? SPM_TRIM : 0) | (m->escape ? SPM_ESCAPE : 0) | (m->suffix ? SPM_SUFFIX : 0);
    TRY(add_decoder(t, m->byte_fallback, (m->dummy_prefix || m->trim) && !m->suffix));
    if (m->byte_fallback) tok_byte_pieces(&t->model);
    t->model.unk = (int32_t)m->unk;
    if (m->model_type == MODEL_BPE)
        rank_by_score(&t->model, m);
    else
        unigram_scores(&t->model, m, false);
    return ST_OK;
}

/* ---- as the classes of transformers ---- */

/* All ways to make a piece of two others, by the order of the pieces and then by the length of the left one. */
static void merges_from_pieces(struct tok_model *to, const struct proto *m, const struct by_score *order, bool normal)
{
    uint32_t rank = 0;
    for (int32_t k = 0; k < m->n; k++) {
        size_t n, len;
        int32_t id = order ? order[k].id : k;
        const char *piece = tok_vocab_piece(&to->vocab, id, &n);
        if (normal && m->type[id] != PIECE_NORMAL) continue;
        for (size_t i = 0; i < n; i += len) {
            utf8_get(piece + i, n - i, &len);
            int32_t left = i ? tok_vocab_id(&to->vocab, piece, i) : -1;
            int32_t right = left >= 0 ? tok_vocab_id(&to->vocab, piece + i, n - i) : -1;
            if (right < 0 || (normal && (m->type[left] != PIECE_NORMAL || m->type[right] != PIECE_NORMAL))) continue;
            tok_map_put(&to->pairs, (uint64_t)(uint32_t)left << 32 | (uint32_t)right, (uint64_t)rank++ << 32 | (uint32_t)id);
        }
    }
    to->by_pair = to->fuse_unk = true;
    to->segment = tok_bpe_segment;
}

static void add_metaspace(struct tokenizer *t, enum tok_prepend prepend)
{
    struct tok_step *s = tok_steps_add(&t->pre_tokenizer, step_metaspace);
    tok_step_text(s, SPACE_MARK, strlen(SPACE_MARK));
    s->options = prepend;
}

static status as_class(struct tokenizer *t, const struct proto *m, struct tok_spm_rules rules)
{
    bool gemma = rules.as == SPM_AS_GEMMA;
    TRY(add_pieces(t, m, 1u << PIECE_CONTROL | 1u << PIECE_USER));
    if (gemma)
        TRY(add_replace(&t->normalizer, " ", REGEX_LITERAL, SPACE_MARK));
    else
        add_metaspace(t, rules.prepend);
    bool strip = rules.as == SPM_AS_CODE_LLAMA || (!gemma && rules.prepend != PREPEND_NEVER);
    TRY(add_decoder(t, true, strip));
    merges_from_pieces(&t->model, m, NULL, false);
    tok_byte_pieces(&t->model);
    if (rules.as != SPM_AS_LLAMA) t->model.unk = (int32_t)m->unk;
    return ST_OK;
}

static void add_literal(struct buf *pattern, const char *text, size_t n)
{
    if (pattern->len) buf_text(pattern, "|");
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x80 && !tok_is_word((unsigned char)text[i])) buf_text(pattern, "\\");
        buf_add(pattern, text + i, 1);
    }
}

/* User-defined pieces are cut out whole, the longest first. */
static status isolate_user_defined(struct tokenizer *t, const struct proto *m)
{
    struct by_score *order = mem_alloc((size_t)m->n * sizeof *order); /* by length */
    struct buf pattern = {0};
    int32_t users = 0;
    for (int32_t id = 0; id < m->n; id++) {
        size_t n;
        tok_vocab_piece(&t->model.vocab, id, &n);
        if (m->type[id] == PIECE_USER) order[users++] = (struct by_score){(float)n, id};
    }
    qsort(order, (size_t)users, sizeof *order, descending);
    for (int32_t i = 0; i < users; i++) {
        size_t n;
        const char *piece = tok_vocab_piece(&t->model.vocab, order[i].id, &n);
        add_literal(&pattern, piece, n);
    }
    free(order);
    status st = ST_OK;
    if (users) {
        struct tok_step *s = tok_steps_add(&t->pre_tokenizer, step_split);
        s->options = SPLIT_ISOLATED;
        st = tok_regex_open(&s->regex, pattern.data, pattern.len, REGEX_OURS);
        t->model.ignore_merges = true;
    }
    buf_release(&pattern);
    return st;
}

static status as_backend(struct tokenizer *t, struct proto *m, struct tok_spm_rules rules)
{
    struct tok_steps *normalizer = &t->normalizer;
    if (m->charsmap.at != m->charsmap.end) {
        struct tok_step *s = tok_steps_add(normalizer, step_spm);
        s->charsmap = &t->charsmap;
        s->keep = &t->model.user_defined;
    }
    if (m->trim) {
        TRY(add_replace(normalizer, "\\A +| +\\z", REGEX_OURS, ""));
        TRY(add_replace(normalizer, " {2,}", REGEX_OURS, " "));
    }
    if (m->escape) TRY(add_replace(normalizer, " ", REGEX_LITERAL, SPACE_MARK));
    if (m->dummy_prefix && rules.prepend == PREPEND_ALWAYS) /* Metaspace adds none before a ▁, SentencePiece does */
        TRY(add_replace(normalizer, "\\A" SPACE_MARK, REGEX_OURS, SPACE_MARK SPACE_MARK));
    if (m->dummy_prefix) add_metaspace(t, rules.prepend);
    t->added.all_raw = m->dummy_prefix;
    TRY(add_pieces(t, m, 1u << PIECE_CONTROL | 1u << PIECE_UNKNOWN));
    TRY(isolate_user_defined(t, m));
    TRY(add_decoder(t, m->byte_fallback, m->dummy_prefix));
    if (m->byte_fallback) tok_byte_pieces(&t->model);
    t->model.unk = (int32_t)m->unk;
    if (m->model_type == MODEL_UNIGRAM) {
        unigram_scores(&t->model, m, true);
        return ST_OK;
    }
    struct by_score *order = by_score(m);
    merges_from_pieces(&t->model, m, order, true);
    free(order);
    return ST_OK;
}

/* ---- all of it ---- */

static int32_t if_piece(const struct proto *m, int64_t id) { return id >= 0 && id < m->n ? (int32_t)id : -1; }

status tok_read_spm(struct tokenizer *t, const unsigned char *data, size_t n, struct tok_spm_rules rules)
{
    struct proto m = {.model_type = MODEL_UNIGRAM, .bos = 1, .eos = 2, .pad = -1, .dummy_prefix = true, .trim = true, .escape = true};
    status st;
    TRY_DONE(read_model(t, &m, (struct wire){data, data + n}));
    if (m.charsmap.at != m.charsmap.end) TRY_DONE(tok_charsmap_read(&t->charsmap, m.charsmap.at, (size_t)(m.charsmap.end - m.charsmap.at)));
    t->kind = m.model_type == MODEL_BPE ? "SentencePiece BPE" : "SentencePiece Unigram";
    t->bos = if_piece(&m, m.bos);
    t->eos = if_piece(&m, m.eos);
    if (rules.as == SPM_AS_ITSELF) t->pad = if_piece(&m, m.pad); /* transformers does not look at it */
    if (rules.as == SPM_AS_ITSELF)
        st = as_itself(t, &m);
    else if (rules.as == SPM_AS_BACKEND)
        st = as_backend(t, &m, rules);
    else
        st = as_class(t, &m, rules);
done:
    free(m.score);
    free(m.type);
    return st;
}
