#!/usr/bin/env bash
# bits.sh BUILD_DIR: the launch lattice. Alone, by mpirun on four hosts and on two unevenly, by srun, and by both inside a
# batch job: every rank knows its place, reductions are right, exit codes arrive, losses and exports are equal bit for bit;
# and a run that a signal told to save or to stop goes on elsewhere to the same bits.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/cluster/libcluster.sh"
built trimpot trimpot_mpi.so test_comm
cluster_enter "$@"
. "$source/tests/e2e/libe2e.sh"
cluster_hosts 4
slurm_up

# What starts a command on four ranks; the last two are the body of a batch script.
declare -A by=([bare]='' [mpirun]='hosts_mpirun 4 1' [uneven]="${hosts_mpirun_line[*]} --host tpn1:3,tpn2:1"
    [srun]='srun -N4 -n4' [sbatch_mpirun]='mpirun' [sbatch_srun]='srun')
launches='mpirun uneven srun sbatch_mpirun sbatch_srun'

# submit LAUNCH command…: sets job.
submit()
{
    printf '#!/bin/sh\nexec %s "$@"\n' "${by[$1]}" >"$scratch/script"
    job=$(sbatch --parsable -N4 -n4 -o "$scratch/job" --open-mode=truncate "$scratch/script" "${@:2}")
}

# launch NAME command…: to its end; exit code and output are the command's.
launch()
{
    local job
    case $1 in
    sbatch_*)
        submit "$@"
        job_wait "$job" 'COMPLETED FAILED' 60 || return 99
        cat "$scratch/job"
        return "$(job_code "$job")" ;;
    *) ${by[$1]} "${@:2}" ;;
    esac
}

# ---- places, reductions, exit codes ----------------------------------------------------------------------------------
places()
{
    local r
    for r in 0 1 2 3; do
        case $1$r in
        uneven3) echo "rank 3 of 4 is 0 of 1 on tpn2" ;;
        uneven?) echo "rank $r of 4 is $r of 3 on tpn1" ;;
        *) echo "rank $r of 4 is 0 of 1 on tpn$((r + 1))" ;;
        esac
    done
}
hash=$("$build/test_comm" | grep '^hash V=8 ' | head -n 1 | cut -d' ' -f3)
for name in $launches; do
    say "$name: places, reductions, exit codes"
    expect 0 "hash V=8 $hash messages" launch $name "$build/test_comm" where
    equal "$name: places" "$(grep '^rank' "$scratch/expect.out" | sort)" "$(places $name)"
    expect 2 "optimizer.lr is 'banana'" launch $name "$trimpot" run "${lora[0]}" "${common[@]}" optimizer.lr=banana
    equal "$name: times the fault is said" "$(grep -cF "is 'banana'" "$scratch/expect.out")" 1
done

# ---- bits ------------------------------------------------------------------------------------------------------------
# line LAUNCH OUTPUT RECIPE key=value …: sets line, with a total batch of 8 whatever the ranks.
line()
{
    local each=2
    [ "$1" != bare ] || each=8
    line=("$trimpot" run "$3" "${common[@]}" --output "$2" gradient_accumulation_steps=$each "${@:4}")
}
go()
{
    line "$@"
    launch "$1" "${line[@]}" >"$2.log" 2>&1 </dev/null || { fail "$1: exit $?: ${*:3}"; tail -n 3 "$2.log"; }
}
for what in 'full fp32' 'lora bf16'; do
    read -r kind dtype <<<"$what"
    declare -n how=$kind
    say "$kind $dtype: the same bits by every launch"
    for name in bare $launches; do
        go $name "$scratch/$name" "${how[@]}" dtype="$dtype" epochs=1 max_steps_per_epoch=10
        [ $name = bare ] || same "$kind $dtype, $name" "$scratch/bare" "$scratch/$name"
    done
    equal "steps" "$(wc -l <"$scratch/bare/metrics.jsonl")" 10
    for name in bare $launches; do rm -rf "${scratch:?}/$name"; done
done

# ---- signals ---------------------------------------------------------------------------------------------------------
out=$scratch/run
# whole_run EPOCHS: the job, and the uninterrupted run that everything is compared with.
whole_run()
{
    task=("${lora[@]}" dtype=fp32 epochs="$1" save_every_n_steps=100000)
    rm -rf "$scratch/whole"
    go bare "$scratch/whole" "${task[@]}"
    total=$(wc -l <"$scratch/whole/metrics.jsonl")
}

steps() { cat "$out/metrics.jsonl" 2>/dev/null | wc -l; }
saved() { ls "$out/checkpoints" 2>/dev/null | grep -cE '^step-[0-9]+$' || true; }
# wait_for N COMMAND: until what it prints is N at least.
wait_for()
{
    for _ in $(seq 600); do
        [ "$("$2")" -lt "$1" ] || return 0
        sleep 0.05
    done
    die "$2 is not $1 after 30 s: $(tail -n 3 "$out.log")"
}

# stops LAUNCH 'CODES' RESUMED_BY 'SIGNALLER' SIGNAL…: with each signal but the last (USR1) it saves and goes on, with the
# last it saves and ends with one of the codes; resumed, it comes to the bits of the whole run.
stops()
{
    local name=$1 codes=$2 again=$3 signaller=$4 signal n=0 rc=0 job pid
    shift 4
    say "$name: $* by $signaller"
    rm -rf "$out"
    line "$name" "$out" "${task[@]}"
    case $name in
    sbatch_*) submit "$name" "${line[@]}" ;;
    *) ${by[$name]} "${line[@]}" >"$out.log" 2>&1 </dev/null & pid=$! ;;
    esac
    for signal in "$@"; do
        wait_for $(($(steps) + 3)) steps
        case $signaller in
        kill) kill -s "$signal" "$pid" ;;
        scancel*) $signaller --signal="$signal" "$(squeue -h -t RUNNING -o %A)" ;;
        esac
        n=$((n + 1))
        wait_for $n saved
    done
    case $name in
    sbatch_*) job_wait "$job" FAILED 30 || true; rc=$(job_code "$job"); cp "$scratch/job" "$out.log" ;;
    *) wait "$pid" || rc=$? ;;
    esac
    [[ " $codes " == *" $rc "* ]] || { fail "$name, $*: exit $rc, expected $codes"; tail -n 5 "$out.log"; }
    # Delivery is uneven: ranks that see USR1 in different steps save twice.
    [ "$(saved)" = $# ] || { [ "$1" = USR1 ] && [ "$(saved)" -gt $# ]; } || fail "$name, $*: $(saved) checkpoints"
    [ "$(steps)" -lt "$total" ] || fail "$name, $*: the signal came too late to show anything"
    go "$again" "$out" "${task[@]}" resume_from_checkpoint=true
    same "$name, $*, resumed by $again" "$scratch/whole" "$out"
}
whole_run 20
stops mpirun 85 srun kill USR1 USR2
stops srun 85 mpirun kill USR1 USR2
stops sbatch_srun 85 bare scancel USR2
stops sbatch_mpirun 85 bare 'scancel --batch' USR2
stops srun 85 bare scancel TERM
# mpirun passes TERM on after a second, gives two more and keeps no exit code: the checkpoint counts.
whole_run 60
stops mpirun '85 143 1 0' bare kill TERM
finish
