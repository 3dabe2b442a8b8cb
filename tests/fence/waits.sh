#!/usr/bin/env bash
# waits.sh BUILD_DIR: no event wait is there for nothing, and the fence sees each that is missing. One after the other is left out,
# by its label; then some order must give other numbers, or no run at all. Mostly on two ranks, whose gradients cross in several buckets.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
head -16 "$rows" >"$scratch/few.jsonl"

ways=(away paged host lora nf4)
# Activations that leave, of more layers than their ring has places; on one rank, where the host waits for the layers' stream, so that
# what is asked of others may be late.
away_way=("${lora[@]}" dtype=fp32 enable_activation_offloading=true model.init=random --model "$(deeper llama2 4)")
# Optimizer states that leave and come back, in more windows than they have places.
paged_way=("${full[@]}" dtype=fp32 optimizer=bitsandbytes.optim.PagedAdamW optimizer.paged_resident=0 optimizer.min_paged_size=1
    optimizer.paged_window=8192 --model "$source/tests/truth/golden/llama2/model")
# Tensors that step on the host, within the backward: a gradient's memory is the next one's. A step is a micro-batch.
host_way=("${full[@]}" dtype=fp32 optimizer=torchao.optim.CPUOffloadOptimizer optimizer.host_window=4096 optimizer_in_bwd=true
    max_steps_per_epoch=3 --model "$source/tests/truth/golden/llama2/model")
lora_way=("${lora[@]}" dtype=fp32 --model "$source/tests/truth/golden/llama2/model")
# Joined to NF4 weights that are dequantised ahead, of more layers than there are buffers.
nf4_way=("${qlora[@]}" dtype=fp32 model.lora_dropout=0 model.init=random --model "$(deeper llama2 4)")

# run WAY ORDER SEED OUTPUT [LABEL]
run()
{
    local program=$build/trimpot_fence n=2 micros=4
    declare -n how=$1_way
    [ "$1" = away ] || [ "$1" = paged ] && n=1
    [ "$1" = host ] && n=1 micros=1
    [ "$2" = plain ] && program=$trimpot n=1
    rm -rf "$4"
    TRIMPOT_FENCE=$2 TRIMPOT_FENCE_SEED=$3 TRIMPOT_FENCE_WITHOUT=${5:-} TRIMPOT_FENCE_JOINS=1 ranks $n timeout 60 "$program" run "${how[@]}" \
        device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1 gradient_accumulation_steps=$((micros / n)) \
        reduce_bucket=8KiB --output "$4" >"$4.log" 2>&1
}
equal_runs() { cmp -s <(curve "$1") <(curve "$2") && cmp -s "$1/export/model.safetensors" "$2/export/model.safetensors"; }

for way in "${ways[@]}"; do run "$way" plain 0 "$scratch/$way" || die "the plain run failed: $(tail -3 "$scratch/$way.log")"; done
mapfile -t labels < <(wait_labels)
[ ${#labels[@]} -ge 24 ] || die "only ${#labels[@]} waits found"
hows=("last 1" "first 1" "any 1" "any 2" "any 3")

# missed LABEL: sets seen: the first order and way in which somebody misses it. That way goes first with the next label: neighbours in
# the alphabet belong together.
missed()
{
    local way how
    for how in "${hows[@]}"; do
        for way in "${ways[@]}"; do
            # shellcheck disable=SC2086
            if ! run "$way" $how "$scratch/fence" "$1" 2>/dev/null || ! equal_runs "$scratch/$way" "$scratch/fence"; then
                seen="$way, order '$how'"
                first_way "$way"
                return
            fi
        done
    done
}
first_way()
{
    local way rest=()
    for way in "${ways[@]}"; do [ "$way" = "$1" ] || rest+=("$way"); done
    ways=("$1" "${rest[@]}")
}
for label in "${labels[@]}"; do
    seen=
    missed "$label"
    if [ -n "$seen" ]; then say "without '$label': seen in $seen"; else fail "nobody misses the wait '$label'"; fi
done
for way in "${ways[@]}"; do
    for how in "${hows[@]}"; do
        # shellcheck disable=SC2086
        { run "$way" $how "$scratch/fence" && equal_runs "$scratch/$way" "$scratch/fence"; } || fail "with all waits: $way, $how"
    done
done
finish
