/* Input: a tokenizer.json, and behind a NUL byte each its tokenizer_config.json, special_tokens_map.json and
 * added_tokens.json. */
#include "tests/tokenizer/fuzz_tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = mem_alloc(n + 1);
    memcpy(text, data, n);
    struct tok_source s = {.path = "fuzz", .kind = "tokenizer.json", .data = text, .n = strlen(text)};
    const char **const parts[] = {&s.config, &s.special_map, &s.added};
    size_t at = s.n;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && at < n; i++) {
        *parts[i] = text + at + 1;
        at += 1 + strlen(text + at + 1);
    }
    fuzz_tokenizer(&s);
    free(text);
    return 0;
}
