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
cluster_cpus=12 # of each node: enough for all jobs at once
cluster_hosts 4
slurm_up SlurmdTimeout=120
began=$SECONDS
told() { say "[$((SECONDS - began)) s] $*"; }

cc -O1 -shared -fPIC -o "$scratch/slow.so" "$source/tests/cluster/preload/slow.c" -ldl || die "slow.c does not compile"
# Slow, it takes 42 s and more; fast, seconds.
run=("${lora[@]}" dtype=fp32 epochs=14 save_every_n_steps=100000)
steps=168
train 1 "$scratch/whole" "${run[@]}" &
whole=$!
export PATH=$build:$PATH
cd "$scratch"

# ---- jobs: FORM.CASE is a name, an output folder, a log -----------------------------------------------------------------------

declare -A job
forms=(srun mpirun)

# edited FORM CASE NODES MINUTES [key=value …]: FORM.CASE.sbatch, one rank on each node, changed in the three marked lines and no
# other.
edited()
{
    local name=$1.$2 form=$1 nodes=$3 minutes=$4 args
    shift 4
    printf -v args '%q ' "${run[0]}" "${common[@]}" gradient_accumulation_steps=$((8 / nodes)) "${run[@]:1}" "$@"
    rm -f "$name.sbatch"
    "$trimpot" cp -q "slurm/$form.sbatch" "$name.sbatch" || die "cp slurm/$form.sbatch"
    cp "$name.sbatch" shipped
    sed -i -E -e "s|^#SBATCH .*(# EDIT 1)$|#SBATCH --nodes=$nodes --ntasks-per-node=1 --cpus-per-task=1 --time=$minutes  \1|" \
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
    scontrol update jobid="${job[$1]}" TimeLimit=20
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
    edited "$form" limit 4 1
    submit "$form.limit" --partition=high --signal="$signal@28" # 2 to 32 s from now
    edited "$form" preempt 4 20
    submit "$form.preempt"
    edited "$form" bad 4 20 batch_size=none
    submit "$form.bad"
done

for form in "${forms[@]}"; do
    job_wait "${job[$form.bad]}" FAILED 20 || fail "$form.bad: not failed"
    equal "$form.bad: exit code" "$(job_code "${job[$form.bad]}")" 2
    equal "$form.bad: restarts" "$(job_field "${job[$form.bad]}" Restarts)" 0
    grep -q "batch_size" "$form.bad.log" || fail "$form.bad: no reason in its log"
    told "$form.bad: FAILED, exit $(job_code "${job[$form.bad]}")"
    until_so "$form.preempt: steps" 30 has_steps "$form.preempt" 3
done
other=$(sbatch --parsable --partition=high --nodes=4 --ntasks-per-node=10 --output=other.log --wrap=true)
told "preempting"
job_wait "$other" COMPLETED 30 || fail "the preempting job did not run"
for form in "${forms[@]}"; do interrupted "$form.preempt"; done

# ---- from here on Slurm requeues exit 85 by itself: still only once, and never what was cancelled -------------------------------------

echo RequeueExit=85 >>"$SLURM_CONF"
scontrol reconfigure
for form in "${forms[@]}"; do
    for case in usr2 cancel; do
        edited "$form" $case 4 20
        submit "$form.$case"
    done
done
edited mpirun end 4 20
submit mpirun.end
edited srun loop 4 20
SLURM_RESTART_COUNT=3 submit srun.loop # Slurm sets it from the second start on: this one says that it is the fourth
for name in {srun,mpirun}.{usr2,cancel} mpirun.end srun.loop; do until_so "$name: steps" 30 has_steps "$name" 3 || tail "$name.log"; done
scancel --signal=USR2 "${job[srun.usr2]}" "${job[srun.loop]}"
scancel --batch --signal=USR2 "${job[mpirun.usr2]}"
scancel --batch --signal=TERM "${job[mpirun.end]}"
scancel "${job[srun.cancel]}" "${job[mpirun.cancel]}"

# ended_for_good NAME STATE: saved, and not in the queue again.
ended_for_good()
{
    job_wait "${job[$1]}" "$2" 20 || fail "$1: $(tail -n 5 "$1.log")"
    [ "$(checkpoints "$1")" = 1 ] || { fail "$1: $(checkpoints "$1") checkpoints"; tail -n 5 "$1.log"; }
    equal "$1: restarts" "$(job_field "${job[$1]}" Restarts)" 0
    told "$1: $2, exit $(job_code "${job[$1]}") at step $(steps_of "$1")"
}
ended_for_good srun.cancel CANCELLED
ended_for_good mpirun.cancel CANCELLED
ended_for_good mpirun.end FAILED
equal "mpirun.end: exit" "$(job_code "${job[mpirun.end]}")" 143
ended_for_good srun.loop FAILED
equal "srun.loop: exit" "$(job_code "${job[srun.loop]}")" 1
grep -q "stopped in its first minute, again" srun.loop.log || fail "srun.loop: no reason in its log"
for form in "${forms[@]}"; do
    interrupted "$form.usr2"
    interrupted "$form.limit"
done
for name in {srun,mpirun}.cancel mpirun.end; do
    submit "$name"
    rm "slow.$name"
done

wait "$whole" || die "the uninterrupted run failed: $(tail -3 whole.log)"
equal "steps of the uninterrupted run" "$(steps_of whole)" $steps
for form in "${forms[@]}"; do
    completes "$form.preempt" 1
    completes "$form.limit" 1
    completes "$form.usr2" 1
    completes "$form.cancel" 0
done
completes mpirun.end 0

# ---- a node lost -------------------------------------------------------------------------------------------------------------------

for form in "${forms[@]}"; do
    edited "$form" lost 4 20 peer_timeout=3 save_every_n_steps=2
    submit "$form.lost"
done
for form in "${forms[@]}"; do until_so "$form.lost: steps" 30 has_steps "$form.lost" 3; done
host_cut tpn3
told "tpn3 cut off"
for form in "${forms[@]}"; do
    # COMPLETING: the script has ended, but Slurm does not hear from tpn3 that it has.
    job_wait "${job[$form.lost]}" COMPLETING 60 || fail "$form.lost: $(job_state "${job[$form.lost]}")"
    told "$form.lost: exit $(job_code "${job[$form.lost]}") at step $(steps_of "$form.lost")"
    grep -q "tpn3" "$form.lost.log" || fail "$form.lost: no cause in its log"
    [ "$(steps_of "$form.lost")" -lt $steps ] || fail "$form.lost: too late to show anything"
    # Without tpn3, on two nodes.
    edited "$form" lost 2 20 peer_timeout=3
    submit "$form.lost" --exclude=tpn3
    rm "slow.$form.lost"
done
for form in "${forms[@]}"; do completes "$form.lost" 0; done
finish
