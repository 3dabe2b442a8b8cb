/* adapter_config.json, and the matching of its target modules. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoints/hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct peft_config p;
    if (peft_config_parse("fuzz", (const char *)data, size, &p)) return 0;
    if (p.r < 1 || (!p.n_targets && !p.target_all_linear)) abort();
    peft_targets(&p, "model.layers.0.self_attn.q_proj");
    peft_targets(&p, "lm_head");
    peft_config_free(&p);
    return 0;
}
