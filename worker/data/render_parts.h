/* render_parts.h — what the render*.c files share. Private to them. */
#ifndef TRIMPOT_RENDER_PARTS_H
#define TRIMPOT_RENDER_PARTS_H

#include "worker/data/render.h"

/* Documents are built one after the other: ids are pushed, then the document is closed. */
void rendered_put(struct rendered *out, int32_t id, bool trained);         /* id -1: nothing */
void rendered_extend(struct rendered *out, bool trained);                  /* targets of ids pushed without one */
void rendered_close(struct rendered *out, int64_t body, int64_t body_end); /* both relative to the document */
size_t rendered_open(const struct rendered *out);                          /* where the document being built begins */

/* render_torchtune.c */
status torchtune_init(struct rendering *r, const struct config *c, const struct config_dataset *set, const char *family);
status torchtune_chat(const struct rendering *r, const struct chat *c, struct render_work *work, struct rendered *out);
status torchtune_text(const struct rendering *r, const char *text, size_t n, bool add_eos, struct rendered *out);
const char *torchtune_family(const struct rendering *r); /* of its table row; NULL: plain */
void torchtune_end_cut(const struct rendering *r, struct rendered *out, const struct rendered_document *d);

/* render_chat.c */
status template_chat(const struct rendering *r, const struct chat *c, struct render_work *work, struct rendered *out);
status template_prompt(const struct rendering *r, const struct chat *c, struct render_work *work, struct ids *out);

#endif
