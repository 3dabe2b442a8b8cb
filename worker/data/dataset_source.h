/* dataset_source.h — one configured data set, row by row: files, shape, rendering. Private to dataset*.c. */
#ifndef TRIMPOT_DATASET_SOURCE_H
#define TRIMPOT_DATASET_SOURCE_H

#include "worker/data/rows/chat.h"
#include "worker/data/dataset.h"
#include "worker/data/render.h"
#include "worker/data/rows/rows.h"

struct source {
    const struct config *c;
    const struct config_dataset *set;
    struct rows *files;
    int n_files;
    int64_t first, end; /* the split, counted over all files */
    struct shape shape;
    struct rendering rendering;
    char *template_text; /* of the chats, for an export; NULL: none is known, or no chats */
};

/* Working memory of one thread. */
struct source_work {
    struct chat chat;
    struct render_work render;
};

status source_open(struct source *s, const struct config *c, const struct config_dataset *set, const struct chat_format *format);
void source_close(struct source *s);

/* Row i of the split, rendered. Thread-safe with separate work and out. Errors carry FILE:LINE. */
status source_row(const struct source *s, int64_t i, struct source_work *work, struct rendered *out);
void source_work_release(struct source_work *w);

/* The ids that ask for the last answer of row i, and that answer (NULL: the row has none; caller frees). */
status source_prompt(const struct source *s, int64_t i, struct source_work *work, struct ids *out, char **answer);

/* Rows that are already parsed. */
status source_ask(const struct source *s, const json_t *row, struct source_work *work, struct ids *out, char **answer);
status source_render(const struct source *s, const json_t *row, struct source_work *work, struct rendered *out);

/* Where row i of the split lies: row *row of the file. */
const struct rows *source_locate(const struct source *s, int64_t i, int64_t *row);

/* "FILE:LINE" of row i, for messages; caller frees. */
char *source_place(const struct source *s, int64_t i);

bool source_is_chat(const struct source *s);

/* How a file is read, from dataset.source and its name; ST_NOT_BUILT for known formats without a reader. */
status source_kind(const struct config_dataset *set, const char *path, enum rows_kind *kind);

#endif
