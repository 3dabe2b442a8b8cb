#!/usr/bin/env bash
# death.sh BUILD_DIR: a rank that dies, fails, stops or is cut off, on four hosts under mpirun, srun and srun -K1: all ranks
# are dead soon, the cause is named once with rank, host, step and phase, and the exit code is the one that is promised.
# Prints the table: time until the last rank is dead, until the launcher is gone, exit code, message.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/cluster/libcluster.sh"
built trimpot trimpot_mpi.so test_comm
need pgrep
cluster_cpus=8 # three jobs at a time
cluster_enter "$@"
. "$source/tests/e2e/libe2e.sh"
cluster_hosts 4
slurm_up

declare -A by=([mpirun]='hosts_mpirun 4 1' [srun]='srun -N4 -n4' [srun-K1]='srun -K1 -N4 -n4') job
launchers='mpirun srun srun-K1'
job_line=("$trimpot" run "${lora[@]}" "${common[@]}" dtype=fp32 gradient_accumulation_steps=2 epochs=1000 save_every_n_steps=1000000
          peer_timeout=3)

now_ms() { say $(($(date +%s%N) / 1000000)); }
# ranks_of NAME LAUNCHER: the pids on all hosts; a zombie is dead.
ranks_of() { pgrep -r R,S,D,T,t -f -- "^$build/t[a-z_]+ .*/$1\.$2\.out\$" || true; }

# rank_pid NAME LAUNCHER RANK
rank_pid()
{
    local pid
    for pid in $(ranks_of "$1" "$2"); do
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "PMIX_RANK=$3" && say "$pid"
    done
    return 0
}

# begin NAME: the job under each launcher, until it makes steps.
begin()
{
    local l out
    for l in $launchers; do
        out=$scratch/$1.$l.out
        ${by[$l]} "${job_line[@]}" --output "$out" >"$scratch/$1.$l.log" 2>&1 </dev/null &
        job[$l]=$!
    done
    for l in $launchers; do
        out=$scratch/$1.$l.out
        for _ in $(seq 600); do
            [ "$(cat "$out/metrics.jsonl" 2>/dev/null | wc -l)" -ge 5 ] && continue 2
            kill -0 "${job[$l]}" 2>/dev/null || break
            sleep 0.05
        done
        die "$1 under $l did not start: $(tail -5 "$scratch/$1.$l.log")"
    done
}

# all_dead NAME MOST_MS: waits for every job at once; sets dead_ms[], gone_ms[], code[].
# t0: the time from which it counts, or "said": when the job names its cause.
declare -A dead_ms gone_ms code from
all_dead()
{
    local l t=0 waiting=1
    for l in $launchers; do from[$l]='' dead_ms[$l]='' gone_ms[$l]='' code[$l]=''; done
    while [ "$waiting" = 1 ]; do
        waiting=0
        for l in $launchers; do
            [ "$t0" != said ] || grep -q 'error: ' "$scratch/$1.$l.log" || { waiting=1; continue; }
            [ -n "${from[$l]}" ] || from[$l]=$([ "$t0" = said ] && now_ms || say "$t0")
            t=$(($(now_ms) - from[$l]))
            [ -n "${dead_ms[$l]}" ] || [ -n "$(ranks_of "$1" "$l")" ] || dead_ms[$l]=$t
            if [ -z "${gone_ms[$l]}" ] && ! kill -0 "${job[$l]}" 2>/dev/null; then gone_ms[$l]=$t; fi
            [ -n "${dead_ms[$l]}" ] && [ -n "${gone_ms[$l]}" ] || waiting=1
        done
        [ "$t" -lt "$2" ] || break
        sleep 0.05
    done
    for l in $launchers; do
        code[$l]=0
        [ -n "${gone_ms[$l]}" ] || { kill -KILL "${job[$l]}"; gone_ms[$l]=never; }
        wait "${job[$l]}" 2>/dev/null || code[$l]=$?
        [ "${gone_ms[$l]}" != never ] || code[$l]=-
    done
}

# judged NAME LAUNCHER 'CODES' MOST_MS 'message': what it came to, as a row of the table.
judged()
{
    local log=$scratch/$1.$2.log said
    said=$(grep -a 'error: ' "$log" | grep -av '^srun: \|^slurmstepd' || true)
    rows+=("$(printf '%-22s %-8s %6s %6s %5s  %s' "$1" "$2" "${dead_ms[$2]:-alive}" "${gone_ms[$2]}" "${code[$2]}" "$said")")
    [ "${dead_ms[$2]:-999999}" -le "$4" ] || fail "$1 under $2: ranks live after $4 ms"
    [[ " $3 " == *" ${code[$2]} "* ]] || fail "$1 under $2: exit ${code[$2]}, expected $3"
    [ "$(printf '%s\n' "$said" | wc -l)" = 1 ] && [[ $said =~ $5 ]] || { fail "$1 under $2: '$5' expected once"; tail -20 "$log"; }
}
place='step [0-9]+, (compute|reduction|update|evaluation|save)'
rows=()

# ---- one rank dies: KILL and SEGV, of rank 0 (the deputy speaks), of the deputy, of another -------------------------------
declare -A pid
killed()
{
    local signal=$1 rank=$2 name=$1-of-rank-$2 l teller=0 own=137
    [ "$rank" != 0 ] || teller=1
    [ "$signal" != SEGV ] || own=139
    begin "$name"
    for l in $launchers; do pid[$l]=$(rank_pid "$name" "$l" "$rank"); done
    t0=$(now_ms)
    kill -s "$signal" "${pid[@]}"
    all_dead "$name" 20000
    for l in $launchers; do
        # Who is faster under srun -K1, Slurm with the code of the signal or the watch with its own, is no promise.
        judged "$name" "$l" "$([ "$l" = mpirun ] && say "$own" || say "17 $own")" 8000 \
            "^\[rank $teller\] error: rank $rank \(host tpn$((rank + 1)), pid ${pid[$l]}\) ended without a word .* at $place; all ranks end$"
    done
}
killed KILL 0
killed KILL 1
killed SEGV 3

# ---- one rank stops ---------------------------------------------------------------------------------------------------
name=STOP-of-rank-2
begin $name
for l in $launchers; do pid[$l]=$(rank_pid $name "$l" 2); done
t0=$(now_ms)
kill -STOP "${pid[@]}"
all_dead $name 25000
for l in $launchers; do
    judged $name "$l" 21 11000 "^\[rank 0\] error: rank 2 \(host tpn3, pid ${pid[$l]}\) has not been heard of for [34] s .*, last at $place; all ranks end$"
done

# ---- one host is cut off: both sides end ---------------------------------------------------------------------------------
for host in 3 1; do
    name=cut-of-tpn$host
    begin $name
    t0=$(now_ms)
    host_cut tpn$host
    all_dead $name 20000
    for l in $launchers; do
        # Under srun the node is gone with its host; mpirun stands on tpn1.
        told="^\[rank 0\] error: rank 2 \(host tpn3, "
        [ $host != 1 ] || told="^\[rank [01]\] error: rank [0-3] \(host tpn[1-4], "
        judged $name "$l" "$([ $l = mpirun ] && say "21 137" || say 21)" 13000 "$told.*has not been heard of for [34] s .*, last at $place.*; all ranks end$"
    done
    host_heal tpn$host
done

# ---- one rank fails by itself: its own code, its own words, its place ------------------------------------------------------
name=alone
for l in $launchers; do
    ${by[$l]} "$build/test_comm" $name 2 15 "/$name.$l.out" >"$scratch/$name.$l.log" 2>&1 </dev/null &
    job[$l]=$!
done
t0=said
all_dead $name 20000
for l in $launchers; do judged $name "$l" 15 8000 '^\[rank 2\] error: rank 2 failed alone \(rank 2 of 4 on tpn3, start\)$'; done

say "what                   launcher dead_ms gone_ms code  said"
printf '%s\n' "${rows[@]}"
finish
