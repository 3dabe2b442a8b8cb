#!/usr/bin/env bash
# peers.sh BUILD_DIR: what trimpot exports, loaded in transformers and PEFT. TRIMPOT_PEERS names a virtual environment that
# has them; without it this is skipped, as in continuous integration (truth.sh compares the same tensors there).
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib_runs.sh"
[ -n "${TRIMPOT_PEERS:-}" ] || skip "TRIMPOT_PEERS names no virtual environment with torch, transformers and peft"
python=$TRIMPOT_PEERS/bin/python
[ -x "$python" ] || die "TRIMPOT_PEERS: $python does not exist"
built trimpot

for family in "${families[@]}"; do
    split -l 1 -a 2 --additional-suffix=.jsonl "$here/golden/$family/rows.jsonl" "$scratch/$family-row-"
    for run in full_adamw full_sgd lora_adamw; do
        say "$family $run"
        train "$family" $run "$scratch/out" dtype=fp32 batch_size=8 || { fail "$family $run"; continue; }
        for row in "$scratch/$family"-row-*.jsonl; do
            "$trimpot" eval --model "$scratch/out/export" --data "$row" --json device=cpu dtype=fp32 2>"$scratch/log" ||
                { cat "$scratch/log"; fail "$family $run: trimpot eval"; }
        done >"$scratch/losses"
        "$python" "$here/peers.py" "$here/golden/$family" $run "$scratch/out" 1e-4 "$scratch/losses" 1e-5 2>"$scratch/log" ||
            { grep -E 'Error|error' "$scratch/log"; fail "$family $run in the peers"; }
    done
done

while read -r name family; do
    mapfile -t all < <(python3 "$here/starts.py" keys "$name")
    rm -rf "$scratch/out"
    "$trimpot" run lora_finetune --model "$here/golden/$family/model" --data "$here/golden/$family/rows.jsonl" --output "$scratch/out" device=cpu \
        dtype=fp32 shuffle=false seed=1 epochs=10 batch_size=8 model.apply_lora_to_mlp=true "${all[@]}" >"$scratch/log" 2>&1 || fail "$name"
    "$python" "$here/make_starts.py" load "$name" "$scratch/out/adapter" 2>"$scratch/log" || { tail -n 3 "$scratch/log"; fail "$name in PEFT"; }
done < <(python3 "$here/starts.py" list)

# Adapters with magnitudes and whole modules (adapters.sh), trained here.
for case in "dora llama2" "dora-rslora qwen2" "dora-head llama2" "saved llama2" "saved-ranks qwen2"; do
    read -r name family <<<"$case"
    say "$family $name"
    rm -rf "$scratch"/{a,out}
    python3 "$here/adapters.py" write "$name" "$scratch/a"
    "$trimpot" run lora_finetune --model "$here/golden/$family/model" --data "$here/golden/$family/rows.jsonl" --output "$scratch/out" -q \
        checkpointer.adapter_checkpoint="$scratch/a" device=cpu dtype=fp32 shuffle=false seed=1 epochs=10 batch_size=8 \
        optimizer=torch.optim.AdamW optimizer.lr=2e-3 optimizer.weight_decay=0.01 optimizer.eps=1e-4 >"$scratch/log" 2>&1 ||
        { fail "$name"; tail -n 3 "$scratch/log"; continue; }
    for row in "$scratch/$family"-row-*.jsonl; do
        "$trimpot" eval --model "$scratch/out/export" --data "$row" --json device=cpu dtype=fp32 2>"$scratch/log" || fail "$name: trimpot eval"
    done >"$scratch/losses"
    "$python" "$here/peers.py" "$here/golden/$family" "$name" "$scratch/out" 1e-4 "$scratch/losses" 1e-5 2>"$scratch/log" ||
        { grep -E 'Error|error' "$scratch/log"; fail "$family $name in the peers"; }
done
finish
