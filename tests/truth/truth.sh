#!/usr/bin/env bash
# truth.sh BUILD_DIR: trains the tiny models of golden/ and compares with PyTorch's numbers (make_golden.py).
# fp32: losses within 1e-5, exported tensors within 1e-4; bf16: losses and adapters (which are f32) within 1e-2, and weights that
# are trained in bf16 within what their rounding makes of them.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib_runs.sh"
built trimpot
need python3

pieces=(batch_size=3 gradient_accumulation_steps=3) # 3 + 3 + 2 rows: the last micro-batch is short
for family in "${families[@]}"; do
    gold=$here/golden/$family
    "$trimpot" tokenize --tokenizer "$gold/model" "$gold/rows.jsonl" >"$scratch/ids" || fail "$family: trimpot tokenize"
    python3 "$here/compare.py" ids "$gold/golden.json" "$scratch/ids" || fail "$family: ids"
    for run in full_adamw full_sgd lora_adamw; do
        one "$family" $run "${fp32[@]}" dtype=fp32 "${whole[@]}"
        [ $run = lora_adamw ] && bounds=("${bf16_lora[@]}") || bounds=("${bf16[@]}")
        one "$family" $run "${bounds[@]}" dtype=bf16 "${whole[@]}"
    done
    one "$family" full_sgd "${fp32[@]}" dtype=fp32 "${pieces[@]}"
    one "$family" lora_adamw "${fp32[@]}" dtype=fp32 "${pieces[@]}"
done
finish
