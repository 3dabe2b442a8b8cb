#!/bin/bash
# Ranks that were not started alike are refused before anything is read or written, naming hosts, values and remedy.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/e2e/libe2e.sh"
need mpirun timeout
built trimpot trimpot_mpi.so

run=(run full_finetune "${common[@]}" max_steps_per_epoch=1 epochs=1 gradient_accumulation_steps=1 --output "$scratch/out")
# differs 'text' mpirun's words…: refused by all ranks, said once, nothing written.
differs()
{
    expect 13 "$1" timeout 60 mpirun "${@:2}"
    equal "lines of: $1" "$(grep -c 'error:' "$scratch/expect.out")" 1
    grep -q "rank 0 on $(hostname) has '.*', rank [1-9] on $(hostname) has '.*'; " "$scratch/expect.out" || fail "offenders are not named: $1"
    [ ! -e "$scratch/out" ] || fail "something was written: $1"
}

differs "the command line differs between ranks: rank 0 on $(hostname) has 'seed=1', rank 2 on $(hostname) has 'seed=2'" \
    -n 2 "$trimpot" "${run[@]}" seed=1 : -n 1 "$trimpot" "${run[@]}" seed=2
differs "has 'run', rank 1 on $(hostname) has 'version'" -n 1 "$trimpot" "${run[@]}" : -n 1 "$trimpot" version
differs "rank 1 on $(hostname) has 'quick=1'" -n 1 "$trimpot" "${run[@]}" : -n 1 "$trimpot" "${run[@]}" quick=1

cp "$trimpot" "$build/trimpot_mpi.so" "$scratch/"
differs 'the program differs between ranks' -n 1 "$trimpot" "${run[@]}" : -n 1 sh -c 'echo >>"$0" && exec "$0" "$@"' "$scratch/trimpot" "${run[@]}"

# The set that this machine would choose beside one it would not; a value that it cannot serve counts as one.
other=avx512
if grep -qw avx512vl /proc/cpuinfo; then other=avx2; fi
differs 'the instruction set differs' -n 1 "$trimpot" "${run[@]}" : -n 1 env TRIMPOT_ISA=$other "$trimpot" "${run[@]}"
grep -q 'TRIMPOT_ISA=avx2 for all' "$scratch/expect.out" || fail "no remedy for the instruction set"

# The same words, but each rank has its own file of that name.
mkdir "$scratch/a" "$scratch/b"
echo 'optimizer: {weight_decay: 0.1}' >"$scratch/a/my.yaml"
echo 'optimizer: {weight_decay: 0.2}' >"$scratch/b/my.yaml"
differs "the configuration differs between ranks: rank 0 on $(hostname) has 'weight_decay: 0.1'" \
    -wdir "$scratch/a" -n 1 "$trimpot" "${run[@]}" --config my.yaml : -wdir "$scratch/b" -n 1 "$trimpot" "${run[@]}" --config my.yaml

timeout 60 mpirun -n 2 env TRIMPOT_ISA=avx2 "$trimpot" "${run[@]}" >"$scratch/alike.log" 2>&1 </dev/null || fail "ranks that are alike: exit $?"
[ -e "$scratch/out/metrics.jsonl" ] || fail "ranks that are alike did not run"
finish
