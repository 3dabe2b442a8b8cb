#!/usr/bin/env bash
# truth.sh BUILD_DIR: trains the tiny models of golden/ and compares with PyTorch's numbers (make_golden.py).
# fp32: losses within 1e-5, exported tensors within 1e-4; bf16: losses and adapters (which are f32) within 1e-2, and weights that
# are trained in bf16 within what their rounding makes of them.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib_runs.sh"
built trimpot
need python3

# one FAMILY RUN LOSS_BOUND TENSOR_BOUND key=value …
one()
{
    local family=$1 run=$2 bounds=("$3" "$4")
    shift 4
    say "$family $run: $*"
    train "$family" "$run" "$scratch/out" "$@" &&
        python3 "$here/compare.py" run "$here/golden/$family/golden.json" "$run" "$scratch/out" "${bounds[@]}" ||
        fail "$family $run: $*"
}

whole=(batch_size=8 gradient_accumulation_steps=1)
pieces=(batch_size=3 gradient_accumulation_steps=3) # 3 + 3 + 2 rows: the last micro-batch is short
fp32=(1e-5 1e-4)
# A bf16 number is 2^-8 to 2^-7 of itself away from the next. Rounded stochastically between the two it is off by half of that
# rms at most, 2^-8 of itself, with an expectation of 0: ten steps' errors add as independent ones, sqrt(10) * 2^-8.
rounded_weights=1.24e-2
bf16=(1e-2 $rounded_weights)
bf16_lora=(1e-2 1e-2)
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
