/* Input: a tiktoken .model, appended to one that has the 256 bytes; or, when it begins with '{', a vocab.json with its
 * merges.txt behind a NUL byte. */
#include "tests/tokenizer/fuzz_tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void add_bytes(struct buf *b)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 256; i++) buf_printf(b, "%c%c== %d\n", digit[i >> 2], digit[(i & 3) << 4], i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct buf text = {0};
    struct tok_source s = {.path = "fuzz", .kind = "tiktoken"};
    bool vocab = n && data[0] == '{';
    if (!vocab) add_bytes(&text);
    buf_add(&text, data, n);
    s.data = text.data;
    s.n = text.len;
    if (vocab) {
        s.kind = "vocab.json";
        s.n = strlen(text.data);
        s.merges = text.data + s.n + (s.n < text.len);
        s.merges_n = text.len - (size_t)(s.merges - s.data);
        s.family = "qwen2";
    }
    fuzz_tokenizer(&s);
    buf_release(&text);
    return 0;
}
