/* dataset.h — rows of a file to documents of tokens with labels, and the order they are trained in.
 *
 *   files → rows → messages or text → ids + mask (chat.c) → truncate / drop / split → [pack] → items → sampler
 *
 * All text work happens before step 1: counts are known, and the longest micro-batch is known to the plan. An item is
 * what `batch_size` counts: one document, or one pack of documents. Labels are shifted already: label[t] is the id to
 * predict at t, or -100. */
#ifndef TRIMPOT_DATASET_H
#define TRIMPOT_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "configs/config.h"
#include "worker/data/chat_format.h"

struct dataset_stats {
    /* rows = kept + dropped (too long) + unsupervised (nothing to learn from, left out) + skipped (bad); truncated rows
     * are kept. */
    int64_t rows, kept, truncated, dropped, unsupervised;
    int64_t tokens, supervised, longest; /* longest item, tokens */
    int64_t skipped;
    int64_t turns_apart;      /* turns trained in documents of their own (render.h) */
    int64_t written_specials; /* special tokens that text rows write out */
};

struct document {
    const int32_t *ids, *labels;
    int64_t n;
    int64_t sample; /* number of the document in file order: the dropout counter's base */
};

struct dataset;

/* One or several configured sets, concatenated, their chats in the run's format.
 * ST_DATA with file:line for bad rows, after all were read (on_bad_row: skip leaves them out with a warning instead);
 * ST_DATA when nothing is supervised. Notes which keys of the rows nothing uses. Shows log_progress bars. The result is a
 * pure function of files and settings; every rank builds the same. */
status dataset_open(const struct config *c, const struct config_dataset *sets, int n_sets, const struct chat_format *format,
                    struct dataset **out);
/* Moves the last ⌈fraction·n⌉ items into a second set (validation by fraction). */
status dataset_split(struct dataset *d, double fraction, struct dataset **val);
void dataset_close(struct dataset *d);

/* Writes the bad rows that were left out, one {"file", "line", "reason", "row"} a line; `val` may be NULL. No rows, no
 * file: an earlier run's is removed. For one rank. */
status dataset_save_skipped(const struct dataset *train, const struct dataset *val, const char *path);

const struct dataset_stats *dataset_stats(const struct dataset *d);
int64_t dataset_items(const struct dataset *d);

/* Documents of item i (1, or several for a pack). Valid until close. Returns how many, *docs points at them. */
int64_t dataset_item(const struct dataset *d, int64_t item, const struct document **docs);

/* Tokens of the n longest items together: bounds a micro-batch of n items. */
int64_t dataset_longest(const struct dataset *d, int64_t n);
int64_t dataset_longest_document(const struct dataset *d);
int64_t dataset_most_supervised(const struct dataset *d, int64_t n); /* likewise for supervised tokens */
int64_t dataset_most_documents(const struct dataset *d, int64_t n);

/* The position-th item of an epoch: identity without shuffle, else a keyed permutation of (seed, epoch) (Philox, purpose
 * RNG_ORDER; cycle-walking Feistel or sort: O(1) memory preferred). Pure function. */
int64_t dataset_order(const struct dataset *d, uint64_t seed, bool shuffle, int64_t epoch, int64_t position);

/* Item 0 as text with the masked part dimmed (ANSI when `colour`), for the header; caller frees. */
char *dataset_preview(const struct dataset *d, const struct tokenizer *tok, bool colour);
/* "999 rows: 990 kept (12 truncated), …; 201433 tokens, 73.9 % supervised; …", for the header; caller frees. */
char *dataset_summary(const struct dataset *d);
uint64_t dataset_hash(const struct dataset *d); /* of all ids and labels: kept in checkpoints */

/* What `generate` answers: the ids of every row up to its last assistant's own words, its header included, and those
 * words as the reference answer. Text rows have no prompt: ST_DATA. prompts_release frees all. */
struct prompts {
    struct ids *ids;
    char **answers; /* NULL: there is none */
    int64_t n;
};
status dataset_prompts(const struct config *c, const struct config_dataset *set, const struct chat_format *format, struct prompts *out);
/* The one prompt of a user's message with nothing before it. */
status dataset_prompt(const struct config *c, const struct chat_format *format, const char *text, struct prompts *out);
void prompts_release(struct prompts *p);

/* The chat template whose text was trained on: true when the rows were chats, and then *text may be NULL: no template is
 * known that gives it. */
bool dataset_chat_template(const struct dataset *d, const char **text);

/* Special tokens that end what is trained on: where the model learns to stop. Most frequent first; returns how many. */
int dataset_end_marks(const struct dataset *d, const struct tokenizer *tok, int32_t *ids, int most);

#endif
