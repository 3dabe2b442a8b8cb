#!/usr/bin/env bash
# recompute.sh BUILD_DIR [ROUNDS]: what each rung of `recompute`, and tiles, cost in time, beside the share of FLOPs that they multiply
# again: a random model of 6 layers (C 384, F 1024), LoRA on all linears and full, rows of 256 tokens, one thread, the settings by turns in
# every round. Of a run the median step counts, of the rounds the least, which a busy machine touches least. A rung may cost its share and
# 3 %; tiles, whose products are smaller ones, have no bar. Takes some minutes.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
rounds=${2:-3}
mkdir "$scratch/model"
python3 - "$scratch" <<'END'
import json, random, sys
folder, draw = sys.argv[1], random.Random(5)
json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 384, "intermediate_size": 1024,
           "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 3, "max_position_embeddings": 1024,
           "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True}, open(folder + "/model/config.json", "w"))
with open(folder + "/rows.jsonl", "w") as rows:
    for _ in range(12):
        rows.write(json.dumps({"text": "".join(draw.choice("abcdefgh ijklmnop") for _ in range(700))}) + "\n")
END
cp "$source"/tests/truth/golden/llama3/model/tokenizer* "$scratch/model/"
lora=(lora_finetune 'model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]' model.apply_lora_to_mlp=true model.lora_rank=16)
full=(full_finetune)
settings=(recompute=none recompute=products recompute=ffn recompute=attention recompute=block mlp_tile_tokens=64)
common=(--model "$scratch/model" --data "$scratch/rows.jsonl" model.init=random device=cpu dtype=fp32 seed=1 epochs=1 tokenizer.max_seq_len=256
    batch_size=1 gradient_accumulation_steps=1)
# step SETTING: its median, in ms, without the first three
step()
{
    rm -rf "$scratch/out"
    OMP_NUM_THREADS=1 "$trimpot" run "${how[@]}" "${common[@]}" max_steps_per_epoch=12 "$1" --output "$scratch/out" -q >"$scratch/log" 2>&1 ||
        die "$1: $(tail -n 1 "$scratch/log")"
    sed -nE 's/.*"step_ms": ?([0-9.]+).*/\1/p' "$scratch/out/metrics.jsonl" | tail -n +4 | sort -n | sed -n 5p
}

for kind in lora full; do
    declare -n how=$kind
    for round in $(seq "$rounds"); do
        for setting in "${settings[@]}"; do
            say "$kind $setting $(step "$setting")"
        done
    done
    for setting in "${settings[@]}"; do
        "$trimpot" plan "${how[@]}" --model "$scratch/model" --gpu h100 --json -q tokenizer.max_seq_len=256 batch_size=1 "$setting" >"$scratch/plan" 2>/dev/null ||
            die "no plan: $setting"
        say "$kind $setting flop $(sed -nE 's/.*"gflop_per_token":([0-9.]+).*/\1/p' "$scratch/plan")"
    done
done | tee "$scratch/measured" | grep FAIL || true
python3 - "$scratch/measured" <<'END' || fail "a rung costs more than its share of FLOPs and 3 %"
import sys

ms, flop = {}, {}
for line in open(sys.argv[1]):
    kind, setting, *rest = line.split()
    if rest[0] == "flop":
        flop[kind, setting] = float(rest[1])
    else:
        ms[kind, setting] = min(ms.get((kind, setting), 1e9), float(rest[0]))
over = 0
for kind, setting in ms:
    time, share = ms[kind, setting] / ms[kind, "recompute=none"], flop[kind, setting] / flop[kind, "recompute=none"]
    above = setting.startswith("recompute") and time > share + 0.03
    over += above
    print(f"{kind} {setting}: {ms[kind, setting]:.0f} ms, {time:.3f} of recompute=none; FLOPs {share:.3f}{'  OVER' if above else ''}")
sys.exit(over > 0)
END
finish
