#!/usr/bin/env bash
# crash.sh BUILD_DIR: kill -9 of a random rank at random moments in a 2-rank run that saves every 3 steps. Every resume
# continues from a complete checkpoint, and what comes out in the end equals the uninterrupted run, bit for bit.
# Then: a byte flipped in each file of the newest checkpoint; and a disk that is full.
#   KILLS   how many (60)     SEED   of the moments (1)
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun setsid
. "$source/tests/e2e/libe2e.sh"
kills=${KILLS:-60}

run=("$trimpot" run "${lora[@]}" "${common[@]}" dtype=fp32 gradient_accumulation_steps=4 epochs=5 save_every_n_steps=3
     checkpointer.keep_last_n_checkpoints=3)
began=$(date +%s%N)
mpirun -n 2 "${run[@]}" --output "$scratch/whole" >"$scratch/whole.log" 2>&1 </dev/null || die "the uninterrupted run failed"
whole_ms=$((($(date +%s%N) - began) / 1000000))

# attempt RUN SECONDS VICTIM: one start that may be killed; 0 when the run came to its end.
attempt()
{
    local out=$1 resume=false pids launcher
    [ -d "$out/checkpoints" ] && resume=true
    mpirun -n 2 "${run[@]}" --output "$out" resume_from_checkpoint=$resume >"$out.log" 2>&1 </dev/null &
    launcher=$!
    sleep "$2"
    mapfile -t pids < <(pgrep -f -- "--output $out" -x trimpot 2>/dev/null || pgrep -P "$launcher" trimpot || true)
    [ ${#pids[@]} -gt 0 ] && kill -9 "${pids[$(($3 % ${#pids[@]}))]}" 2>/dev/null && killed=$((killed + 1))
    # mpirun itself can hang for ever when a rank dies while it connects: our ranks are gone then, so end it.
    for _ in $(seq 100); do kill -0 "$launcher" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$launcher" 2>/dev/null
    wait "$launcher" 2>/dev/null
}

# chain RUN KILLS SEED: kills and resumes until there were so many, then the last resume. Exit code: failures.
chain()
{
    local out=$1 at_ms killed=0 finished=0
    RANDOM=$3
    while [ $killed -lt "$2" ]; do
        # Any moment of a whole run, however fast this machine is.
        at_ms=$((RANDOM * whole_ms / 32768))
        if attempt "$out" "$((at_ms / 1000)).$(printf %03d $((at_ms % 1000)))" $((RANDOM % 2)); then
            same "after kills" "$scratch/whole" "$out"
            finished=$((finished + 1))
            rm -rf "$out"
        else
            grep -qE '^error: ' "$out.log" && ! grep -q "another rank failed\|terminated" "$out.log" &&
                { fail "an error, not a kill, ended a run"; grep '^error: ' "$out.log" | head -3; }
        fi
        [ "$failures" -lt 5 ] || die "too many failures"
    done
    ranks 2 "${run[@]}" --output "$out" resume_from_checkpoint="$([ -d "$out/checkpoints" ] && echo true || echo false)" \
        >"$out.log" 2>&1 || fail "the last resume"
    same "after the last kill" "$scratch/whole" "$out"
    say "$killed kills, $finished complete runs between them"
    exit "$failures"
}

# Two at a time: mpirun takes two seconds over each death.
(chain "$scratch/run" $(((kills + 1) / 2)) "${SEED:-1}") &
(chain "$scratch/other" $((kills / 2)) $((${SEED:-1} + 1000))) &
for _ in 1 2; do wait -n || failures=$((failures + $?)); done

# A flipped byte in each file of the newest checkpoint: it is passed over, loudly, and the losses are the same again.
newest=$(basename "$(ls -d "$scratch"/run/checkpoints/step-* | tail -1)")
for file in $(cd "$scratch/run/checkpoints/$newest" && ls); do
    [ -s "$scratch/run/checkpoints/$newest/$file" ] || continue # a rank that owns nothing has nothing to damage
    rm -rf "$scratch/flip" && cp -r "$scratch/run" "$scratch/flip"
    python3 - "$scratch/flip/checkpoints/$newest/$file" "$RANDOM" <<'P'
import sys
path, seed = sys.argv[1], int(sys.argv[2])
data = bytearray(open(path, "rb").read())
data[seed * 7919 % len(data)] ^= 1 << seed % 8
open(path, "wb").write(data)
P
    ranks 2 "${run[@]}" --output "$scratch/flip" resume_from_checkpoint=true >"$scratch/flip.log" 2>&1 || { fail "$file: resume"; tail -3 "$scratch/flip.log"; }
    grep -q "$newest" "$scratch/flip.log" || { fail "$file: the damage was not reported"; cat "$scratch/flip.log"; }
    [ -d "$scratch/flip/checkpoints/$newest.bad" ] || fail "$file: $newest was not set aside"
    same "$file flipped" "$scratch/whole" "$scratch/flip"
done

# A full disk does not stop training.
mkdir "$scratch/small"
if mount -t tmpfs -o size=400k none "$scratch/small" 2>/dev/null; then
    rc=0
    ranks 2 "${run[@]}" --output "$scratch/small/run" save_adapter_weights_only=true >"$scratch/small.log" 2>&1 || rc=$?
    steps=$(grep -c . "$scratch/small/run/metrics.jsonl" || true)
    umount "$scratch/small"
    equal "steps with a full disk" "$steps" "$(grep -c . "$scratch/whole/metrics.jsonl")"
    grep -qiE "no space|are free" "$scratch/small.log" || { fail "the full disk was not reported"; tail -5 "$scratch/small.log"; }
    case $rc in 0 | 14 | 22) ;; *) fail "a full disk ended the run with $rc"; tail -5 "$scratch/small.log" ;; esac
else
    say "SKIP the full disk: tmpfs cannot be mounted here"
fi
finish
