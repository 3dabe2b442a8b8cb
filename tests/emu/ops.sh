#!/usr/bin/env bash
# ops.sh BUILD_DIR: every op on the emulated device against the float64 reference, within the bounds that the CPU is held to; with
# three seeds of its orders, the same bits; the CPU's bits where sums have its order.
. "$(dirname "$0")/../lib.sh"
built test_ops test_bits
[ -e "$build/trimpot_emu.so" ] || skip "no emulated device: it is built where a CUDA toolkit is"
seeds=(1 2 3)
! grep -q __asan_init "$build/test_ops" || seeds=(1) # sanitizers see what they see with any
for seed in "${seeds[@]}"; do
    TRIMPOT_EMU_SEED=$seed "$build/test_ops" emu >"$scratch/$seed.log" 2>&1 || fail "seed $seed: $(tail -n 30 "$scratch/$seed.log")"
    grep 'bits of all outputs' "$scratch/$seed.log" >"$scratch/$seed.bits" || fail "seed $seed: no outputs"
done
equal 'different bits among the seeds' "$(cat "$scratch"/?.bits | sort -u | wc -l)" 1
"$build/test_bits" emu >"$scratch/cpu.log" 2>&1 || fail "not the CPU's bits: $(tail -n 30 "$scratch/cpu.log")"
finish
