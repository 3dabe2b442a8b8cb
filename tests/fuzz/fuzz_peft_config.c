/* adapter_config.json, and the matching of its target modules. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoints/hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const modules[] = {"model.layers.0.self_attn.q_proj", "model.layers.12.mlp.up_proj", "model.embed_tokens",
                                          "lm_head"};
    struct peft_config p;
    if (peft_config_parse("fuzz", (const char *)data, size, &p)) return 0;
    if (p.r < 1 || (!p.target.n && !p.target_all_linear)) abort();
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        peft_targets(&p, modules[i]);
        if (peft_rank(&p, modules[i]) < 1) abort();
        peft_alpha(&p, modules[i]);
    }
    peft_config_free(&p);
    return 0;
}
