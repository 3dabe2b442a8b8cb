#!/usr/bin/env bash
# ladder.sh BUILD_DIR [FAMILY…]: what of a block is computed again, and how many tokens its MLP takes at a time, for every family, in full,
# with LoRA and with QLoRA by turns: no rung changes a bit, on the CPU, behind the fence and on the emulated device, and tiles are the
# same bits on every rung, in any order of the device and on any number of ranks.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_emu.so trimpot_mpi.so
need mpirun python3
. "$source/tests/truth/lib_runs.sh" # families
. "$source/tests/e2e/libe2e.sh"
. "$source/tests/emu/lib_bits.sh"
[ $# -lt 2 ] || families=("${@:2}")
items=2

# fenced ORDER RANKS OUTPUT RECIPE key=value …
fenced()
{
    local order=$1 n=$2 out=$3
    shift 3
    TRIMPOT_FENCE=$order TRIMPOT_FENCE_SEED=3 ranks "$n" "$build/trimpot_fence" run "$@" device=cpu "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((items / n)) >"$out.log" 2>&1 || { fail "fence, $order, $n ranks: $*"; tail -n 3 "$out.log"; }
}

fresh() { rm -rf "$scratch/other"; }

# The way to train, and its dtype, by turns.
ways=("full dtype=fp32" "lora dtype=bf16 model.lora_dropout=0" "qlora dtype=fp32" "lora dtype=fp32" "full dtype=bf16" "qlora dtype=bf16 model.lora_dropout=0")
turn=0
for family in "${families[@]}"; do
    read -r kind rest <<<"${ways[turn++ % ${#ways[@]}]}"
    declare -n how=$kind
    # shellcheck disable=SC2206
    run=("${how[@]}" $rest max_steps_per_epoch=2 --model "$golden/$family/model")
    for tiles in mlp_tile_tokens=16 ""; do
        [ "$tiles" ] || [ $turn -le 2 ] || continue # tests/model/test_techniques.c has them all
        # shellcheck disable=SC2206
        run+=($tiles)
        rm -rf "$scratch"/{cpu,first}
        on cpu 0 1 "$scratch/cpu" "${run[@]}"
        fresh; on cpu 0 1 "$scratch/other" "${run[@]}" recompute=attention
        same "$family, $kind $tiles, CPU" "$scratch/cpu" "$scratch/other"
        fresh; fenced last 2 "$scratch/other" "${run[@]}" recompute=ffn
        same "$family, $kind $tiles, fence" "$scratch/cpu" "$scratch/other"
        on emu 1 1 "$scratch/first" "${run[@]}" recompute=block
        near "$family, $kind $tiles" "$scratch/cpu" "$scratch/first" "${bound_of[$([[ $rest == *bf16* ]] && echo bf16 || echo fp32)]}"
        fresh; on emu 2 2 "$scratch/other" "${run[@]}" recompute=ffn
        same "$family, $kind $tiles, emulated, ffn" "$scratch/first" "$scratch/other"
        fresh; on emu 3 1 "$scratch/other" "${run[@]}" recompute=attention
        same "$family, $kind $tiles, emulated, attention" "$scratch/first" "$scratch/other"
    done
done
finish
