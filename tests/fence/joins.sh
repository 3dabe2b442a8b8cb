#!/usr/bin/env bash
# joins.sh BUILD_DIR: with adapters laid out beside weights and activations, as for a GPU (joins_products, kernels/backend.h), every
# family's curve is that without, within what another order of sums does; and ranks, recomputation, the order of the device, resuming
# and exporting change no bit of it. So with weights of bf16 and f32, and with NF4 ones, which are dequantised a layer ahead.
. "$(dirname "$0")/../lib.sh"
built trimpot_fence trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
golden=$source/tests/truth/golden
head -16 "$rows" >"$scratch/few.jsonl"
common=(device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1)
export TRIMPOT_FENCE=last
joined=(lora_finetune model.lora_dropout=0 'model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]' model.apply_lora_to_mlp=true)

# under JOINS RANKS OUTPUT RECIPE key=value …; JOINS: "joins" or "apart"
under()
{
    local joins=() n=$2 out=$3
    [ "$1" = joins ] && joins=(TRIMPOT_FENCE_JOINS=1)
    shift 3
    [ "${onward:-}" ] || rm -rf "$out"
    ranks "$n" env "${joins[@]}" "$build/trimpot_fence" run "$@" "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((${total:-8} / n)) ${onward:-} >"$out.log" 2>&1 || { fail "${joins[*]}, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# has ROOMS ROW RECIPE key=value …: so many of a row in the plan of a joined run.
has()
{
    local rooms=$1 row=$2 n
    shift 2
    n=$(TRIMPOT_FENCE_JOINS=1 "$build/trimpot_fence" plan "$@" "${common[@]}" 2>&1 | sed -nE "s/.*  $row, [a-z0-9]+ +× ([0-9]+) .*/\1/p")
    equal "$row: $*" "${n:-0}" "$rooms"
}

# Bounds: numerics.md 15.1, "accumulation …, otherwise" times a few steps, and "bf16 op".
nf4=model.quantize_base=true
for family in llama3 qwen2 qwen3 phi3 gemma2 gemma3; do
    for base in model.quantize_base=false $nf4; do
        for joins in apart joins; do under $joins 1 "$scratch/$joins" "${joined[@]}" dtype=fp32 --model "$golden/$family/model" $base; done
        near "$family $base" "$scratch/apart" "$scratch/joins" 1e-5
    done
done
room='weights with room for adapters' ahead='layer of dequantised weights'
has 14 "$room" "${joined[@]}" --model "$golden/llama3/model" # two layers
has 10 "$room" lora_finetune model.lora_dropout=0 'model.lora_attn_modules=[q_proj,v_proj]' --model "$golden/llama3/model"
has 0 "$room" "${joined[@]}" --model "$golden/llama3/model" $nf4
has 2 "$ahead and adapters" "${joined[@]}" --model "$golden/llama3/model" $nf4
has 2 "$ahead" "${joined[@]}" --model "$golden/llama3/model" $nf4 model.lora_dropout=0.1
has 0 "$room" "${joined[@]}" --model "$golden/llama3/model" model.lora_dropout=0.1

# within DTYPE NAME RECIPE key=value …: joined as apart, and everything that changes no bit.
within()
{
    local dtype=$1 name=$2
    shift 2
    for joins in apart joins; do under $joins 1 "$scratch/$joins" "$@"; done
    near "$name" "$scratch/apart" "$scratch/joins" $([ "$dtype" = fp32 ] && echo 1e-5 || echo 1e-2)
    TRIMPOT_FENCE=first under joins 2 "$scratch/other" "$@"
    same "$name, 2 ranks" "$scratch/joins" "$scratch/other"
    under joins 1 "$scratch/other" "$@" enable_activation_checkpointing=true
    same "$name, recomputed" "$scratch/joins" "$scratch/other"
    under joins 1 "$scratch/other" "$@" recompute=attention
    same "$name, what attention reads recomputed" "$scratch/joins" "$scratch/other"
    TRIMPOT_FENCE=any under joins 1 "$scratch/other" "$@" save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9
    same "$name, saved" "$scratch/joins" "$scratch/other"
    rm -rf "$scratch"/other/checkpoints/step-0000002 "$scratch"/other/export
    onward=resume_from_checkpoint=true under joins 1 "$scratch/other" "$@" save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9
    same "$name, resumed" "$scratch/joins" "$scratch/other"
    rm -rf "$scratch/other"
}
model=(--model "$golden/llama3/model")
deep=(--model "$(deeper llama3 5)" model.init=random) # more layers than buffers
for dtype in fp32 bf16; do
    within $dtype "$dtype" "${joined[@]}" "${model[@]}" dtype=$dtype
    within $dtype "NF4, $dtype" "${joined[@]}" "${deep[@]}" dtype=$dtype $nf4
done
within fp32 "NF4, with magnitudes" "${joined[@]}" "${deep[@]}" dtype=fp32 $nf4 model.use_dora=true

# A's that are no row, some modules only, weights that are drawn; a step within the backward.
for what in model.lora_rank=5 'model.lora_attn_modules=[q_proj,v_proj]' model.apply_lora_to_mlp=false model.init=random; do
    for joins in apart joins; do under $joins 1 "$scratch/$joins" "${joined[@]}" "${model[@]}" dtype=fp32 "$what"; done
    near "$what" "$scratch/apart" "$scratch/joins" 1e-5
done
# Validation between steps: forward passes one after the other.
val=(dataset_val_fraction=0.2 run_val_every_n_steps=1 $nf4)
for joins in apart joins; do under $joins 1 "$scratch/$joins" "${joined[@]}" "${deep[@]}" dtype=fp32 "${val[@]}"; done
same "NF4, validated" "$scratch/apart" "$scratch/joins"
# Evaluated, generated with and merged as the plain program does it: three layers, and no step in between.
three=(--model "$golden/gemma3/model")
under joins 1 "$scratch/run" "${joined[@]}" "${three[@]}" dtype=fp32 $nf4
for verb in "eval --data $scratch/few.jsonl" 'generate --max-new-tokens 12 --prompt Row'; do
    # shellcheck disable=SC2086
    "$trimpot" $verb "${three[@]}" --adapter "$scratch/run/adapter" device=cpu -q $nf4 >"$scratch/plain" 2>"$scratch/log" || fail "$verb: $(tail -n 2 "$scratch/log")"
    [ -s "$scratch/plain" ] || fail "$verb says nothing"
    for order in any last first; do
        # shellcheck disable=SC2086
        TRIMPOT_FENCE=$order TRIMPOT_FENCE_JOINS=1 "$build/trimpot_fence" $verb "${three[@]}" --adapter "$scratch/run/adapter" device=cpu -q $nf4 \
            >"$scratch/said" 2>"$scratch/log" || fail "$verb, $order: $(tail -n 2 "$scratch/log")"
        cmp "$scratch/plain" "$scratch/said" || fail "$verb, $order"
    done
done
"$trimpot" export "$scratch/run" --output "$scratch/merged.plain" -q || fail "export"
TRIMPOT_FENCE_JOINS=1 "$build/trimpot_fence" export "$scratch/run" --output "$scratch/merged.joins" -q || fail "export, joined"
cmp "$scratch"/merged.{plain,joins}/model.safetensors || fail "export"

common=("${common[@]/batch_size=1/batch_size=8}")
for base in model.quantize_base=false $nf4; do
    for joins in apart joins; do
        total=1 under $joins 1 "$scratch/$joins" "${joined[@]}" "${deep[@]}" dtype=fp32 optimizer_in_bwd=true $base
    done
    near "optimizer_in_bwd $base" "$scratch/apart" "$scratch/joins" 1e-5
done
finish
