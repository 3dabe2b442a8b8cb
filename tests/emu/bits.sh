#!/usr/bin/env bash
# bits.sh BUILD_DIR: whole runs on the emulated device (its kernels are the GPU's own text): the same bits with any seed of its
# orders and on 1, 2 and 4 ranks; losses of the CPU backend within what their arithmetic differs; what one device saves, the other
# resumes.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
golden=$source/tests/truth/golden
head -16 "$rows" >"$scratch/few.jsonl"
common=(seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1)

# on DEVICE SEED RANKS OUTPUT RECIPE key=value …: $items, or 8, of a step
on()
{
    local device=$1 seed=$2 n=$3 out=$4
    shift 4
    TRIMPOT_EMU_SEED=$seed ranks "$n" "$trimpot" run "$@" "device=$device" "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((${items:-8} / n)) >"$out.log" 2>&1 || { fail "$device, seed $seed, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# each NAME BOUND RECIPE key=value …
each()
{
    local name=$1 bound=$2 seed n
    shift 2
    on cpu 0 1 "$scratch/cpu" "$@"
    on emu 1 1 "$scratch/first" "$@"
    near "$name" "$scratch/cpu" "$scratch/first" "$bound"
    for n in ${also:-1 2 4}; do
        seed=$((n + 1))
        on emu $seed "$n" "$scratch/other" "$@"
        same "$name: seed $seed, $n ranks" "$scratch/first" "$scratch/other"
        rm -rf "$scratch/other"
    done
    rm -rf "$scratch"/{cpu,first}
}

# Relative bounds on losses: numerics.md 15.1, "whole tiny model" and "bf16 op".
tied=(--model "$golden/llama3/model")
untied=(--model "$golden/llama2/model")
for dtype in fp32 bf16; do
    bound=1e-5
    [ $dtype = fp32 ] || bound=1e-2
    each "full $dtype" $bound "${full[@]}" dtype=$dtype "${untied[@]}"
    each "LoRA $dtype" $bound "${lora[@]}" dtype=$dtype "${tied[@]}"
    each "NF4 $dtype" $bound "${qlora[@]}" dtype=$dtype "${untied[@]}"
    # Nothing is dropped: adapters lie beside weights and activations (joins_products, kernels/backend.h).
    also="1 2" each "LoRA, joined, $dtype" $bound "${lora[@]}" dtype=$dtype "${tied[@]}" model.lora_dropout=0
done
also=1 each "full, masters, checkpointed" 1e-2 "${full[@]}" dtype=bf16 master_weights=fp32 "${untied[@]}" enable_activation_checkpointing=true
items=1 also=1 each "optimizer_in_bwd" 1e-5 "${full[@]}" dtype=fp32 "${untied[@]}" optimizer_in_bwd=true
also=1 each "random init, clipped" 1e-5 "${full[@]}" dtype=fp32 "${tied[@]}" model.init=random clip_grad_norm=0.5

# ---- saved here, resumed there ------------------------------------------------------------------------------------------------
resume=("${lora[@]}" dtype=fp32 "${untied[@]}" save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
on emu 1 1 "$scratch/whole" "${resume[@]}"
on emu 5 2 "$scratch/half" "${resume[@]}"
rm -rf "$scratch"/half/checkpoints/step-0000002 "$scratch"/half/export
cp -r "$scratch/half" "$scratch/again"
on emu 6 1 "$scratch/again" "${resume[@]}" resume_from_checkpoint=true
same "saved by 2 ranks, resumed by 1" "$scratch/whole" "$scratch/again"
on cpu 0 1 "$scratch/half" "${resume[@]}" resume_from_checkpoint=true
near "saved on emu, resumed on the CPU" "$scratch/whole" "$scratch/half" 1e-5
on cpu 0 1 "$scratch/back" "${resume[@]}"
rm -rf "$scratch"/back/checkpoints/step-0000002 "$scratch"/back/export
on emu 7 1 "$scratch/back" "${resume[@]}" resume_from_checkpoint=true
near "saved on the CPU, resumed on emu" "$scratch/whole" "$scratch/back" 1e-5
finish
