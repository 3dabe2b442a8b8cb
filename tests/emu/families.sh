#!/usr/bin/env bash
# families.sh BUILD_DIR [FAMILY…]: every family, in full, with LoRA and with QLoRA, in fp32 and bf16, three steps on the emulated device:
# the CPU backend's losses within what their arithmetic differs, and the same bits on 1, 2 and 4 ranks.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun python3
. "$source/tests/truth/lib_runs.sh" # families
. "$source/tests/e2e/libe2e.sh"
. "$source/tests/emu/lib_bits.sh"
[ $# -lt 2 ] || families=("${@:2}")

# LoRA drops nothing: adapters lie beside weights and activations (joins_products, kernels/backend.h). QLoRA does.
ways=("full|${full[*]}" "LoRA|${lora[*]} model.lora_dropout=0" "QLoRA|${qlora[*]}")
items=4 also="2 4" late=2
for family in "${families[@]}"; do
    for way in "${ways[@]}"; do
        read -r -a run <<<"${way#*|}"
        for dtype in fp32 bf16; do
            each "$family, ${way%%|*}, $dtype" ${bound_of[$dtype]} "${run[@]}" "dtype=$dtype" max_steps_per_epoch=3 --model "$golden/$family/model"
        done
    done
done
finish
