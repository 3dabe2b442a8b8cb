/* fuzz_tok.h — what the three tokenizer fuzzers do with a file that opens: encode a text with a bit of everything, and
 * decode what came out and what did not. */
#ifndef TRIMPOT_FUZZ_TOK_H
#define TRIMPOT_FUZZ_TOK_H

#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/tokenizer_impl.h"

static inline int fuzz_tokenizer(const struct tok_source *source)
{
    static const char text[] =
        " Hello  world's 1234\r\n\n\té e\xcc\x81 \xff ½ 你好 <s>[INST]<|im_end|> ▁▁aab  <0x41>\xe2\x80";
    struct tokenizer *t;
    struct ids ids = {0};
    if (tokenizer_from_memory(source, &t)) return 0;
    bool fine = !tokenizer_encode(t, text, sizeof text - 1, true, &ids) &&
                !tokenizer_encode_document(t, text, sizeof text - 1, &ids) && !tokenizer_encode(t, "", 0, false, &ids);
    for (size_t i = 0; fine && i < ids.n; i++)
        if (ids.v[i] < 0 || ids.v[i] >= tokenizer_size(t) || !tokenizer_piece(t, ids.v[i])) abort();
    for (int32_t id = -1; id < 300; id++) ids_push(&ids, id);
    for (int skip = 0; skip < 2; skip++) free(tokenizer_decode(t, ids.v, ids.n, skip, NULL));
    free(ids.v);
    tokenizer_close(t);
    return 0;
}

#endif
