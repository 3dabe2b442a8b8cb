#!/usr/bin/env bash
# emu.sh BUILD_DIR: tests/gpu/check runs its self-tests on the emulated device: its first day on a GPU is not its first day. And what
# fails there is told, without stopping what follows.
. "$(dirname "$0")/../lib.sh"
built trimpot test_ops trimpot_emu.so bench_gpu
need python3
"$source/tests/gpu/check" --emu "$build" >"$scratch/log" 2>&1 </dev/null || fail "check --emu: $(tail -n 40 "$scratch/log")"
for part in device ops attention train resume kernels speed; do grep -q "^== $part: ok" "$scratch/log" || fail "$part was not run"; done
grep -q '^== build' "$scratch/log" && fail "it builds where it should not"
[ "$(grep -c '^  .* ms ' "$build/gpu-check/emu.txt")" -ge 30 ] || fail "the table has too few kernels"
grep -q '^  tiny LoRA T64 .* %$' "$build/gpu-check/emu.txt" || fail "the table has no run"

# Without that device every part fails but the first, each with its cause, and the results say so.
mkdir "$scratch/alone"
cp "$build"/{trimpot,test_ops,bench_gpu} "$scratch/alone"
"$source/tests/gpu/check" --emu "$scratch/alone" >"$scratch/log" 2>&1 </dev/null && fail "no device, and nothing failed"
for part in ops attention train resume kernels speed; do grep -q "^== $part: failed.*trimpot_emu.so" "$scratch/log" || fail "$part does not say what is missing"; done
python3 - "$scratch/alone/gpu-check/emu.json" <<'END' || fail "the results do not tell"
import json, sys
r = json.load(open(sys.argv[1]))
states = {p["part"]: p["state"] for p in r["parts"]}
print(states)
broken = dict.fromkeys(["ops", "attention", "train", "resume", "kernels", "speed"], "failed")
sys.exit(states != {"device": "ok", **broken} or not r["commit"] or not all(p["why"] for p in r["parts"] if p["state"] == "failed") or r["torn_lines"])
END
finish
