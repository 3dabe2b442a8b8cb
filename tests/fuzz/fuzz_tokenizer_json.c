/* Input: a tokenizer.json; what follows a NUL byte is its tokenizer_config.json. */
#include "tests/tokenizer/fuzz_tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = mem_alloc(n + 1);
    memcpy(text, data, n);
    size_t json = strlen(text);
    struct tok_source s = {
        .path = "fuzz", .kind = "tokenizer.json", .data = text, .n = json, .config = json < n ? text + json + 1 : NULL};
    fuzz_tokenizer(&s);
    free(text);
    return 0;
}
