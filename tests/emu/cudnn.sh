#!/usr/bin/env bash
# cudnn.sh BUILD_DIR: attention as kernels/cuda/sdpa.c asks cuDNN for it, its graphs computed word by word by tests/emu/cudnn.cc: equal to
# the float64 reference within the bounds of any backend, for packed and equal documents, grouped heads, windows, soft caps, rows of
# any distance, and deterministic in slices of documents and of heads. Each call is seen to have gone there, in the right pieces.
. "$(dirname "$0")/../lib.sh"
built test_ops
[ -e "$build/trimpot_emu.so" ] || skip "no emulated device: it is built where a CUDA toolkit is"
export TRIMPOT_EMU_CUDNN=say
TRIMPOT_TEST_OP=soft_cap "$build/test_ops" emu >"$scratch/log" 2>&1 || fail "soft_cap"
grep -q 'cuDNN 9' "$scratch/log" || skip "this trimpot was built without cuDNN's header"

# graphs OPERATIONS TIMES OP WORK NUMBERS: bounds of the work are "tokens doc_tokens deterministic attn_workspace".
graphs() {
    TRIMPOT_TEST_OP=$3 TRIMPOT_TEST_WORK=$4 TRIMPOT_TEST_CASE=$5 "$build/test_ops" emu >"$scratch/log" 2>&1 ||
        { fail "$3 ($5) of $4"; tail -n 20 "$scratch/log"; }
    local wanted="$2 of $1"
    [ -n "$1" ] || wanted=
    equal "graphs of $3 ($5) of $4" "$(grep 'cuDNN: a graph' "$scratch/log" | sort | uniq -c | awk '{print $1 " of " $7}')" "$wanted"
}
#                     N H K D docs window cap; calls are taken with rows packed and 8 elements longer, not 5
graphs 20 2 attn_fwd "600 600 0 0" "150 4 2 64 3"
graphs 14 2 attn_fwd "128 128 0 0" "128 4 2 64 1"         # all documents whole: dense
graphs 25 2 attn_fwd "600 600 0 0" "150 4 2 32 3 20"
graphs 23 2 attn_fwd "600 600 0 0" "150 4 2 32 3 0 30"
graphs 17 2 attn_fwd "100 100 0 0" "100 2 2 32 1 0 30"
graphs 30 2 attn_bwd "600 600 0 0" "150 4 2 64 3"
graphs 28 2 attn_bwd "600 600 0 0" "150 3 3 32 5"
graphs 24 2 attn_bwd "128 128 0 0" "128 4 2 64 1"
graphs 22 2 attn_bwd "100 100 0 0" "100 3 3 32 1"
graphs 41 2 attn_bwd "600 600 0 0" "150 4 1 32 3 20 30"
graphs 29 2 attn_bwd "600 600 1 0" "150 4 2 64 3"         # deterministic, at once
graphs 23 2 attn_bwd "128 128 1 0" "128 4 2 64 1"
# 2·128²·heads bytes of scores a document: 4 slots of 8 heads are 1 MiB and some descriptors.
graphs 29 4 attn_bwd "600 600 1 560000" "150 8 4 32 3"    # two slots a call
graphs 29 8 attn_bwd "600 600 1 280000" "150 8 4 32 3"    # one; three documents, and one that is empty
graphs 29 16 attn_bwd "600 600 1 140000" "150 8 4 32 3"   # and of the heads, half
graphs 29 32 attn_bwd "600 600 1 70000" "150 8 4 32 3"    # one group
graphs 23 6 attn_bwd "100 100 1 120000" "100 6 3 32 1"    # dense, one group of three
graphs 21 14 attn_bwd "100 100 1 40000" "100 7 7 32 1"    # rows of lse begin anywhere
graphs '' '' attn_bwd "600 600 1 60000" "150 8 4 32 3"    # nothing fits: our own kernel
TRIMPOT_CUDNN=off graphs '' '' attn_fwd "600 600 0 0" "150 4 2 64 3"
# A run says what it promises: bits only where every sum has its order.
. "$source/tests/e2e/libe2e.sh"
promise() { "$trimpot" run "${lora[@]}" device=emu seed=7 dtype=bf16 --data "$rows" --model "$model" --output "$scratch/out$1" max_steps_per_epoch=1 deterministic="$1" 2>&1 </dev/null | grep promise || true; }
case $(promise false) in *'summed in any order'*) ;; *) fail "promised bits that cuDNN does not give" ;; esac
case $(promise true) in *'the same bits'*) ;; *) fail "no promise of bits with deterministic=true" ;; esac
finish
