/* normalise.h — the kinds of normalizer step. Text is valid UTF-8 throughout (tokenizer.c repairs it). */
#ifndef TRIMPOT_TOK_NORMALISE_H
#define TRIMPOT_TOK_NORMALISE_H

#include "worker/data/tokenizer/steps.h"

enum tok_unicode { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };
enum tok_spm_space { SPM_DUMMY_PREFIX = 1, SPM_TRIM = 2, SPM_ESCAPE = 4, SPM_SUFFIX = 8 };

tok_step_run step_unicode; /* options: enum tok_unicode */
tok_step_run step_lowercase;
tok_step_run step_prepend; /* text */
tok_step_run step_replace; /* regex → text; also a decoder */
tok_step_run step_strip;   /* left, right: white space */
tok_step_run step_spm;     /* charsmap, keep, options: enum tok_spm_space */

size_t tok_spaces_ahead(const char *text, size_t n);  /* bytes of white space text begins with */
size_t tok_spaces_behind(const char *text, size_t n); /* … ends with */

#endif
