#!/usr/bin/env bash
# sums.sh BUILD_DIR: no bound on products depends on the order in which the library adds: with TRIMPOT_EMU_SUMS the emulated one takes
# another, of each seed its own, and the same again for the same seed.
. "$(dirname "$0")/../lib.sh"
built test_ops
[ -e "$build/trimpot_emu.so" ] || skip "no emulated device: it is built where a CUDA toolkit is"
run() { # SEED SUMS NAME
    TRIMPOT_TEST_OP=gemm TRIMPOT_EMU_SEED=$1 TRIMPOT_EMU_SUMS=$2 "$build/test_ops" emu >"$scratch/$3.log" 2>&1 ||
        die "seed $1, sums $2: $(tail -n 30 "$scratch/$3.log")"
    grep 'bits of all outputs' "$scratch/$3.log" >"$scratch/$3.bits" || die "seed $1: no outputs"
}
bits() { cat "$scratch/$1.bits"; }
run 1 0 plain
run 2 0 other
run 1 1 first
run 1 1 again
run 2 1 second
equal 'the seed changes what it should not' "$(bits other)" "$(bits plain)"
equal 'the same seed adds in another order' "$(bits again)" "$(bits first)"
equal 'orders' "$(sort -u "$scratch"/{plain,first,second}.bits | wc -l)" 3
finish
