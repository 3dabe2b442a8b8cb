/* schema.c — every key, once. The order is the order of the effective configuration and of the reference. */
/* clang-format off */
#include "configs/schema.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a)       ((int)(sizeof(a) / sizeof *(a)))
#define MEMBER(s, m)   .at = offsetof(struct s, m), .size = sizeof ((struct s *)0)->m
#define C(m)           MEMBER(config, m)
#define D(m)           MEMBER(config_dataset, m)
#define N_OF(s, m)     .count_at = offsetof(struct s, m)
#define CHOICES(table) .choices = table, .n_choices = COUNT(table)
#define FROM(lo)       .ranged = true, .min = (lo), .max = INFINITY
#define RANGE(lo, hi)  .ranged = true, .min = (lo), .max = (hi)
#define OPTIONAL       .nullable = true, .def = "null"

#define PREFERENCE    "preference training is recognised, not supported"
#define REINFORCEMENT "reinforcement learning is recognised, not supported"
#define QAT           "quantisation-aware training is recognised, not supported"
#define EVALUATION    "it belongs to torchtune's evaluation; `trimpot eval` measures the loss of a model"
#define GENERATION    "it belongs to torchtune's generation; `trimpot generate` writes text, and has options for it"
#define DISTILLATION  "distillation is recognised, not supported"

static const struct choice recipe_choices[] = {
    {"full_finetune"}, {"full_finetune_single_device"}, {"full_finetune_distributed"},
    {"lora_finetune"}, {"lora_finetune_single_device"}, {"lora_finetune_distributed"},
    {"lora_dpo_single_device", 0, PREFERENCE}, {"lora_dpo_distributed", 0, PREFERENCE},
    {"full_dpo_distributed", 0, PREFERENCE}, {"ppo_full_finetune_single_device", 0, REINFORCEMENT},
    {"grpo_full_finetune_distributed", 0, REINFORCEMENT}, {"qat_distributed", 0, QAT},
    {"qat_single_device", 0, QAT}, {"qat_lora_finetune_distributed", 0, QAT},
    {"knowledge_distillation_single_device", 0, DISTILLATION}, {"knowledge_distillation_distributed", 0, DISTILLATION},
    {"eleuther_eval", 0, "`trimpot eval` measures the loss of a model"},
    {"generate", 0, "it is a verb here: `trimpot generate`"},
    {"quantize", 0, "model.quantize_base quantises while loading"},
};
static const struct choice host_class_choices[] = {{"torch.optim.AdamW", CONFIG_ADAMW}, {"torch.optim.Adam", CONFIG_ADAM},
                                                   {"torch.optim.SGD", CONFIG_SGD}, {"torchao.optim.AdamW8bit", CONFIG_ADAMW_8BIT},
                                                   {"torchao.optim.Adam8bit", CONFIG_ADAM_8BIT}};
static const struct choice device_choices[] = {{"null", DEVICE_AUTO}, {"cuda", DEVICE_CUDA}, {"cpu", DEVICE_CPU}, {"emu", DEVICE_EMU}};
static const struct choice dtype_choices[] = {
    {"bf16", CONFIG_BF16},
    {"fp32", CONFIG_FP32},
    {"fp16", 0,
     "training in fp16 needs a loss scaler and 32-bit adapters; bf16 takes the same memory and needs neither"},
};
static const struct choice collate_choices[] = {
    {"torchtune.data.padded_collate_sft"},
    {"torchtune.data.padded_collate_packed"},
    {"torchtune.data.padded_collate_dpo", 0, "preference data is not supported"},
    {"torchtune.data.left_pad_sequence", 0, "sequences are never padded; drop the key"},
};
static const struct choice truncation_choices[] = {{"right", false}, {"left", true}};
static const struct choice masking_choices[] = {
    {"null", MASK_DEFAULT},
    {"train_on_all", MASK_TRAIN_ON_ALL},
    {"train_on_assistant", MASK_TRAIN_ON_ASSISTANT},
    {"train_on_last", MASK_TRAIN_ON_LAST},
};
static const struct choice conversation_choices[] = {
    {"null", CONVERSATION_AUTO}, {"openai", CONVERSATION_OPENAI}, {"sharegpt", CONVERSATION_SHAREGPT}};
static const struct choice bad_row_choices[] = {{"stop", BAD_ROW_STOP}, {"skip", BAD_ROW_SKIP}};
static const struct choice too_long_choices[] = {
    {"truncate", TOO_LONG_TRUNCATE}, {"drop", TOO_LONG_DROP}, {"split", TOO_LONG_SPLIT}, {"error", TOO_LONG_ERROR}};
static const struct choice template_choices[] = {
    {"torchtune.data.Llama2ChatTemplate"}, {"torchtune.data.MistralChatTemplate"}, {"torchtune.data.ChatMLTemplate"},
    {"torchtune.data.GrammarErrorCorrectionTemplate"}, {"torchtune.data.SummarizeTemplate"},
    {"torchtune.data.QuestionAnswerTemplate"}, {"torchtune.models.llama2.Llama2ChatTemplate"},
    {"torchtune.models.mistral.MistralChatTemplate"},
};
#define OF_MLP "it is no linear of attention: model.apply_lora_to_mlp=true adapts gate, up and down"
static const struct choice attn_choices[] = {
    {"q_proj", MODULE_Q}, {"k_proj", MODULE_K}, {"v_proj", MODULE_V}, {"output_proj", MODULE_O},
    {"o_proj", 0, "it is called output_proj here, as in torchtune"},
    {"gate_proj", 0, OF_MLP}, {"up_proj", 0, OF_MLP}, {"down_proj", 0, OF_MLP},
    {"lm_head", 0, "it is no linear of attention: model.apply_lora_to_output=true adapts the head"}};
#define OTHER_START "it needs gradients or activations of a pass over data before training; PEFT trains such adapters, and they are read here " \
                    "(checkpointer.adapter_checkpoint)"
static const struct choice start_choices[] = {
    {"true", START_UNIFORM}, {"gaussian", START_GAUSSIAN}, {"orthogonal", START_ORTHOGONAL}, {"pissa", START_PISSA},
    {"pissa_niter_1", START_PISSA | 1 << START_ROUNDS}, {"pissa_niter_2", START_PISSA | 2 << START_ROUNDS},
    {"pissa_niter_4", START_PISSA | 4 << START_ROUNDS}, {"pissa_niter_8", START_PISSA | 8 << START_ROUNDS},
    {"pissa_niter_16", START_PISSA | 16 << START_ROUNDS}, {"pissa_niter_32", START_PISSA | 32 << START_ROUNDS},
    {"olora", START_OLORA},
    {"false", 0, "B would be random too, and the model another one than the base from the first step on"},
    {"loftq", 0, "it replaces the base by one whose rounding the adapter mends; the base stays as it is here: model.quantize_base quantises it"},
    {"eva", 0, OTHER_START}, {"corda", 0, OTHER_START}, {"lora_ga", 0, OTHER_START},
    {"mica", 0, "B would stay as it is in training, which is not built"},
};
static const struct choice init_choices[] = {{"pretrained", INIT_PRETRAINED}, {"random", INIT_RANDOM}};
static const struct choice ac_choices[] = {
    {"null", AC_AUTO}, {"none", AC_NONE}, {"full", AC_FULL}, {"selective", AC_SELECTIVE}};
static const struct choice recompute_choices[] = {
    {"auto", RECOMPUTE_AUTO}, {"none", RECOMPUTE_NONE}, {"products", RECOMPUTE_PRODUCTS},
    {"ffn", RECOMPUTE_FFN}, {"attention", RECOMPUTE_ATTENTION}, {"block", RECOMPUTE_BLOCK}};
static const struct choice ac_option_choices[] = {
    {"op", 0, "choosing single operations is not supported; give N to recompute every N-th block"}};
static const struct choice master_choices[] = {{"none", TRI_AUTO}, {"fp32", TRI_FP32}};
static const struct choice width_choices[] = {{"auto", TRI_AUTO}, {"bf16", TRI_BF16}, {"fp32", TRI_FP32}};
static const struct choice grad_choices[] = {
    {"auto"}, {"fp32"},
    {"bf16", 0, "gradients are summed in fp32, so that the bits do not depend on how many are added on a rank"},
};
static const struct choice reduce_choices[] = {{"tree", REDUCE_TREE}, {"fast", REDUCE_FAST}};
static const struct choice budget_choices[] = {{"auto", BUDGET_AUTO}};
static const struct choice warmup_choices[] = {{"zero", false}, {"one", true}};
static const struct choice level_choices[] = {{"DEBUG"}, {"INFO"}, {"WARN"}, {"WARNING"}, {"ERROR"}, {"CRITICAL"}};
static const struct choice format_choices[] = {{"jsonl"}, {"txt"}};
static const struct choice rotate_choices[] = {{"allgather"}, {"alltoall"}};

/* rows that share everything but name and sentence */
#define NOTED(p, t, d, why, ...) \
    {.path = p, .type = t, .def = d, .effect = NO_EFFECT, .reason = why, .resume = RESUME_FREE, .sentence = __VA_ARGS__}
#define SILENT(p, t, d, ...) {.path = p, .type = t, .def = d, .resume = RESUME_FREE, .sentence = __VA_ARGS__}
#define NOT_YET(p, t, d, why, ...) \
    {.path = p, .type = t, .def = d, .nullable = true, .effect = LATER, .reason = why, .sentence = __VA_ARGS__}
#define UNUSED(p, t, d, why, ...) \
    {.path = p, .type = t, .def = d, .nullable = true, .effect = REFUSED, .reason = why, .sentence = __VA_ARGS__}
#define HUB "data sets are not downloaded: the files are local"
#define HOLDS_ALL "every rank holds the whole model; the numbers are the same"

const struct row schema[] = {
    {"recipe", T_TEXT, C(recipe_name), OPTIONAL, CHOICES(recipe_choices), .resume = RESUME_SHOWN,
     .sentence = "What the command line says after `run`; here for `validate` and for saved configurations."},
    {"output_dir", T_TEXT, C(output_dir), .def = "./trimpot-output", .resume = RESUME_FREE,
     .home = true, .sentence = "Root of everything a run writes: checkpoints, metrics, export."},
    {"seed", T_INT, C(seed), OPTIONAL, FROM(0),
     .sentence = "Base of every random number: data order, dropout, rounding, new weights. null draws one and saves "
      "it."},
    {"device", T_CHOICE, C(device), OPTIONAL, CHOICES(device_choices), .resume = RESUME_FREE,
     .sentence = "Where to train. null takes a GPU if the build and the machine have one, else the CPU; emu is a GPU emulated for tests."},
    {"dtype", T_CHOICE, C(dtype), .def = "bf16", CHOICES(dtype_choices),
     .sentence = "Storage of weights and activations; arithmetic is 32-bit either way."},
    {"epochs", T_INT, C(epochs), .def = "1", RANGE(1, 1e6), .sentence = "Passes over the training data."},
    {"max_steps_per_epoch", T_INT, C(max_steps_per_epoch), OPTIONAL, FROM(1), .unit = "optimizer steps",
     .sentence = "Ends each epoch early."},
    {"batch_size", T_INT, C(batch_size), .def = "2", RANGE(1, 1e6), .unit = "rows", .resume = RESUME_SHOWN,
     .sentence = "Rows (or packs) of one micro-batch on one rank."},
    {"gradient_accumulation_steps", T_INT, C(gradient_accumulation_steps), .def = "1", RANGE(1, 1e6),
     .unit = "micro-batches", .resume = RESUME_SHOWN,
     .sentence = "Micro-batches of one rank before a step; total batch = batch_size x this x ranks."},
    {"shuffle", T_BOOL, C(shuffle), .def = "true", .sentence = "Draws a new order of the rows for every epoch."},
    NOTED("collate_fn", T_TEXT, "torchtune.data.padded_collate_sft", "sequences are never padded",
          "torchtune's padding function.", CHOICES(collate_choices)),
    {"clip_grad_norm", T_FLOAT, C(clip_grad_norm), OPTIONAL, FROM(0), .above_min = true, .infinite = true,
     .sentence = "Largest global norm of the gradient; inf only logs it."},
    {"optimizer_in_bwd", T_BOOL, C(optimizer_in_bwd), .def = "false", .resume = RESUME_FREE,
     .sentence = "Steps each parameter during the backward pass, so that gradients never stand together in memory."},
    NOTED("compile", T_SWITCH, "false", "kernels are compiled already", "torch.compile, or its parts."),

    {"tokenizer.path", T_TEXT, C(tokenizer.path), OPTIONAL, .resume = RESUME_SHOWN, .path_value = true,
     .home = true, .sentence = "Vocabulary file or a directory; null takes the model directory's."},
    {"tokenizer.merges_file", T_TEXT, C(tokenizer.merges_file), OPTIONAL, .resume = RESUME_SHOWN, .path_value = true,
     .home = true, .sentence = "merges.txt beside a vocab.json."},
    {"tokenizer.special_tokens_path", T_TEXT, C(tokenizer.special_tokens_path), OPTIONAL, .resume = RESUME_SHOWN,
     .path_value = true, .home = true, .sentence = "tokenizer.json whose added tokens are the special ones."},
    {"tokenizer.max_seq_len", T_INT, C(tokenizer.max_seq_len), OPTIONAL, FROM(2), .unit = "tokens",
     .sentence = "Longest row, and the size of a pack; null has no limit."},
    {"tokenizer.truncation_type", T_CHOICE, C(tokenizer.truncate_left), .def = "right", CHOICES(truncation_choices),
     .sentence = "Which end of a row that is too long is cut."},
    {"tokenizer.prompt_template", T_TEMPLATE, C(tokenizer.prompt_template), N_OF(config, tokenizer.n_template_roles),
     .at2 = offsetof(struct config, tokenizer.template_roles), OPTIONAL, CHOICES(template_choices),
     .sentence = "Text around messages: a torchtune template by name, or {role: [prefix, suffix]}."},
    {"tokenizer.vocab_path", T_TEXT, C(tokenizer.path), OPTIONAL, .resume = RESUME_SHOWN, .home = true, .derived = true,
     .sentence = "Phi-4's name of tokenizer.path, its vocab.json."},
    {"tokenizer.merges_path", T_TEXT, C(tokenizer.merges_file), OPTIONAL, .resume = RESUME_SHOWN, .home = true, .derived = true,
     .sentence = "Phi-4's name of tokenizer.merges_file."},

    {"dataset.source", T_TEXT, D(source), OPTIONAL, .resume = RESUME_SHOWN,
     .sentence = "json, csv or text for local files (null: by their extension), or the hub name they stand for."},
    {"dataset.data_files", T_TEXTS, D(data_files), N_OF(config_dataset, n_data_files), OPTIONAL, .resume = RESUME_SHOWN,
     .path_value = true, .home = true,
     .sentence = "Local file, or list of files, with the rows. --data FILE says the same."},
    {"dataset.split", T_SPLIT, D(split), .def = "train",
     .sentence = "Which rows: train, train[:95%], train[95%:], train[100:200]."},
    {"dataset.packed", T_BOOL, D(packed), .def = "false",
     .sentence = "Fills sequences of tokenizer.max_seq_len with several rows each."},
    {"dataset.split_across_pack", T_TRI, D(split_across_pack), OPTIONAL,
     .sentence = "Lets a row continue in the next pack; null: true for completion data."},
    {"dataset.train_on_input", T_TRI, D(train_on_input), OPTIONAL,
     .sentence = "true trains on prompts too, false on answers only; wins over masking_strategy."},
    {"dataset.masking_strategy", T_CHOICE, D(masking), OPTIONAL, CHOICES(masking_choices),
     .sentence = "Which messages are trained on; null: answers, and for alpaca everything, as torchtune."},
    {"dataset.column_map", T_PAIRS, D(column_map), N_OF(config_dataset, n_column_map), OPTIONAL,
     .sentence = "Expected column: its name in the files."},
    {"dataset.column", T_TEXT, D(column), OPTIONAL, .sentence = "Completion data: the column with the text."},
    {"dataset.conversation_column", T_TEXT, D(conversation_column), OPTIONAL,
     .sentence = "Chat data: the column with the messages."},
    {"dataset.conversation_style", T_CHOICE, D(conversation_style), OPTIONAL, CHOICES(conversation_choices),
     .sentence = "Shape of a message: {role, content} or {from, value}; null looks."},
    {"dataset.new_system_prompt", T_TEXT, D(new_system_prompt), OPTIONAL, .sentence = "Replaces every system message."},
    {"dataset.add_eos", T_BOOL, D(add_eos), .def = "true", .sentence = "Completion data: ends each text with EOS."},
    {"dataset.prompt_template", T_TEXT, D(prompt_template), OPTIONAL, CHOICES(template_choices),
     .sentence = "A template by name for this set only; null: the tokenizer's."},
    {"dataset.on_bad_row", T_CHOICE, D(on_bad_row), .def = "stop", CHOICES(bad_row_choices),
     .sentence = "A row that cannot be used: stop names them all; skip trains on the others and writes these to "
      "skipped_rows.jsonl."},
    UNUSED("dataset.filter_fn", T_TEXT, "null", "it names a Python function; filter the file instead", "Row filter."),
    UNUSED("dataset.max_seq_len", T_INT, "null", "it moved to tokenizer.max_seq_len", "Old place of the row limit."),
    NOTED("dataset.name", T_TEXT, "null", HUB, "Hub configuration.", .nullable = true),
    NOTED("dataset.subset", T_TEXT, "null", HUB, "Hub configuration.", .nullable = true),
    NOTED("dataset.revision", T_TEXT, "null", HUB, "Hub revision.", .nullable = true),
    NOTED("dataset.cache_dir", T_TEXT, "null", HUB, "Hub cache.", .nullable = true),
    {"dataset_val_fraction", T_FLOAT, C(val_fraction), OPTIONAL, RANGE(0, 1), .above_min = true, .below_max = true,
     .sentence = "Share of the training rows, the last ones, kept for validation instead of a dataset_val."},
    {"batch_size_val", T_INT, C(batch_size_val), OPTIONAL, RANGE(1, 1e6), .unit = "rows", .resume = RESUME_FREE,
     .sentence = "Rows of one validation micro-batch; null: batch_size."},
    {"run_val_every_n_steps", T_INT, C(run_val_every_n_steps), OPTIONAL, FROM(1), .unit = "optimizer steps",
     .resume = RESUME_FREE, .sentence = "How often to measure the validation loss; null: never."},
    {"on_too_long", T_CHOICE, C(on_too_long), .def = "truncate", CHOICES(too_long_choices),
     .sentence = "What happens to rows longer than tokenizer.max_seq_len."},
    {"torchtune_templates", T_BOOL, C(torchtune_templates), .def = "false",
     .sentence = "Renders chats as torchtune does, not by the model's template (true if tokenizer._component_ is "
      "written)."},
    {"chat_template", T_TEXT, C(chat_template), OPTIONAL, .home = true,
     .sentence = "How chats become text: model (the template in the model directory), a Jinja file, or a built-in name "
      "such as chatml or llama3. null: the model's own; torchtune's rendering if tokenizer._component_ is written."},
    {"chat_template_kwargs", T_PAIRS, C(template_variables), N_OF(config, n_template_variables), OPTIONAL,
     .sentence = "Further variables for the chat template, such as {enable_thinking: false}."},
    {"allow_special_in_text", T_BOOL, C(allow_special_in_text), .def = "false",
     .sentence = "Lets special tokens written inside user text become special tokens."},

    {"model.init", T_CHOICE, C(model.init), .def = "pretrained", CHOICES(init_choices), .resume = RESUME_SHOWN,
     .sentence = "random starts from config.json alone, with new weights."},
    {"model.lora_attn_modules", T_FLAGS, C(model.lora.attn_modules), .def = "[q_proj, k_proj, v_proj, output_proj]",
     CHOICES(attn_choices), .sentence = "Attention linears that get adapters."},
    {"model.apply_lora_to_mlp", T_BOOL, C(model.lora.mlp), .def = "true",
     .sentence = "Adapters on gate, up and down (false for a torchtune component that does not say)."},
    {"model.apply_lora_to_output", T_BOOL, C(model.lora.output), .def = "false", .sentence = "An adapter on the head."},
    {"model.lora_rank", T_INT, C(model.lora.rank), .def = "8", RANGE(1, 65536), .sentence = "Rank r of the adapters."},
    {"model.lora_alpha", T_FLOAT, C(model.lora.alpha), .def = "16", FROM(0), .above_min = true,
     .sentence = "Adapters are scaled by alpha / r."},
    {"model.lora_dropout", T_FLOAT, C(model.lora.dropout), .def = "0", RANGE(0, 1), .below_max = true,
     .sentence = "Share of adapter inputs dropped in training."},
    {"model.use_rslora", T_BOOL, C(model.lora.use_rslora), .def = "false", .sentence = "Scales by alpha / sqrt(r)."},
    {"model.use_dora", T_BOOL, C(model.lora.use_dora), .def = "false",
     .sentence = "DoRA: adapters learn the lengths of their weight's rows too."},
    {"model.quantize_base", T_BOOL, C(model.quantize_base), .def = "false",
     .sentence = "Keeps the frozen weights in 4 bits (NF4): QLoRA."},
    {"model.lora_plus_ratio", T_FLOAT, C(model.lora.plus_ratio), OPTIONAL, FROM(1),
     .sentence = "LoRA+: learning rate of B over that of A, which is optimizer.lr (the paper: 16); null: both learn alike."},
    {"model.init_lora_weights", T_CHOICE, C(model.lora.start), .def = "true", CHOICES(start_choices),
     .sentence = "What adapters start as. true: A uniform, B zero; gaussian: A normal; pissa, olora: parts of the weights that they sit on, which "
      "lose them (pissa_niter_N: approximately, sooner); orthogonal: at random, with B A = 0."},
    {"model.rank_pattern", T_PAIRS, C(model.lora.rank_pattern), N_OF(config, model.lora.n_rank_pattern), OPTIONAL, RANGE(1, 65536),
     .whole = true, .sentence = "Ranks of single adapters, as PEFT has them: the end of a module's name, or a regular expression for it, and its "
      "rank, as {v_proj: 16, layers.0.mlp.*: 4}; the first that matches counts."},
    {"model.alpha_pattern", T_PAIRS, C(model.lora.alpha_pattern), N_OF(config, model.lora.n_alpha_pattern), OPTIONAL, FROM(0),
     .above_min = true, .sentence = "The same for their alpha."},
    {"model.modules_to_save", T_TEXTS, C(model.lora.modules_to_save), N_OF(config, model.lora.n_modules_to_save), OPTIONAL,
     .sentence = "Modules that are trained whole beside the adapters, in 32 bits, and saved with them, as [lm_head, embed_tokens, norm]: all "
      "whose names end so, as in PEFT."},

    {"checkpointer.checkpoint_dir", T_TEXT, C(checkpointer.checkpoint_dir), .required = true, .resume = RESUME_SHOWN,
     .path_value = true, .home = true,
     .sentence = "Directory of the base model (config.json, safetensors). --model DIR says the same."},
    SILENT("checkpointer.checkpoint_files", T_FILES, NULL,
           "Weight files of the directory; its model.safetensors or their index decide, so one that is there and is none of these is "
           "refused. Python pickles (.bin, .pt, .pth) that are not there stand for their safetensors."),
    {"checkpointer.model_type", T_TEXT, C(checkpointer.model_type), OPTIONAL, .choices = checkpointer_choices, .n_choices = CHECKPOINTERS,
     .resume = RESUME_SHOWN, .sentence = "Family, checked against config.json; null: config.json decides."},
    {"checkpointer.output_dir", T_TEXT, C(checkpointer.output_dir), OPTIONAL, .resume = RESUME_FREE,
     .home = true, .sentence = "Where checkpoints go; null: output_dir."},
    {"checkpointer.adapter_checkpoint", T_TEXT, C(checkpointer.adapter_checkpoint), OPTIONAL, .resume = RESUME_SHOWN,
     .path_value = true, .home = true, .sentence = "PEFT directory whose adapter the training starts from."},
    UNUSED("checkpointer.recipe_checkpoint", T_TEXT, "null",
           "it is a Python pickle; resume_from_checkpoint finds trimpot's own checkpoints", "torchtune's saved state."),
    {"checkpointer.keep_last_n_checkpoints", T_INT, C(checkpointer.keep_last_n), OPTIONAL, FROM(1),
     .resume = RESUME_FREE, .sentence = "How many checkpoints are kept; null: all."},
    UNUSED("checkpointer.safe_serialization", T_BOOL, "true", "weights are written as safetensors only",
           "safetensors rather than pickles."),
    NOTED("checkpointer.enable_dcp", T_BOOL, "false", "checkpoints are sharded already", "torch's sharded format."),
    {"resume_from_checkpoint", T_BOOL, C(resume), .def = "false", .resume = RESUME_FREE,
     .sentence = "Continues from the newest complete checkpoint of output_dir."},
    {"save_adapter_weights_only", T_BOOL, C(save_adapter_weights_only), .def = "false", .resume = RESUME_FREE,
     .sentence = "LoRA: exports the adapter (PEFT directory) instead of merged weights."},
    {"merge_base", T_TEXT, C(merge_base), OPTIONAL, .resume = RESUME_FREE, .home = true,
     .sentence = "QLoRA over a directory that is quantised already: the model it was made from, into which the adapter is merged at the "
      "end; null: no merge, the adapter is the result. dequantized: into what the 4-bit codes stand for."},
    {"save_every_n_steps", T_INT, C(save_every_n_steps), OPTIONAL, FROM(1), .unit = "optimizer steps",
     .resume = RESUME_FREE, .sentence = "How often to save a checkpoint; null: after each epoch."},
    NOTED("enable_async_checkpointing", T_BOOL, "false", "checkpoints are written in line",
          "Background writing of checkpoints."),

    {"optimizer.lr", T_FLOAT, C(optimizer.lr), .def = "2e-5", .def_lora = "3e-4", FROM(0),
     .sentence = "Learning rate, before the schedule."},
    {"optimizer.weight_decay", T_FLOAT, C(optimizer.weight_decay), .def = "0.01", FROM(0),
     .sentence = "Decay of weights towards zero (0 for Adam and SGD unless written)."},
    {"optimizer.betas", T_BETAS, C(optimizer.beta1), .def = "[0.9, 0.999]", RANGE(0, 1), .below_max = true,
     .sentence = "Adam: memory of the mean and of the square of the gradient."},
    {"optimizer.eps", T_FLOAT, C(optimizer.eps), .def = "1e-8", FROM(0), .above_min = true,
     .sentence = "Adam: added to the root of the second moment."},
    {"optimizer.momentum", T_FLOAT, C(optimizer.momentum), .def = "0", RANGE(0, 1), .below_max = true,
     .sentence = "SGD: memory of the gradient."},
    {"optimizer.dampening", T_FLOAT, C(optimizer.dampening), .def = "0", RANGE(0, 1),
     .sentence = "SGD: share of the new gradient left out of the momentum."},
    {"optimizer.nesterov", T_BOOL, C(optimizer.nesterov), .def = "false", .sentence = "SGD: Nesterov momentum."},
    UNUSED("optimizer.amsgrad", T_BOOL, "false", "only the plain second moment is kept", "AMSGrad."),
    UNUSED("optimizer.maximize", T_BOOL, "false", "a loss is minimised", "Climbs instead of descending."),
    UNUSED("optimizer.differentiable", T_BOOL, "false", "there is no autograd here", "Gradients of the step."),
    UNUSED("optimizer.capturable", T_BOOL, "false", "there are no torch CUDA graphs here", "CUDA graph capture."),
    NOTED("optimizer.fused", T_BOOL, "false", "the step is always fused", "torch's fused step.", .nullable = true),
    NOTED("optimizer.foreach", T_BOOL, "false", "the step is always fused", "torch's multi-tensor step.",
          .nullable = true),
    {"optimizer.is_paged", T_BOOL, C(optimizer.is_paged), .def = "false", .resume = RESUME_FREE,
     .sentence = "States that the device has no room for are in pinned host memory, and come in turn (bitsandbytes' Paged* are so)."},
    {"optimizer.paged_resident", T_BYTES, C(optimizer.paged_resident), OPTIONAL, FROM(0), .unit = "bytes", .resume = RESUME_FREE,
     .sentence = "Paged states: what they may take of the device; null: what memory_budget, or the device, leaves."},
    {"optimizer.paged_window", T_INT, C(optimizer.paged_window), .def = "4194304", FROM(256), .unit = "elements", .resume = RESUME_FREE,
     .sentence = "Paged states: of so many weights at a time; three such windows are on the device."},
    {"optimizer.min_paged_size", T_INT, C(optimizer.min_paged_size), .def = "100000", FROM(1), .unit = "elements",
     .resume = RESUME_FREE, .sentence = "Paged states: those of smaller tensors stay on the device."},
    {"optimizer.on_host", T_BOOL, C(optimizer.on_host), .def = "false", .resume = RESUME_FREE,
     .sentence = "States are in the host's memory and the host's cores step; gradients and weights cross (so CPUOffloadOptimizer)."},
    {"optimizer.optimizer_class", T_CHOICE, C(optimizer.optimizer_class), .def = "torch.optim.AdamW", CHOICES(host_class_choices),
     .resume = RESUME_SHOWN, .sentence = "CPUOffloadOptimizer: what steps on the host."},
    {"optimizer.host_window", T_INT, C(optimizer.host_window), .def = "4194304", FROM(256), .unit = "elements", .resume = RESUME_FREE,
     .sentence = "CPUOffloadOptimizer: so many weights cross at a time; three such windows are in pinned memory."},
    NOTED("optimizer.minimal_size", T_INT, "4096", "small tensors cross in the windows of large ones", "torchao's bound for states on the GPU.",
          FROM(0)),
    UNUSED("optimizer.offload_gradients", T_BOOL, "false",
           "all gradients are on the device until their norm is known; optimizer_in_bwd=true takes each to the host at once",
           "torchao's gradients on the host."),
    {"optimizer.min_8bit_size", T_INT, C(optimizer.min_8bit_size), .def = "4096", FROM(1), .unit = "elements",
     .sentence = "8-bit optimizers: tensors smaller than this have 32-bit states."},
    {"optimizer.quantize_embeddings", T_BOOL, C(optimizer.quantize_embeddings), .def = "true",
     .sentence = "8-bit optimizers: token embedding and output head too; false: 32-bit states for these two."},
    UNUSED("optimizer.percentile_clipping", T_INT, "100", "bitsandbytes has given it up; clip_grad_norm clips", "Adaptive clipping."),
    UNUSED("optimizer.block_wise", T_BOOL, "true", "8-bit states have a scale for each 256 elements, never one for a tensor",
           "Blocks of 8-bit states."),
    UNUSED("optimizer.optim_bits", T_INT, "32", "the class says how many: bitsandbytes.optim.AdamW8bit has 8-bit states",
           "Bits of an optimizer state."),
    UNUSED("optimizer.block_size", T_INT, "256", "8-bit states have a scale for each 256 elements", "torchao's blocks of 8-bit states."),
    NOTED("optimizer.bf16_stochastic_round", T_BOOL, "false", "stochastic_rounding says how bf16 weights are rounded",
          "torchao's rounding of bf16 weights."),

    {"lr_scheduler.num_warmup_steps", T_INT, C(schedule.num_warmup_steps), .def = "0", FROM(0),
     .unit = "optimizer steps", .sentence = "Steps over which the rate rises to its full value."},
    {"lr_scheduler.num_cycles", T_FLOAT, C(schedule.num_cycles), .def = "0.5", FROM(0),
     .sentence = "Cosine waves until the end; 0.5 falls to zero."},

    NOTED("loss.num_output_chunks", T_INT, "8", "the plan sizes the chunks (head_chunk_rows)",
          "Chunks of torchtune's head."),
    UNUSED("loss.ignore_index", T_INT, "-100", "masked labels are -100 everywhere", "Label that is not trained."),
    NOTED("loss.mask_ignored_tokens", T_BOOL, "true", "only supervised rows reach the head", "Skips masked rows."),

    {"enable_activation_checkpointing", T_BOOL, C(enable_activation_checkpointing), .def = "false",
     .resume = RESUME_FREE, .sentence = "Recomputes whole blocks in the backward pass; same bits, less memory."},
    {"ac_mode", T_CHOICE, C(ac_mode), OPTIONAL, CHOICES(ac_choices), .resume = RESUME_FREE,
     .sentence = "The same with a choice: none, full, or selective with ac_option."},
    {"ac_option", T_INT, C(ac_option), OPTIONAL, FROM(1), CHOICES(ac_option_choices), .unit = "blocks",
     .resume = RESUME_FREE, .sentence = "Selective: every N-th block is recomputed."},
    {"recompute", T_CHOICE, C(recompute), .def = "auto", CHOICES(recompute_choices), .resume = RESUME_FREE,
     .sentence = "What of a block the backward pass computes again, each with those before it: none; products: norms and the gated "
                 "product, no matrix product; ffn: gate and up; attention: q, k and v, but not attention itself; block: all but its "
                 "input. auto: products, or what activation checkpointing asks for. Same bits, less memory."},
    {"mlp_tile_tokens", T_INT, C(mlp_tile_tokens), OPTIONAL, FROM(1), .unit = "tokens",
     .sentence = "Long rows: the MLP takes so many tokens of a micro-batch at a time, forward and backward, and gate, up and product live "
                 "for these alone; gate and up are computed again. The same bits in every run with this number; other bits than with "
                 "another one, since gradients of weights are then summed tile by tile."},
    {"enable_activation_offloading", T_BOOL, C(enable_activation_offloading), .def = "false", .resume = RESUME_FREE,
     .sentence = "Moves what a block keeps to host memory until its backward pass, with checkpointing or without; same bits, less "
                 "memory of the GPU. On a CPU there is no other memory: nothing moves."},
    {"activation_offloading_use_streams", T_BOOL, C(activation_offloading_use_streams), .def = "true", .resume = RESUME_FREE,
     .sentence = "Moves it while other blocks compute; false: between them."},
    {"offload_with_streams", T_BOOL, C(activation_offloading_use_streams), .def = "true", .resume = RESUME_FREE, .derived = true,
     .sentence = "Older name of activation_offloading_use_streams."},
    {"stochastic_rounding", T_BOOL, C(stochastic_rounding), .def = "true",
     .sentence = "bf16 weights and states are rounded at random, so that small steps are not lost."},
    {"master_weights", T_CHOICE, C(master_weights), .def = "none", CHOICES(master_choices),
     .sentence = "Full fine-tuning in bf16: keeps a 32-bit copy of the weights (4 bytes more each)."},
    SILENT("grad_dtype", T_TEXT, "auto", "Gradients of full fine-tuning; auto: fp32.", CHOICES(grad_choices)),
    {"state_dtype", T_CHOICE, C(state_dtype), .def = "auto", CHOICES(width_choices),
     .sentence = "Full fine-tuning in bf16: optimizer states; auto: bf16, rounded at random."},
    {"reduce", T_CHOICE, C(reduce), .def = "tree", CHOICES(reduce_choices),
     .sentence = "How gradients are added over ranks. tree: the same bits on any number of them; fast: on GPUs NCCL's own sum, "
                 "whose bits depend on the ranks."},
    {"reduce_bucket", T_BYTES, C(reduce_bucket), .def = "32MiB", FROM(4096), .unit = "bytes", .resume = RESUME_FREE,
     .sentence = "Gradients that GPUs exchange at a time, while lower layers compute theirs; multiples of 256KiB load all ranks alike."},
    {"virtual_ranks", T_INT, C(virtual_ranks), OPTIONAL, RANGE(1, 65536),
     .sentence = "Leaves of the reduction tree: how many ranks the bits hold for; fewer need less memory; null: every micro-batch."},
    {"memory_budget", T_BYTES, C(memory_budget), OPTIONAL, FROM(1), CHOICES(budget_choices), .unit = "bytes", .resume = RESUME_FREE,
     .sentence = "Most memory of one rank, as 8GB or 512MiB; auto: what the machine has. What is not written of checkpointing, offloading, "
                 "the step in the backward pass and, at last, the micro-batch is then chosen so that it fits in the least time; null: as "
                 "written or refused."},
    {"head_chunk_rows", T_INT, C(head_chunk_rows), OPTIONAL, FROM(1), .unit = "tokens",
     .sentence = "Rows of logits that exist at a time; null: the plan chooses."},
    {"dequantize_ahead", T_BOOL, C(dequantize_ahead), .def = "true",
     .sentence = "QLoRA on a GPU: dequantises a layer ahead, into memory for two; false: each linear when it is read, into memory for one, "
                 "with its adapter as products of their own, which round apart."},
    {"max_skipped_steps", T_INT, C(max_skipped_steps), .def = "10", FROM(1), .unit = "optimizer steps",
     .resume = RESUME_FREE, .sentence = "Steps with a non-finite gradient, one after another, that end the run."},
    {"peer_timeout", T_INT, C(peer_timeout), .def = "30", FROM(0), .unit = "seconds", .resume = RESUME_FREE,
     .sentence = "Silence after which a rank counts as stopped or cut off and the job ends (code 21); 0: never."},
    {"warmup_start", T_CHOICE, C(warmup_start_one), .def = "zero", CHOICES(warmup_choices),
     .sentence = "Warm-up begins at rate 0 (torchtune) or at 1/num_warmup_steps."},
    {"cuda_graphs", T_BOOL, C(cuda_graphs), .def = "true", .resume = RESUME_FREE,
     .sentence = "On a GPU, launches what comes again in every step as graphs, block by block: the same bits, sooner; on a CPU it means "
                 "nothing."},
    {"deterministic", T_BOOL, C(deterministic), .def = "false", .resume = RESUME_FREE,
     .sentence = "The same bits on every run of attention on a GPU too, more slowly; all else always has them."},
    {"attn_workspace", T_BYTES, C(attn_workspace), .def = "512MiB", FROM(1), .unit = "bytes",
     .sentence = "Memory of scores that deterministic attention on a GPU may keep, in slices; what fits in no slice is computed more slowly."},
    SILENT("cudnn_deterministic_mode", T_TEXT, "null", "torchtune's switch for the same.", .nullable = true),
    NOT_YET("allow_tf32", T_BOOL, "false", "fp32 products are true fp32", "Faster, coarser fp32 products on a GPU."),
    UNUSED("optimizer_offload", T_BOOL, "false", "optimizer.on_host is it, or optimizer=torchao.optim.CPUOffloadOptimizer",
           "Optimizer on the host."),
    NOT_YET("no_decay", T_TEXTS, "null", "every trained tensor decays, as in torchtune",
            "Tensors without weight decay."),

    NOTED("fsdp_cpu_offload", T_BOOL, "false", "on a CPU everything is in host memory",
          "Weights and states on the host."),
    NOTED("fsdp.cpu_offload", T_BOOL, "false", "torchtune ignores it too", "Old name of fsdp_cpu_offload."),
    NOTED("fsdp_reshard_after_forward", T_BOOL, "true", HOLDS_ALL, "Frees gathered weights after the forward pass."),
    NOTED("custom_sharded_layers", T_TEXTS, "null", HOLDS_ALL, "Layers wrapped on their own.", .nullable = true),
    NOTED("memory_efficient_fsdp_wrap", T_BOOL, "false", HOLDS_ALL, "Wraps the embedding on its own."),
    NOTED("use_distributed_state_dict", T_BOOL, "false", "loading is always per rank", "How weights are loaded."),
    NOTED("low_cpu_ram", T_BOOL, "false", "files are mapped, not read", "How weights are loaded."),
    NOTED("data_parallel_shard_dim", T_INT, "-1", HOLDS_ALL, "Ranks that share one copy of the weights."),
    NOTED("data_parallel_replicate_dim", T_INT, "1", HOLDS_ALL, "Ranks with copies of their own."),
    NOT_YET("tensor_parallel_dim", T_INT, "1",
            "each rank computes whole layers; 1 gives every rank rows of its own, so divide gradient_accumulation_steps or batch_size by it", "Ranks that split each layer."),
    NOT_YET("context_parallel_dim", T_INT, "1", "each rank computes whole rows", "Ranks that split each sequence."),
    NOTED("context_parallel_rotate_method", T_TEXT, "allgather", "context_parallel_dim is 1",
          "Exchange of keys and values.", CHOICES(rotate_choices)),
    NOT_YET("enable_fp8_training", T_BOOL, "false", "products are bf16 or fp32", "FP8 products."),
    NOT_YET("fp8_recipe_name", T_TEXT, "null", "products are bf16 or fp32", "FP8 scaling."),
    NOT_YET("resize_token_embeddings", T_BOOL, "false", "the vocabulary is the model's", "Vocabulary growth."),

    NOTED("metric_logger.log_dir", T_TEXT, "null", "metrics.jsonl is in output_dir", "Directory of logs.", .nullable = true),
    NOTED("metric_logger.output_fmt", T_TEXT, "jsonl", "metrics.jsonl is always written", "DiskLogger's format.",
          CHOICES(format_choices)),
    NOTED("metric_logger.filename", T_TEXT, "null", "metrics.jsonl is always written", "DiskLogger's file.",
          .nullable = true),
    NOTED("metric_logger.organize_logs", T_BOOL, "true", "one run, one directory", "TensorBoard sub-directories."),
    NOTED("metric_logger.project", T_TEXT, "null", "nothing is sent over the network", "W&B, Comet.", .nullable = true),
    NOTED("metric_logger.entity", T_TEXT, "null", "nothing is sent over the network", "W&B.", .nullable = true),
    NOTED("metric_logger.group", T_TEXT, "null", "nothing is sent over the network", "W&B.", .nullable = true),
    NOTED("metric_logger.name", T_TEXT, "null", "nothing is sent over the network", "W&B.", .nullable = true),
    NOTED("metric_logger.workspace", T_TEXT, "null", "nothing is sent over the network", "Comet.", .nullable = true),
    NOTED("metric_logger.experiment_name", T_TEXT, "null", "nothing is sent over the network", "Comet, MLflow.",
          .nullable = true),
    NOTED("metric_logger.tracking_uri", T_TEXT, "null", "nothing is sent over the network", "MLflow.",
          .nullable = true),
    {"log_every_n_steps", T_INT, C(log_every_n_steps), .def = "1", FROM(1), .unit = "optimizer steps",
     .resume = RESUME_FREE, .sentence = "How often a step is printed; metrics.jsonl has them all."},
    SILENT("log_peak_memory_stats", T_BOOL, "false", "Each logged step has the peak memory, whatever this says."),
    NOTED("log_level", T_TEXT, "INFO", "-q and -v choose what is printed", "torchtune's verbosity.",
          CHOICES(level_choices)),

    {"profiler.enabled", T_BOOL, C(profiler.enabled), .def = "false", .resume = RESUME_FREE,
     .sentence = "Writes traces of some steps for chrome://tracing or Perfetto: what ran when on which stream of each rank; same bits."},
    {"profiler.output_dir", T_TEXT, C(profiler.output_dir), OPTIONAL, .resume = RESUME_FREE, .home = true,
     .sentence = "Where traces go, as iteration_N/rankR_trace.json; null: output_dir/profiling_outputs."},
    {"profiler.cpu", T_BOOL, C(profiler.cpu), .def = "true", .resume = RESUME_FREE,
     .sentence = "On a CPU what it computes; on a GPU when the host queued it."},
    {"profiler.cuda", T_BOOL, C(profiler.cuda), .def = "true", .resume = RESUME_FREE, .sentence = "What ran on a GPU's streams."},
    UNUSED("profiler.xpu", T_BOOL, "false", "there are CPUs and CUDA devices here", "Other devices."),
    {"profiler.profile_memory", T_BOOL, C(profiler.memory), .def = "false", .resume = RESUME_FREE,
     .sentence = "Has nothing to show: no step allocates, and `trimpot plan` has every buffer."},
    {"profiler.with_stack", T_BOOL, C(profiler.stack), .def = "false", .resume = RESUME_FREE,
     .sentence = "Has nothing to show: there are no Python calls."},
    {"profiler.record_shapes", T_BOOL, C(profiler.record_shapes), .def = "true", .resume = RESUME_FREE,
     .sentence = "Sizes of matrix products."},
    {"profiler.with_flops", T_BOOL, C(profiler.with_flops), .def = "false", .resume = RESUME_FREE,
     .sentence = "Operations of matrix products."},
    {"profiler.wait_steps", T_INT, C(profiler.wait_steps), .def = "5", FROM(0), .unit = "optimizer steps", .resume = RESUME_FREE,
     .sentence = "Steps before the trace."},
    {"profiler.warmup_steps", T_INT, C(profiler.warmup_steps), .def = "3", FROM(0), .unit = "optimizer steps", .resume = RESUME_FREE,
     .sentence = "Steps traced and thrown away."},
    {"profiler.active_steps", T_INT, C(profiler.active_steps), .def = "2", FROM(1), .unit = "optimizer steps", .resume = RESUME_FREE,
     .sentence = "Steps traced."},
    {"profiler.num_cycles", T_INT, C(profiler.num_cycles), .def = "1", FROM(0), .resume = RESUME_FREE,
     .sentence = "How often to repeat it; 0: until the end."},
};
const int schema_n = COUNT(schema);

const struct section sections[] = {
    {"", false, false, "Keys outside every group"},
    {"tokenizer", true, false, "Text to tokens; may be left out: the model directory has it"},
    {"dataset", true, false, "Training rows: one group, or a list of up to 8 that are joined"},
    {"dataset_val", true, false, "Validation rows, with the keys of dataset"},
    {"model", true, false, "What is trained; sizes come from the model directory"},
    {"checkpointer", true, false, "Where the model comes from"},
    {"optimizer", true, false, "How weights step"},
    {"lr_scheduler", true, true, "How the rate changes; left out: constant"},
    {"loss", true, false, "torchtune's loss; there is one"},
    {"metric_logger", true, false, "Logs beside metrics.jsonl"},
    {"profiler", true, false, "torchtune's profiler"},
    {"fsdp", false, false, "Old group of torchtune"},
    {"tensor_parallel_plan", true, true, "torchtune's tensor parallelism"},
};
const int sections_n = COUNT(sections);

static const struct {
    const char *pattern, *reason;
} foreign[] = {
    {"config", "a configuration cannot include another: name the file with --config"},
    {"teacher_*", DISTILLATION},
    {"kd_*", DISTILLATION},
    {"quantizer", QAT},
    {"fake_quant_after_n_steps", QAT},
    {"ppo_*", REINFORCEMENT},
    {"grpo_*", REINFORCEMENT},
    {"reward_*", REINFORCEMENT},
    {"ref_*", REINFORCEMENT},
    {"value_*", REINFORCEMENT},
    {"gamma", REINFORCEMENT},
    {"lmbda", REINFORCEMENT},
    {"kl_coeff", REINFORCEMENT},
    {"num_steps", REINFORCEMENT},
    {"forward_batch_size", REINFORCEMENT},
    {"base_model_path", REINFORCEMENT},
    {"tasks", EVALUATION},
    {"limit", EVALUATION},
    {"max_new_tokens", GENERATION},
    {"temperature", GENERATION},
    {"top_k", GENERATION},
    {"enable_kv_cache", GENERATION},
    {"kv_cache", GENERATION},
};

/* What Hugging Face's Trainer, PEFT and others call it. */
static const struct {
    const char *name, *here;
} elsewhere[] = {
    {"learning_rate", "optimizer.lr"},
    {"optim", "optimizer._component_"},
    {"lr_scheduler_type", "lr_scheduler._component_"},
    {"warmup_steps", "lr_scheduler.num_warmup_steps"},
    {"num_train_epochs", "epochs"},
    {"num_epochs", "epochs"},
    {"max_steps", "max_steps_per_epoch"},
    {"per_device_train_batch_size", "batch_size"},
    {"per_device_eval_batch_size", "batch_size_val"},
    {"max_grad_norm", "clip_grad_norm"},
    {"logging_steps", "log_every_n_steps"},
    {"save_steps", "save_every_n_steps"},
    {"eval_steps", "run_val_every_n_steps"},
    {"val_set_size", "dataset_val_fraction"},
    {"max_length", "tokenizer.max_seq_len"},
    {"model_max_length", "tokenizer.max_seq_len"},
    {"sequence_len", "tokenizer.max_seq_len"},
    {"cutoff_len", "tokenizer.max_seq_len"},
    {"sample_packing", "dataset.packed"},
    {"train_on_inputs", "dataset.train_on_input"},
    {"bf16", "dtype"},
    {"torch_dtype", "dtype"},
    {"gradient_checkpointing", "enable_activation_checkpointing"},
    {"offload", "enable_activation_offloading"},
    {"load_in_4bit", "model.quantize_base"},
    {"r", "model.lora_rank"},
    {"rank", "model.lora_rank"},
    {"alpha", "model.lora_alpha"},
    {"dropout", "model.lora_dropout"},
    {"target_modules", "model.lora_attn_modules"},
    {"loraplus_lr_ratio", "model.lora_plus_ratio"},
    {"base_model", "checkpointer.checkpoint_dir"},
    {"model_name_or_path", "checkpointer.checkpoint_dir"},
};

const char *schema_foreign(const char *key)
{
    for (int i = 0; i < COUNT(foreign); i++)
        if (!fnmatch(foreign[i].pattern, key, 0)) return foreign[i].reason;
    return NULL;
}

const char *row_key(const struct row *row)
{
    const char *dot = strchr(row->path, '.');
    return dot ? dot + 1 : row->path;
}

bool row_in_section(const struct row *row, const char *section)
{
    if (!strcmp(section, "dataset_val")) section = "dataset";
    const char *dot = strchr(row->path, '.');
    size_t n = dot ? (size_t)(dot - row->path) : 0;
    return strlen(section) == n && !strncmp(row->path, section, n);
}

bool row_is_dataset(const struct row *row) { return row_in_section(row, "dataset"); }

const struct row *schema_row(const char *section, const char *key)
{
    for (int i = 0; i < schema_n; i++)
        if (!strcmp(row_key(&schema[i]), key) && row_in_section(&schema[i], section)) return &schema[i];
    return NULL;
}

const struct section *schema_section(const char *name)
{
    for (int i = 1; i < sections_n; i++)
        if (!strcmp(sections[i].name, name)) return &sections[i];
    return NULL;
}

const char *schema_section_of(const char *dotted)
{
    if (!strncmp(dotted, "dataset.", 8) && dotted[8] && !dotted[8 + strspn(dotted + 8, "0123456789")]) return "dataset";
    const struct section *s = schema_section(dotted);
    return s && s->component ? s->name : NULL;
}

const char *schema_default_text(const char *path)
{
    const char *dot = strchr(path, '.');
    char section[64] = "";
    if (dot && (size_t)(dot - path) < sizeof section) memcpy(section, path, (size_t)(dot - path));
    const struct row *row = dot && !section[0] ? NULL : schema_row(section, dot ? dot + 1 : path);
    return row ? row->def : NULL;
}

const char *schema_nearest_path(const char *path)
{
    const char *names[COUNT(schema)];
    for (int i = 0; i < schema_n; i++) names[i] = schema[i].path;
    return text_nearest(path, names, schema_n);
}

static const char *nearest_here(const char *section, const char *key, const struct component *component)
{
    const char *names[COUNT(schema) + COUNT(sections) + 1];
    int n = 0;
    bool has_component = *section && (!schema_section(section) || schema_section(section)->component);
    if (has_component) names[n++] = "_component_";
    for (int i = 0; i < schema_n; i++)
        if (row_in_section(&schema[i], section) && (!component || component_takes(component, row_key(&schema[i]))))
            names[n++] = row_key(&schema[i]);
    for (int i = 1; !*section && i < sections_n; i++) names[n++] = sections[i].name;
    return text_nearest(key, names, n);
}

char *schema_suggest(const char *section, const char *key, const struct component *component)
{
    for (int i = 0; i < COUNT(elsewhere); i++)
        if (!strcmp(elsewhere[i].name, key)) return mem_strdup(elsewhere[i].here);
    for (int i = 0; i < schema_n; i++)
        if (!strcmp(row_key(&schema[i]), key)) return mem_strdup(schema[i].path);
    const char *here = nearest_here(section, key, component);
    if (!here && component) here = nearest_here(section, key, NULL);
    if (here) return mem_printf("%s%s%s", section, *section ? "." : "", here);
    const char *names[COUNT(schema)];
    for (int i = 0; i < schema_n; i++) names[i] = row_key(&schema[i]);
    const char *there = text_nearest(key, names, schema_n);
    for (int i = 0; there && i < schema_n; i++)
        if (names[i] == there) return mem_strdup(schema[i].path);
    return NULL;
}
