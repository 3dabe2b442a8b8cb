#!/bin/bash
# shared_machine.sh BUILD_DIRECTORY [STEPS] [BINARY…]: what a training step of the quickstart costs when a core is lost to
# somebody else, and as two ranks of two threads on two cores. Prints median and quartile of the step, and the ratio to the
# quiet machine's. The bar: 2.5 where one of two cores is busy; 2 ranks do twice the work of one and are held to it by rows
# per second. BINARY: others to compare with, in alternating runs. Needs two cores that are otherwise idle to mean anything.
. "$(dirname "$0")/../lib.sh"
need taskset mpirun python3
built trimpot trimpot_mpi.so
steps=${2:-60}
binaries=("$trimpot" "${@:3}")
home=$source/configs/quickstart
unset OMPI_MCA_mpi_yield_when_idle # the program's own choice is what is measured
cpus=$(taskset -pc $$ | sed 's/.*: //' | python3 -c '
import sys
cpus = [c for part in input().split(",") for c in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)]
print(*cpus[:2], sep=",")')
[[ $cpus == *,* ]] || skip "one core"
rounds=2

# one WHAT BINARY RANKS: a run on the two cores; its steps' milliseconds, after the first five, join $scratch/WHAT.BINARY.
one() {
    rm -rf "$scratch/out"
    OMP_NUM_THREADS=2 ranks "$3" taskset -c "$cpus" "$2" run lora_finetune --config "$home/lora.yaml" --model "$home/base" \
        --data "$home/train.jsonl" --output "$scratch/out" epochs=1 max_steps_per_epoch="$steps" >"$scratch/log" 2>&1 ||
        { tail -5 "$scratch/log"; die "$1: the run failed"; }
    sed -nE 's/.*"step_ms": *([0-9.]+).*/\1/p' "$scratch/out/metrics.jsonl" | tail -n +6 >>"$scratch/$1.$(basename "$(dirname "$2")")"
}

load=
stop_load() { [ -z "$load" ] || kill "$load" 2>/dev/null || true; load=; }
trap 'stop_load; rm -rf "$scratch"' EXIT
for _ in $(seq "$rounds"); do
    for b in "${binaries[@]}"; do
        one quiet "$b" 1
        one ranks "$b" 2
        taskset -c "${cpus#*,}" sh -c 'while :; do :; done' &
        load=$!
        one busy "$b" 1
        stop_load
    done
done
python3 - "$scratch" "${binaries[@]}" <<'END'
import os, statistics, sys
folder = sys.argv[1]
for binary in sys.argv[2:]:
    name = os.path.basename(os.path.dirname(binary))
    ms = {w: sorted(float(x) for x in open(f"{folder}/{w}.{name}")) for w in ("quiet", "busy", "ranks")}
    mid = {w: statistics.median(v) for w, v in ms.items()}
    print(f"{binary}: step of the quickstart, 2 threads, ms (median; a quarter is below)")
    for what, text, per in (("quiet", "quiet", 1), ("busy", "one of two cores busy", 1), ("ranks", "2 ranks x 2 threads", 2)):
        print(f"  {text:24}{mid[what]:9.1f} {ms[what][len(ms[what]) // 4]:9.1f}   {mid[what] / mid['quiet'] / per:6.2f} x the quiet one's per row")
END
finish
