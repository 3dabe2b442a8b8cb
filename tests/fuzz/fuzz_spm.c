/* Input: a SentencePiece .model, read as itself and as every class that reads such files. */
#include "tests/tokenizer/fuzz_tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const configs[] = {NULL, "{\"tokenizer_class\":\"LlamaTokenizer\"}", "{\"tokenizer_class\":\"GemmaTokenizer\"}",
                                          "{\"tokenizer_class\":\"PreTrainedTokenizerFast\"}"};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct tok_source s = {.path = "fuzz", .kind = "sentencepiece", .data = (const char *)data, .n = n, .config = configs[i]};
        fuzz_tokenizer(&s);
    }
    return 0;
}
