/* table.h — every key that a memory technique has, in one table; which pairs are refused, and why.
 *
 * An axis is a choice: a run has one value of each. Values of a NUMERICS axis give other weights, and a run is compared with the plain
 * one of the same numerics; values of a SAME_BITS axis must not change a bit (spec: "Memory policies never change a bit"). The first
 * value of each axis is plain. A new technique is a line; if it cannot go with another, that is a line of `refusals`, whose reason must
 * be in the message that trimpot gives. Everything else is drawn together (draw.h), trained, saved, resumed and compared (run.h), and
 * printed as the README's table (matrix.h). */
/* clang-format off */
#ifndef TRIMPOT_COMBOS_TABLE_H
#define TRIMPOT_COMBOS_TABLE_H

#include <stdbool.h>
#include <stddef.h>

enum { MOST_VALUES = 12 };
enum effect { SAME_BITS, NUMERICS };

struct value {
    const char *name; /* as the README has it */
    const char *keys; /* key=value, by blanks; %s in an optimizer's class: what `states` puts there */
    const char *environment; /* NAME=value, by blanks */
    int often; /* of random draws: 0 stands for 1 */
};

struct axis {
    const char *name;
    enum effect effect;
    struct value value[MOST_VALUES];
};

/* The axes that the runner knows by name. */
enum { A_METHOD, A_OPTIMIZER, A_STATES, A_DEVICE, A_RANKS, A_ACCUMULATION, A_IN_BWD };

static const struct axis axes[] = {
    [A_METHOD] = {"method", NUMERICS, {
        {"full", "recipe=full_finetune", NULL, 3},
        {"LoRA", "recipe=lora_finetune model.lora_dropout=0.1", NULL, 2},
        {"LoRA, nothing dropped", "recipe=lora_finetune model.apply_lora_to_output=true", NULL, 2},
        {"QLoRA", "recipe=lora_finetune model.quantize_base=true model.lora_dropout=0.1", NULL, 2},
        {"QLoRA, nothing dropped", "recipe=lora_finetune model.quantize_base=true model.use_rslora=true", NULL, 2},
    }},
    [A_OPTIMIZER] = {"optimizer", NUMERICS, {
        {"AdamW", "optimizer=bitsandbytes.optim.%sAdamW", NULL, 2},
        {"AdamW8bit", "optimizer=bitsandbytes.optim.%sAdamW8bit optimizer.min_8bit_size=300", NULL, 2},
        {"SGD", "optimizer=torch.optim.%sSGD optimizer.momentum=0.9"},
        {"SGD8bit", "optimizer=bitsandbytes.optim.%sSGD8bit optimizer.momentum=0.9 optimizer.min_8bit_size=300"},
        {"torchao Adam8bit", "optimizer=torchao.optim.%sAdam8bit optimizer.min_8bit_size=300"},
    }},
    [A_STATES] = {"states", SAME_BITS, {
        {"where weights are", ""},
        {"Paged*", "+Paged"},
    }},
    [A_DEVICE] = {"device", SAME_BITS, {
        {"cpu", "", NULL, 6},
        {"fence, any order", "", "TRIMPOT_FENCE=any", 4},
        {"fence, last", "", "TRIMPOT_FENCE=last", 3},
        {"fence, first", "", "TRIMPOT_FENCE=first", 3},
        {"fence, joined", "", "TRIMPOT_FENCE=any TRIMPOT_FENCE_JOINS=1", 2},
        {"emu", ""},
    }},
    [A_RANKS] = {"ranks", SAME_BITS, {{"1"}, {"2"}, {"4"}}},
    [A_ACCUMULATION] = {"gradient_accumulation_steps", SAME_BITS, {{"1"}, {"2"}}},
    [A_IN_BWD] = {"optimizer_in_bwd", SAME_BITS, {{"false", ""}, {"true", "optimizer_in_bwd=true"}}},
    {"dtype", NUMERICS, {{"fp32", "dtype=fp32"}, {"bf16", "dtype=bf16"}}},
    {"master_weights", NUMERICS, {{"none", ""}, {"fp32", "master_weights=fp32"}}},
    {"state_dtype", NUMERICS, {{"auto", "", NULL, 2}, {"fp32", "state_dtype=fp32"}, {"bf16", "state_dtype=bf16"}}},
    {"stochastic_rounding", NUMERICS, {{"true", ""}, {"false", "stochastic_rounding=false"}}},
    {"clip_grad_norm", NUMERICS, {{"null", "", NULL, 3}, {"0.5", "clip_grad_norm=0.5"}}},
    {"lr_scheduler", NUMERICS, {{"constant", "", NULL, 3}, {"cosine", "lr_scheduler=cosine lr_scheduler.num_warmup_steps=2"}}},
    {"checkpointing", SAME_BITS, {
        {"none", ""},
        {"full", "enable_activation_checkpointing=true"},
        {"selective", "ac_mode=selective ac_option=2"},
    }},
    {"offloading", SAME_BITS, {
        {"none", ""},
        {"with streams", "enable_activation_offloading=true"},
        {"without streams", "enable_activation_offloading=true activation_offloading_use_streams=false"},
    }},
    {"reduce_bucket", SAME_BITS, {{"32MiB", ""}, {"16KiB", "reduce_bucket=16KiB"}}},
    {"cuda_graphs", SAME_BITS, {{"true", ""}, {"false", "cuda_graphs=false"}}},
    {"memory_budget", SAME_BITS, {{"null", ""}, {"1GiB", "memory_budget=1GiB"}}},
};

enum { AXES = sizeof axes / sizeof *axes };

/* value NULL: every value of the axis but the plain one. */
static const struct refusal {
    const char *axis, *value, *other, *other_value, *reason;
} refusals[] = {
    {"optimizer_in_bwd", "true", "clip_grad_norm", NULL, "a parameter steps before the norm of all gradients is known"},
    {"optimizer_in_bwd", "true", "gradient_accumulation_steps", NULL, "every micro-batch would step"},
    {"master_weights", "fp32", "method", NULL, "adapters are 32-bit already and the base does not change"},
    {"state_dtype", "bf16", "method", NULL, "only full fine-tuning in bf16 can hold optimizer states in bf16"},
    {"state_dtype", "bf16", "dtype", "fp32", "only full fine-tuning in bf16 can hold optimizer states in bf16"},
    {"state_dtype", NULL, "optimizer", "AdamW8bit", "the optimizer holds 8-bit states"},
    {"state_dtype", NULL, "optimizer", "SGD8bit", "the optimizer holds 8-bit states"},
    {"state_dtype", NULL, "optimizer", "torchao Adam8bit", "the optimizer holds 8-bit states"},
    {"states", "Paged*", "optimizer", "SGD", "PagedSGD"},
    {"states", "Paged*", "optimizer", "SGD8bit", "PagedSGD8bit"},
    {"states", "Paged*", "optimizer", "torchao Adam8bit", "torchao.optim.PagedAdam8bit"},
};

enum { REFUSALS = sizeof refusals / sizeof *refusals };

/* Two forms of one choice, each of which has keys of its own that contradict the other's: no pair of two axes. */
static const struct contradiction {
    const char *keys, *reason;
} contradictions[] = {
    {"enable_activation_checkpointing=true ac_mode=selective ac_option=2", "keep one of the two keys"},
    {"enable_activation_checkpointing=true ac_mode=none", "keep one of the two keys"},
    {"enable_activation_checkpointing=true ac_option=2", "it chooses blocks for ac_mode: selective only"},
    {"ac_mode=selective", "which blocks?"},
    {"offload_with_streams=true activation_offloading_use_streams=true", "keep one of the two keys"},
};

#endif
