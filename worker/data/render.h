/* render.h — messages or text to documents of ids, and which of them are trained on.
 *
 *   conversation ─┬─ render_chat.c       a chat template's text, tokenised as one text
 *                 └─ render_torchtune.c  torchtune's renderings: special tokens by id, texts between them apart
 *   text ─────────── render.c
 *
 * Special tokens come from the rendering. What a row says never becomes one (unless allow_special_in_text), but for text
 * rows, which are their own rendering. */
#ifndef TRIMPOT_RENDER_H
#define TRIMPOT_RENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "configs/config.h"
#include "worker/data/chat_format.h"
#include "worker/data/rows/chat.h"
#include "worker/data/tokenizer/tokenizer.h"

struct family_style;
struct prompt_template;

/* torchtune's way: private to render_torchtune.c and render_prompt.c. */
struct torchtune {
    const struct family_style *style;
    const struct prompt_template *built_in; /* NULL: none, or `roles` */
    const struct config_pair *roles;        /* {role: [prefix, suffix]} of the configuration */
    int n_roles;
    int32_t bos, eos;                                 /* -1 = none */
    int32_t text_bos;                                 /* begins a completion row, -1 = nothing does */
    int32_t text_eos;                                 /* ends a completion row: the tokenizer's own, whatever ends a chat */
    int32_t start[ROLE_COUNT], middle, end, end_more; /* header and turn marks of chat styles */
    bool trims;                                       /* the tokenizer puts a space in front of every text */
    struct ids newline;                               /* what it makes of "\n", to cut that off again */
};

struct rendering {
    const struct tokenizer *tok;
    const struct chat_format *format;
    char *name;     /* for people: "chat template of DIR/tokenizer_config.json", "torchtune's llama3" */
    bool specials;  /* allow_special_in_text */
    bool templated; /* by format's template; else by `torchtune` */
    struct torchtune torchtune;
};

/* One document of a row: ids[at .. at + n). body: the last assistant's own words, relative to `at`. */
struct rendered_document {
    size_t at, n;
    int64_t body, body_end;
};

/* The rendering of one row before truncation. target[t] = ids[t] where trained on, else -100. A row is several documents
 * where a template renders earlier turns otherwise once later ones follow (some drop earlier thinking): such a turn is
 * trained in its own rendering, the one the model will meet. */
struct rendered {
    struct ids ids, target;
    struct rendered_document *documents;
    int n, cap;
    int64_t written_specials; /* special tokens that a text row writes out */
};
void rendered_clear(struct rendered *r);
void rendered_release(struct rendered *r);

/* Working memory of one thread; zero-initialise. */
struct render_work {
    struct chat templated; /* torchtune's prompt templates applied */
    struct template_text full, turn, prompt;
    struct ids from, to; /* bytes of the text each id stands for */
    struct buf quoted;
};
void render_work_release(struct render_work *w);

/* How the rows of `set` are rendered. `kind`: pairs of texts for a model without any template stay plain text.
 * ST_CONFIG_RUNTIME for an unknown prompt template or one that does not go with the family; ST_DATA when the tokenizer
 * has some of a family's special tokens but not all; the template's own failure. */
status rendering_init(struct rendering *r, const struct config *c, const struct config_dataset *set, const struct chat_format *format,
                      enum shape_kind kind);
void rendering_release(struct rendering *r);

/* Thread-safe with separate work and out. ST_DATA naming the message that the rendering would drop. */
status render_chat(const struct rendering *r, const struct chat *c, struct render_work *work, struct rendered *out);
status render_text(const struct rendering *r, const char *text, size_t n, bool add_eos, struct rendered *out);

/* When torchtune's rendering is used and the model's template gives other text for this conversation: a note with both. */
void render_compare(const struct rendering *r, const struct chat *c, struct render_work *work);

/* The chat template that gives the text which is trained on, judged by one conversation; NULL: none is known. Caller
 * frees. */
char *render_template_text(const struct rendering *r, const struct chat *c, struct render_work *work);

/* The ids that the model is given to answer a conversation: all before its last assistant message, and the header of the
 * answer. */
status render_prompt(const struct rendering *r, const struct chat *c, struct render_work *work, struct ids *out);

/* Cuts a document to at most `max` ids, from the right or the left. torchtune's last id becomes EOS where its style ends
 * with one; a template's cut answer has no end. `is_chat` = made by render_chat. Returns whether anything was cut. */
bool render_truncate(const struct rendering *r, bool is_chat, int64_t max, bool left, struct rendered *out, struct rendered_document *d);

#endif
