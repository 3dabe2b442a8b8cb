#!/usr/bin/env bash
# kinds.sh BUILD_DIR: torchtune's configurations train, shrunken: 20 steps of a tiny model of the family, every key as it stands but
# paths, device, rate and warm-up. One of each kind: full, LoRA, QLoRA; one process and two ranks; low memory; packed; every family, where
# the shared files have none of it by another family's file. With TRIMPOT_TORCHTUNE (a checkout of torchtune) all that validate.
. "$(dirname "$0")/../lib.sh"
configs=$shared/data/torchtune-configs
built trimpot_mpi.so
[ -d "$configs" ] || skip "no torchtune configurations in $configs (set TRIMPOT_SHARED)"
golden=$source/tests/truth/golden

# Rows of alpaca's shape: one task, so that 20 steps learn something.
awk 'BEGIN { for (i = 0; i < 640; i++)
    printf "{\"instruction\": \"Count %d.\", \"input\": \"\", \"output\": \"%d and %d.\"}\n", i % 7, i % 7, i % 7 + 1 }' >"$scratch/rows.jsonl"

# The tiny model of a component's module.
model_of() {
    case $1 in
    llama2) say llama2 ;; llama3*) say llama3 ;; qwen2*) say qwen2 ;; phi*) say phi3 ;; *) say "$1" ;;
    esac
}

# judge NAME: twenty steps of finite losses that fall.
judge() {
    python3 - "$1" "$scratch/out/metrics.jsonl" <<'END' || fail "$1 does not train"
import json, math, sys
loss = [json.loads(line)["loss"] for line in open(sys.argv[2])]
first, last = sum(loss[:4]) / 4, sum(loss[-4:]) / 4
print(f"{sys.argv[1]}: {len(loss)} steps, loss {first:.3f} -> {last:.3f}")
sys.exit(not (len(loss) == 20 and all(map(math.isfinite, loss)) and last < first))
END
}

# kind NAME FILE [MODULE.COMPONENT MODULE.TOKENIZER MODEL_TYPE] [key=value …]: its recipe and ranks follow from the file's name.
kind() {
    local name=$1 file=$2 recipe=full_finetune n=2 module
    shift 2
    module=$(sed -nE 's/^ *_component_: torchtune\.models\.([a-z0-9_]+)\.(lora_|qlora_)?\1_.*/\1/p' "$file" | sed -n '$p')
    local more=()
    if [ $# -gt 0 ] && [[ $1 != *=* ]]; then
        module=${1%%.*}
        more=("model._component_=torchtune.models.$1" "tokenizer._component_=torchtune.models.$2" "checkpointer.model_type=$3")
        shift 3
    fi
    [[ $(basename "$file") != *lora* && $(basename "$file") != *dora* ]] || recipe=lora_finetune
    [[ $(basename "$file") != *single_device* && $(basename "$file") != *low_memory* ]] || n=1
    ! grep -q '^lr_scheduler:' "$file" || more+=(lr_scheduler.num_warmup_steps=2)
    rm -rf "$scratch/out"
    ranks "$n" "$trimpot" run "$recipe" --config "$file" --model "$golden/$(model_of "$module")/model" --data "$scratch/rows.jsonl" \
        --output "$scratch/out" -q device=cpu seed=1 max_steps_per_epoch=20 epochs=1 gradient_accumulation_steps=1 \
        optimizer.lr=5e-3 "${more[@]}" "$@" >"$scratch/log" 2>&1 ||
        { fail "$name: exit $?"; tail -n 5 "$scratch/log"; return; }
    judge "$name"
}

for f in "$configs"/*/*.yaml; do kind "${f#"$configs"/}" "$f"; done

lora=$configs/llama2/7B_lora_single_device.yaml qlora=$configs/llama2/7B_qlora_single_device.yaml full=$configs/llama2/7B_full_low_memory.yaml
kind "llama3 8B QLoRA" "$qlora" llama3_1.qlora_llama3_1_8b llama3.llama3_tokenizer LLAMA3
kind "qwen2.5 LoRA, packed" "$lora" qwen2_5.lora_qwen2_5_7b_instruct qwen2_5.qwen2_5_tokenizer QWEN2 dataset.packed=True tokenizer.max_seq_len=256
kind "qwen3 full, low memory" "$full" qwen3.qwen3_4b_instruct qwen3.qwen3_tokenizer QWEN2
kind "mistral QLoRA" "$qlora" mistral.qlora_mistral_7b mistral.mistral_tokenizer MISTRAL
kind "gemma2 LoRA" "$lora" gemma2.lora_gemma2_9b gemma2.gemma_tokenizer GEMMA2
kind "phi3 full, low memory, packed" "$full" phi3.phi3_mini phi3.phi3_mini_tokenizer PHI3_MINI dataset.packed=True tokenizer.max_seq_len=256 compile=True
kind "phi4 QLoRA" "$qlora" phi4.qlora_phi4_14b phi4.phi4_tokenizer PHI4

# The model is the directory's: a configuration of another family, or one that lists other weights, is told so and trains nothing.
small=(run full_finetune --model "$scratch/model" --data "$scratch/rows.jsonl" --output "$scratch/none" device=cpu)
cp -r "$golden/qwen2/model" "$scratch/model"
expect 12 "is of torchtune's module llama3_2, but $scratch/model/config.json is of model_type 'qwen2'" \
    "$trimpot" "${small[@]}" model=torchtune.models.llama3_2.llama3_2_1b
expect 0 "model._component_ speaks of 1_5b_instruct, but the model in $scratch/model has 0." \
    "$trimpot" "${small[@]}" --dry-run model=torchtune.models.qwen2_5.qwen2_5_1_5b_instruct
expect 12 "checkpointer.model_type is GEMMA, but" "$trimpot" "${small[@]}" checkpointer.model_type=GEMMA
files='checkpointer.checkpoint_files=[pytorch_model.bin]'
expect 0 "Python pickles are not read, the safetensors of checkpoint_dir are" "$trimpot" "${small[@]}" --dry-run "$files"
touch "$scratch/model/pytorch_model.bin"
expect 2 "or the files of model.safetensors.index.json, never a Python pickle" "$trimpot" "${small[@]}" "$files"
touch "$scratch/model/tune_0001_of_0002.bin"
expect 2 "names 'tune_0001_of_0002.bin', which is in" "$trimpot" "${small[@]}" \
    'checkpointer.checkpoint_files={filename_format: "tune_{}_of_{}.bin", max_filename: "0002"}'
rm "$scratch/model/model.safetensors" "$scratch/model/tune_0001_of_0002.bin"
expect 18 "has only PyTorch pickles (pytorch_model.bin)" "$trimpot" "${small[@]}"
[ ! -e "$scratch/none/metrics.jsonl" ] || fail "something was trained"

if [ -d "${TRIMPOT_TORCHTUNE:-}/recipes/configs" ]; then
    all=$TRIMPOT_TORCHTUNE/recipes/configs
    while read -r f; do
        grep -q "^$f " "$source/tests/configs/torchtune_refused.txt" || kind "$f" "$all/$f"
    done < <(cd "$all" && find . -name '*.yaml' -printf '%P\n' | sort)
else
    say "SKIPPED: all of torchtune's configurations (TRIMPOT_TORCHTUNE names no checkout)"
fi
finish
