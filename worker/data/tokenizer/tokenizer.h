/* tokenizer.h — text to ids and back, exactly as the model's own tokenizer does it.
 *
 * One struct for every kind of file: tokenizer.json (BPE: byte-level, byte-fallback), vocab.json + merges.txt,
 * tiktoken .model, SentencePiece .model (BPE, Unigram). All files are outside data: refused with file, place, value,
 * remedy (ST_CORRUPT, or ST_NOT_BUILT for a kind that is known and not supported), never trusted. */
#ifndef TRIMPOT_TOKENIZER_H
#define TRIMPOT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/status.h"

struct tokenizer; /* immutable after opening: safe to use from several threads, each with its own out buffer */

/* How to build one when the path alone does not say it (torchtune's tokenizer components). */
struct tokenizer_hint {
    const char *merges_file;         /* beside a vocab.json */
    const char *special_tokens_path; /* a tokenizer.json whose added_tokens are the specials */
    const char *family;              /* torchtune's component, "llama3_tokenizer", …: decides over what the files say */
    const char *model_type;          /* of the model's config.json, if none is beside; decides last */
};

/* path: a model directory (tokenizer.json preferred, then tokenizer.model, then vocab.json + merges.txt) or one file. The
 * files beside it are honoured: tokenizer_config.json, special_tokens_map.json, added_tokens.json, and model_type of
 * config.json. A tokenizer.json is followed as it is; bare files as the tokenizer_class reads them in transformers 5. */
status tokenizer_open(const char *path, const struct tokenizer_hint *hint, struct tokenizer **out);
void tokenizer_close(struct tokenizer *t);

struct ids {
    int32_t *v;
    size_t n, cap;
}; /* zero-initialise; free(v) */
void ids_push(struct ids *a, int32_t id);

/* Appends the ids of text[0..n). `specials`: added special tokens written in the text become their ids; otherwise they
 * are ordinary text (user content). No BOS/EOS is added: the caller places them. Invalid UTF-8 is replaced by U+FFFD. */
status tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool specials, struct ids *out);

/* A rendered text, of which parts are a user's: as tokenizer_encode with specials, but a special token is found only
 * where none of its bytes has quoted[i] != 0 (quoted NULL: everywhere). from, to: parallel to the ids appended, the
 * bytes [from, to) of text that each id stands for, through every normaliser; in order, never empty, overlapping only
 * where several ids share a character. White space that an added token swallows belongs to it; a prepended space to
 * what follows; what a normaliser drops to nobody. from and to may be NULL. */
status tokenizer_encode_rendered(const struct tokenizer *t, const char *text, size_t n, const unsigned char *quoted, struct ids *out,
                                 struct ids *from, struct ids *to);

/* What the post-processor of a tokenizer.json, or else add_bos_token and add_eos_token, put around a document; either may
 * be empty. Borrowed. */
void tokenizer_around(const struct tokenizer *t, const struct ids **prefix, const struct ids **suffix);

/* As HF's `tokenizer(text)` does it: specials parsed, and what goes around put there. */
status tokenizer_encode_document(const struct tokenizer *t, const char *text, size_t n, struct ids *out);

/* UTF-8 text of ids (byte-level pieces joined; malformed UTF-8 kept as bytes); caller frees; *bytes may be NULL.
 * skip_specials drops bos, eos, control pieces and the unknown piece. */
char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_specials, size_t *bytes);

int32_t tokenizer_size(const struct tokenizer *t);                  /* largest id + 1 */
int32_t tokenizer_id(const struct tokenizer *t, const char *piece); /* exact piece or special; -1 if unknown */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id); /* the vocabulary entry as stored; NULL unknown */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 none */
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);
const char *tokenizer_describe(const struct tokenizer *t); /* "tokenizer.json: byte-level BPE, 151665 ids" */

#endif
