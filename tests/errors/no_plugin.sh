#!/usr/bin/env bash
# no_plugin.sh BUILD_DIR: a tree that was built without CUDA, which is one without its plugin, says so and what to do; where nothing
# else is asked for it takes the CPU. One with the plugin of another build does not take that for its own.
. "$(dirname "$0")/../lib.sh"
built trimpot
. "$source/tests/e2e/libe2e.sh"
cp "$trimpot" "$scratch/trimpot"
run=("$scratch/trimpot" run full_finetune --model "$model" --data "$rows" --output "$scratch/out" dtype=fp32 max_steps_per_epoch=1)
expect 18 "device: cuda: this trimpot's part for it does not load: $scratch/trimpot_cuda.so" "${run[@]}" device=cuda
expect 18 'use device=cpu, or build with the CUDA toolkit installed' "${run[@]}" device=cuda

other=$build/trimpot_mpi.so
[ -e "$build/trimpot_emu.so" ] && other=$build/trimpot_emu.so
hash=$(sed -n 's/.* return "\(.*\)"; }$/\1/p' "$build/interface.c")
[ ${#hash} = 16 ] || die "no hash in interface.c"
sed "s/$hash/${hash//?/0}/" "$other" >"$scratch/trimpot_cuda.so"
expect 18 "$scratch/trimpot_cuda.so: belongs to another build than this program" "${run[@]}" device=cuda
[ ! -e "$scratch/out" ] || fail "a run began"
rm "$scratch/trimpot_cuda.so"
expect 0 'on cpu: ' "${run[@]}"
finish
