#!/usr/bin/env bash
# waits.sh BUILD_DIR: no event wait is there for nothing, and the fence sees each that is missing. One after the other is left out,
# by its label; then some order must give other numbers, or no run at all.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence
. "$source/tests/e2e/libe2e.sh"
head -16 "$rows" >"$scratch/few.jsonl"

# run ORDER SEED OUTPUT [LABEL]
run()
{
    local program=$build/trimpot_fence
    [ "$1" = plain ] && program=$trimpot
    rm -rf "$3"
    TRIMPOT_FENCE=$1 TRIMPOT_FENCE_SEED=$2 TRIMPOT_FENCE_WITHOUT=${4:-} timeout 60 "$program" run "${lora[@]}" dtype=fp32 device=cpu seed=7 \
        batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" --model "$source/tests/truth/golden/llama2/model" -q epochs=1 \
        gradient_accumulation_steps=4 --output "$3" >"$3.log" 2>&1 </dev/null
}
equal_runs() { cmp -s <(curve "$1") <(curve "$2") && cmp -s "$1/export/model.safetensors" "$2/export/model.safetensors"; }

run plain 0 "$scratch/plain" || die "the plain run failed: $(tail -3 "$scratch/plain.log")"
mapfile -t labels < <(wait_labels)
[ ${#labels[@]} -ge 5 ] || die "only ${#labels[@]} waits found"
for label in "${labels[@]}"; do
    missed=
    for how in "last 1" "first 1" "any 1" "any 2" "any 3"; do
        # shellcheck disable=SC2086
        if ! run $how "$scratch/fence" "$label" 2>/dev/null || ! equal_runs "$scratch/plain" "$scratch/fence"; then
            missed=$how
            break
        fi
    done
    if [ -n "$missed" ]; then say "without '$label': seen in order '$missed'"; else fail "nobody misses the wait '$label'"; fi
done
for how in "last 1" "first 1" "any 1"; do
    # shellcheck disable=SC2086
    { run $how "$scratch/fence" && equal_runs "$scratch/plain" "$scratch/fence"; } || fail "with all waits: $how"
done
finish
