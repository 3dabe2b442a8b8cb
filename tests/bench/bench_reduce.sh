#!/bin/bash
# bench_reduce.sh BUILD_DIRECTORY [MEGABYTES]: the fixed tree against MPI_Allreduce at 2, 4 and 8 ranks. The bar: ratio ≤ 0.7.
. "$(dirname "$0")/../lib.sh"
need mpirun
unset OMPI_MCA_btl_vader_single_copy_mechanism # as Open MPI is out of the box: its best
[ -x "$build/bench_reduce" ] || cmake --build "$build" --target bench_reduce >/dev/null

for n in 2 4 8; do
    for way in shared messages; do
        ranks "$n" "$build/bench_reduce" "${2:-64}" 9 "$way" | tee "$scratch/line"
        [ "$way" = messages ] || awk '{exit !($NF <= 0.7)}' "$scratch/line" || fail "$n ranks: above 0.7 of MPI_Allreduce"
    done
done
finish
