/* The manifest of a checkpoint. The input gets the right hash line, else nothing behind it would ever be reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/ckpt_manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ckpt_manifest *m;
    struct buf text = {0};
    buf_add(&text, data, size);
    if (ckpt_manifest_parse("fuzz", size ? text.data : "", size, &m) == ST_OK) ckpt_manifest_free(m);
    buf_text(&text, "\n");
    buf_printf(&text, "xxh3-128 %s\n", hash_text(hash_bytes(text.data, text.len)));
    if (ckpt_manifest_parse("fuzz", text.data, text.len, &m) == ST_OK) {
        for (int i = 0; i < m->n_shards; i++)
            if (ckpt_first_piece(m, &m->shards[i], m->n_classes) < 0) abort();
        ckpt_manifest_free(m);
    }
    buf_release(&text);
    return 0;
}
