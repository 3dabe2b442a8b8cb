/* tokenizer_impl.h — what every kind of tokenizer file becomes, for the files tok_*.c and tokenizer.c only.
 *
 *   text ─ added tokens found ─▶ segments ─ normalizer, pre-tokenizer steps ─▶ spans ─ segment() ─▶ ids
 *   ids ─ pieces ─▶ spans ─ decoder steps ─▶ text
 *
 * A reader (tok_json.c, tok_components.c, tok_files.c, tok_spm.c) fills struct tokenizer and knows nothing of encoding;
 * the engine (tok_bpe.c, tok_unigram.c, tok_steps.c) knows nothing of files. Steps of all three lists map a list of
 * spans to a list of spans, so they are one kind of thing: HF's Replace is the same code as normalizer and as decoder.
 */
#ifndef TRIMPOT_TOKENIZER_IMPL_H
#define TRIMPOT_TOKENIZER_IMPL_H

#include "kernels/base/text.h"
#include "worker/data/tokenizer/tok_regex.h"
#include "worker/data/tokenizer/tok_scan.h"
#include "worker/data/tokenizer/tok_table.h"
#include "worker/data/tokenizer/tokenizer.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 ▁, SentencePiece's visible space */

struct tok_span {
    uint32_t at, n;
    bool first; /* begins where the caller's text begins (Metaspace "first") */
};

struct tok_origin { /* the bytes [from, to) of the caller's text that a byte stands for */
    uint32_t from, to;
};

struct tok_spans {
    struct buf text;
    struct tok_span *v;
    size_t n, cap;
    bool traced;
    struct tok_origin *origin; /* traced: one per byte of text */
    size_t cap_origin;
};
void tok_spans_clear(struct tok_spans *s); /* keeps memory and `traced` */
void tok_spans_release(struct tok_spans *s);
void tok_span_push(struct tok_spans *s, uint32_t at, uint32_t n, bool first); /* of bytes already in s->text */
/* Appends the bytes as a span of their own. */
void tok_span_add(struct tok_spans *s, const char *bytes, size_t n, bool first);
/* Appends the n bytes of `from` at `at`, each with its own origin. */
void tok_copy(struct tok_spans *s, const struct tok_spans *from, size_t at, size_t n);
/* Appends bytes that all stand for the bytes [at, end) of `from`, of which there is at least one. */
static inline void tok_put(struct tok_spans *s, const char *bytes, size_t n, const struct tok_spans *from, size_t at,
                           size_t end);
/* The last n bytes of s->text: the first is from o, each other from `step` bytes behind the one before it. */
void tok_trace(struct tok_spans *s, size_t n, struct tok_origin o, uint32_t step);

static inline void tok_put(struct tok_spans *s, const char *bytes, size_t n, const struct tok_spans *from, size_t at,
                           size_t end)
{
    buf_add(&s->text, bytes, n);
    if (s->traced) tok_trace(s, n, (struct tok_origin){from->origin[at].from, from->origin[end - 1].to}, 0);
}

/* Where ids go. from == NULL: nobody asks for origins. */
struct tok_sink {
    struct ids *ids, *from, *to;
};
/* The id of the bytes [at, end) of s->text; at least one. */
static inline void tok_emit(struct tok_sink *sink, int32_t id, const struct tok_spans *s, const char *at,
                            const char *end);
void tok_emit_traced(struct tok_sink *sink, struct tok_origin o);

static inline void tok_emit(struct tok_sink *sink, int32_t id, const struct tok_spans *s, const char *at,
                            const char *end)
{
    ids_push(sink->ids, id);
    if (sink->from)
        tok_emit_traced(sink, (struct tok_origin){s->origin[at - s->text.data].from,
                                                  s->origin[end - 1 - s->text.data].to});
}

struct tok_symbol {   /* of a word being merged: a list threaded through an array */
    uint32_t at, end; /* end == 0: merged into its left neighbour; else no two symbols end at one place */
    int32_t id;       /* -1: not a piece (yet) */
    int32_t prev, next;
    bool frozen; /* a user-defined piece: never merged */
};

struct tok_merge {                      /* a candidate pair on the heap */
    uint32_t rank, left_end, right_end; /* they tell whether it is stale */
    int32_t left, id;
};

/* Memory of one call. Zero-initialise; grows and is reused from segment to segment. */
struct tok_work {
    struct tok_spans in, out;
    struct tok_matcher matcher;
    struct tok_symbol *symbols;
    struct tok_merge *heap;
    struct tok_best *best;
    size_t n_symbols, cap_symbols, n_heap, cap_heap, cap_best;
};
void tok_work_release(struct tok_work *w);

enum tok_behaviour { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_PREVIOUS, SPLIT_MERGED_NEXT, SPLIT_CONTIGUOUS };
enum tok_prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct tok_step;
typedef status tok_step_run(const struct tok_step *s, struct tok_work *w, const struct tok_spans *in,
                            struct tok_spans *out);

struct tok_step { /* each function of tok_steps.c says which members it reads */
    tok_step_run *run;
    struct tok_regex *regex; /* owned */
    char *text;              /* owned */
    size_t text_n;
    int left, right, options;
    bool flag;
    const struct tok_charsmap *charsmap; /* SentencePiece's; lives in the tokenizer */
    const struct tok_trie *keep;         /* likewise: pieces the charsmap must not touch */
};

struct tok_steps {
    struct tok_step *v;
    int n;
};
struct tok_step *tok_steps_add(struct tok_steps *s, tok_step_run *run); /* valid until the next add */
void tok_steps_release(struct tok_steps *s);
/* Runs all steps over w->in; the result is in w->in. */
status tok_steps_run(const struct tok_steps *s, struct tok_work *w);

tok_step_run step_unicode; /* options: enum tok_unicode; text unused */
tok_step_run step_lowercase;
tok_step_run step_prepend; /* text */
tok_step_run step_replace; /* regex → text; also a decoder */
tok_step_run step_strip;   /* left, right: white space */
tok_step_run step_spm;     /* charsmap, keep, options: enum tok_spm_space */
tok_step_run step_split;   /* regex, options: enum tok_behaviour, flag: invert */
tok_step_run step_prefix_space;
tok_step_run step_bytes;      /* GPT-2 alphabet */
tok_step_run step_metaspace;  /* text: replacement, options: enum tok_prepend; the split is a step_split */
tok_step_run decode_bytes;    /* GPT-2 alphabet back */
tok_step_run decode_fallback; /* <0xNN> */
tok_step_run decode_fuse;
tok_step_run decode_strip;     /* text: one character; left, right: at most so many */
tok_step_run decode_metaspace; /* text: replacement, flag: drop those of the first piece */

enum tok_unicode { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
enum tok_spm_space { SPM_DUMMY_PREFIX = 1, SPM_TRIM = 2, SPM_ESCAPE = 4, SPM_SUFFIX = 8 };

size_t tok_spaces_ahead(const char *text, size_t n);  /* bytes of white space text begins with */
size_t tok_spaces_behind(const char *text, size_t n); /* … ends with */

/* Appends the GPT-2 alphabet form of bytes, as step_bytes writes it. */
void tok_bytes_to_alphabet(struct buf *b, const char *bytes, size_t n);

/* SentencePiece's precompiled_charsmap: a Darts double array and a pool of replacements. */
struct tok_charsmap {
    uint32_t *unit;
    size_t units;
    char *pool; /* NUL-terminated strings; a NUL was added behind the last */
    size_t pool_n;
};
status tok_charsmap_read(struct tok_charsmap *m, const unsigned char *blob, size_t n);
/* Bytes of the longest source that text begins with, 0: none; *to (NUL-terminated) replaces them. */
size_t tok_charsmap_match(const struct tok_charsmap *m, const char *text, size_t n, const char **to);

struct tok_added {
    char *text, *form; /* owned; form: as normalised text has it, NULL if that is the same */
    size_t n, form_n;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
};

struct tokenizer {
    char *path, *describe;
    const char *kind; /* "byte-level BPE", … */

    struct tok_vocab vocab; /* the model's own pieces */
    /* ids of one pre-token, a part of w->in.text; ST_DATA if it cannot be represented */
    status (*segment)(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n, struct tok_sink *out);
    bool by_pair; /* merges are pairs of ids (HF); else any two neighbours whose joined bytes are a ranked piece */
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

    struct tok_steps normalizer, pre_tokenizer, decoder;
    struct tok_charsmap charsmap;

    struct tok_added *added;
    int32_t n_added;
    struct tok_trie added_raw, added_normalized; /* value: index into added */
    struct tok_trie added_all;
    struct tok_map added_by_id;
    struct ids prefix, suffix; /* what the post-processor puts around a document */
    bool has_template;
    int32_t bos, eos, pad;
    int32_t size; /* largest id + 1 */
};

/* Added tokens. An id may be shared with a model piece, not with another added token; the same token again is ignored.
 */
status tok_added_add(struct tokenizer *t, struct tok_added token, const char *text, size_t n);
const struct tok_added *tok_added_find(const struct tokenizer *t, const char *text, size_t n);
const struct tok_added *tok_added_of_id(const struct tokenizer *t, int32_t id);
/* Builds the tries; after normalizer and added tokens are complete. */
status tok_added_finish(struct tokenizer *t);
/* Special tokens: found nowhere, or where no byte of theirs is quoted (one flag per byte of the text; NULL: none is). */
struct tok_specials {
    bool found;
    const unsigned char *quoted;
};
struct tok_scan {
    size_t search, last;           /* where to look next; end of the last token found */
    size_t at, end;                /* of the token, with the white space it swallows */
    size_t start;                  /* at, or `last` where the token before swallowed the beginning of this one */
    const struct tok_added *token; /* NULL: no more */
};
/* The next added token of the trie, leftmost longest. */
void tok_added_next(const struct tokenizer *t, const struct tok_trie *trie, const char *text, size_t n,
                    struct tok_specials specials, struct tok_scan *s);

status tok_bpe_segment(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n, struct tok_sink *out);
status tok_unigram_segment(const struct tokenizer *t, struct tok_work *w, const char *text, size_t n,
                           struct tok_sink *out);
void tok_bpe_words(struct tokenizer *t); /* finds out `words`; once the vocabulary is complete */
/* One piece-less run of text: bytes if every byte has a piece, else unk; false: neither exists. */
bool tok_push_unknown(const struct tokenizer *t, const struct tok_spans *s, const char *text, size_t n,
                      struct tok_sink *out);
/* Fills byte_id from pieces <0x00> … <0xFF>. */
void tok_byte_pieces(struct tokenizer *t);

/* What bare files leave unsaid, by family. */
struct tok_family {
    const char *name;       /* prefix of torchtune's family */
    const char *class_name; /* prefix of tokenizer_class in tokenizer_config.json */
    const char *pattern;    /* Oniguruma; NULL: not byte-level */
    bool nfc, bos_added;
    const char *const *specials; /* NULL-terminated; their ids follow the base vocabulary */
    int total_specials;          /* filled up with <|reserved_special_token_N|> */
    const char *bos, *eos, *pad;
};
const struct tok_family *tok_family_find(const char *name, const char *class_name); /* NULL: unknown */
const struct tok_family *tok_family_guess(const struct tokenizer *t);               /* by the end token it has */
status tok_family_specials(struct tokenizer *t, const struct tok_family *family);

/* Readers: one per kind of file. `data` is the file's text; messages are prefixed with the path by the caller. */
status tok_read_json(struct tokenizer *t, const char *data, size_t n);
status tok_read_gpt2(struct tokenizer *t, const char *vocab, size_t vocab_n, const char *merges, size_t merges_n,
                     bool prefix_space, const struct tok_family *family);
status tok_read_tiktoken(struct tokenizer *t, const char *data, size_t n, const struct tok_family *family);
status tok_read_spm(struct tokenizer *t, const unsigned char *data, size_t n);
/* Only the added_tokens of a tokenizer.json. */
status tok_read_added(struct tokenizer *t, const char *data, size_t n);

/* JSON parts that several readers share. */
struct json_t;
bool tok_json_flag(const struct json_t *o, const char *key, bool missing);
status tok_json_text(const struct json_t *o, const char *key, const char **text, size_t *n);
status tok_load_pipeline(struct tokenizer *t, const struct json_t *root);
/* An object; ST_CORRUPT with line and column. flags: jansson's, more. */
status tok_load_json(const char *data, size_t n, size_t flags, struct json_t **root);
status tok_read_vocab(struct tok_vocab *v, const char *whole, struct tok_part part); /* {"piece": id, …} */
status tok_load_added(struct tokenizer *t, const struct json_t *token, int64_t id);  /* {"content", "special", …} */
status tok_add_merge(struct tokenizer *t, size_t rank, const char *pair, size_t left_n, size_t right_n);

extern const char TOK_PATTERN_GPT2[];

/* All from memory, as the fuzzers and the table of bad files need it. kind: "tokenizer.json", "vocab.json",
 * "tiktoken", "sentencepiece"; merges and config may be NULL. path is for messages. */
struct tok_source {
    const char *path, *kind;
    const char *data;
    size_t n;
    const char *merges;
    size_t merges_n;
    const char *config, *special_map,
        *specials; /* texts of tokenizer_config.json, special_tokens_map.json, a tokenizer.json */
    const char *family;
};
status tokenizer_from_memory(const struct tok_source *s, struct tokenizer **out);

/* tokenizer_config.json and special_tokens_map.json, either may be absent. */
struct tok_config {
    struct json_t *config, *map;
};
status tok_config_open(struct tok_config *c, const char *config, const char *special_map);
void tok_config_close(struct tok_config *c);
const char *tok_config_text(const struct tok_config *c, const char *key); /* a string or {"content": string}; NULL */
int tok_config_flag(const struct tok_config *c, const char *key);         /* -1: not said */
/* added_tokens_decoder, and the named special tokens that the vocabulary knows. */
status tok_config_added(const struct tok_config *c, struct tokenizer *t);

#endif
