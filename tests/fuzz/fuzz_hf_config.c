/* config.json: what is accepted must have sizes that can be multiplied without fear. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "checkpoints/hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hf_config c;
    if (hf_config_parse("fuzz", (const char *)data, size, &c)) return 0;
    if (!c.kv_heads) c.kv_heads = c.heads;
    if (!c.head_dim) c.head_dim = 128;
    if (hf_config_check("fuzz", &c)) return 0;
    for (int i = 0; i < 2; i++) {
        struct hf_rope *r = &c.rope[i];
        if (hf_rope_settle("fuzz", r, c.max_positions ? c.max_positions : 4096)) continue;
        if (!(r->attention > 0 && isfinite(r->attention) && r->factor >= 1 && r->original > 0)) abort();
        if (r->n_stretch < 0 || r->n_stretch > ROPE_STRETCHES) abort();
    }
    int64_t embed, layer;
    if (c.heads % c.kv_heads || c.n_eos < 0 || c.n_eos > (int)(sizeof c.eos / sizeof *c.eos) || c.bos >= c.vocab_size) abort();
    if (__builtin_mul_overflow(c.vocab_size * c.hidden_size, 32, &embed)) abort();
    if (__builtin_mul_overflow(c.layers * 16, c.hidden_size * c.intermediate_size * 3, &layer)) abort();
    return 0;
}
