/* jedit.h — one value of a JSON file replaced in its text, so that every other byte stays the user's. Internal to
 * checkpoints/.
 *
 * The text must have passed jdoc_parse: one object, no key twice. `value` is JSON text. */
#ifndef TRIMPOT_JEDIT_H
#define TRIMPOT_JEDIT_H

#include <stdbool.h>

#include "kernels/base/text.h"

bool jedit_replace(struct buf *text, const char *key, const char *value); /* false: the object has no such key */
void jedit_remove(struct buf *text, const char *key);                     /* with its comma; nothing where it is missing */
void jedit_set(struct buf *text, const char *key, const char *value);     /* added as the first one where it is missing */

#endif
