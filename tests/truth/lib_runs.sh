# lib_runs.sh — sourced by truth.sh and peers.sh, and by truth.sh and families.sh of ../emu, after ../lib.sh: the runs that
# make_golden.py describes, as command lines.

here=$source/tests/truth
families=(llama3 llama2 qwen2 qwen3 mistral gemma gemma2 gemma3 phi3)
whole=(batch_size=8 gradient_accumulation_steps=1)
# How far losses and exported tensors may be off.
fp32=(1e-5 1e-4)
# A bf16 number is 2^-8 to 2^-7 of itself away from the next. Rounded stochastically between the two it is off by half of that
# rms at most, 2^-8 of itself, with an expectation of 0: ten steps' errors add as independent ones, sqrt(10) * 2^-8.
rounded_weights=1.24e-2
bf16=(1e-2 $rounded_weights)
bf16_lora=(1e-2 1e-2)
declare -A recipe=([full_adamw]=full_finetune [full_sgd]=full_finetune [lora_adamw]=lora_finetune)
declare -A keys=(
    [full_adamw]="optimizer=torch.optim.AdamW optimizer.lr=1e-3 optimizer.weight_decay=0.01 optimizer.eps=1e-4"
    [full_sgd]="optimizer=torch.optim.SGD optimizer.lr=0.05 optimizer.momentum=0.9"
    [lora_adamw]="optimizer=torch.optim.AdamW optimizer.lr=2e-3 optimizer.weight_decay=0.01 optimizer.eps=1e-4
        model.lora_rank=8 model.lora_alpha=16 model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]
        model.apply_lora_to_mlp=true")

# train FAMILY RUN OUTPUT key=value …: ten steps; on failure shows the end of the log.
train()
{
    local gold=$here/golden/$1 run=$2 out=$3 all
    shift 3
    read -r -d '' -a all <<<"${keys[$run]}" || true
    [ "${recipe[$run]}" != lora_finetune ] || all+=("checkpointer.adapter_checkpoint=$gold/adapter")
    rm -rf "$out"
    "$trimpot" run "${recipe[$run]}" --model "$gold/model" --data "$gold/rows.jsonl" --output "$out" device="${device:-cpu}" \
        shuffle=false seed=1 epochs=10 "${all[@]}" "$@" >"$scratch/log" 2>&1 </dev/null && return
    tail -n 20 "$scratch/log" | sed 's/^/    | /'
    return 1
}

# one FAMILY RUN LOSS_BOUND TENSOR_BOUND key=value …: trains, and compares losses and exported tensors with the golden.
one()
{
    local family=$1 run=$2 bounds=("$3" "$4")
    shift 4
    say "$family $run: $*"
    train "$family" "$run" "$scratch/out" "$@" &&
        python3 "$here/compare.py" run "$here/golden/$family/golden.json" "$run" "$scratch/out" "${bounds[@]}" ||
        fail "$family $run: $*"
}
