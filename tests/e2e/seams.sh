#!/usr/bin/env bash
# seams.sh BUILD_DIR: a memory technique never changes a bit: recomputation and optimizer_in_bwd on and off, for full,
# LoRA and QLoRA, fp32 and bf16, on 1 and 2 ranks. And the plan shrinks by what the technique says.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"

run()
{
    local n=$1 out=$2
    shift 2
    ranks "$n" "$trimpot" run "$@" "${common[@]}" --output "$out" batch_size=$((4 / n)) gradient_accumulation_steps=1 \
        epochs=1 max_steps_per_epoch=6 >"$out.log" 2>&1 || { fail "$*"; tail -3 "$out.log"; }
}

# whatever KIND DTYPE RANKS
whatever()
{
    local kind=$1 dtype=$2 n=$3 other
    local -n how=$kind
    say "$kind $dtype, $n rank(s)"
    run "$n" "$scratch/plain" "${how[@]}" dtype="$dtype"
    run "$n" "$scratch/recompute" "${how[@]}" dtype="$dtype" enable_activation_checkpointing=true
    run "$n" "$scratch/selective" "${how[@]}" dtype="$dtype" ac_mode=selective ac_option=2
    run "$n" "$scratch/ffn" "${how[@]}" dtype="$dtype" recompute=ffn
    run "$n" "$scratch/inputs" "${how[@]}" dtype="$dtype" recompute=attention optimizer_in_bwd=true
    run "$n" "$scratch/in_bwd" "${how[@]}" dtype="$dtype" optimizer_in_bwd=true
    run "$n" "$scratch/both" "${how[@]}" dtype="$dtype" optimizer_in_bwd=true enable_activation_checkpointing=true
    for other in recompute selective ffn inputs in_bwd both; do
        same "$kind $dtype $n: $other" "$scratch/plain" "$scratch/$other"
    done
    rm -rf "$scratch"/{plain,recompute,selective,ffn,inputs,in_bwd,both}
}

for kind in full lora qlora; do
    for dtype in fp32 bf16; do
        for n in 1 2; do whatever $kind $dtype $n; done
    done
done
dora=("${lora[@]}" model.use_dora=true) qdora=("${qlora[@]}" model.use_dora=true model.lora_dropout=0)
whatever dora fp32 1
whatever qdora bf16 2

# Bytes of one category of the plan.
planned()
{
    local category=$1
    shift
    "$trimpot" plan "$@" "${common[@]}" --json batch_size=4 | python3 -c "
import json, sys
print(sum(r['bytes'] for r in json.load(sys.stdin)['rows'] if r['category'] == '$category'))"
}
need python3
gradients=$(planned gradients "${full[@]}" dtype=fp32)
in_bwd=$(planned gradients "${full[@]}" dtype=fp32 optimizer_in_bwd=true)
[ "$in_bwd" -lt $((gradients * 2 / 3)) ] || fail "optimizer_in_bwd: gradients $gradients -> $in_bwd"
kept=$(planned activations "${full[@]}" dtype=fp32)
block=$(planned activations "${full[@]}" dtype=fp32 enable_activation_checkpointing=true)
last=
for rung in none products ffn attention block; do
    bytes=$(planned activations "${full[@]}" dtype=fp32 recompute=$rung)
    [ -z "$last" ] || [ "$bytes" -lt "$last" ] || fail "recompute=$rung keeps $bytes, the rung below $last"
    last=$bytes
    equal "recompute=$rung" "$bytes" "$(case $rung in products) echo "$kept" ;; block) echo "$block" ;; *) echo "$bytes" ;; esac)"
done
[ "$block" -lt $((kept / 3)) ] || fail "activation checkpointing: kept $kept -> $block"

# Offloading, where host and device are one: taken, said to move nothing, and the same plan. (Where they are not: fence/offload.sh.)
run 1 "$scratch/plain" "${lora[@]}" dtype=fp32
run 1 "$scratch/offload" "${lora[@]}" dtype=fp32 enable_activation_offloading=true activation_offloading_use_streams=false
same "offloading on the CPU" "$scratch/plain" "$scratch/offload"
spoken=("${common[@]}")
unset 'spoken[-1]' # -q
expect 0 "nothing is moved: host and device are one memory here" "$trimpot" plan "${lora[@]}" "${spoken[@]}" enable_activation_offloading=true
equal "activations on the CPU" "$kept" "$(planned activations "${full[@]}" dtype=fp32 enable_activation_offloading=true)"
equal "offloaded on the CPU" 0 "$(planned offloaded "${full[@]}" dtype=fp32 enable_activation_offloading=true)"
finish
