#!/usr/bin/env bash
# budget.sh BUILD_DIR: memory_budget chooses what fits, and the run is the same run: the same bits as without, saved and resumed in the
# middle by a line that says no more than the first; on several ranks all choose alike; what is chosen is in the configuration that is kept.
. "$(dirname "$0")/../lib.sh"
built trimpot
. "$source/tests/e2e/libe2e.sh"
spoken=("${common[@]}")
unset 'spoken[-1]' # -q
for i in "${!spoken[@]}"; do [ "${spoken[$i]}" != batch_size=1 ] || unset "spoken[$i]"; done
keys=("${full[@]}" dtype=fp32 epochs=1 max_steps_per_epoch=4 save_every_n_steps=2 checkpointer.keep_last_n_checkpoints=9 tokenizer.max_seq_len=64)

total() { "$trimpot" plan "${keys[@]}" "${spoken[@]}" "$@" --json 2>/dev/null | sed -E 's/.*"total_bytes":([0-9]+).*/\1/'; }
# run RANKS OUTPUT KEYS…
run()
{
    local n=$1 out=$2
    shift 2
    ranks "$n" "$trimpot" run "${keys[@]}" "${spoken[@]}" --output "$out" "$@" >"$out.log" 2>&1 || { fail "$*"; tail -3 "$out.log"; }
}
# chose OUTPUT KEY VALUE
chose()
{
    grep -q "budget   .*$2=$3" "$1.log" || fail "the header does not say $2=$3: $(grep budget "$1.log")"
    grep -q "^$2: $3\$" "$1/config.resolved.yaml" || fail "$2 is $(grep "^$2:" "$1/config.resolved.yaml") in what is kept"
}

run 1 "$scratch/plain" batch_size=4 clip_grad_norm=1
for worlds in 1 2; do
    [ $worlds = 1 ] || { command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ]; } || continue
    rows=(batch_size=4 clip_grad_norm=1)
    [ $worlds = 1 ] || rows=(batch_size=2 clip_grad_norm=1)
    [ $worlds = 1 ] || run 2 "$scratch/plain" "${rows[@]}" # another tree than one micro-batch has
    budget=$(($(ranks $worlds "$trimpot" plan "${keys[@]}" "${spoken[@]}" "${rows[@]}" recompute=block --json 2>/dev/null |
        sed -E 's/.*"total_bytes":([0-9]+).*/\1/') + 1000))
    run $worlds "$scratch/tight" "${rows[@]}" memory_budget=$budget
    chose "$scratch/tight" recompute block
    same "chosen to fit, $worlds rank(s)" "$scratch/plain" "$scratch/tight"
    rm -rf "$scratch"/tight/checkpoints/step-0000004 "$scratch"/tight/export
    run $worlds "$scratch/tight" "${rows[@]}" memory_budget=auto resume_from_checkpoint=true
    grep -q 'budget   as the run that is resumed chose: recompute=block' "$scratch/tight.log" || fail "the resumed run chose anew"
    same "chosen to fit, resumed, $worlds rank(s)" "$scratch/plain" "$scratch/tight"
    rm -rf "$scratch/plain" "$scratch/tight"
done

# Smaller micro-batches of the same step are another sum: the line that resumes need not know them.
run 1 "$scratch/plain" batch_size=1 gradient_accumulation_steps=2 optimizer_in_bwd=false recompute=block
budget=$(($(total batch_size=1 gradient_accumulation_steps=2 recompute=block) + 1000))
run 1 "$scratch/small" memory_budget=$budget optimizer_in_bwd=false
chose "$scratch/small" gradient_accumulation_steps 2
same "a smaller micro-batch" "$scratch/plain" "$scratch/small"
rm -rf "$scratch"/small/checkpoints/step-0000004 "$scratch"/small/export
run 1 "$scratch/small" memory_budget=auto optimizer_in_bwd=false resume_from_checkpoint=true
same "a smaller micro-batch, resumed" "$scratch/plain" "$scratch/small"
# What is kept says everything: nothing is left to choose.
run 1 "$scratch/again" --config "$scratch/small/config.resolved.yaml"
grep -q 'budget   the plan fits as configured' "$scratch/again.log" || fail "something is chosen again: $(grep budget "$scratch/again.log")"
same "the configuration that was kept" "$scratch/plain" "$scratch/again"
expect 11 'every key is written' "$trimpot" run --config "$scratch/small/config.resolved.yaml" "${keys[0]}" "${spoken[@]}" --output "$scratch/refused" memory_budget=1MB
[ ! -e "$scratch/refused" ] || fail "a refused run left its folder"
finish
