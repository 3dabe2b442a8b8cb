#!/usr/bin/env bash
# plan.sh BUILD_DIR: the plan is true. (a) planned bytes = bytes bound, exactly; (b) seen from outside, the process's peak
# stays below the plan; (c) a step allocates nothing; (d) what exceeds the budget is refused before it starts.
. "$(dirname "$0")/../lib.sh"
built trimpot
. "$source/tests/e2e/libe2e.sh"
steps=(epochs=1 max_steps_per_epoch=2)
spoken=("${common[@]}")
unset 'spoken[-1]' # -q

# ---- (a) ------------------------------------------------------------------------------------------------------------------
# exact RANKS KEYS…: `plan --json` and `run -v` of one configuration.
exact()
{
    local n=$1 planned bound
    shift
    planned=$(ranks "$n" "$trimpot" plan "$@" "${common[@]}" "${steps[@]}" --json | sed -E 's/.*"bound_bytes":([0-9]+).*/\1/')
    rm -rf "$scratch/run"
    bound=$(ranks "$n" "$trimpot" run "$@" "${spoken[@]}" "${steps[@]}" -v --output "$scratch/run" 2>&1 | sed -nE 's/.*bound ([0-9]+) bytes.*/\1/p')
    [ -n "$planned" ] || fail "no plan: $*"
    equal "planned and bound bytes on $n rank(s): $*" "$planned" "$bound"
    say "$planned bytes planned and bound, $n rank(s): ${*:1:1} ${*: -2}"
}

for dtype in fp32 bf16; do
    for kind in full lora qlora; do
        declare -n how=$kind
        exact 1 "${how[@]}" dtype=$dtype
        exact 1 "${how[@]}" dtype=$dtype enable_activation_checkpointing=true optimizer_in_bwd=true
        exact 1 "${how[@]}" dtype=$dtype gradient_accumulation_steps=3 dataset_val_fraction=0.2 run_val_every_n_steps=1
    done
done
exact 1 "${full[@]}" dtype=bf16 master_weights=fp32 batch_size=3
exact 1 "${full[@]}" dtype=fp32 optimizer=torch.optim.SGD ac_mode=selective ac_option=2
exact 1 "${full[@]}" dtype=fp32 mlp_tile_tokens=16 optimizer_in_bwd=true
exact 1 "${qlora[@]}" dtype=bf16 mlp_tile_tokens=16 gradient_accumulation_steps=2 recompute=attention
exact 1 "${lora[@]}" dtype=bf16 head_chunk_rows=5 gradient_accumulation_steps=4 virtual_ranks=2
if command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ]; then
    exact 2 "${full[@]}" dtype=fp32 gradient_accumulation_steps=2
    exact 2 "${qlora[@]}" dtype=bf16 optimizer_in_bwd=true
fi

# ---- (d) ------------------------------------------------------------------------------------------------------------------
refused=("$trimpot" run "${full[@]}" "${common[@]}" "${steps[@]}" --output "$scratch/refused" memory_budget=1MB)
for text in "the budget is 1.00 MB" "op workspace" "shrink with: " "gradient_accumulation_steps"; do expect 11 "$text" "${refused[@]}"; done
[ ! -e "$scratch/refused" ] || fail "a refused run left $scratch/refused behind"

# ---- (b), (c) --------------------------------------------------------------------------------------------------------------
. "$source/tests/e2e/lib_peak.sh"
[ -z "$unseen" ] || { say "SKIPPED: $unseen: not looked at"; finish; exit; }

# quiet ROWS KEYS…: 3 steps and 9 steps make the same number of allocations.
quiet()
{
    local counts=() n data=$1
    shift
    for n in 3 9; do
        rm -rf "$scratch/run"
        counts+=("$(watched 1 "$trimpot" run "$@" "${common[@]/$rows/$data}" --output "$scratch/run" epochs=1 max_steps_per_epoch=$n | cut -d' ' -f1)")
    done
    [ "${counts[0]:-0}" -gt 100 ] || fail "the counter counts nothing: ${counts[*]}"
    equal "allocations of 3 and of 9 steps: $*" "${counts[0]}" "${counts[1]}"
    say "6 more steps, $((counts[1] - counts[0])) more allocations: ${*:1:1} ${*: -2}"
}

# Rows of one length: for every new shape of a bf16 product oneDNN makes a primitive, which is the library's row of the plan.
same_rows=$scratch/same.jsonl
for _ in {1..96}; do say '{"text": "The harbour keeps its boats while seven lamps burn."}'; done >"$same_rows"
quiet "$rows" "${full[@]}" dtype=fp32 clip_grad_norm=1
quiet "$rows" "${full[@]}" dtype=fp32 optimizer_in_bwd=true enable_activation_checkpointing=true
quiet "$rows" "${full[@]}" dtype=fp32 gradient_accumulation_steps=4
quiet "$same_rows" "${full[@]}" dtype=bf16
quiet "$same_rows" "${qlora[@]}" dtype=bf16
quiet "$rows" "${lora[@]}" dtype=fp32 optimizer=torch.optim.SGD

worlds=1
command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ] && worlds="1 2"
quickstart=(lora_finetune --config "$source/configs/quickstart/lora.yaml" "checkpointer.checkpoint_dir=$source/configs/quickstart/base"
    "dataset.data_files=$source/configs/quickstart/train.jsonl" epochs=1 max_steps_per_epoch=6)
for n in $worlds; do
    for dtype in fp32 bf16; do
        below $n "${full[@]}" "${common[@]}" dtype=$dtype epochs=1
        below $n "${qlora[@]}" "${common[@]}" dtype=$dtype epochs=1
        below $n "${quickstart[@]}" dtype=$dtype
    done
done
finish
