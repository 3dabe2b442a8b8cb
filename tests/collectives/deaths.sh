#!/bin/bash
# A rank that dies or stops takes the job down, its cause named once with rank, pid, step and phase, whichever rank it is;
# a job that stands still as a whole does not; ends in order are silent.
. "$(dirname "$0")/../lib.sh"
need mpirun pgrep
built test_comm trimpot_mpi.so
program=$build/test_comm
declare -A job

# start NAME RANKS arguments…: in the background, until its steps are made.
start()
{
    mpirun -n "$2" "$program" steps "${@:3}" >"$scratch/$1.log" 2>&1 </dev/null &
    job[$1]=$!
}
under_way() { for _ in $(seq 600); do grep -q 'steps are made' "$scratch/$1.log" && return; sleep 0.05; done; die "$1 did not start: $(tail -3 "$scratch/$1.log")"; }

# rank_pid NAME RANK
rank_pid()
{
    local pid
    for pid in $(pgrep -P "${job[$1]}" -x test_comm); do
        tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "PMIX_RANK=$2" && say "$pid"
    done
    return 0
}

# ended NAME CODE 'said once'
ended()
{
    local rc=0 log=$scratch/$1.log
    wait "${job[$1]}" || rc=$?
    equal "$1: exit code" "$rc" "$2"
    equal "$1: causes that are named" "$(grep -c 'error: ' "$log")" "$([ -z "$3" ] && say 0 || say 1)"
    grep -qE -- "$3" "$log" || { fail "$1: no '$3'"; tail -5 "$log"; }
}

# Three jobs at a time: in each, another rank.
for signal in KILL SEGV ABRT STOP; do
    declare -A pid
    for rank in 0 1 2; do start $signal.$rank 3 100000 2; done
    for rank in 0 1 2; do
        under_way $signal.$rank
        pid[$rank]=$(rank_pid $signal.$rank $rank)
        kill -s $signal "${pid[$rank]}"
    done
    case $signal in
    KILL) code=137 how='ended without a word \(.*\)' ;;
    SEGV) code=139 how='ended without a word \(.*\)' ;;
    ABRT) code=134 how='ended without a word \(.*\)' ;;
    STOP) code=21 how='has not been heard of for [23] s \(.*\), last' ;;
    esac
    for rank in 0 1 2; do
        ended $signal.$rank $code "^\[rank $((rank == 0))\] error: rank $rank \(host $(hostname), pid ${pid[$rank]}\) $how at step [0-9]+, (compute|reduction); all ranks end"
        for _ in $(seq 100); do kill -0 "${pid[$rank]}" 2>/dev/null || continue 2; sleep 0.05; done
        fail "$signal: rank $rank is still there"
    done
done

# The whole job stands still for longer than the timeout, and goes on; beside it, ends in order.
start still 3 150 2
under_way still
all=$(pgrep -P "${job[still]}" -x test_comm)
kill -STOP $all
stopped=$SECONDS
for i in $(seq 6); do
    start short 4 2 30
    ended short 0 ''
    if grep -qE 'error|warning' "$scratch/short.log"; then fail "an end in order is not silent: $(cat "$scratch/short.log")"; fi
done
while [ $((SECONDS - stopped)) -lt 4 ]; do sleep 0.1; done
kill -CONT $all
ended still 0 ''
grep -q 'all steps are made' "$scratch/still.log" || fail 'a job that stood still did not come to its end'
finish
