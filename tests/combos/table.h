/* table.h — every key that a memory technique has, in one table; which pairs are refused, and why.
 *
 * A facet is a choice: a run has one value of each. Values of a NUMERICS facet give other weights, and a run is compared with the plain
 * one of the same numerics; values of a SAME_BITS facet must not change a bit (spec: "Memory policies never change a bit"). The first
 * value of each facet is plain. A new technique is a line; if it cannot go with another, that is a line of `refusals`, whose reason must
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
    const char *keys; /* key=value, by blanks; %s in an optimizer's class: what follows +. @: the class that has it as optimizer_class;
                       * base=nf4: the model of stored.h */
    const char *environment; /* NAME=value, by blanks */
    int often;         /* of random draws: 0 stands for 1 */
    const char *shown; /* its row of the README's matrix; NULL: none */
};

struct facet {
    const char *name;
    enum effect effect;
    struct value value[MOST_VALUES];
};

/* The facets that the runner knows by name. */
enum { F_METHOD, F_OPTIMIZER, F_STATES, F_DEVICE, F_RANKS, F_ACCUMULATION, F_IN_BWD, F_BUDGET, F_ADAPTER_ONLY };

/* Several windows, of tensors as small as these are. */
#define PAGED "optimizer.paged_window=16384 optimizer.min_paged_size=300"

static const struct facet facets[] = {
    /* Where products take adapters along (joins_products: emu, a GPU), weights dequantised ahead lie beside their adapters and those
     * dequantised in turn do not: adapters round in other places. Elsewhere the two are the same bits. */
    [F_METHOD] = {"method", NUMERICS, {
        {"full", "recipe=full_finetune", NULL, 3, "full fine-tuning"},
        {"LoRA", "recipe=lora_finetune", NULL, 4, "LoRA"},
        {"QLoRA", "recipe=lora_finetune model.quantize_base=true", NULL, 2, "QLoRA"},
        {"QLoRA, in turn", "recipe=lora_finetune model.quantize_base=true dequantize_ahead=false", NULL, 1, "`dequantize_ahead: false`"},
        {"NF4 files", "recipe=lora_finetune base=nf4 chat_template=llama3", NULL, 1, "a bitsandbytes NF4 directory"},
        {"NF4 files, in turn", "recipe=lora_finetune base=nf4 chat_template=llama3 dequantize_ahead=false"},
    }},
    [F_OPTIMIZER] = {"optimizer", NUMERICS, {
        {"AdamW", "optimizer=bitsandbytes.optim.%sAdamW", NULL, 2},
        {"AdamW8bit", "optimizer=bitsandbytes.optim.%sAdamW8bit optimizer.min_8bit_size=300", NULL, 2, "`bitsandbytes.optim.AdamW8bit`"},
        {"SGD", "optimizer=bitsandbytes.optim.%sSGD optimizer.momentum=0.9", NULL, 1, "`bitsandbytes.optim.SGD`"},
        {"SGD8bit", "optimizer=bitsandbytes.optim.%sSGD8bit optimizer.momentum=0.9 optimizer.min_8bit_size=300", NULL, 1,
         "`bitsandbytes.optim.SGD8bit`"},
        {"torchao Adam8bit", "optimizer=torchao.optim.%sAdam8bit optimizer.min_8bit_size=300", NULL, 1, "`torchao.optim.Adam8bit`"},
    }},
    [F_STATES] = {"states", SAME_BITS, {
        {"where weights are", ""},
        {"Paged*", "+Paged", NULL, 1, "`bitsandbytes.optim.Paged*`"},
        {"Paged*, all away", "+Paged " PAGED " optimizer.paged_resident=0", NULL, 2},
        {"is_paged, some away", PAGED " optimizer.is_paged=true optimizer.paged_resident=96KiB", NULL, 2, "`optimizer.is_paged`"},
        {"CPUOffloadOptimizer", "@optimizer=torchao.optim.CPUOffloadOptimizer optimizer.host_window=16384"},
        {"on the host", "optimizer.on_host=true optimizer.host_window=16384", NULL, 2, "`optimizer.on_host`, `torchao.optim.CPUOffloadOptimizer`"},
    }},
    [F_DEVICE] = {"device", SAME_BITS, {
        {"cpu", "", NULL, 6},
        {"fence, any order", "", "TRIMPOT_FENCE=any", 4},
        {"fence, last", "", "TRIMPOT_FENCE=last", 3},
        {"fence, first", "", "TRIMPOT_FENCE=first", 3},
        {"fence, joined", "", "TRIMPOT_FENCE=any TRIMPOT_FENCE_JOINS=1", 2},
        {"emu", ""},
    }},
    [F_RANKS] = {"ranks", SAME_BITS, {{"1", NULL, NULL, 3}, {"2", NULL, NULL, 2, "several ranks"}, {"4"}}},
    [F_ACCUMULATION] = {"gradient_accumulation_steps", SAME_BITS, {{"1"}, {"2", NULL, NULL, 1, "`gradient_accumulation_steps` > 1"}}},
    [F_IN_BWD] = {"optimizer_in_bwd", SAME_BITS, {{"false", ""}, {"true", "optimizer_in_bwd=true", NULL, 1, "`optimizer_in_bwd`"}}},
    /* "tight": one byte less than its plan without, so that something is chosen; the plan itself where all of it is written. */
    [F_BUDGET] = {"memory_budget", SAME_BITS, {
        {"null", ""},
        {"4GiB", "memory_budget=4GiB", NULL, 1, "`memory_budget`"},
        {"auto", "memory_budget=auto"},
        {"tight", "memory_budget=4GiB", NULL, 2},
    }},
    [F_ADAPTER_ONLY] = {"save_adapter_weights_only", SAME_BITS, {
        {"false", "", NULL, 3},
        {"true", "save_adapter_weights_only=true", NULL, 1, "`save_adapter_weights_only`"},
    }},
    {"lora_dropout", NUMERICS, {{"0", "", NULL, 2}, {"0.1", "model.lora_dropout=0.1", NULL, 2, "`lora_dropout`"}}},
    {"use_rslora", NUMERICS, {{"false", "", NULL, 2}, {"true", "model.use_rslora=true", NULL, 1, "`use_rslora`"}}},
    {"use_dora", NUMERICS, {{"false", "", NULL, 2}, {"true", "model.use_dora=true", NULL, 1, "`use_dora`"}}},
    {"lora_plus_ratio", NUMERICS, {{"null", "", NULL, 2}, {"4", "model.lora_plus_ratio=4", NULL, 1, "`lora_plus_ratio`"}}},
    {"init_lora_weights", NUMERICS, {
        {"true", "", NULL, 3},
        {"pissa", "model.init_lora_weights=pissa", NULL, 1, "`init_lora_weights: pissa`"},
        {"olora", "model.init_lora_weights=olora", NULL, 1, "`init_lora_weights: olora`"},
    }},
    {"adapted", NUMERICS, {
        {"blocks", "", NULL, 2},
        {"q, v, head", "model.lora_attn_modules=[q_proj,v_proj] model.apply_lora_to_mlp=false model.apply_lora_to_output=true", NULL, 1,
         "`apply_lora_to_output`"},
    }},
    {"patterns", NUMERICS, {
        {"none", "", NULL, 2},
        {"of ranks and alphas", "model.rank_pattern={\"q_proj\":3,\"0.self_attn.v_proj\":17} model.alpha_pattern={\"v_proj\":5.5}", NULL, 1,
         "`rank_pattern`, `alpha_pattern`"},
    }},
    {"modules_to_save", NUMERICS, {
        {"none", "", NULL, 3},
        {"embedding and norms", "model.modules_to_save=[embed_tokens,norm]", NULL, 1, "`modules_to_save`"},
        {"head", "model.modules_to_save=[lm_head]", NULL, 1, "`modules_to_save: [lm_head]`"},
    }},
    {"dtype", NUMERICS, {{"fp32", "dtype=fp32"}, {"bf16", "dtype=bf16", NULL, 1, "`dtype: bf16`"}}},
    {"master_weights", NUMERICS, {{"none", ""}, {"fp32", "master_weights=fp32", NULL, 1, "`master_weights: fp32`"}}},
    {"state_dtype", NUMERICS, {{"auto", "", NULL, 2}, {"fp32", "state_dtype=fp32", NULL, 1, "`state_dtype: fp32`"}, {"bf16", "state_dtype=bf16", NULL, 1, "`state_dtype: bf16`"}}},
    {"stochastic_rounding", NUMERICS, {{"true", ""}, {"false", "stochastic_rounding=false"}}},
    {"clip_grad_norm", NUMERICS, {{"null", "", NULL, 3}, {"0.5", "clip_grad_norm=0.5", NULL, 1, "`clip_grad_norm`"}}},
    {"lr_scheduler", NUMERICS, {{"constant", "", NULL, 3}, {"cosine", "lr_scheduler=cosine lr_scheduler.num_warmup_steps=2"}}},
    {"checkpointing", SAME_BITS, {
        {"none", ""},
        {"full", "enable_activation_checkpointing=true", NULL, 1, "`enable_activation_checkpointing`"},
        {"selective", "ac_mode=selective ac_option=2", NULL, 1, "`ac_mode: selective`"},
    }},
    {"recompute", SAME_BITS, {
        {"auto", "", NULL, 2},
        {"none", "recompute=none"},
        {"products", "recompute=products"},
        {"ffn", "recompute=ffn", NULL, 1, "`recompute: ffn`"},
        {"attention", "recompute=attention", NULL, 1, "`recompute: attention`"},
        {"block", "recompute=block", NULL, 1, "`recompute: block`"},
    }},
    {"offloading", SAME_BITS, {
        {"none", ""},
        {"with streams", "enable_activation_offloading=true", NULL, 1, "`enable_activation_offloading`"},
        {"without streams", "enable_activation_offloading=true activation_offloading_use_streams=false"},
    }},
    {"mlp_tile_tokens", NUMERICS, {{"null", "", NULL, 3}, {"7", "mlp_tile_tokens=7", NULL, 1, "`mlp_tile_tokens`"}}},
    {"profiler", SAME_BITS, {
        {"false", "", NULL, 3},
        {"true", "profiler.enabled=true profiler.wait_steps=1 profiler.warmup_steps=1 profiler.active_steps=2"},
    }},
    {"reduce_bucket", SAME_BITS, {{"32MiB", ""}, {"64KiB", "reduce_bucket=64KiB"}}},
    {"cuda_graphs", SAME_BITS, {{"true", ""}, {"false", "cuda_graphs=false"}}},
};

enum { FACETS = sizeof facets / sizeof *facets };

#define IS_FULL       "the recipe trains all weights"
#define NO_SUCH_CLASS "there is no such class"

/* value NULL: every value of the facet but the plain one. */
static const struct refusal {
    const char *facet, *value, *other, *other_value, *reason;
    const char *why; /* for the README, where the message's own words say too little */
} refusals[] = {
    {"optimizer_in_bwd", "true", "clip_grad_norm", NULL, "a parameter steps before the norm of all gradients is known"},
    {"optimizer_in_bwd", "true", "gradient_accumulation_steps", NULL, "every micro-batch would step"},
    {"lora_dropout", NULL, "method", "full", IS_FULL},
    {"use_rslora", NULL, "method", "full", IS_FULL},
    {"use_dora", NULL, "method", "full", IS_FULL},
    {"lora_plus_ratio", NULL, "method", "full", IS_FULL},
    {"init_lora_weights", NULL, "method", "full", IS_FULL},
    {"adapted", NULL, "method", "full", IS_FULL},
    {"save_adapter_weights_only", NULL, "method", "full", "the recipe trains all weights: there is no adapter"},
    {"patterns", NULL, "method", "full", IS_FULL},
    {"modules_to_save", NULL, "method", "full", IS_FULL},
    {"modules_to_save", "head", "adapted", "q, v, head", "a module is trained either whole or by its adapter"},
    {"init_lora_weights", NULL, "method", "QLoRA", "quantize_base"},
    {"init_lora_weights", NULL, "method", "QLoRA, in turn", "quantize_base"},
    {"init_lora_weights", NULL, "method", "NF4 files", "quantised already"},
    {"init_lora_weights", NULL, "method", "NF4 files, in turn", "quantised already"},
    {"master_weights", "fp32", "method", NULL, "adapters are 32-bit already and the base does not change"},
    {"state_dtype", "bf16", "method", NULL, "only full fine-tuning in bf16 can hold optimizer states in bf16"},
    {"state_dtype", "bf16", "dtype", "fp32", "only full fine-tuning in bf16 can hold optimizer states in bf16"},
    {"state_dtype", NULL, "optimizer", "AdamW8bit", "the optimizer holds 8-bit states"},
    {"state_dtype", NULL, "optimizer", "SGD8bit", "the optimizer holds 8-bit states"},
    {"state_dtype", NULL, "optimizer", "torchao Adam8bit", "the optimizer holds 8-bit states"},
    {"recompute", NULL, "checkpointing", "selective", "asks for other blocks to be recomputed"},
    {"recompute", "none", "mlp_tile_tokens", NULL, "gate and up live for one tile of mlp_tile_tokens"},
    {"recompute", "products", "mlp_tile_tokens", NULL, "gate and up live for one tile of mlp_tile_tokens"},
    {"recompute", "none", "checkpointing", "full", "asks for other blocks to be recomputed"},
    {"recompute", "products", "checkpointing", "full", "asks for other blocks to be recomputed"},
    {"recompute", "ffn", "checkpointing", "full", "asks for other blocks to be recomputed"},
    {"recompute", "attention", "checkpointing", "full", "asks for other blocks to be recomputed"},
    {"states", "Paged*", "optimizer", "SGD", "PagedSGD", NO_SUCH_CLASS},
    {"states", "Paged*", "optimizer", "SGD8bit", "PagedSGD8bit", NO_SUCH_CLASS},
    {"states", "Paged*", "optimizer", "torchao Adam8bit", "torchao.optim.PagedAdam8bit", NO_SUCH_CLASS},
    {"states", "Paged*, all away", "optimizer", "SGD", "PagedSGD", NO_SUCH_CLASS},
    {"states", "Paged*, all away", "optimizer", "SGD8bit", "PagedSGD8bit", NO_SUCH_CLASS},
    {"states", "Paged*, all away", "optimizer", "torchao Adam8bit", "torchao.optim.PagedAdam8bit", NO_SUCH_CLASS},
    {"states", "CPUOffloadOptimizer", "optimizer", "SGD8bit", "optimizer.optimizer_class", NO_SUCH_CLASS},
    {"states", "CPUOffloadOptimizer", "master_weights", "fp32", "the optimizer on the host takes the device's weights"},
    {"states", "on the host", "master_weights", "fp32", "the optimizer on the host takes the device's weights"},
    {"states", "is_paged, some away", "optimizer", "torchao Adam8bit", "optimizer.is_paged", "it is an argument of bitsandbytes' classes"},
};

enum { REFUSALS = sizeof refusals / sizeof *refusals };

/* Two forms of one choice, each of which has keys of its own that contradict the other's: no pair of two facets. */
static const struct contradiction {
    const char *keys, *reason;
} contradictions[] = {
    {"enable_activation_checkpointing=true ac_mode=selective ac_option=2", "keep one of the two keys"},
    {"enable_activation_checkpointing=true ac_mode=none", "keep one of the two keys"},
    {"enable_activation_checkpointing=true ac_option=2", "it chooses blocks for ac_mode: selective only"},
    {"ac_mode=selective", "which blocks?"},
    {"optimizer=bitsandbytes.optim.AdamW optimizer.is_paged=true optimizer.on_host=true", "optimizer.on_host"},
    {"offload_with_streams=true activation_offloading_use_streams=true", "keep one of the two keys"},
};

#endif
