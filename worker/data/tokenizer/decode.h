/* decode.h — the kinds of decoder step: pieces as spans in, text as spans out. Bytes stay bytes: malformed UTF-8 is the
 * caller's to judge. */
#ifndef TRIMPOT_TOK_DECODE_H
#define TRIMPOT_TOK_DECODE_H

#include "worker/data/tokenizer/steps.h"

tok_step_run decode_bytes;    /* GPT-2 alphabet back */
tok_step_run decode_fallback; /* <0xNN> */
tok_step_run decode_fuse;
tok_step_run decode_strip;     /* text: one character; left, right: at most so many */
tok_step_run decode_metaspace; /* text: replacement, flag: drop those of the first piece */

#endif
