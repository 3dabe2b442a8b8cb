#!/usr/bin/env bash
# cuDNN's plans of attention for every supported model, without a GPU: a stub of the driver's library stands in for it.
. "$(dirname "$0")/../lib.sh"
built sdpa_plans
toolkit=$(sed -nE 's|^TRIMPOT_NVCC:[A-Z]*=(.*)/bin/nvcc$|\1|p' "$build/CMakeCache.txt")
toolkit=$(cd "${toolkit:-/usr/local/cuda}" && pwd -P)
stub=$(find -L "$toolkit" -path '*/stubs/libcuda.so' 2>/dev/null | head -n 1)
[ -n "$stub" ] || skip "the toolkit in $toolkit has no stubs/libcuda.so"
need nm awk cc

"$source/tests/cuda/make_stub_libcuda" "$stub" "$scratch/libcuda.so.1"
export LD_LIBRARY_PATH=$scratch:$toolkit/lib64:$toolkit/lib

# Half the plans on each of two cores.
pids=()
for part in 0 1; do
    "$build/sdpa_plans" $part 2 >"$scratch/plans$part" 2>&1 &
    pids+=($!)
done
for part in 0 1; do
    rc=0
    wait "${pids[$part]}" || rc=$?
    cat "$scratch/plans$part"
    [ "$rc" != 77 ] || skip "$(grep SKIP "$scratch/plans$part")"
    [ "$rc" = 0 ] || fail "part $part of the plans: exit $rc"
done
[ "$(grep -c 'engine' "$scratch/plans0")" -gt 30 ] || fail "no plans were seen"

expect 77 'TRIMPOT_CUDNN=off' env TRIMPOT_CUDNN=off "$build/sdpa_plans" 0 1
finish
