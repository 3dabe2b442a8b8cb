/* model.h — pieces, and how a pre-token is cut into them. A reader fills it; bpe.c and unigram.c use it. */
#ifndef TRIMPOT_TOK_MODEL_H
#define TRIMPOT_TOK_MODEL_H

#include "worker/data/tokenizer/spans.h"
#include "worker/data/tokenizer/table.h"

struct tok_work; /* memory of the segmentation, reused from one pre-token to the next */

struct tok_model {
    struct tok_vocab vocab;
    /* Ids of the bytes [at, at + n) of s->text; ST_DATA if they cannot be represented. */
    status (*segment)(const struct tok_model *m, struct tok_work *w, const struct tok_spans *s, size_t at, size_t n, struct tok_sink *out);
    bool by_pair;         /* merges are pairs of ids (HF); else any two neighbours whose joined bytes are a ranked piece */
    struct tok_map pairs; /* left id << 32 | right id → rank << 32 | id */
    uint32_t *rank;       /* [vocab.ids] by joined bytes: lowest merges first; UINT32_MAX never */
    float *score;         /* [vocab.ids] Unigram */
    float unk_score, user_score;
    struct tok_trie pieces;       /* Unigram: all pieces */
    struct tok_trie user_defined; /* SentencePiece: matched first, longest first */
    bool ignore_merges, fuse_unk;
    bool words;           /* no piece has a ▁ behind another character: words merge independently of each other */
    int32_t unk;          /* -1 none: characters without a piece disappear, as in HF */
    int32_t byte_id[256]; /* <0xNN>, -1 if absent or byte_fallback is off */
};

void tok_model_init(struct tok_model *m);
void tok_model_release(struct tok_model *m);
void tok_byte_pieces(struct tok_model *m); /* fills byte_id from pieces <0x00> … <0xFF> */
bool tok_has_bytes(const struct tok_model *m, const char *text, size_t n);
/* The next merge in rank: of two pieces into a third, ST_CORRUPT if one is missing. pair: both texts joined. */
status tok_add_merge(struct tok_model *m, size_t rank, const char *pair, size_t left_n, size_t right_n);
/* A run of text without pieces: bytes if every byte has a piece, else unk; ST_DATA: neither exists. */
status tok_push_unknown(const struct tok_model *m, const struct tok_spans *s, size_t at, size_t end, struct tok_sink *out);

#endif
