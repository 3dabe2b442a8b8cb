#!/usr/bin/env bash
# nccl.sh BUILD_DIR: gradients that go from GPU to GPU by NCCL, on emulated GPUs under mpirun: the same bits on 1, 2, 3 and 4 ranks, with
# any order of what may happen in any, as through the hosts; NCCL's own sum; what becomes of a job whose NCCL fails or whose rank dies.
. "$(dirname "$0")/../lib.sh"
need mpirun
built test_comm trimpot_mpi.so
[ -e "$build/trimpot_emu_nccl.so" ] || skip "no emulated NCCL: it is built where CUDA's and NCCL's headers are"
export TRIMPOT_INIT_TIMEOUT=30

for way in "1 1 any" "2 1 any" "2 2 last" "3 1 any" "4 3 first"; do
    read -r n seed order <<<"$way"
    TRIMPOT_EMU_SEED=$seed TRIMPOT_EMU_ORDER=$order ranks "$n" "$build/test_comm" gpu emu >"$scratch/out" 2>&1 || fail "$way: $(tail -5 "$scratch/out")"
    grep '^hash' "$scratch/out" | while read -r _ leaves hash _; do echo "$hash" >>"$scratch/$leaves"; done
    [ "$n" = 1 ] || equal "$way: reductions through NCCL" "$(grep -c '^hash.*NCCL$' "$scratch/out")" "$([ "$n" = 3 ] && say 3 || say 7)"
done
for leaves in 8 24 16 48 32 12; do
    equal "V=$leaves: different sums" "$(sort -u "$scratch/V=$leaves" | wc -l)" 1
done
for n in 2 4; do # within the rounding; in another order than the tree's, so that some sum has other bits
    ranks "$n" "$build/test_comm" fast emu >"$scratch/fast" 2>&1 || fail "fast on $n ranks: $(tail -5 "$scratch/fast")"
done
grep -q "^hash V=48 $(head -n 1 "$scratch/V=48") " "$scratch/fast" && fail "reduce: fast adds in the tree's order: NCCL did not add"


# ends CODE 'cause' command…: no rank names more than one.
ends()
{
    local rank
    expect "$@"
    for rank in 0 1 2; do
        [ "$(grep -c "^\[rank $rank\] error: " "$scratch/expect.out")" -le 1 ] || fail "rank $rank names several causes: ${*:3}"
    done
}
lost='remote process exited or there was a network error; NCCL_DEBUG=INFO says more (rank'
for group in 1 3; do # while the host asks whether a call is done, or later, when the guard does
    TRIMPOT_EMU_FAIL=nccl:$group ends 17 "$lost" mpirun -n 2 "$build/test_comm" gpu emu
done
TRIMPOT_INIT_TIMEOUT=2 TRIMPOT_EMU_FAIL=join:1 ends 21 'joining the GPUs of all ranks: not done after 2 s' mpirun -n 2 "$build/test_comm" gpu emu
ends 137 'ended without a word' mpirun -n 3 "$build/test_comm" killed 1 emu
finish
