#!/bin/sh
# Writes every shipped recipe from the table at the end: one line per model, one function per kind of training.
# Usage: configs/recipes/make_recipes.sh [DIRECTORY]   (default: the directory of this script)
set -eu
out=${1:-$(dirname "$0")}

# emit NAME RECIPE SUMMARY < body
emit() {
    mkdir -p "$out/$family"
    {
        echo "# $title: $3."
        echo "#"
        case $2 in
        *_distributed) echo "#   mpirun -n 2 trimpot run $2 --config $family/$size$1 --model DIR --data FILE" ;;
        *) echo "#   trimpot run $2 --config $family/$size$1 --model DIR --data FILE" ;;
        esac
        echo "#"
        echo "# DIR: Hugging Face directory of $hub. FILE: JSON or JSONL rows {instruction, input, output}."
        echo "recipe: $2"
        echo "output_dir: ./trimpot-output/${family}_$size$1"
        echo
        cat
        echo
        echo "dataset:"
        echo "  _component_: torchtune.datasets.alpaca_cleaned_dataset"
        echo "checkpointer:"
        echo "  model_type: $type"
    } >"$out/$family/$size$1.yaml"
}

full() { # ACCUMULATION CHECKPOINTING
    cat <<EOF
model:
  _component_: torchtune.models.$family.${family}_$module
batch_size: $full_batch
gradient_accumulation_steps: $1
enable_activation_checkpointing: $2
optimizer:
  lr: 2e-5
EOF
}

low_memory() {
    full 1 true
    echo "optimizer_in_bwd: true"
}

lora() { # PREFIX CHECKPOINTING
    cat <<EOF
model:
  _component_: torchtune.models.$family.$1_${family}_$module
  lora_attn_modules: [q_proj, v_proj, output_proj]
  apply_lora_to_mlp: true
  lora_rank: $rank
  lora_alpha: $((2 * rank))
batch_size: $lora_batch
gradient_accumulation_steps: 8
enable_activation_checkpointing: $2
optimizer:
  lr: $lora_lr
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 100
EOF
}

# SIZE MODULE FULL_BATCH FULL_ACCUMULATION LOW_MEMORY_NAME LORA_BATCH RANK LORA_LR CHECKPOINTING, then the titles
model() {
    size=$1 module=$2 full_batch=$3 lora_batch=$6 rank=$7 lora_lr=$8 ac=$9
    full "$4" "$ac" | emit _full full_finetune_distributed "Full fine-tuning on several ranks"
    low_memory | emit "$5" full_finetune_single_device "Full fine-tuning in little memory, one process"
    lora lora "$ac" | emit _lora lora_finetune_distributed "LoRA on several ranks"
    lora lora "$ac" | emit _lora_single_device lora_finetune_single_device "LoRA, one process"
    lora qlora "$ac" | emit _qlora lora_finetune_distributed "QLoRA (4-bit base) on several ranks"
    lora qlora "$ac" | emit _qlora_single_device lora_finetune_single_device "QLoRA (4-bit base), one process"
}

family=llama2 type=LLAMA2 title="Llama 2 7B" hub=meta-llama/Llama-2-7b-hf
model 7B 7b 2 1 _full_low_memory 2 8 3e-4 true
family=llama3 type=LLAMA3 title="Llama 3 8B" hub=meta-llama/Meta-Llama-3-8B-Instruct
model 8B 8b 2 1 _full_single_device 2 8 3e-4 true
family=llama3_1 type=LLAMA3 title="Llama 3.1 8B" hub=meta-llama/Llama-3.1-8B-Instruct
model 8B 8b 2 1 _full_single_device 2 8 3e-4 true
family=llama3_2 type=LLAMA3_2
title="Llama 3.2 1B" hub=meta-llama/Llama-3.2-1B-Instruct
model 1B 1b 4 1 _full_single_device 4 64 3e-4 false
title="Llama 3.2 3B" hub=meta-llama/Llama-3.2-3B-Instruct
model 3B 3b 4 1 _full_single_device 4 64 3e-4 true
family=qwen2 type=QWEN2
title="Qwen2 0.5B" hub=Qwen/Qwen2-0.5B-Instruct
model 0.5B 0_5b 2 8 _full_single_device 4 32 2e-3 false
title="Qwen2 1.5B" hub=Qwen/Qwen2-1.5B-Instruct
model 1.5B 1_5b 2 8 _full_single_device 4 32 2e-3 true
title="Qwen2 7B" hub=Qwen/Qwen2-7B-Instruct
model 7B 7b 2 8 _full_single_device 2 8 3e-4 true
family=qwen2_5
title="Qwen2.5 0.5B" hub=Qwen/Qwen2.5-0.5B-Instruct
model 0.5B 0_5b 2 8 _full_single_device 4 32 2e-3 false
title="Qwen2.5 1.5B" hub=Qwen/Qwen2.5-1.5B-Instruct
model 1.5B 1_5b_instruct 2 8 _full_single_device 4 32 2e-3 true
title="Qwen2.5 7B" hub=Qwen/Qwen2.5-7B-Instruct
model 7B 7b_instruct 2 8 _full_single_device 2 8 3e-4 true
