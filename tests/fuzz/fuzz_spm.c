/* Input: a SentencePiece .model. */
#include "tests/tokenizer/fuzz_tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tok_source s = {.path = "fuzz", .kind = "sentencepiece", .data = (const char *)data, .n = n};
    return fuzz_tokenizer(&s);
}
