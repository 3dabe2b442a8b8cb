/* render_prompt.h — torchtune's prompt templates: text put around messages before the family's rendering. Private to
 * render*.c. */
#ifndef TRIMPOT_RENDER_PROMPT_H
#define TRIMPOT_RENDER_PROMPT_H

#include "worker/data/render.h"

/* By its name, with or without torchtune's dotted path; NULL if unknown. */
const struct prompt_template *prompt_find(const char *name);
bool prompt_is_chatml(const struct prompt_template *t);
bool prompt_has_specials(const struct prompt_template *t); /* marks that are special tokens where the vocabulary has them */
char *prompt_names(void);                                  /* for messages; caller frees */

/* `in` with the template's text around each message, in `out`; borrows from both. */
status prompt_apply(const struct torchtune *r, const struct chat *in, struct chat *out);

#endif
