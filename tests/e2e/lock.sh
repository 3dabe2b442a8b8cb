#!/usr/bin/env bash
# lock.sh BUILD_DIR: one output folder, one run. A second one is refused within a second and the first never notices; a
# holder that was killed is taken over; a holder that stood still while another took its place writes nothing more. What
# comes out in the end equals the undisturbed run bit for bit.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun cc
cc -O1 -shared -fPIC -o "$scratch/lasting.so" "$source/tests/cluster/preload/lasting.c" || die "lasting.c does not compile"
. "$source/tests/e2e/libe2e.sh"

# Saves all the time: the commit is where it matters.
job=("${lora[@]}" dtype=fp32 epochs=30 save_every_n_steps=2 checkpointer.keep_last_n_checkpoints=2)
train 1 "$scratch/whole" "${job[@]}" || die "the undisturbed run failed: $(tail -3 "$scratch/whole.log")"
[ ! -e "$scratch/whole/run.lock" ] || fail "a run that ended has left its lock"

# line RANKS OUTPUT key=value …: the command, for those who need its pid.
line() { command=("$trimpot" run "${job[0]}" "${common[@]}" --output "$2" gradient_accumulation_steps=$((8 / $1)) "${job[@]:1}" "${@:3}"); [ "$1" = 1 ] || command=(mpirun -n "$1" "${command[@]}"); }

steps_in() { cat "$1/metrics.jsonl" 2>/dev/null | wc -l || true; }

# hold RANKS OUTPUT: a run in the background that has made a few steps; $launcher, and $holder: its rank 0. $lasting: its variables.
lasting=()
hold()
{
    local before
    before=$(steps_in "$2")
    line "$@"
    env "${lasting[@]}" "${command[@]}" >"$2.log" 2>&1 </dev/null &
    launcher=$!
    for _ in $(seq 2000); do
        [ "$(steps_in "$2")" -ge $((before + 3)) ] && break
        kill -0 "$launcher" 2>/dev/null || die "$2 did not start: $(tail -3 "$2.log")"
        sleep 0.02
    done
    holder=$(sed -E 's/.*"pid":([0-9]+).*/\1/' "$2/run.lock")
}
ended() { rc=0; wait "$launcher" || rc=$?; }
# What a run has for good: not what is being written, or on its way out.
files() { (cd "$1" && find . '(' -name '*.tmp' -o -name '*.trash' ')' -prune -o -type f ! -name run.lock -exec md5sum {} + | sort -k 2); }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# A lock of a host that this one cannot look into. AGE in seconds.
foreign()
{
    sed -E 's/"host":"[^"]*"/"host":"elsewhere"/; s/"nonce":"[^"]*"/"nonce":"00000000000000000000000000000000"/' "$1/run.lock" >"$1/new"
    [ "${2:-0}" = 0 ] || touch -d "$2 seconds ago" "$1/new"
    mv "$1/new" "$1/run.lock"
}

# refused WHAT TEXT command…: exit 2 and the message; prints how long it took.
refused()
{
    local what=$1 text=$2 began code=0 ms
    shift 2
    began=$(now_ms)
    "$@" >"$scratch/refused.log" 2>&1 </dev/null || code=$?
    ms=$(($(now_ms) - began))
    equal "$what: exit code" "$code" 2
    grep -q "error: .*$text" "$scratch/refused.log" || fail "$what: $(cat "$scratch/refused.log")"
    equal "$what: errors" "$(grep -c 'error: ' "$scratch/refused.log")" 1
    say "$what: refused in $ms ms"
}

# ---- a second run, beside one that lasts until it is let go -----------------------------------------------------------------
for ranks in 1 2; do
    out=$scratch/held$ranks
    touch "$scratch/lasts"
    lasting=(LASTING_LINES=12 LASTING_UNTIL="$scratch/lasts" LD_PRELOAD="$scratch/lasting.so")
    hold $ranks "$out"
    lasting=()
    line 1 "$out" resume_from_checkpoint=true
    began=$(now_ms)
    refused "bare beside $ranks rank(s)" "pid $holder on $(hostname).*its process lives" "${command[@]}"
    [ $(($(now_ms) - began)) -lt 5000 ] || fail "a second run was refused after $(($(now_ms) - began)) ms"
    line 1 "$out"
    refused "without resume" "pid $holder on" "${command[@]}"
    line 2 "$out" resume_from_checkpoint=true
    refused "2 ranks beside $ranks (mpirun's own end included)" "pid $holder on" "${command[@]}"
    refused "export into its folder" "export writes into .*pid $holder on" "$trimpot" export "$out" -q
    "$trimpot" export "$out" --output "$scratch/export$ranks" -q || fail "an export to another folder"
    kill -0 "$launcher" 2>/dev/null || fail "$ranks rank(s): the run ended too early to show anything"
    rm "$scratch/lasts"
    ended
    equal "$ranks rank(s): exit of the first run" "$rc" 0
    same "$ranks rank(s), refused beside it" "$scratch/whole" "$out"
    equal "what the refused left" "$(cd "$out" && echo *)" "adapter checkpoints config.resolved.yaml export metrics.jsonl"
done

# Started at the same instant, there is one.
line 1 "$scratch/twins"
codes=()
for i in 1 2 3; do
    "${command[@]}" >"$scratch/twin$i.log" 2>&1 </dev/null &
    codes+=($!)
done
for i in 0 1 2; do rc=0; wait "${codes[i]}" || rc=$?; codes[i]=$rc; done
equal "three at the same instant" "$(printf '%s\n' "${codes[@]}" | sort | tr '\n' ' ')" "0 2 2 "
same "three at the same instant" "$scratch/whole" "$scratch/twins"

# ---- killed ------------------------------------------------------------------------------------------------------------------
for ranks in 1 2; do
    out=$scratch/killed$ranks
    hold $ranks "$out"
    # Whoever is refused for another reason leaves a lock as little as anything else.
    kill -KILL "$holder"
    ended
    [ -e "$out/run.lock" ] || fail "kill -9 left no lock: there is nothing to take over"
    before=$(files "$out")
    rc=0
    train $ranks "$out" "${job[@]}" || rc=$?
    equal "killed, without resume" "$rc" 2
    [ ! -e "$out/run.lock" ] || fail "a run that refused the checkpoints has left its lock"
    equal "killed, without resume: files" "$(files "$out")" "$before"
    hold $ranks "$out" resume_from_checkpoint=true
    kill -KILL "$holder"
    ended
    metrics=$(stat -c %i "$out/metrics.jsonl")
    train $ranks "$out" "${job[@]}" resume_from_checkpoint=true || fail "killed, $ranks rank(s): $(tail -3 "$out.log")"
    grep -q "warning: output_dir: taken over: .*pid $holder on .*its process is gone" "$out.log" || fail "nothing said of the takeover: $(cat "$out.log")"
    [ "$(stat -c %i "$out/metrics.jsonl")" != "$metrics" ] || fail "metrics.jsonl is shared with the run that was taken over"
    same "killed twice, $ranks rank(s)" "$scratch/whole" "$out"
done

# ---- waiting -----------------------------------------------------------------------------------------------------------------
out=$scratch/waiting
hold 1 "$out"
kill -KILL "$holder"
ended
foreign "$out" 30
before=$(files "$out")
line 1 "$out" resume_from_checkpoint=true
"${command[@]}" >"$out.log" 2>&1 </dev/null &
launcher=$!
for _ in $(seq 100); do grep -q "waiting until" "$out.log" && break; sleep 0.05; done
grep -q "warning: .*on elsewhere.*waiting until it beats or 30 s have passed" "$out.log" || fail "waits in silence: $(cat "$out.log")"
began=$(now_ms)
kill -TERM "$launcher"
ended
equal "TERM while waiting: exit code" "$rc" 22
[ $(($(now_ms) - began)) -lt 5000 ] || fail "TERM while waiting took $(($(now_ms) - began)) ms"
equal "TERM while waiting: files" "$(files "$out")" "$before"
grep -q elsewhere "$out/run.lock" || fail "TERM while waiting: the lock is not what it was"

# ---- taken over --------------------------------------------------------------------------------------------------------------
# While it runs: it ends by itself, and says who has the folder.
out=$scratch/stolen
hold 2 "$out"
foreign "$out"
ended
equal "taken over while it runs: exit code" "$rc" 2
equal "taken over while it runs: errors" "$(grep -c 'error: ' "$out.log")" 1
grep -q "error: .*no longer this run's: it was taken over by pid .* on elsewhere" "$out.log" || fail "$(tail -3 "$out.log")"
grep -q '"host":"elsewhere"' "$out/run.lock" || fail "the lock of the other is gone"
[ ! -e "$out/export" ] || fail "exported into a folder that is another's"

# While it stood still, at any moment of a step or of a save: not one byte more, but for the line of metrics.jsonl that it may have
# been in the middle of (which a successor has in no file of its own: it made another one). Three of them, in one wait.
but_metrics() { files "$1" | grep -v metrics.jsonl; }
stopped=()
for i in 1 2 3; do
    hold $((i == 3 ? 2 : 1)) "$scratch/still$i"
    sleep 0.0$((RANDOM % 100))
    kill -STOP "$holder"
    stopped+=("$holder $launcher")
done
sleep 11
# The one of two ranks first: its other rank gives a peer that stands still up after peer_timeout.
for i in 3 1 2; do
    out=$scratch/still$i
    read -r holder launcher <<<"${stopped[i - 1]}"
    foreign "$out"
    before=$(but_metrics "$out")
    cp "$out/metrics.jsonl" "$scratch/before.jsonl"
    kill -CONT "$holder"
    ended
    equal "stood still: exit code" "$rc" 2
    diff <(printf '%s\n' "$before") <(but_metrics "$out") || fail "stood still: it wrote after it came back: $(tail -2 "$out.log")"
    cmp -n "$(stat -c %s "$scratch/before.jsonl")" "$scratch/before.jsonl" "$out/metrics.jsonl" || fail "stood still: metrics.jsonl was rewritten"
    [ "$(wc -l <"$out/metrics.jsonl")" -le $(($(wc -l <"$scratch/before.jsonl") + 1)) ] || fail "stood still: more than a line of metrics.jsonl"
    grep -q '"host":"elsewhere"' "$out/run.lock" || fail "stood still: the lock of the other is gone"
    rm "$out/run.lock"
    train 1 "$out" "${job[@]}" resume_from_checkpoint=true || fail "stood still: $(tail -3 "$out.log")"
    same "stood still, resumed" "$scratch/whole" "$out"
done
finish
