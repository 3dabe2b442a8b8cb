#!/bin/bash
# Real ranks: saved at one size, loaded at others.
set -eu
build=$1
command -v mpirun > /dev/null || { echo "SKIPPED: no mpirun"; exit 77; }
[ -e "$build/trimpot_mpi.so" ] || { echo "SKIPPED: built without MPI"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
ranks() { mpirun --oversubscribe --bind-to none -n "$1" "$build/test_ckpt_mpi" "${@:2}"; }

ranks 4 save "$dir" 10
ranks 2 load "$dir" 10
"$build/test_ckpt_mpi" load "$dir" 10
ranks 2 save "$dir" 11
ranks 3 load "$dir" 11

# A shard that is damaged: every rank falls back to the older step.
printf 'X' | dd of="$dir/step-0000011/shard-00001.h5" bs=1 seek=5000 conv=notrunc status=none
ranks 2 load "$dir" 10
[ -d "$dir/step-0000011.bad" ]

# A directory that cannot be written: the same failure on all ranks, nobody hangs.
touch "$dir/file"
rc=0
timeout 60 mpirun --oversubscribe --bind-to none -n 2 "$build/test_ckpt_mpi" save "$dir/file/x" 1 2> "$dir/err" || rc=$?
[ "$rc" = 14 ] || { echo "exit code $rc, wanted 14"; cat "$dir/err"; exit 1; }
[ "$(ls "$dir" | grep -c 'tmp$')" = 0 ]
echo "4 → 2, 1; 2 → 3; damage → older; refusal → 14"
