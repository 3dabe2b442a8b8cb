#!/usr/bin/env bash
# bits.sh BUILD_DIR: whole runs on the emulated device (its kernels are the GPU's own text): the same bits with any seed of its
# orders and on 1, 2 and 4 ranks, whatever else is asked for; losses of the CPU backend within what their arithmetic differs; what one
# device saves, the other resumes.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
. "$source/tests/emu/lib_bits.sh"

tied=(--model "$golden/llama3/model")
untied=(--model "$golden/llama2/model")
# (The rest of what a model trains with is families.sh.)
for dtype in fp32 bf16; do each "LoRA, dropped, $dtype" ${bound_of[$dtype]} "${lora[@]}" dtype=$dtype "${tied[@]}"; done
# A product that adds in another order may move a state to the next code.
eight=(optimizer=bitsandbytes.optim.AdamW8bit optimizer.min_8bit_size=300)
each "full, 8-bit states" 1e-5 "${full[@]}" dtype=fp32 "${untied[@]}" "${eight[@]}"
also=2 each "LoRA, 8-bit states" 1e-2 "${lora[@]}" dtype=bf16 "${tied[@]}" "${eight[@]}"
also=1 each "full, masters, checkpointed" 1e-2 "${full[@]}" dtype=bf16 master_weights=fp32 "${untied[@]}" enable_activation_checkpointing=true
items=1 also=1 each "optimizer_in_bwd" 1e-5 "${full[@]}" dtype=fp32 "${untied[@]}" optimizer_in_bwd=true
also=1 each "random init, clipped" 1e-5 "${full[@]}" dtype=fp32 "${tied[@]}" model.init=random clip_grad_norm=0.5
# QLoRA, joined, of more layers than are dequantised ahead.
deep=(--model "$(deeper llama3 3)" model.init=random model.lora_dropout=0)
for dtype in fp32 bf16; do also="2 4" each "NF4 ahead, $dtype" ${bound_of[$dtype]} "${qlora[@]}" dtype=$dtype "${deep[@]}"; done
also=1 each "NF4 in turn" 1e-5 "${qlora[@]}" dtype=fp32 "${untied[@]}" dequantize_ahead=false mlp_tile_tokens=16
items=1 also=1 each "NF4 ahead, checkpointed, optimizer_in_bwd" 1e-5 "${qlora[@]}" dtype=fp32 "${deep[@]}" enable_activation_checkpointing=true \
    optimizer_in_bwd=true
# Magnitudes: dropped; joined, over more layers than are dequantised ahead.
dora=model.use_dora=true
also=2 each "DoRA, dropped" 1e-5 "${lora[@]}" dtype=fp32 "${tied[@]}" $dora
also="2 4" each "QDoRA ahead" 1e-2 "${qlora[@]}" dtype=bf16 "${deep[@]}" $dora
items=1 also=1 each "QDoRA ahead, checkpointed, optimizer_in_bwd" 1e-5 "${qlora[@]}" dtype=fp32 "${deep[@]}" $dora \
    enable_activation_checkpointing=true optimizer_in_bwd=true

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
