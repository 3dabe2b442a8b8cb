/* render.h — messages or text to ids, and which of them are trained on.
 *
 * torchtune's built-in renderings, one table row per tokenizer family. Special tokens are placed by id; the text
 * between them is encoded apart from them, so a special token written by a user stays ordinary text (unless
 * allow_special_in_text). A tokenizer with none of its family's specials gets the plain rendering, said once. */
#ifndef TRIMPOT_RENDER_H
#define TRIMPOT_RENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "configs/config.h"
#include "worker/data/rows/chat.h"
#include "worker/data/tokenizer/tokenizer.h"

struct style; /* a row of the family table */
struct prompt_template;

struct rendering {
    const struct tokenizer *tok;
    const struct style *style;
    const char *name;                       /* "llama3", "plain", … */
    const struct prompt_template *built_in; /* NULL: none, or `roles` */
    const struct config_pair *roles;        /* {role: [prefix, suffix]} of the configuration */
    int n_roles;
    int32_t bos, eos;                       /* -1 = none */
    int32_t text_eos;                       /* ends a completion row: the tokenizer's own, whatever ends a chat */
    int32_t start, middle, end, end_more;   /* header and turn marks of chat styles */
    bool specials;                          /* allow_special_in_text */
    bool trims;                             /* the tokenizer puts a space in front of every text */
    struct ids newline;                     /* what it makes of "\n", to cut that off again */
};

/* The rendering of one row before truncation. target[t] = ids[t] where trained on, else -100. */
struct rendered {
    struct ids ids, target;
    int64_t body, body_end; /* the last assistant's own words (completion: the text) */
};

void rendered_clear(struct rendered *r);
void rendered_release(struct rendered *r);

/* family may be NULL. ST_CONFIG_RUNTIME for an unknown template or one that does not go with the family; ST_DATA when
 * the tokenizer has some of the family's special tokens but not all. */
status rendering_init(struct rendering *r, const struct config *c, const struct config_dataset *set,
                      const struct tokenizer *tok, const char *family);
void rendering_release(struct rendering *r);

/* Thread-safe with separate outputs; `scratch` holds the templated messages. */
status render_chat(const struct rendering *r, const struct chat *c, struct chat *scratch, struct rendered *out);
status render_text(const struct rendering *r, const char *text, size_t n, bool add_eos, struct rendered *out);

/* Cuts to at most `max` ids, from the right or the left; the last id becomes EOS where the style ends with one, and is
 * trained on as the style does it. `is_chat` = made by render_chat. Returns whether anything was cut. */
bool render_truncate(const struct rendering *r, bool is_chat, int64_t max, bool left, struct rendered *out);

#endif
