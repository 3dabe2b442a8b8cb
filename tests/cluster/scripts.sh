#!/usr/bin/env bash
# scripts.sh BUILD_DIR: the two batch scripts that are shipped, edited in their three lines and submitted to a Slurm of four nodes.
# Time limit, preemption, USR2, cancel: saved, back in the queue or not as they say, and in the end the losses and weights of the
# uninterrupted run, bit for bit. A node lost: the job ends, and submitted again it continues. A failure keeps its exit code.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/cluster/libcluster.sh"
built trimpot trimpot_mpi.so
need cc
cluster_enter "$@"
. "$source/tests/e2e/libe2e.sh"
cluster_cpus=4
cluster_hosts 4
slurm_up
began=$SECONDS
told() { say "[$((SECONDS - began)) s] $*"; }

cc -O1 -shared -fPIC -o "$scratch/slow.so" "$source/tests/cluster/preload/slow.c" -ldl || die "slow.c does not compile"
# Slow, it takes a minute; fast, seconds. Four ranks everywhere.
run=("${lora[@]}" dtype=fp32 epochs=50 save_every_n_steps=100000)
steps=600
train 1 "$scratch/whole" "${run[@]}" &
whole=$!
export PATH=$build:$PATH
cd "$scratch"

# ---- jobs: FORM.CASE is a name, an output folder, a log -----------------------------------------------------------------------

declare -A job
forms=(srun mpirun)

# edited FORM CASE [key=value …]: FORM.CASE.sbatch, changed in the three lines that are marked, and in no other.
edited()
{
    local form=$1 name=$1.$2 args
    shift 2
    printf -v args '%q ' "${run[0]}" "${common[@]}" gradient_accumulation_steps=2 "${run[@]:1}" "$@"
    "$trimpot" cp -q "slurm/$form.sbatch" "$name.sbatch" || die "cp slurm/$form.sbatch"
    cp "$name.sbatch" shipped
    sed -i -E -e "s|^#SBATCH .*(# EDIT 1)$|#SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=1 --time=1  \1|" \
        -e "s|^train=.*(# EDIT 2)$|train=($args)  \1|" -e "s|^output=.*(# EDIT 3)$|output=$name  \1|" "$name.sbatch"
    equal "$name: lines edited" "$(diff shipped "$name.sbatch" | grep -c '^<')" 3
    equal "$name: marked lines edited" "$(diff shipped "$name.sbatch" | grep -cE '^[<>] .*# EDIT [123]$')" 6
}

# submit NAME [options of sbatch]: slow from the first step on, until slow.NAME is removed.
submit()
{
    local name=$1
    shift
    touch "slow.$name"
    job[$name]=$(LD_PRELOAD=$scratch/slow.so SLOW_WHILE=$scratch/slow.$name sbatch --parsable --output="$name.log" "$@" "$name.sbatch")
}

steps_of() { cat "$1/metrics.jsonl" 2>/dev/null | wc -l; }
checkpoints() { ls "$1/checkpoints" 2>/dev/null | grep -cE '^step-[0-9]+$' || true; }

# until WHAT SECONDS command…
until_so()
{
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { fail "$what: not within the time"; return 1; }
        sleep 0.1
    done
}
has_steps() { [ "$(steps_of "$1")" -ge "$2" ]; }
restarted() { [ "$(job_field "${job[$1]}" Restarts)" -ge 1 ]; }

# interrupted NAME: saved, in the queue again; from here on it is fast.
interrupted()
{
    until_so "$1: requeued" 75 restarted "$1" || { job_state "${job[$1]}"; tail -n 5 "$1.log"; }
    [ "$(steps_of "$1")" -lt $steps ] || fail "$1: stopped too late to show anything"
    [ "$(checkpoints "$1")" -ge 1 ] || fail "$1: no checkpoint"
    told "$1: requeued at step $(steps_of "$1"), $(checkpoints "$1") checkpoint(s)"
    scontrol update jobid="${job[$1]}" TimeLimit=10
    rm -f "slow.$1"
}

# completes NAME RESTARTS: ends with code 0 after so many restarts, with the bits of the uninterrupted run.
completes()
{
    local id=${job[$1]}
    rm -f "slow.$1"
    job_wait "$id" COMPLETED 60 || { fail "$1: exit $(job_code "$id")"; tail -n 10 "$1.log"; }
    equal "$1: restarts" "$(job_field "$id" Restarts)" "$2"
    same "$1" whole "$1"
    told "$1: $(job_state "$id"), exit $(job_code "$id"), restarts $2"
}

# ---- at once: a time limit of a minute, a preemption, a failure -----------------------------------------------------------------

for form in "${forms[@]}"; do
    signal=$([ "$form" = srun ] || echo B:)USR2
    edited "$form" limit
    submit "$form.limit" --partition=high --signal="$signal@28" # 2 to 32 s from now
    edited "$form" preempt
    submit "$form.preempt"
    edited "$form" bad batch_size=none
    submit "$form.bad"
done

for form in "${forms[@]}"; do
    job_wait "${job[$form.bad]}" FAILED 20 || fail "$form.bad: not failed"
    equal "$form.bad: exit code" "$(job_code "${job[$form.bad]}")" 2
    equal "$form.bad: restarts" "$(job_field "${job[$form.bad]}" Restarts)" 0
    grep -q "batch_size" "$form.bad.log" || fail "$form.bad: no reason in its log"
    told "$form.bad: FAILED, exit $(job_code "${job[$form.bad]}")"
    until_so "$form.preempt: steps" 30 has_steps "$form.preempt" 3 || { squeue; cat *.log; head -50 srun.preempt.sbatch; }
done
other=$(sbatch --parsable --partition=high --nodes=4 --ntasks-per-node=2 --output=other.log --wrap=true)
told "preempting"
job_wait "$other" COMPLETED 30 || fail "the preempting job did not run"
for form in "${forms[@]}"; do interrupted "$form.preempt"; done
for form in "${forms[@]}"; do interrupted "$form.limit"; done
wait "$whole" || die "the uninterrupted run failed: $(tail -3 whole.log)"
equal "steps of the uninterrupted run" "$(steps_of whole)" $steps
for form in "${forms[@]}"; do
    completes "$form.preempt" 1
    completes "$form.limit" 1
done
finish
