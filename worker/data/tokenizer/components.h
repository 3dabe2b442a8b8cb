/* components.h — normalizer, pre-tokenizer, decoder and post-processor of a tokenizer.json. */
#ifndef TRIMPOT_TOK_COMPONENTS_H
#define TRIMPOT_TOK_COMPONENTS_H

#include "worker/data/tokenizer/json_value.h"

status tok_load_pipeline(struct tokenizer *t, const json_t *root);

#endif
