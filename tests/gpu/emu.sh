#!/usr/bin/env bash
# emu.sh BUILD_DIR: tests/gpu/check runs its self-tests on the emulated device: its first day on a GPU is not its first day. And what
# fails there is told, without stopping what follows.
. "$(dirname "$0")/../lib.sh"
built trimpot test_ops trimpot_emu.so bench_gpu
need python3
check=$source/tests/gpu/check
tested=(ops attention train resume speed kernels graphs head products)
export CHECK_PEER=$scratch/peer

# Python that has what the peer needs, and its word for every model.
cat >"$CHECK_PEER" <<'SH'
#!/bin/sh
[ "$1" = -c ] || echo "1234.5 3 PEFT of straw"
SH
chmod +x "$CHECK_PEER"
"$check" --emu "$build" >"$scratch/log" 2>&1 </dev/null || fail "check --emu: $(tail -n 40 "$scratch/log")"
for part in device "${tested[@]}" peer; do grep -q "^== $part: ok" "$scratch/log" || fail "$part was not run"; done
grep -q '^== build: skipped' "$scratch/log" || fail "it builds where it should not"
[ "$(grep -c '^  .* ms ' "$build/gpu-check/emu.txt")" -ge 60 ] || fail "the table has too few kernels"
[ "$(grep -c '^  tiny  [0-9x]* [0-9a-f]* ' "$build/gpu-check/emu.txt")" -ge 10 ] || fail "the table has too few products"
grep -q '^  tiny LoRA T64 .* %$' "$build/gpu-check/emu.txt" || fail "the table has no run"

# ---- a machine with two GPUs, of straw: what only such a one goes through ----------------------------------------------------------
mkdir "$scratch/bin" "$scratch/there" "$scratch/results"
cat >"$scratch/bin/nvidia-smi" <<'SH'
#!/bin/sh
case "$*" in
*-L*) printf 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n' ;;
*=name*) echo 'NVIDIA H100 80GB HBM3' ;;
*=driver_version*) echo 580.65.06 ;;
*ecc*) echo 'Field "ecc.mode.current" is not a valid field to query.'; exit 2 ;;
*memory.used*) echo '123, 1980, 350.5' ;;
*) echo '[N/A]' ;;
esac
SH
cat >"$scratch/bin/compute-sanitizer" <<'SH'
#!/bin/sh
echo "========= COMPUTE-SANITIZER"
[ "$2 $TRIMPOT_TEST_OP" != "memcheck update" ] || sleep 60
[ "$2 $TRIMPOT_TEST_OP" = "racecheck loss" ] || exit 0
echo "========= Error: Race reported between Write access at loss_kernel+0x1f0"
echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
exit 9
SH
chmod +x "$scratch"/bin/*
cp "$build"/{trimpot,test_ops,bench_gpu,trimpot_emu*.so} "$scratch/there"
[ ! -e "$build/trimpot_mpi.so" ] || cp "$build/trimpot_mpi.so" "$scratch/there"
cp "$build/trimpot_emu.so" "$scratch/there/trimpot_cuda.so"
echo abc1234 >"$scratch/there/commit"
tar -C "$scratch/there" -cf "$scratch/there.tar" .
PATH=$scratch/bin:$PATH CHECK_TINY=1 CHECK_RESULTS=$scratch/results CHECK_SECONDS=300 "$check" --built "$scratch/there.tar" device build resume speed \
    peer sanitizer ranks >"$scratch/log" 2>&1 </dev/null && fail "a race, and nothing failed"
python3 - "$scratch"/results/*-NVIDIA-H100-80GB-HBM3.json "$([ -e "$scratch/there/trimpot_mpi.so" ] && command -v mpirun)" <<'END' ||
import json, sys
r = json.load(open(sys.argv[1]))
states = {p["part"]: p["state"] for p in r["parts"]}
print(states)
want = dict.fromkeys(["device", "resume", "speed", "peer"], "ok") | {"build": "skipped", "sanitizer": "failed",
                                                                      "ranks": "ok" if sys.argv[2] else "skipped"}
why = [p["why"] for p in r["parts"] if p["part"] == "sanitizer"][0]
runs = {x["run"]: x for x in r["results"] if "tokens_per_s" in x}
sanitized = [x for x in r["results"] if "racecheck" in x or "memcheck" in x]
sys.exit(states != want or "Race reported" not in why or r["commit"] != "abc1234" or r["gpus"] != 2 or r["ecc.mode.current"] != "unknown"
         or r["device"] != "NVIDIA H100 80GB HBM3" or not runs["tiny LoRA T64"]["predicted"] > 0 or len(sanitized) != 14
         or [x["op"] for x in sanitized if "unfinished" in x.values()] != ["update"])
END
    fail "the results do not tell: $(tail -n 30 "$scratch/log")"

# ---- without that device every part fails but the first, each with its cause, and the results say so --------------------------------
mkdir "$scratch/alone"
cp "$build"/{trimpot,test_ops,bench_gpu} "$scratch/alone"
"$check" --emu "$scratch/alone" device "${tested[@]}" >"$scratch/log" 2>&1 </dev/null && fail "no device, and nothing failed"
for part in "${tested[@]}"; do grep -q "^== $part: failed.*trimpot_emu.so" "$scratch/log" || fail "$part does not say what is missing"; done
python3 - "$scratch/alone/gpu-check/emu.json" "${tested[@]}" <<'END' || fail "the results do not tell"
import json, sys
r = json.load(open(sys.argv[1]))
states = {p["part"]: p["state"] for p in r["parts"]}
print(states)
broken = dict.fromkeys(sys.argv[2:], "failed")
told = [p["why"] for p in r["parts"] if p["state"] == "failed"] + [x["failed"] for x in r["results"] if "failed" in x]
sys.exit(states != {"device": "ok", **broken} or not r["commit"] or r["torn_lines"] or any(w.strip()[-1:] in ("", ":") for w in told))
END

# ---- nor is a driver that is not there a reason to say nothing -----------------------------------------------------------------------
if [ -e "$build/trimpot_cuda.so" ]; then
    cp "$build/trimpot_cuda.so" "$scratch/alone/"
    PATH=$scratch/bin:$PATH CUDA_VISIBLE_DEVICES= CHECK_TINY=1 CHECK_RESULTS=$scratch/results "$check" --built "$scratch/alone" \
        attention kernels products >"$scratch/log" 2>&1 </dev/null && fail "no driver, and nothing failed"
    for part in attention kernels products; do grep -qE "^== $part: failed.*(driver|GPU)" "$scratch/log" || fail "$part does not say what is missing"; done
fi
finish
