#!/bin/bash
# Hostile environments on two hosts and a real Slurm: every launch is right, or is refused at once with one line that names the
# variable (or the hosts) and the remedy, and leaves nothing in the output folder.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/cluster/libcluster.sh"
built trimpot trimpot_mpi.so
cluster_enter "$@"
. "$source/tests/e2e/libe2e.sh"
cluster_hosts 2
slurm_up LaunchParameters=use_interactive_step
export SLURM_PMIX_FENCE=ring # Slurm 22.05's default now and then lets Open MPI 4.1 crash in MPI_Init

out=$scratch/out
run=("$trimpot" run full_finetune "${common[@]}" output_dir="$out" max_steps_per_epoch=1 epochs=1 gradient_accumulation_steps=4)
one=(gradient_accumulation_steps=4) # total batch 4 on any number of ranks below
two=(gradient_accumulation_steps=2)
four=(gradient_accumulation_steps=1)

# attempt CODE command…: exit code; how many errors of ours it printed, in $errors.
attempt()
{
    local code=$1 rc=0
    shift
    rm -rf "$out"
    timeout 30 "$@" >"$scratch/attempt" 2>&1 </dev/null || rc=$?
    errors=$(grep -cE '^(\[rank [0-9]+\] )?error: ' "$scratch/attempt") || true
    [ "$rc" = "$code" ] || { fail "exit $rc, expected $code: ${*:1:9} …"; tail -5 "$scratch/attempt"; }
}
# refused CODE 'text' command…: one error, nothing written.
refused()
{
    attempt "$1" "${@:3}"
    grep -qF -- "$2" "$scratch/attempt" || { fail "no '$2': ${*:3:9} …"; tail -5 "$scratch/attempt"; }
    [ "$errors" = 1 ] || { fail "$errors errors: ${*:3:9} …"; cat "$scratch/attempt"; }
    [ ! -e "$out" ] || fail "something was written: ${*:3:9} …"
}
# right command…: a run of one step in one world, with the loss that every world has.
right()
{
    local loss
    attempt 0 "$@"
    loss=$(curve "$out" 2>/dev/null) || true
    [ -n "${first_loss:=$loss}" ] && [ "$loss" = "$first_loss" ] || fail "losses '$loss' and '$first_loss': ${*:1:9} …"
}
# A batch script of one line, to its end. (sbatch --wait looks every ten seconds.)
cat >"$scratch/batch" <<'END'
#!/bin/bash
log=$1 job=$(sbatch --parsable -n 4 -o "$1" --wrap "${*:2}")
while state=$(scontrol -o show job "$job") && ! [[ $state =~ JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL) ]]; do sleep 0.1; done
cat "$log"
[[ $state == *ExitCode=0:* ]]
END
chmod +x "$scratch/batch"
warned() { grep -qF -- "$1" "$scratch/attempt" || fail "no warning '$1'"; }
# in_env FILE command…: in the environment that FILE holds.
in_env() { (readarray -d '' -t words <"$1" && shift && exec env -i "${words[@]}" "$@"); }
export -f in_env

# ---- in an allocation, without and with a step
right "${run[@]}" "${one[@]}"
right salloc -Q -n 2 "${run[@]}" "${one[@]}"
warned "SLURM_NTASKS='2': 1 process inside an allocation of 2 tasks"
right salloc -Q -n 4 mpirun "${run[@]}" "${four[@]}"
right salloc -Q -n 4 srun "${run[@]}" "${four[@]}"
right "$scratch/batch" "$scratch/batch.log" "${run[@]}" "${one[@]}"
warned "SLURM_NTASKS='4'"
right "$scratch/batch" "$scratch/batch.log" mpirun "${run[@]}" "${four[@]}"
right salloc -Q -n 1 : -n 1 srun --het-group=0,1 "${run[@]}" "${two[@]}"
right srun -n 1 --overlap mpirun -n 2 "${run[@]}" "${two[@]}"
right salloc -Q -n 4 srun -n 1 -N 1 --overlap mpirun -n 4 "${run[@]}" "${four[@]}"
right salloc -Q -n 2 srun -n 1 --interactive --overlap mpirun -n 2 "${run[@]}" "${two[@]}"
right srun -n 1 sh -c "$trimpot version; $(printf '%q ' "${run[@]}" "${one[@]}")"

# ---- srun without PMIx
refused 2 "SLURM_STEP_NUM_TASKS='3'" srun --mpi=none -n 3 "${run[@]}"
grep -q 'start with `srun --mpi=pmix`' "$scratch/attempt" || fail "no remedy under srun --mpi=none"
refused 2 "PMI_SIZE='3', PMI_RANK='0': srun --mpi=pmi2 started 3" srun --mpi=pmi2 -n 3 "${run[@]}"
right srun --mpi=none -n 1 "${run[@]}" "${one[@]}"
right srun --mpi=pmi2 -n 1 "${run[@]}" "${one[@]}"

# ---- left over: from an ended step, from another MPI, from an ended mpirun under a living srun
# shellcheck disable=SC2016
srun -n 2 sh -c 'env -0 >"$0.$SLURM_PROCID"' "$scratch/step"
refused 2 'nothing listens there: the launcher (srun --mpi=pmix) has ended' bash -c 'in_env "$@"' - "$scratch/step.1" "${run[@]}"
refused 2 "PMIX_RANK='1' with PMIX_NAMESPACE=''" bash -c 'in_env "$@"' - "$scratch/step.1" env -u PMIX_NAMESPACE "${run[@]}"
refused 2 "SLURM_STEP_NUM_TASKS='2', SLURM_PROCID='1'" bash -c 'in_env "$@"' - "$scratch/step.1" env -u PMIX_NAMESPACE -u PMIX_RANK "${run[@]}"
refused 2 "PMI_SIZE='4', PMI_RANK='2'" env PMI_RANK=2 PMI_SIZE=4 MPI_LOCALNRANKS=4 "${run[@]}"
# shellcheck disable=SC2016
mpirun -n 2 sh -c 'env -0 >"$0.$OMPI_COMM_WORLD_RANK"' "$scratch/mpirun"
right bash -c 'in_env "$@"' - "$scratch/mpirun.1" srun -n 4 "${run[@]}" "${four[@]}"
refused 2 'nothing listens there: the launcher (mpirun) has ended' bash -c 'in_env "$@"' - "$scratch/mpirun.1" srun --mpi=none -n 4 "${run[@]}"

# ---- ranks that are not alike, on two hosts
pair() { refused 13 "$1" on tpn1 mpirun --host tpn1 -n 1 "${@:2}" : --host tpn2 -n 1 "${second[@]}"; }
second=(env TRIMPOT_ISA=of_old "${run[@]}")
pair "the instruction set differs between ranks: rank 0 on tpn1 has 'cpu: " "${run[@]}"
second=("${run[@]}" seed=9)
pair "the command line differs between ranks: rank 0 on tpn1 has 'seed=8', rank 1 on tpn2 has 'seed=9'" "${run[@]}" seed=8
mkdir "$scratch/other"
cp "$trimpot" "$build/trimpot_mpi.so" "$scratch/other/"
echo >>"$scratch/other/trimpot"
second=("$scratch/other/trimpot" "${run[@]:1}")
pair 'the program differs between ranks: rank 0 on tpn1' "${run[@]}"

# ---- hosts that are not alike
right on tpn1 mpirun --host tpn1:3,tpn2:1 -n 4 "${run[@]}" "${four[@]}"
right srun -N 2 -n 4 --distribution=arbitrary -w tpn1,tpn1,tpn1,tpn2 --overcommit "${run[@]}" "${four[@]}"
right on tpn1 mpirun --host tpn1:2,tpn2:2 -n 4 sh -c "hostname twin; exec $(printf '%q ' "${run[@]}" "${four[@]}")"
for host in tpn1 tpn2; do on $host hostname $host; done

# ---- a folder that cannot be written
mkdir "$scratch/sealed"
for host in tpn1 tpn2; do on $host mount -t tmpfs -o ro tmpfs "$scratch/sealed"; done
refused 14 "$scratch/sealed/out" srun -n 4 "${run[@]}" "${four[@]}" output_dir="$scratch/sealed/out"
finish
