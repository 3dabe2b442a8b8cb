#!/usr/bin/env bash
# alone.sh BUILD_DIR: one of two ranks fails, or sees other files under the same names: both end, with the cause and its code.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"

# Each rank stands in a folder of its own, as on hosts with disks of their own; rank 0's is in order.
run=("$trimpot" run lora_finetune --output "$scratch/out" device=cpu --model model --data rows.jsonl)
for folder in good empty three; do
    mkdir "$scratch/$folder"
    cp -r "$model" "$scratch/$folder/model"
    cp "$rows" "$scratch/$folder/rows.jsonl"
done
rm "$scratch/empty/model/model.safetensors"
head -3 "$rows" >"$scratch/three/rows.jsonl"

# pair FOLDER ARGUMENTS-OF-RANK-1…
pair() { timeout -k 5 60 mpirun -n 1 --wdir "$scratch/good" "${run[@]}" : -n 1 --wdir "$scratch/$1" "${run[@]}" "${@:2}"; }

expect 14 '[rank 1] error: model: has neither model.safetensors' pair empty
expect 13 'the tokenised data set differs between ranks: rank 0 on' pair three
expect 13 "the command line differs between ranks: rank 0 on $(hostname) has" pair good batch_sise=2
[ ! -e "$scratch/out/metrics.jsonl" ] || fail "a run began"
finish
