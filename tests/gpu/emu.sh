#!/usr/bin/env bash
# emu.sh BUILD_DIR: tests/gpu/check runs its self-tests on the emulated device: its first day on a GPU is not its first day. And what
# fails there is told, without stopping what follows.
. "$(dirname "$0")/../lib.sh"
built trimpot test_ops trimpot_emu.so bench_gpu
need python3
"$source/tests/gpu/check" --emu "$build" >"$scratch/log" 2>&1 </dev/null || fail "check --emu: $(tail -n 40 "$scratch/log")"
for part in device ops attention train resume; do grep -q "^== $part: ok" "$scratch/log" || fail "$part was not run"; done
grep -q '^== build' "$scratch/log" && fail "it builds where it should not"

# Without that device every part fails but the first, each with its cause, and the results say so.
mkdir "$scratch/alone"
cp "$build/trimpot" "$build/test_ops" "$scratch/alone"
"$source/tests/gpu/check" --emu "$scratch/alone" >"$scratch/log" 2>&1 </dev/null && fail "no device, and nothing failed"
for part in ops attention train resume; do grep -q "^== $part: failed.*trimpot_emu.so" "$scratch/log" || fail "$part does not say what is missing"; done
python3 - "$scratch/alone/gpu-check/emu.json" <<'END' || fail "the results do not tell"
import json, sys
r = json.load(open(sys.argv[1]))
states = {p["part"]: p["state"] for p in r["parts"]}
print(states)
sys.exit(states != {"device": "ok", "ops": "failed", "attention": "failed", "train": "failed", "resume": "failed"} or not r["commit"]
         or not all(p["why"] for p in r["parts"] if p["state"] == "failed") or r["torn_lines"])
END
# Its kernels' measurements, as far as they run without a GPU: every line is JSON, none has failed.
for shape in tiny; do
    "$build/bench_gpu" emu $shape >"$scratch/bench" 2>"$scratch/errors" || fail "bench_gpu: $(cat "$scratch/errors")"
    python3 -c 'import json, sys
rows = [json.loads(line) for line in sys.stdin]
bad = [r for r in rows if "failed" in r]
print(len(rows), "lines", *bad, sep="\n")
sys.exit(bool(bad) or len(rows) < 30)' <"$scratch/bench" || fail "bench_gpu emu"
done
finish
