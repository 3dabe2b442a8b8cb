#!/usr/bin/env bash
# alone.sh BUILD_DIR: one of two ranks fails, or sees other files: both end, with the cause and its code.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"

run=("$trimpot" run lora_finetune --output "$scratch/out" device=cpu)
cp -r "$model" "$scratch/empty" && rm "$scratch/empty/model.safetensors"
head -3 "$rows" >"$scratch/three.jsonl"

# pair ARGUMENTS-OF-RANK-1…: rank 0 is in order.
pair() { timeout -k 5 60 mpirun -n 1 "${run[@]}" --model "$model" --data "$rows" : -n 1 "${run[@]}" "$@"; }

expect 14 "[rank 1] error: $scratch/empty: has neither model.safetensors" pair --model "$scratch/empty" --data "$rows"
expect 13 'the tokenised data set differs between ranks: rank 0 has' pair --model "$model" --data "$scratch/three.jsonl"
expect 2 'error: ' pair --model "$model" --data "$rows" batch_sise=2
[ ! -e "$scratch/out/metrics.jsonl" ] || fail "a run began"
finish
