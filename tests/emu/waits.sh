#!/usr/bin/env bash
# waits.sh BUILD_DIR [LABEL…]: no event wait is there for nothing, and the emulated device sees each that is missing (as ../fence/waits.sh
# shows of a device without kernels of its own). One after the other is left out, by its label; then some way to train, in some order,
# gives other numbers or no run at all.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so
. "$source/tests/e2e/libe2e.sh"
head -16 "$rows" >"$scratch/few.jsonl"

# What waits may belong to: ranks, micro-batches of a step and what to train, then what the device does of its own accord.
llama2=(--model "$source/tests/truth/golden/llama2/model")
deep=(--model "$(deeper llama2 3)" model.init=random) # more layers than are dequantised ahead, and than the ring of activations has places
ways=("LoRA, offloaded|1 4 ${lora[*]} dtype=fp32 enable_activation_offloading=true ${deep[*]}")
ways+=("full, paged|1 4 ${full[*]} dtype=fp32 optimizer=bitsandbytes.optim.PagedAdamW optimizer.paged_resident=0 optimizer.min_paged_size=1 \
optimizer.paged_window=8192 ${llama2[*]}")
ways+=("full, on the host|1 1 ${full[*]} dtype=fp32 optimizer=torchao.optim.CPUOffloadOptimizer optimizer.host_window=4096 optimizer_in_bwd=true \
max_steps_per_epoch=3 ${llama2[*]}")
if [ -e "$build/trimpot_mpi.so" ] && [ -e "$build/trimpot_emu_nccl.so" ] && command -v mpirun >/dev/null; then
    ways+=("full, 2 ranks|2 4 ${full[*]} dtype=fp32 reduce_bucket=32KiB ${llama2[*]}")
fi
ways+=("QLoRA|1 4 ${qlora[*]} model.lora_dropout=0 dtype=bf16 ${deep[*]}")
orders=("last 1" "first 1" "any 1" "any 2" "any 3")

# run WAY ORDER SEED OUTPUT [LABEL]
run()
{
    local n micros all
    read -r n micros all <<<"${ways[$1]#*|}"
    read -r -a all <<<"$all"
    rm -rf "$4"
    TRIMPOT_EMU_ORDER=$2 TRIMPOT_EMU_SEED=$3 TRIMPOT_EMU_WITHOUT=${5:-} ranks "$n" timeout 60 "$trimpot" run "${all[@]}" device=emu seed=7 \
        batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1 \
        gradient_accumulation_steps=$((micros / n)) --output "$4" >"$4.log" 2>&1 </dev/null
}
# sound WAY ORDER SEED [LABEL]: what that way gives in the first order, with every wait
sound() { run "$1" "$2" "$3" "$scratch/other" "${4:-}" 2>/dev/null && equal_runs "$scratch/whole.$1" "$scratch/other"; }
# What came of the last one that was not: the emulation's words or the program's, how it died, or other numbers.
seen() { grep -aE -m 1 '^(emu|error): ' "$scratch/other.log" || tail -n 1 "$scratch/other.log" | grep . || echo "other numbers"; }
equal_runs() { cmp -s <(curve "$1") <(curve "$2") && cmp -s "$1/export/model.safetensors" "$2/export/model.safetensors"; }

for way in "${!ways[@]}"; do
    run "$way" any 1 "$scratch/whole.$way" || die "with all waits: ${ways[$way]%%|*}: $(tail -n 3 "$scratch/whole.$way.log")"
done
mapfile -t labels < <(printf '%s\n' "${@:2}")
[ $# -gt 1 ] || mapfile -t labels < <(wait_labels)
[ $# -gt 1 ] || [ ${#labels[@]} -ge 24 ] || die "only ${#labels[@]} waits found"
before=0 # the way in which the last one was missed: neighbours in the alphabet belong together
for label in "${labels[@]}"; do
    missed=
    for how in "${orders[@]}"; do
        for way in $before $(printf '%s\n' "${!ways[@]}" | grep -vx $before); do
            # shellcheck disable=SC2086
            sound "$way" $how "$label" || { missed="order $how, ${ways[$way]%%|*}" before=$way; break 2; }
        done
    done
    if [ -n "$missed" ]; then say "without '$label' ($missed): $(seen)"; else fail "nobody misses the wait '$label'"; fi
done
for how in "${orders[@]:0:2}"; do
    for way in "${!ways[@]}"; do
        # shellcheck disable=SC2086
        sound "$way" $how || fail "with all waits: order $how, ${ways[$way]%%|*}"
    done
done
finish
