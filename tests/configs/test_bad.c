/* test_bad.c — bad configurations, one row each: what is written, what the person must be told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "configs/config.h"
#include "configs/ynode.h"

#define BASE "checkpointer: {checkpoint_dir: /model}\ndataset: {data_files: rows.json}\n"

#define HERE TRIMPOT_SOURCE_DIR "/tests/configs"

static const struct {
    const char *yaml, *override, *told; /* line 1 and 2 are BASE where it is used */
} cases[] = {
    /* YAML itself */
    {"seed: [1\n", NULL, "t.yaml:2:1: not YAML: while parsing a flow sequence"},
    {"\tseed: 1\n", NULL, "t.yaml:1:1: not YAML: while scanning for the next token: found character that cannot start any token"},
    {"- a\n- b\n", NULL, "t.yaml:1:1: the file holds a list, not keys with values"},
    {"just words\n", NULL, "the file holds 'just words', not keys with values"},
    {BASE "seed: 1\nseed: 2\n", NULL, "t.yaml:4:1: 'seed' is given twice, first in line 3"},
    {BASE "optimizer: {lr: 1, lr: 2}\n", NULL, "t.yaml:3:20: 'lr' is given twice"},
    {BASE "seed: &s 1\n", NULL, "t.yaml:3:7: anchors (&s) are not used here: refer to a value as ${its.key}"},
    {BASE "seed: *s\n", NULL, "t.yaml:3:7: aliases (*s) are not used here"},
    {BASE "model:\n  <<: {init: random}\n", NULL, "t.yaml:4:3: merge keys (<<) are not used here"},
    {BASE "seed: !!python/object:os.system 1\n", NULL, "t.yaml:3:7: tags ("},
    {BASE "---\nseed: 1\n", NULL, "t.yaml:4:1: a second document begins here"},
    {BASE "? [a, b]\n: 1\n", NULL, "a key must be a single word, not a list"},
    {BASE "output_dir: \"a\\0b\"\n", NULL, "t.yaml:3:13: the text contains a NUL byte"},
    {"output_dir: \xff\n", NULL, "t.yaml: not YAML: invalid leading UTF-8 octet at byte 12"},
    {BASE "config: other.yaml\n", NULL, "t.yaml:3:1: config: a configuration cannot include another: name the file with --config"},
    /* keys */
    {BASE "sed: 1\n", NULL, "t.yaml:3:1: unknown key sed; did you mean seed?"},
    {BASE "lr: 1e-4\n", NULL, "t.yaml:3:1: unknown key lr; did you mean optimizer.lr?"},
    {BASE "max_seq_length: 1\n", NULL, "unknown key max_seq_length; did you mean tokenizer.max_seq_len?"},
    {BASE "optimizer:\n  learning_rat: 1\n", NULL, "t.yaml:4:3: unknown key optimizer.learning_rat ("},
    {BASE "optimizer:\n  weight_deacy: 1\n", NULL, "t.yaml:4:3: unknown key optimizer.weight_deacy; did you mean optimizer.weight_decay?"},
    {BASE, "dataset.data_file=x", "argument 1 ('dataset.data_file=x'): unknown key dataset.data_file; did you mean dataset.data_files?"},
    {BASE, "+dataset.data_files=x", "argument 1 ('+dataset.data_files=x'): write it without the +"},
    {BASE, "seed", "argument 1 ('seed'): expected key=value or ~key"},
    {BASE, "se ed=1", "'se ed' is no key"},
    {BASE, "..=1", "is no key: keys look like seed or optimizer.lr"},
    {BASE, "~sead", "argument 1 ('~sead'): there is no sead to delete"},
    {BASE, "~dataset.data_file", "there is no dataset.data_file to delete; did you mean ~dataset.data_files?"},
    {BASE, "dtype.x=1", "dtype is a group of keys: expected bf16, fp32"},
    {BASE "seed: 5\n", "seed.x=1", "seed is the single value '5' and has no x"},
    {BASE, "seed=[1", "argument 1 ('seed=[1'): not YAML"},
    {BASE "teacher_model: {}\n", NULL, "teacher_model: distillation is recognised, not supported"},
    {BASE "ppo_epochs: 1\n", NULL, "ppo_epochs: reinforcement learning is recognised, not supported"},
    {BASE "compile: {modl: true}\n", NULL, "t.yaml:3:11: unknown key compile.modl"},
    /* types, ranges, choices */
    {BASE "seed: abc\n", NULL, "t.yaml:3:7: seed is 'abc': expected a whole number of at least 0, or null"},
    {BASE "seed: -1\n", NULL, "seed is '-1': expected a whole number"},
    {BASE "seed: 99999999999999999999\n", NULL, "seed is '99999999999999999999': expected"},
    {BASE "peer_timeout: -1\n", NULL, "peer_timeout is '-1': expected a whole number of at least 0, in seconds (default 30)"},
    {BASE "batch_size: 0\n", NULL, "batch_size is '0': expected a whole number from 1 to 1000000, in rows (default 2)"},
    {BASE "batch_size: 2.5\n", NULL, "batch_size is '2.5': expected a whole number"},
    {BASE "batch_size: null\n", NULL, "batch_size is null: expected a whole number"},
    {BASE "batch_size: [2]\n", NULL, "batch_size is a list: expected a whole number"},
    {BASE "shuffle: maybe\n", NULL, "shuffle is 'maybe': expected true or false (default true)"},
    {BASE "optimizer: {lr: fast}\n", NULL, "optimizer.lr is 'fast': expected a number of at least 0 (default 2e-5, for LoRA 3e-4)"},
    {BASE "optimizer: {lr: -1e-5}\n", NULL, "optimizer.lr is '-1e-5'"},
    {BASE "optimizer: {lr: inf}\n", NULL, "optimizer.lr is 'inf'"},
    {BASE "optimizer: {lr: 0x1p-3}\n", NULL, "optimizer.lr is '0x1p-3'"},
    {BASE "optimizer: {lr: nan}\n", NULL, "optimizer.lr is 'nan'"},
    {BASE "optimizer: {betas: [0.9, 1.0]}\n", NULL, "optimizer.betas is a list: expected a list of two numbers from 0 to below 1"},
    {BASE "optimizer: {eps: 0}\n", NULL, "optimizer.eps is '0': expected a number above 0"},
    {BASE "clip_grad_norm: 0\n", NULL, "clip_grad_norm is '0': expected a number above 0, or null, or inf"},
    {BASE "dtype: bf61\n", NULL, "dtype is 'bf61'; did you mean bf16?"},
    {BASE "dtype: fp16\n", NULL, "dtype: fp16 is refused: training in fp16 needs a loss scaler"},
    {BASE "device: tpu\n", NULL, "device is 'tpu'"},
    {BASE "memory_budget: 8 gigs\n", NULL, "memory_budget is '8 gigs': expected bytes as 8GB or 512MiB, or null, or auto"},
    {BASE "memory_budget: 9e99GB\n", NULL, "memory_budget is '9e99GB'"},
    {BASE "output_dir: ''\n", NULL, "output_dir is '': expected a text"},
    {BASE "output_dir: null\n", NULL, "output_dir is null: expected a text"},
    {BASE "model: {lora_attn_modules: [q_proj, o_proj]}\n", NULL, "o_proj is refused: it is called output_proj here, as in torchtune"},
    {BASE "model: {lora_attn_modules: [q_proj, gate_proj]}\n", NULL, "model.apply_lora_to_mlp=true adapts gate, up and down"},
    {BASE "model: {lora_attn_modules: [q_pro]}\n", NULL, "model.lora_attn_modules is 'q_pro'; did you mean q_proj?"},
    {BASE "model: {lora_attn_modules: q_proj}\n", NULL, "model.lora_attn_modules is 'q_proj': expected a list of q_proj, k_proj"},
    {BASE "model: {lora_dropout: 1.0}\n", NULL, "model.lora_dropout is '1.0': expected a number from 0 to below 1"},
    {BASE "tokenizer: {max_seq_len: 1}\n", NULL, "tokenizer.max_seq_len is '1': expected a whole number of at least 2"},
    {BASE "tokenizer: {prompt_template: {user: [a]}}\n", NULL,
     "tokenizer.prompt_template is a group of keys: expected torchtune.data.Llama2ChatTemplate"},
    {BASE "tokenizer: {prompt_template: torchtune.data.ChatMLTemplat}\n", NULL, "did you mean torchtune.data.ChatMLTemplate?"},
    {BASE, "dataset.split=test", "dataset.split is 'test': expected rows of the files, as train, train[:95%] or train[100:200]"},
    {BASE, "dataset.split=train[:95%", "dataset.split is 'train[:95%'"},
    {BASE, "dataset.split=train[5]", "dataset.split is 'train[5]'"},
    {BASE, "dataset.split=train[5:6:7]", "dataset.split is 'train[5:6:7]'"},
    {BASE "recipe: lora_dpo_distributed\n", NULL, "recipe lora_dpo_distributed: preference training is recognised, not supported"},
    {BASE "dataset_val: [a]\n", NULL, "t.yaml:3:14: dataset_val is a list: expected a group of keys"},
    {BASE "optimizer: 5\n", NULL, "t.yaml:3:12: optimizer is '5': expected a group of keys, with the path as its _component_"},
    {BASE "checkpointer_: 1\n", NULL, "did you mean checkpointer?"},
    {BASE "dataset_val_fraction: 1\n", NULL, "dataset_val_fraction is '1': expected a number from above 0 to below 1"},
    {"checkpointer: {checkpoint_dir: /m, keep_last_n_checkpoints: 0}\n", NULL, "keep_last_n_checkpoints is '0'"},
    {"checkpointer: {checkpoint_dir: /m, model_type: LLAMA3_VISION}\n", NULL,
     "LLAMA3_VISION is refused: this program trains text decoders"},
    {"checkpointer: {checkpoint_dir: /m, model_type: LAMA2}\n", NULL, "model_type is 'LAMA2'; did you mean LLAMA2?"},
    /* a file that is there and is not the model that is read; of one that is not there nothing can be said */
    {"checkpointer: {checkpoint_dir: " HERE ", checkpoint_files: [model.safetensors, test_bad.c]}\n", NULL,
     "checkpoint_files names 'test_bad.c', which is in '" HERE "' and is not what is read"},
    {"checkpointer: {checkpoint_dir: " HERE ", checkpoint_files: [[a], b]}\n", NULL, "checkpoint_files is a list"},
    {"checkpointer: {checkpoint_dir: /m, recipe_checkpoint: recipe_state.pt}\n", NULL,
     "recipe_checkpoint: 'recipe_state.pt' is refused: it is a Python pickle"},
    {"checkpointer: {checkpoint_dir: /m, safe_serialization: False}\n", NULL,
     "safe_serialization: 'False' is refused: weights are written as safetensors only"},
    {BASE "enable_activation_offloading: host\n", NULL,
     "t.yaml:3:31: enable_activation_offloading is 'host': expected true or false (default false)"},
    {BASE "offload_with_streams: sometimes\n", NULL, "t.yaml:3:23: offload_with_streams is 'sometimes': expected true or false"},
    {BASE "activation_offloading_use_streams: true\noffload_with_streams: false\n", NULL,
     "t.yaml:4:23: offload_with_streams: 'false': it is the older name of activation_offloading_use_streams"},
    /* known, not built */
    {BASE "enable_fp8_training: true\n", NULL, "enable_fp8_training: 'true' is not built yet"},
    {BASE "tensor_parallel_dim: 2\n", NULL, "tensor_parallel_dim: '2' is not built yet"},
    {BASE "context_parallel_dim: 2\n", NULL, "context_parallel_dim: '2' is not built yet"},
    {BASE "ac_mode: selective\nac_option: op\n", NULL, "ac_option: op is refused"},
    {BASE "profiler: {enabled: true, cpu: false, cuda: false}\n", NULL,
     "profiler.cpu and profiler.cuda are false: nothing would be traced"},
    {BASE "profiler: {enabled: true, active_steps: 0}\n", NULL, "profiler.active_steps is '0': expected a whole number of at least 1"},
    {BASE "profiler: {xpu: true}\n", NULL, "profiler.xpu: 'true' is refused: there are CPUs and CUDA devices here"},
    {BASE, "optimizer=bitsandbytes.optim.Lion8bit", "Lion is not built yet"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.AdamW8bit, block_wise: false}\n", NULL,
     "optimizer.block_wise: 'false' is refused: 8-bit states have a scale for each 256 elements"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.AdamW, optim_bits: 8}\n", NULL,
     "optimizer.optim_bits: '8' is refused: the class says how many: bitsandbytes.optim.AdamW8bit has 8-bit states"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.AdamW8bit, percentile_clipping: 5}\n", NULL,
     "optimizer.percentile_clipping: '5' is refused: bitsandbytes has given it up; clip_grad_norm clips"},
    {BASE "optimizer: {_component_: torchao.optim.AdamW8bit, block_size: 128}\n", NULL, "optimizer.block_size: '128' is refused"},
    {BASE "optimizer: {_component_: torchao.optim.AdamW8bit, min_8bit_size: 0}\n", NULL,
     "optimizer.min_8bit_size is '0': expected a whole number of at least 1"},
    {BASE "optimizer: {_component_: torch.optim.AdamW, min_8bit_size: 1}\n", NULL, "min_8bit_size"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.SGD8bit}\n", NULL, "without momentum there is no state to hold in 8 bits"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.AdamW8bit}\nstate_dtype: fp32\n", NULL,
     "state_dtype: 'fp32': the optimizer holds 8-bit states"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.PagedAdamW8bit, on_host: true}\n", NULL, "never come to the device"},
    {BASE "optimizer: {_component_: bitsandbytes.optim.AdamW8bit, is_paged: false}\n", "optimizer=bitsandbytes.optim.PagedAdamW8bit",
     "the class pages, as its name says"},
    {BASE "optimizer: {_component_: torch.optim.AdamW, on_host: false}\n", "optimizer=torchao.optim.CPUOffloadOptimizer",
     "the class steps on the host"},
    {BASE, "optimizer.offload_gradients=true", "takes no offload_gradients"},
    {BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, offload_gradients: true}\n", NULL,
     "optimizer_in_bwd=true takes each to the host at once"},
    {BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, optimizer_class: bitsandbytes.optim.Lion}\n", NULL,
     "optimizer_class"},
    {BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, optimizer_class: torch.optim.SGD, betas: [0.9, 0.9]}\n", NULL,
     "torch.optim.SGD, which torchao.optim.CPUOffloadOptimizer steps with (optimizer_class), takes no betas"},
    {BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, momentum: 0.9}\n", NULL, "torch.optim.AdamW, which"},
    {BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer}\nrecipe: full_finetune\nmaster_weights: fp32\n", NULL,
     "the optimizer on the host takes the device's weights"},
    {BASE, "optimizer=torchao.optim.AdamW4bit", "4-bit optimizer states are not built yet"},
    {BASE, "model=torchtune.models.smol.smol_135m", "torchtune's smol module is not built yet; leave _component_ out"},
    {BASE, "model=torchtune.models.phi4.phi4_classifier", "'torchtune.models.phi4.phi4_classifier' is not known"},
    {BASE, "model=torchtune.models.mistral.lora_mistral_classifier_7b", "did you mean torchtune.models.mistral.lora_mistral_7b?"},
    {BASE, "checkpointer=torchtune.training.FullModelMetaCheckpointer", "it reads Python pickles"},
    {BASE "optimizer: {amsgrad: true}\n", NULL, "optimizer.amsgrad: 'true' is refused"},
    {BASE, "dataset=torchtune.datasets.preference_dataset", "preference data is not supported yet"},
    {BASE "dataset_val: {data_files: v.json, filter_fn: f}\n", NULL, "dataset.filter_fn: 'f' is refused: it names a Python function"},
    /* components */
    {BASE "optimizer: {_component_: torch.optim.AdmW}\n", NULL,
     "optimizer._component_: 'torch.optim.AdmW' is not known; did you mean torch.optim.AdamW?"},
    {BASE "optimizer: {_component_: [a]}\n", NULL, "optimizer._component_ is a list: expected a dotted path"},
    {BASE "optimizer: {_component_: torch.optim.SGD, betas: [0.9, 0.9]}\n", NULL, "torch.optim.SGD takes no betas: it takes lr momentum"},
    {BASE "optimizer: {momentum: 0.9}\n", NULL, "optimizer without _component_ takes no momentum"},
    {BASE "model: {_component_: torchtune.models.llama3_2.llama3_2_1b, lora_rank: 8}\n", NULL, "takes no lora_rank: it takes init"},
    {BASE "recipe: lora_finetune\nmodel: {lora_plus_ratio: 0.5}\n", NULL,
     "model.lora_plus_ratio is '0.5': expected a number of at least 1, or null"},
    {BASE "recipe: lora_finetune\nmodel: {rank_pattern: {q_proj: 0}}\n", NULL,
     "t.yaml:4:32: model.rank_pattern.q_proj is '0': expected a whole number from 1 to 65536"},
    {BASE "recipe: lora_finetune\nmodel: {rank_pattern: {q_proj: 2.5}}\n", NULL, "expected a whole number from 1 to 65536"},
    {BASE "recipe: lora_finetune\nmodel: {alpha_pattern: {q_proj: many}}\n", NULL,
     "model.alpha_pattern.q_proj is 'many': expected a number above 0"},
    {BASE "recipe: lora_finetune\nmodel: {rank_pattern: 4}\n", NULL, "expected a group {name: whole number} from 1 to 65536, or null"},
    {BASE "recipe: lora_finetune\nmodel: {alpha_pattern: [q_proj]}\n", NULL,
     "model.alpha_pattern is a list: expected a group {name: number}"},
    {BASE "recipe: lora_finetune\nmodel: {alpha_pattern: {q_proj: 2}}\n", "checkpointer.adapter_checkpoint=x",
     "the adapter says its ranks, its alphas and what is saved whole itself"},
    {BASE "recipe: lora_finetune\nmodel: {modules_to_save: {lm_head: 1}}\n", NULL,
     "model.modules_to_save is a group of keys: expected a text"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: pisa}\n", NULL, "model.init_lora_weights is 'pisa'; did you mean pissa?"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: loftq}\n", NULL, "loftq is refused: it replaces the base"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: eva}\n", NULL, "eva is refused: it needs gradients or activations"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: false}\n", NULL, "false is refused: B would be random too"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: False}\n", NULL, "False is refused: B would be random too"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: PiSSA}\n", NULL, "did you mean pissa?"},
    {BASE "ac_mode: Full\n", NULL, "ac_mode is 'Full'; did you mean full?"},
    /* the names of other programs */
    {BASE "learning_rate: 1e-4\n", NULL, "unknown key learning_rate; did you mean optimizer.lr?"},
    {BASE "warmup_steps: 10\n", NULL, "did you mean lr_scheduler.num_warmup_steps?"},
    {BASE "gradient_checkpointing: true\n", NULL, "did you mean enable_activation_checkpointing?"},
    {BASE "load_in_4bit: true\n", NULL, "did you mean model.quantize_base?"},
    {BASE "model: {r: 8, target_modules: [q_proj]}\n", NULL, "unknown key model.r; did you mean model.lora_rank?"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: pissa, quantize_base: true}\n", NULL,
     "t.yaml:4:28: model.init_lora_weights: 'pissa': the base loses what its adapter starts as"},
    {BASE "recipe: lora_finetune\nmodel: {init_lora_weights: olora}\n", "checkpointer.adapter_checkpoint=x",
     "checkpointer.adapter_checkpoint says what the adapter starts as"},
    {BASE "model: {_component_: torchtune.models.llama3_2.lora_llama3_2_2b}\n", NULL,
     "did you mean torchtune.models.llama3_2.lora_llama3_2_1b?"},
    {BASE "lr_scheduler: {_component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmups}\n", NULL,
     "did you mean torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup?"},
    {BASE "lr_scheduler: {num_warmup_steps: 5}\n", NULL, "t.yaml:3:1: lr_scheduler needs its _component_"},
    {BASE "recipe: lora_finetun\n", NULL, "there is no recipe 'lora_finetun'; did you mean lora_finetune?"},
    /* references */
    {BASE "output_dir: ${output_dir}\n", NULL, "t.yaml:3:13: ${output_dir} leads back to itself"},
    {BASE "output_dir: ${seed}/x\nseed: ${output_dir}\n", NULL, "leads back to itself"},
    {BASE "output_dir: ${out_dir}\n", NULL, "${out_dir} names no key of this file; did you mean ${output_dir}?"},
    {BASE "output_dir: ${dataset}\n", NULL, "${dataset} is a group of keys: only single values can be referred to"},
    {BASE "output_dir: ${oc.env:HOME}\n", NULL, "only ${key} and ${group.key} are understood"},
    {BASE "output_dir: ${${seed}}\n", NULL, "only ${key} and ${group.key} are understood"},
    {BASE "output_dir: ${seed\n", NULL, "only ${key} and ${group.key} are understood"},
    {BASE "batch_size_val: ${output_dir}\n", NULL, "batch_size_val is './trimpot-output': expected a whole number"},
    /* rules */
    {BASE "optimizer_in_bwd: true\nclip_grad_norm: 1\n", NULL,
     "t.yaml:3:19: optimizer_in_bwd: 'true': a parameter steps before the norm of all gradients is known"},
    {BASE "optimizer_in_bwd: true\ngradient_accumulation_steps: 2\n", NULL, "every micro-batch would step"},
    {BASE "optimizer_in_bwd: true\n", "gradient_accumulation_steps=2", "every micro-batch would step"},
    {BASE "enable_activation_checkpointing: true\nac_mode: none\n", NULL, "keep one of the two keys"},
    {BASE "chat_template: model\ntorchtune_templates: true\n", NULL, "renders chats another way; keep one of the two keys"},
    {BASE "chat_template: chatml\ntokenizer: {prompt_template: torchtune.data.QuestionAnswerTemplate}\n", NULL,
     "prompt_template is part of torchtune's rendering; keep one of the two keys"},
    {BASE "enable_activation_checkpointing: true\nrecompute: ffn\n", NULL,
     "recompute: 'ffn': enable_activation_checkpointing or ac_mode asks"},
    {BASE "ac_mode: full\nrecompute: none\n", NULL, "leave recompute at auto, or delete that key"},
    {BASE "ac_mode: selective\nac_option: 2\nrecompute: block\n", NULL, "leave recompute at auto, or delete that key"},
    {BASE "recompute: gate\n", NULL, "recompute"},
    {BASE "recompute: products\nmlp_tile_tokens: 64\n", NULL, "gate and up live for one tile of mlp_tile_tokens"},
    {BASE "mlp_tile_tokens: 0\n", NULL, "mlp_tile_tokens"},
    {BASE "ac_mode: selective\n", NULL, "ac_option: N recomputes every N-th"},
    {BASE "ac_mode: selective\nac_option: 0\n", NULL, "2 t.yaml:4:12: ac_option is '0'"},
    {BASE "ac_option: 2\n", NULL, "it chooses blocks for ac_mode: selective only"},
    {BASE, "dataset.packed=true", "a pack needs a size: set tokenizer.max_seq_len"},
    {BASE "run_val_every_n_steps: 5\n", NULL, "there is nothing to validate on"},
    {BASE "dataset_val: {data_files: v.json}\ndataset_val_fraction: 0.1\n", NULL, "dataset_val is given too; keep one"},
    {BASE "dataset_val: {split: train}\n", NULL, "reads the rows that dataset trains on"},
    {BASE "model: {lora_attn_modules: [], apply_lora_to_mlp: false}\n", NULL, "no linear would get an adapter"},
    {BASE "recipe: full_finetune\nmodel: {quantize_base: true}\n", NULL, "model.quantize_base: 'true': the recipe trains all weights"},
    {BASE "recipe: full_finetune\nmodel: {_component_: torchtune.models.qwen2.lora_qwen2_7b}\n", NULL, "write the form without lora_"},
    {BASE "recipe: lora_finetune\nmodel: {_component_: torchtune.models.qwen2.qwen2_7b}\n", NULL, "write the lora_ or qlora_ form"},
    {BASE "optimizer: {_component_: torch.optim.SGD, nesterov: true}\n", NULL, "it needs momentum above 0 and dampening 0"},
    {BASE "save_adapter_weights_only: true\n", NULL, "there is no adapter"},
    {BASE "recipe: lora_finetune\nmaster_weights: fp32\n", NULL, "adapters are 32-bit already"},
    {BASE "grad_dtype: bf16\n", NULL, "gradients are summed in fp32"},
    {BASE "model: {_component_: torchtune.models.qwen2.qwen2_7b}\ntokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer}\n",
     NULL, "it is not the tokenizer of model._component_"},
    {BASE "model: {_component_: torchtune.models.phi3.phi3_mini}\ntokenizer: {_component_: torchtune.models.llama2.llama2_tokenizer}\n",
     NULL, "it is not the tokenizer of model._component_"},
    {BASE "model: {_component_: torchtune.models.gemma2.gemma2_2b}\n", "checkpointer.model_type=GEMMA",
     "model._component_ is of another family"},
    {BASE "model: {_component_: torchtune.models.qwen2.qwen2_7b}\n", "checkpointer.model_type=LLAMA2",
     "model._component_ is of another family"},
    {BASE "output_dir: /model/../model/out\n", NULL, "it lies in checkpointer.checkpoint_dir"},
    {BASE "reduce: int64\n", NULL, "reduce is 'int64': expected tree, fast"},
    {BASE "tokenizer: {path: a.json, vocab_path: b.json}\n", NULL, "it is Phi-4's name of tokenizer.path, which is given too"},
    {BASE "tokenizer: {path: a.json, merges_file: a.txt, merges_path: b.txt}\n", NULL, "it is Phi-4's name of tokenizer.merges_file"},
    {BASE "tasks: [hellaswag]\ntop_k: 4\n", NULL, "tasks: it belongs to torchtune's evaluation; `trimpot eval`"},
    {BASE "tokenizer: {merges_file: m.txt}\n", NULL, "it belongs to the vocab.json of tokenizer.path"},
    /* what must be there */
    {"dataset: {data_files: x.json}\n", NULL, "t.yaml: checkpointer.checkpoint_dir: it is missing"},
    {"checkpointer: {checkpoint_dir: /m}\n", NULL, "dataset.data_files is missing: name the file with the rows, or pass --data FILE"},
    {"checkpointer: {checkpoint_dir: /m}\ndataset: {_component_: torchtune.datasets.alpaca_dataset}\n", NULL,
     "'tatsu-lab/alpaca' is a hub data set and nothing is downloaded"},
    {"checkpointer: {checkpoint_dir: /m}\ndataset: {data_files: rows.parquet}\n", NULL, "'rows.parquet' has none of the endings"},
    {"checkpointer: {checkpoint_dir: /m}\ndataset: {data_files: [a.json, b.csv]}\n", NULL, "mixes json and csv files"},
    {"checkpointer: {checkpoint_dir: /m}\ndataset: []\n", NULL, "dataset is a list of 0: expected 1 to 8"},
    {"checkpointer: {checkpoint_dir: /m}\ndataset: [{data_files: a.json}, {data_files: b.json, packed: true}]\n", "tokenizer.max_seq_len=9",
     "pack all of them or none"},
    {"checkpointer: {checkpoint_dir: /m}\ndataset: [{data_files: a.json}]\n", "dataset.packed=true",
     "dataset is a list of 1: say dataset.0.packed"},
};

static char *told(const char *yaml, const char *override)
{
    struct config_args args = {.overrides = &override, .n_overrides = override != NULL};
    struct config *c = NULL;
    status st = config_parse_text("t.yaml", yaml, strlen(yaml), &args, &c);
    if (!st) config_free(c);
    return st ? mem_printf("%d %s", st, status_message()) : NULL;
}

static void every_case(void **state)
{
    (void)state;
    int bad = 0, n = (int)(sizeof cases / sizeof *cases);
    for (int i = 0; i < n; i++) {
        char *message = told(cases[i].yaml, cases[i].override);
        if (!message || strncmp(message, "2 ", 2) || !strstr(message, cases[i].told)) {
            print_error("case %d\n--- written:\n%s%s%s\n--- expected: %s\n--- told: %s\n\n", i, cases[i].yaml,
                        cases[i].override ? "override " : "", cases[i].override ? cases[i].override : "", cases[i].told,
                        message ? message : "(nothing: accepted)");
            bad++;
        }
        free(message);
    }
    print_message("%d bad configurations\n", n);
    assert_int_equal(bad, 0);
}

/* All errors of a file and of the command line, in order, in one message. */
static void all_at_once(void **state)
{
    (void)state;
    const char *overrides[] = {"batch_size=0", "sheed=1"};
    const char *yaml = BASE "seed: x\nepochs: 0\noptimizer:\n  lr: a\n  lrr: 1\n";
    struct config_args args = {.overrides = overrides, .n_overrides = 2};
    struct config *c = NULL;
    assert_int_equal(config_parse_text("t.yaml", yaml, strlen(yaml), &args, &c), ST_USAGE);
    const char *expected[] = {"6 errors in the configuration:\n",
                              "t.yaml:3:7: seed is",
                              "t.yaml:4:9: epochs is",
                              "t.yaml:6:7: optimizer.lr is",
                              "t.yaml:7:3: unknown key optimizer.lrr; did you mean optimizer.lr?",
                              "argument 1 ('batch_size=0'): batch_size is",
                              "argument 2 ('sheed=1'): unknown key sheed; did you mean seed?"};
    const char *at = status_message();
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        at = strstr(at, expected[i]);
        if (!at) fail_msg("%s is not in its place in:\n%s", expected[i], status_message());
    }
}

/* Small files that want to become large work. */
static void hostile(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 5000; i++) buf_text(&b, "[");
    char *m = told(b.data, NULL);
    assert_non_null(strstr(m, "nested deeper than 16 levels"));
    free(m);
    buf_clear(&b);
    for (int i = 0; i < 30000; i++) buf_printf(&b, "k%d: 1\n", i);
    m = told(b.data, NULL);
    assert_non_null(strstr(m, "more than 5000 values"));
    free(m);
    buf_clear(&b);
    buf_text(&b, "a0: 0123456789\n");
    for (int i = 1; i < 60; i++) buf_printf(&b, "a%d: ${a%d}${a%d}${a%d}\n", i, i - 1, i - 1, i - 1);
    m = told(b.data, NULL);
    assert_non_null(strstr(m, "too long once its ${…} are filled in"));
    free(m);
    buf_clear(&b);
    for (int i = 0; i < 1000; i++) buf_printf(&b, "a%d: ${a%d}\n", i, i + 1);
    m = told(b.data, NULL);
    assert_non_null(strstr(m, "a chain of more than 64 references"));
    free(m);
    buf_clear(&b);
    buf_text(&b, "output_dir: \"");
    for (int i = 0; i < YNODE_MAX_TEXT; i++) buf_text(&b, "xx");
    buf_text(&b, "\"\n");
    m = told(b.data, NULL);
    assert_non_null(strstr(m, "the text is longer than 65536 bytes"));
    free(m);
    buf_clear(&b);
    for (int i = 0; i <= YNODE_MAX_BYTES; i++) buf_add(&b, "#", 1);
    m = told(b.data, NULL);
    assert_non_null(strstr(m, "a configuration has at most 1048576"));
    free(m);
    buf_clear(&b);
    for (int i = 0; i < 500; i++) buf_printf(&b, "key_%d: 1\n", i);
    m = told(b.data, NULL);
    assert_non_null(strstr(m, "errors in the configuration, the first 100:"));
    free(m);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
        cmocka_unit_test(all_at_once),
        cmocka_unit_test(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
