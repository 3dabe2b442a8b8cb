/* fuzz_tok.h — what the three tokenizer fuzzers do with a file that opens: encode a text with a bit of everything, with
 * and without quotations, and decode what came out and what did not. */
#ifndef TRIMPOT_FUZZ_TOK_H
#define TRIMPOT_FUZZ_TOK_H

#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/tokenizer/open.h"

static inline void fuzz_rendered(const struct tokenizer *t, const char *text, size_t n, const unsigned char *quoted)
{
    struct ids ids = {0}, from = {0}, to = {0}, want = {0};
    if (!tokenizer_encode_rendered(t, text, n, quoted, &ids, &from, &to)) {
        if (from.n != ids.n || to.n != ids.n) abort();
        for (size_t i = 0; i < ids.n; i++) {
            if (from.v[i] < 0 || from.v[i] >= to.v[i] || to.v[i] > (int32_t)n) abort();
            if (i && (from.v[i] < from.v[i - 1] || to.v[i] < to.v[i - 1])) abort();
        }
        bool fine = quoted || !tokenizer_encode(t, text, n, true, &want);
        if (!quoted && (!fine || want.n != ids.n)) abort();
        if (!quoted && ids.n && memcmp(ids.v, want.v, ids.n * sizeof *ids.v) != 0) abort();
    }
    free(ids.v);
    free(from.v);
    free(to.v);
    free(want.v);
}

static inline int fuzz_tokenizer(const struct tok_source *source)
{
    static const char text[] = " Hello  world's 1234\r\n\n\té e\xcc\x81 \xff ½ 你好 <s>[INST]<|im_end|> ▁▁aab  <0x41>\xe2\x80";
    unsigned char quoted[sizeof text];
    struct tokenizer *t;
    struct ids ids = {0};
    if (tokenizer_from_memory(source, &t)) return 0;
    bool fine = !tokenizer_encode(t, text, sizeof text - 1, true, &ids) && !tokenizer_encode_document(t, text, sizeof text - 1, &ids) &&
                !tokenizer_encode(t, "", 0, false, &ids);
    for (size_t i = 0; fine && i < ids.n; i++)
        if (ids.v[i] < 0 || ids.v[i] >= tokenizer_size(t) || !tokenizer_piece(t, ids.v[i])) abort();
    for (size_t i = 0; i < sizeof quoted; i++) quoted[i] = i / 5 % 3 == 1;
    fuzz_rendered(t, text, sizeof text - 1, NULL);
    fuzz_rendered(t, text, sizeof text - 1, quoted);
    for (int32_t id = -1; id < 300; id++) ids_push(&ids, id);
    for (int skip = 0; skip < 2; skip++) free(tokenizer_decode(t, ids.v, ids.n, skip, NULL));
    free(ids.v);
    tokenizer_close(t);
    return 0;
}

#endif
