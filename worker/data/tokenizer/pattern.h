/* pattern.h — Hugging Face split patterns, written for Oniguruma (Ruby syntax), run by PCRE2 with JIT.
 *
 * Where the two engines read the same text differently, the pattern is rewritten (\s, \S, \w, \W, {1,m}+) or refused by
 * name (\h, \b, nested classes, …): a pattern that compiles matches the same spans in both. */
#ifndef TRIMPOT_TOK_PATTERN_H
#define TRIMPOT_TOK_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/status.h"

struct tok_regex;

enum tok_regex_syntax { REGEX_ONIGURUMA, REGEX_LITERAL, REGEX_OURS };

/* ST_NOT_BUILT: uses what differs; ST_CORRUPT: not a pattern. */
status tok_regex_open(struct tok_regex **out, const char *pattern, size_t n, enum tok_regex_syntax syntax);
void tok_regex_close(struct tok_regex *r);

struct tok_matcher {
    void *data;
}; /* zero-initialise; one per thread */
void tok_matcher_release(struct tok_matcher *m);

/* The next match in text[0..n) (valid UTF-8) with the conventions of an iterator: an empty match is not reported where
 * the last match ended. *at: 0 at first, then as left by the last call. *found = false at the end. ST_DATA when the
 * matcher gives up. */
struct tok_match {
    size_t at, last_end, start, end;
    bool any, found;
};
status tok_regex_next(const struct tok_regex *r, struct tok_matcher *m, const char *text, size_t n, struct tok_match *at);

/* Sets that several files need, in PCRE2's class syntax. */
#define SET_SPACE "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

#define SET_ALPHABETIC "\\p{L}\\p{Nl}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define SET_RUST_WORD  SET_ALPHABETIC "\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}" /* Rust regex's \w */

/* Unicode White_Space, and Rust regex's \w. */
bool tok_is_space(int codepoint);
bool tok_is_word(int codepoint);

#endif
