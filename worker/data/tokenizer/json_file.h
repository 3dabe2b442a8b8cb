/* json_file.h — reads a tokenizer.json (huggingface/tokenizers). Messages get the path from the caller. */
#ifndef TRIMPOT_TOK_JSON_FILE_H
#define TRIMPOT_TOK_JSON_FILE_H

#include "worker/data/tokenizer/json_scan.h"
#include "worker/data/tokenizer/parts.h"

status tok_read_json(struct tokenizer *t, const char *data, size_t n);
status tok_read_added(struct tokenizer *t, const char *data, size_t n);                  /* only its added_tokens */
status tok_read_vocab(struct tok_vocab *v, const char *whole, struct tok_extent extent); /* {"piece": id, …} */

#endif
