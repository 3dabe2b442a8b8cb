#!/usr/bin/env bash
# trace.sh BUILD_DIR: the profiler's traces. They change no bit; they hold the steps that the schedule says, a file per rank and cycle;
# and by the order that they record, copies hide under compute as act_store.h and param_store.h promise: what leaves or comes back has one
# layer of compute beside it, and none where it is not to have a stream of its own. Behind the fence, and on the emulated device.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
head -12 "$rows" >"$scratch/few.jsonl"
layers=5
common=(seed=7 batch_size=1 optimizer.lr=2e-3 dtype=fp32 --data "$scratch/few.jsonl" epochs=1 --model "$(deeper llama2 $layers)" model.init=random -q)
profiler=(profiler.enabled=true profiler.wait_steps=0 profiler.warmup_steps=1 profiler.active_steps=1)

# on DEVICE RANKS OUTPUT RECIPE key=value …: three steps of 4 rows.
on() {
    local device=$1 n=$2 out=$3 program=$trimpot
    shift 3
    [ "$device" != fence ] || { program=$build/trimpot_fence device=cpu; }
    TRIMPOT_FENCE=any TRIMPOT_FENCE_SEED=3 TRIMPOT_EMU_SEED=3 TRIMPOT_EMU_ORDER=any ranks "$n" "$program" run "${common[@]}" \
        device="$device" --output "$out" gradient_accumulation_steps=$((4 / n)) "$@" >"$out.log" 2>&1 ||
        { fail "$device, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# shows FILE STREAM OP EXPECTED [GROUPS], or FILE steps FIRST LAST
shows() { python3 "$source/tests/fence/trace.py" "$@" || fail "$*"; }

# The schedule: of 12 steps of a row each, twice: 1 not traced, 1 thrown away, 2 written; with the same bits, on one process and on two.
schedule=(profiler.enabled=true profiler.wait_steps=1 profiler.warmup_steps=1 profiler.active_steps=2 profiler.num_cycles=2)
for n in 1 2; do
    on cpu $n "$scratch/plain" "${lora[@]}" gradient_accumulation_steps=1
    on cpu $n "$scratch/traced" "${lora[@]}" gradient_accumulation_steps=1 "${schedule[@]}" profiler.output_dir="$scratch/traces"
    same "traced on $n" "$scratch/plain" "$scratch/traced"
    files=$(cd "$scratch/traces" && find . -type f | sort | tr '\n' ' ')
    [ $n = 1 ] && equal "files" "./iteration_4/rank0_trace.json ./iteration_8/rank0_trace.json " "$files"
    [ $n = 2 ] && equal "files" "./iteration_4/rank0_trace.json ./iteration_4/rank1_trace.json " "$files"
    for f in "$scratch"/traces/iteration_4/*.json; do shows "$f" steps 3 4; done
    rm -rf "$scratch/traces" "$scratch/plain" "$scratch/traced"
done

where=iteration_2/rank0_trace.json
for device in fence emu; do
    [ $device = fence ] || [ -e "$build/trimpot_emu.so" ] || { say "SKIPPED: trimpot_emu.so was not built"; continue; }
    on $device 1 "$scratch/plain" "${qlora[@]}" enable_activation_offloading=true
    on $device 1 "$scratch/traced" "${qlora[@]}" enable_activation_offloading=true "${profiler[@]}" profiler.with_flops=true
    same "traced on $device" "$scratch/plain" "$scratch/traced"
    trace=$scratch/traced/profiling_outputs/$where
    shows "$trace" steps 2 2
    # 4 micro-batches; all layers but the ring's two leave. Of the layer that leaves, the next one is computed meanwhile; and of the one
    # that comes back, the one between.
    shows "$trace" "activations out" attn_fwd 1 $((4 * (layers - 2)))
    shows "$trace" "activations in" attn_bwd 1 $((4 * (layers - 2)))
    shows "$trace" decode gemm 1+
    shows "$trace" "copy in" gemm "1>" 4
    grep -q '"flops":' "$trace" || fail "no operations in $trace"
    grep -q 'host: queueing' "$trace" || fail "no host in $trace"
    rm -rf "$scratch/plain" "$scratch/traced"

    on $device 1 "$scratch/traced" "${lora[@]}" enable_activation_offloading=true activation_offloading_use_streams=false "${profiler[@]}" \
        enable_activation_checkpointing=true profiler.cpu=false
    trace=$scratch/traced/profiling_outputs/$where
    ! grep -qE '"args":\{"name":"(activations|host: queueing)' "$trace" || fail "threads that nobody asked for in $trace"
    rm -rf "$scratch/traced"
done

# States that are away come while another window is updated, and leave so. (One tensor is one update here or several, as windows cut it.)
paged=(optimizer=bitsandbytes.optim.PagedAdamW optimizer.min_paged_size=1 optimizer.paged_resident=0 optimizer.paged_window=8192)
on fence 1 "$scratch/traced" "${full[@]}" "${paged[@]}" "${profiler[@]}"
trace=$scratch/traced/profiling_outputs/$where
shows "$trace" "states in" update 1+
shows "$trace" "states out" update "1<"
rm -rf "$scratch/traced"

# A trace that cannot be written ends nothing.
touch "$scratch/file"
on cpu 1 "$scratch/traced" "${lora[@]}" "${profiler[@]}" profiler.output_dir="$scratch/file/traces"
grep -q 'warning: profiler: .*there will be no trace of this rank' "$scratch/traced.log" || fail "nothing is said of a trace that cannot be written"
[ -d "$scratch/traced/export" ] || [ -d "$scratch/traced/adapter" ] || fail "a trace that cannot be written ended the run"
rm -rf "$scratch/traced"

# What crosses ranks does so beside the backward: the gradients of the upper layers, while lower ones compute theirs.
on fence 2 "$scratch/traced" "${full[@]}" "${profiler[@]}" reduce_bucket=64KiB
trace=$scratch/traced/profiling_outputs/$where
shows "$trace" steps 2 2
python3 - "$trace" "$source/tests/fence" <<'END' || fail "communication beside the backward"
import sys
sys.path.insert(0, sys.argv[2])
from trace import Trace
t = Trace(sys.argv[1])
beside = [t.beside(g, "attn_bwd") for g in t.groups("communication")]
print("communication: beside its groups", beside, "attn_bwd;", sum(e["name"] == "sum over ranks" for e in t.rows) // 2, "sums over ranks")
sys.exit(not max(beside) >= 3)
END
finish
