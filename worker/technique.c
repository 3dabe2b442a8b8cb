#include "worker/technique.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Blocks on the rung that is the default, and on one of recompute. */
#define PRODUCTS   "enable_activation_checkpointing=false ac_mode=none ac_option=null recompute=auto"
#define RUNG(name) "enable_activation_checkpointing=false ac_mode=none ac_option=null recompute=" name

/* clang-format off */
const struct technique techniques[] = {
    {"bf16", FOR_ALL, "dtype=fp32 master_weights=none state_dtype=auto", "dtype=bf16", false,
     "Weights and activations in 16 bits; sums, and the arithmetic of the optimizer, in 32.",
     "Always where the hardware multiplies bf16: it is faster as well.",
     "everything; LoRA trains its adapters in 32 bits either way"},
    {"no 32-bit master", FOR_FULL, "dtype=bf16 master_weights=fp32", "dtype=bf16 master_weights=none", false,
     "bf16 weights are the only copy and are rounded at random, so that small steps are not lost.",
     "Full fine-tuning, unless a bit-for-bit record of f32 weights is wanted.",
     "everything in bf16"},
    {"bf16 states", FOR_FULL, "dtype=bf16 optimizer=torch.optim.AdamW state_dtype=fp32",
     "dtype=bf16 optimizer=torch.optim.AdamW state_dtype=bf16", false,
     "The optimizer's moments in 16 bits, rounded at random.",
     "Full fine-tuning in bf16: the default.",
     "everything in bf16 but 8-bit states, which take their place"},
    {"8-bit states", FOR_ALL, "optimizer=torch.optim.AdamW", "optimizer=bitsandbytes.optim.AdamW8bit state_dtype=auto", false,
     "The optimizer's moments as 8-bit codes with a scale for each 256.",
     "Full fine-tuning on one GPU; adapters are too small for it to matter.",
     "everything"},
    {"paged states", FOR_ALL, "optimizer=bitsandbytes.optim.AdamW8bit state_dtype=auto optimizer.is_paged=false",
     "optimizer=bitsandbytes.optim.AdamW8bit state_dtype=auto optimizer.is_paged=true optimizer.paged_resident=0", true,
     "The optimizer's states in pinned host memory, streamed through windows on the device while it updates.",
     "When states do not fit. Only as many leave as must (optimizer.paged_resident); here all of them.",
     "everything; on a CPU nothing moves"},
    {"optimizer on the host", FOR_ALL, "optimizer=torch.optim.AdamW optimizer.on_host=false",
     "optimizer=torch.optim.AdamW optimizer.on_host=true", true,
     "States are in host memory and the host's cores step: gradients go down, weights come up, window by window.",
     "When states do not fit and must stay in 16 or 32 bits; its time is that of the host's memory.",
     "everything but paged states, which stay on the device's side; on a CPU it is where it was"},
    {"LoRA", FOR_FULL, "", "recipe=lora_finetune optimizer_in_bwd=false master_weights=none state_dtype=auto", false,
     "Two thin matrices beside each frozen weight are trained instead of the weight.",
     "When the task is near what the model can do: it saves gradients, states and most of the time of updates.",
     "everything but masters and bf16 states, which adapters have no use for"},
    {"QLoRA (NF4 base)", FOR_LORA, "model.quantize_base=false", "model.quantize_base=true", false,
     "The frozen weights of blocks in 4 bits, dequantised a layer ahead of its use.",
     "When the frozen weights are what does not fit; its price falls with the tokens of a micro-batch.",
     "everything of LoRA"},
    {"dequantise in turn", FOR_LORA, "model.quantize_base=true dequantize_ahead=true", "model.quantize_base=true dequantize_ahead=false", false,
     "NF4 weights are dequantised one linear at a time, when it is read, instead of a layer ahead.",
     "QLoRA, when two layers in bf16 are what does not fit; adapters round in other places.",
     "QLoRA, and everything that goes with it"},
    {"recompute products", FOR_ALL, RUNG("none"), RUNG("products"), true,
     "Norms and the gated product are computed again in the backward pass; no matrix product is.",
     "Always: the default.",
     "everything; the first rung of the ladder"},
    {"recompute ffn", FOR_ALL, PRODUCTS, RUNG("ffn"), true,
     "Gate and up are multiplied again in the backward pass too.",
     "When activations do not quite fit: they are most of what a block keeps.",
     "everything but selective checkpointing"},
    {"recompute attention inputs", FOR_ALL, PRODUCTS, RUNG("attention"), true,
     "q, k and v as well; what attention puts out is kept, so that attention runs once.",
     "When activations do not fit and sequences are long: attention is what checkpointing repeats most dearly.",
     "everything but selective checkpointing"},
    {"MLP in tiles", FOR_ALL, RUNG("ffn"), RUNG("ffn") " mlp_tile_tokens=1024", false,
     "Gate, up and their product live for some tokens at a time.",
     "Very long sequences, when what one block needs is what does not fit; gradients are summed tile by tile.",
     "recomputation from ffn on, checkpointing, offloading"},
    {"activation checkpointing", FOR_ALL, PRODUCTS, "enable_activation_checkpointing=true ac_mode=null ac_option=null recompute=auto", true,
     "Keeps the input of each block only, and runs the block again in the backward pass.",
     "When activations do not fit: long sequences, large micro-batches.",
     "everything; with offloading nothing grows with the number of layers"},
    {"selective checkpointing", FOR_ALL, PRODUCTS, "enable_activation_checkpointing=false ac_mode=selective ac_option=2 recompute=auto",
     true,
     "The same for every second block (ac_option says which): half the savings, half the time.",
     "When full checkpointing is more than is needed, as torchtune has it; the rungs of recompute cost less for what they save.",
     "everything but full checkpointing, which includes it, and the rungs of recompute"},
    {"activation offloading", FOR_ALL, "enable_activation_offloading=false",
     "enable_activation_offloading=true activation_offloading_use_streams=true", true,
     "What blocks keep waits for the backward pass in pinned host memory; two layers of it are on the device.",
     "With checkpointing it is hidden behind compute; without, only where PCIe keeps up.",
     "everything; on a CPU nothing moves"},
    {"gradient accumulation", FOR_ALL, "batch_size={rows} gradient_accumulation_steps=1 optimizer_in_bwd=false",
     "batch_size=1 gradient_accumulation_steps={rows} optimizer_in_bwd=false virtual_ranks=null", false,
     "The rows of a step one after another instead of side by side, with the exact mean over their tokens.",
     "When a batch does not fit: the same batch in smaller pieces.",
     "everything but the optimizer step in the backward pass"},
    {"fewer gradient sums", FOR_ALL,
     "batch_size=1 gradient_accumulation_steps={rows} optimizer_in_bwd=false virtual_ranks=null",
     "batch_size=1 gradient_accumulation_steps={rows} optimizer_in_bwd=false virtual_ranks={ranks}", false,
     "Accumulated gradients are one sum per rank instead of a tree of them, whose bits hold for more ranks.",
     "With accumulation, when the same bits on other numbers of ranks are not needed.",
     "everything"},
    {"optimizer step in backward", FOR_ALL, "optimizer_in_bwd=false", "optimizer_in_bwd=true", true,
     "Each tensor steps when its gradient is complete; the largest gradient is the only one in memory.",
     "Full fine-tuning without clipping: gradients are as large as f32 weights.",
     "everything but clip_grad_norm and accumulation, which need all gradients first"},
    {"chunked head", FOR_ALL, "head_chunk_rows=1000000000", "head_chunk_rows=null", false,
     "Logits exist for some thousand rows at a time, and become their own gradient in place.",
     "Always: the default.",
     "everything"},
};
/* clang-format on */
const int technique_count = sizeof techniques / sizeof *techniques;

/* clang-format off */
const struct axis axes[] = {
    {"model.quantize_base", FOR_LORA, false, {"model.quantize_base=true"}},
    {"dequantize_ahead", FOR_LORA, false, {"dequantize_ahead=false"}},
    {"mlp_tile_tokens", FOR_ALL, false, {"mlp_tile_tokens=1024"}},
    {"state_dtype", FOR_ALL, false, {"optimizer=bitsandbytes.optim.AdamW8bit"}},
    {"enable_activation_checkpointing ac_mode ac_option recompute", FOR_ALL, true,
     {"recompute=ffn", "recompute=attention", "recompute=block"}},
    {"enable_activation_offloading", FOR_ALL, true, {"enable_activation_offloading=true"}},
    {"optimizer_in_bwd", FOR_ALL, true, {"optimizer_in_bwd=true"}},
    {"optimizer.is_paged optimizer.on_host", FOR_ALL, true, 
     {"optimizer.is_paged=true", "optimizer=bitsandbytes.optim.PagedAdamW optimizer.is_paged=true",
      "optimizer.on_host=true"}},
};
/* clang-format on */
const int axis_count = sizeof axes / sizeof *axes;

/* ---- weighing --------------------------------------------------------------------------------------------------------- */

char *technique_refusal(void)
{
    const char *said = status_message(), *head = "the configuration:", *first = strstr(said, " errors in the configuration:\n");
    if (first) said = strchr(first, '\n') + 1;
    if (!strncmp(said, "argument ", 9) && strstr(said, "): ")) said = strstr(said, "): ") + 3;
    if (!strncmp(said, head, strlen(head)) && strstr(said, ": ")) said = strstr(said, ": ") + 2;
    char *line = mem_strdup(said);
    line[strcspn(line, "\n")] = 0;
    return line;
}

void weigh(struct session *x, const struct config *cfg, const struct gpu *rates, const struct data_shape *data, struct weight *w)
{
    *w = (struct weight){0};
    if (session_replan(x, cfg)) {
        w->refused = technique_refusal();
        return;
    }
    w->n_sums = plan_sums(&x->plan, w->sums);
    for (int i = 0; i < w->n_sums; i++) {
        w->device += w->sums[i].device;
        w->host += w->sums[i].host;
    }
    w->token_s = x->model.act == DT_BF16 ? x->comm->size / predict(x, rates, data).tokens_per_s : NAN;
}

status technique_apply(const struct config *c, int ranks, const char *settings, struct config **out)
{
    const struct {
        const char *word;
        int64_t value;
    } words[] = {{"{rows}", c->batch_size * grad_micro_batches(c, 1)}, {"{ranks}", ranks}};
    struct buf text = {0};
    buf_text(&text, "");
    for (const char *at = settings; *at;) {
        size_t i = 0, n = sizeof words / sizeof *words;
        while (i < n && strncmp(at, words[i].word, strlen(words[i].word))) i++;
        if (i == n)
            buf_add(&text, at++, 1);
        else {
            buf_printf(&text, "%lld", (long long)words[i].value);
            at += strlen(words[i].word);
        }
    }
    status st = config_with(c, text.data, out);
    buf_release(&text);
    return st;
}
