#!/usr/bin/env bash
# plan_05b.sh BUILD_DIR [FOLDER]: peaks of one step of at most 64 tokens on a 0.5B Qwen2.5-shaped model, seen from outside,
# against the plan: LoRA in f32 and bf16 and QLoRA, with random weights (config.json alone) and from a real bf16 file. From the
# file, QLoRA must peak below bf16 LoRA by 90 % of what NF4 saves in the linears: 357.8 M · (2 − 0.5159) bytes = 0.531 GB.
#
# FOLDER (default: a temporary one) keeps the 1 GB model between calls. Needs 4 GB of memory and python3.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3 cc
need_shared
folder=${2:-$scratch}
tokenizer=$shared/data/tokenizers/qwen2
mkdir -p "$folder/bare"
[ -e "$folder/q05/model.safetensors" ] ||
    python3 "$source/tests/bench/make_random_model.py" "$folder/q05" --dtype bf16 --tokenizer "$tokenizer" >/dev/null
cp "$folder/q05/config.json" "$tokenizer"/{vocab.json,merges.txt,tokenizer_config.json} "$folder/bare/"
chmod u+w "$folder/bare"/*
cc -O1 -shared -fPIC -o "$scratch/watch.so" "$source/tests/e2e/preload/watch.c" -ldl
for _ in {1..4}; do say '{"text": "The harbour keeps its boats while seven lamps burn over cold water and nobody counts them twice."}'; done >"$scratch/rows.jsonl"

# peak COMMAND…: bytes of VmHWM.
peak()
{
    rm -f "$scratch/watch"
    WATCH_OUT=$scratch/watch LD_PRELOAD=$scratch/watch.so "$@" >"$scratch/log" 2>&1 </dev/null || { tail -3 "$scratch/log" >&2; return 1; }
    echo $(($(cut -d' ' -f2 "$scratch/watch") * 1024))
}
mb() { awk "BEGIN { printf \"%.0f MB\", $1 / 1e6 }"; }

lora=(lora_finetune 'model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]' model.apply_lora_to_mlp=true model.lora_rank=16
    --data "$scratch/rows.jsonl" --output "$scratch/out" device=cpu seed=1 epochs=1 max_steps_per_epoch=1 batch_size=2)
base=$(peak "$trimpot" version)
say "'trimpot version' peaks at $(mb "$base"); all below is above that"
declare -A seen

# look NAME MODEL KEYS…
look()
{
    local name=$1 model=$2 plan mapped got
    shift 2
    "$trimpot" plan "${lora[@]}" --model "$model" "$@" --json >"$scratch/plan.json" 2>/dev/null
    plan=$(sed -E 's/.*"total_bytes":([0-9]+).*/\1/' "$scratch/plan.json")
    mapped=$(grep -o '"category":"mapped"[^}]*' "$scratch/plan.json" | sed -E 's/.*"bytes":([0-9]+).*/\1/' || true)
    rm -rf "$scratch/out"
    got=$(($(peak "$trimpot" run "${lora[@]}" --model "$model" "$@") - base)) || { fail "$name"; return; }
    seen[$name]=$got
    say "$name: plan $(mb "$plan") (of it $(mb "${mapped:-0}") pages of the model file, used in place), peak $(mb $got)"
    [ "$got" -le $((plan + plan * 3 / 100 + 16000000)) ] || fail "$name: peak $got above plan $plan + 3 % + 16 MB"
}

look "random, LoRA fp32" "$folder/bare" model.init=random dtype=fp32
look "random, LoRA bf16" "$folder/bare" model.init=random dtype=bf16
look "random, QLoRA bf16" "$folder/bare" model.init=random dtype=bf16 model.quantize_base=true
look "file, LoRA fp32" "$folder/q05" dtype=fp32
look "file, LoRA bf16" "$folder/q05" dtype=bf16
look "file, QLoRA bf16" "$folder/q05" dtype=bf16 model.quantize_base=true
say "Pages of the model file that are used in place (bf16 weights of a bf16 run) count in VmHWM and in the plan's total, yet are the"
say "page cache's: shared by all ranks of a machine, and dropped by the system when it needs the memory."

saved=$((seen["file, LoRA bf16"] - seen["file, QLoRA bf16"]))
say "QLoRA peaks $(mb $saved) below bf16 LoRA; NF4 saves 531 MB in the linears, 90 % of it is 478 MB"
[ $saved -ge 478000000 ] || fail "QLoRA saves only $saved bytes"
finish
