/* render_template.h — torchtune's prompt templates: text put around messages before the family's rendering. Private to
 * render*.c. */
#ifndef TRIMPOT_RENDER_TEMPLATE_H
#define TRIMPOT_RENDER_TEMPLATE_H

#include "worker/data/render.h"

/* By its name, with or without torchtune's dotted path; NULL if unknown. */
const struct prompt_template *template_find(const char *name);
bool template_is_chatml(const struct prompt_template *t);
bool template_has_specials(const struct prompt_template *t); /* marks that are special tokens where the vocabulary has them */
char *template_names(void);                                  /* for messages; caller frees */

/* `in` with the template's text around each message, in `out`; borrows from both. */
status template_apply(const struct rendering *r, const struct chat *in, struct chat *out);

#endif
