#!/usr/bin/env bash
# signals.sh BUILD_DIR: USR1 saves and the run goes on; USR2, TERM and HUP save and every rank exits 85, bare and under
# mpirun, sent to mpirun or to one rank; what a resume then makes equals the uninterrupted run bit for bit. A new run on
# the same directory without resume is refused and loses nothing. A storm of signals does no harm.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun pgrep
. "$source/tests/e2e/libe2e.sh"

# whole_run EPOCHS: the job, and the uninterrupted run that everything is compared with.
whole_run()
{
    job=("${lora[@]}" dtype=fp32 epochs="$1" save_every_n_steps=100000)
    rm -rf "$scratch/whole"
    train 1 "$scratch/whole" "${job[@]}" || die "the uninterrupted run failed: $(tail -3 "$scratch/whole.log")"
    steps=$(wc -l <"$scratch/whole/metrics.jsonl")
}
whole_run 25

# The processes that are ranks: all but the launcher.
rank_pids() { pgrep -x trimpot -P "$launcher" 2>/dev/null || printf '%s\n' "$launcher"; }

# Starts the job and waits until it has made a few steps.
start()
{
    local n=$1 out=$2
    rm -rf "$out"
    # Not through ranks(): the signal is for mpirun or the program itself, not for a shell around them.
    local line=("$trimpot" run "${job[0]}" "${common[@]}" --output "$out" gradient_accumulation_steps=$((8 / n)) "${job[@]:1}")
    [ "$n" = 1 ] || line=(mpirun -n "$n" "${line[@]}")
    "${line[@]}" >"$out.log" 2>&1 </dev/null &
    launcher=$!
    for _ in $(seq 600); do
        [ "$(cat "$out/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] && return
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.05
    done
    die "$n rank(s) did not start: $(tail -3 "$out.log")"
}

# mpirun may be gone before its ranks are.
ended()
{
    rc=0
    wait "$launcher" || rc=$?
    while pgrep -f -- "--output $scratch/run" >/dev/null; do sleep 0.1; done
}
saved() { ls "$1/checkpoints" 2>/dev/null | grep -cE '^step-[0-9]+$' || true; }

# stops WHAT RANKS CODES kill-arguments…: the run ends with one of the codes and one checkpoint, and continues to the same bits.
stops()
{
    local what=$1 n=$2 codes=$3 out=$scratch/run
    shift 3
    start "$n" "$out"
    "$@" || fail "$what: no signal could be sent"
    ended
    [[ " $codes " == *" $rc "* ]] || { fail "$what: exit $rc, expected $codes"; tail -3 "$out.log"; }
    equal "$what: checkpoints" "$(saved "$out")" 1
    [ "$(wc -l <"$out/metrics.jsonl")" -lt "$steps" ] || fail "$what: the signal came too late to show anything"
    # The same line again, without resume: refused, and nothing is lost.
    before=$(find "$out" -type f -exec md5sum {} + | sort)
    rc=0
    train "$n" "$out" "${job[@]}" || rc=$?
    equal "$what: a second run without resume" "$rc" 2
    equal "$what: files after the refusal" "$(find "$out" -type f -exec md5sum {} + | sort)" "$before"
    train "$n" "$out" "${job[@]}" resume_from_checkpoint=true || fail "$what: resume: $(tail -3 "$out.log")"
    same "$what" "$scratch/whole" "$out"
}

one_rank() { kill -s "$1" "$(rank_pids | tail -1)"; }
whole_launch() { kill -s "$1" "$launcher"; }

stops "USR2, bare" 1 85 whole_launch USR2
stops "TERM, bare" 1 85 whole_launch TERM
stops "HUP, bare" 1 85 whole_launch HUP
stops "USR2 to mpirun" 2 85 whole_launch USR2
stops "USR2 to one of 2 ranks" 2 85 one_rank USR2
stops "TERM to one of 2 ranks" 2 85 one_rank TERM
# mpirun passes TERM on after a second, gives two more and keeps no exit code: the run must be longer than that, and the
# checkpoint counts.
whole_run 150
stops "TERM to mpirun" 2 "85 143 1 0" whole_launch TERM

# USR1: saved, and the same run comes to its end.
whole_run 25
for n in 1 2; do
    start $n "$scratch/run"
    whole_launch USR1
    ended
    [ "$rc" = 0 ] || { fail "USR1, $n rank(s): exit $rc"; head -20 "$scratch/run.log"; }
    # Delivery is uneven: two ranks that see it in different steps save twice.
    [ "$(saved "$scratch/run")" -ge 2 ] || fail "USR1, $n rank(s): only the last step was saved"
    same "USR1, $n rank(s)" "$scratch/whole" "$scratch/run"
done

# A signal at any instant: several hundred of them, wherever they hit, change no bit and end nothing.
start 1 "$scratch/run"
while whole_launch USR1 2>/dev/null; do sleep 0.003; done
ended
[ "$rc" = 0 ] || { fail "a storm of USR1: exit $rc"; head -20 "$scratch/run.log"; }
same "a storm of USR1" "$scratch/whole" "$scratch/run"
finish
