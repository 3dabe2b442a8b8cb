#!/bin/bash
# No rank is left hanging: failures that are agreed on, known to one rank only, and said by all; wrong launches.
. "$(dirname "$0")/../lib.sh"
need mpirun timeout
built test_comm trimpot_mpi.so

program=$build/test_comm
expect 14 'only rank 2 failed' timeout 60 mpirun -n 4 "$program" agree 2 14
expect 20 'only rank 0 failed' timeout 60 mpirun -n 2 "$program" agree 0 20
expect 2 'every rank says this' timeout 60 mpirun -n 4 "$program" same 2
equal 'times the common message is printed' "$(grep -c 'every rank says this' "$scratch/expect.out")" 1
expect 13 "the configuration differs between ranks: rank 0 on $(hostname) has '0000000000000000', rank 3 on" timeout 60 mpirun -n 4 "$program" differ
for rank in 0 1 2; do
    expect 15 "rank $rank failed alone (rank $rank of 3 on $(hostname), start)" timeout 60 mpirun -n 3 "$program" alone $rank 15
    equal 'causes that are named' "$(grep -c 'error: ' "$scratch/expect.out")" 1
done
expect 11 'ended by itself with exit code 11 at start; all ranks end' timeout 60 mpirun -n 3 "$program" exit 2 11
expect 20 '(rank 2 of 3 on ' timeout 60 mpirun -n 3 "$program" agree 2 20 # what only that host has
expect 85 'every rank says this' timeout 60 mpirun -n 2 "$program" same 85

expect 137 'signal 9' timeout 60 mpirun -n 3 "$program" killed 1
grep -q '^\[rank 0\] error: rank 1 (host .*) ended without a word' "$scratch/expect.out" || fail 'the rank that was killed is not named'
[ -z "$(find /dev/shm -name 'trimpot*' -newer "$scratch" 2>/dev/null)" ] || fail "a killed rank left shared memory behind"
expect 85 'stopped on request' timeout 60 mpirun -n 4 "$program" stop
equal 'times the request is noted' "$(grep -c 'stopped on request' "$scratch/expect.out")" 1
if grep -q MPI_ABORT "$scratch/expect.out"; then fail "stopping on request aborts"; fi

expect 2 'promises 4 ranks, MPI_COMM_WORLD has 1' env OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0 PMIX_RANK=0 PMIX_NAMESPACE=9 \
    timeout 60 "$program"
expect 2 'PMIX_RANK promises 2 ranks or more, MPI_COMM_WORLD has 1' env PMIX_RANK=1 PMIX_NAMESPACE=job timeout 60 "$program"
expect 2 "PMI_RANK='0'" env PMI_RANK=0 PMI_SIZE=2 "$program"
expect 2 '2 independent copies' env SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 "$program"
mkdir "$scratch/alone"
cp "$program" "$scratch/alone/"
expect 18 'trimpot_mpi.so' timeout 60 mpirun -n 2 "$scratch/alone/test_comm"
[ -n "$(mpirun -n 1 "$scratch/alone/test_comm" 2>&1 | grep '^hash.*alone')" ] || fail "a world of one needs MPI"

# A bare run maps no MPI library.
if ldd "$program" | grep -q libmpi; then fail "the program itself is linked with MPI"; fi
finish
