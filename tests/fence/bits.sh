#!/usr/bin/env bash
# bits.sh BUILD_DIR: over a device whose memory the host cannot touch and whose work is queued (tests/ref/fence.h), every way to
# train, on 1, 2 and 4 ranks, whose gradients cross in small buckets behind the last backward, in three orders, gives the curves and
# exports of the plain backend; and so do resuming at another number of ranks, evaluation and generation.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
golden=$source/tests/truth/golden
head -21 "$rows" >"$scratch/few.jsonl" # the last step's last micro-batches are empty
common=(device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1)

# under ORDER SEED RANKS OUTPUT RECIPE key=value …: behind the fence; ORDER plain: not.
under()
{
    local order=$1 seed=$2 n=$3 out=$4 program=$build/trimpot_fence
    shift 4
    [ "$order" = plain ] && program=$trimpot
    TRIMPOT_FENCE=$order TRIMPOT_FENCE_SEED=$seed ranks "$n" "$program" run "$@" "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((8 / n)) reduce_bucket=$((16 * n))KiB >"$out.log" 2>&1 || { fail "$order, $n ranks: $*"; tail -3 "$out.log"; }
}

# each NAME RECIPE key=value …
each()
{
    local name=$1
    shift
    under plain 0 1 "$scratch/plain" "$@"
    while read -r order seed n; do
        under "$order" "$seed" "$n" "$scratch/fence" "$@"
        same "$name: $order, seed $seed, $n ranks" "$scratch/plain" "$scratch/fence"
        rm -rf "$scratch/fence"
    done <<<"${orders:-$all_orders}"
    rm -rf "$scratch/plain"
    say "$name"
}
all_orders='any 1 1
last 2 2
first 3 4'

tied=(--model "$golden/llama3/model")
untied=(--model "$golden/llama2/model")
for dtype in fp32 bf16; do
    each "full $dtype" "${full[@]}" dtype=$dtype "${untied[@]}"
    each "LoRA $dtype" "${lora[@]}" dtype=$dtype "${tied[@]}"
    each "NF4 $dtype" "${qlora[@]}" dtype=$dtype "${untied[@]}"
done
# At once: whoever touches tensor memory dies where he does it. Slow, since the gate closes behind every op.
orders='now 0 1' each "LoRA, at once" "${lora[@]}" dtype=fp32 "${tied[@]}" max_steps_per_epoch=1
each "full, tied" "${full[@]}" dtype=fp32 "${tied[@]}"
each "full, masters, checkpointed" "${full[@]}" dtype=bf16 master_weights=fp32 "${untied[@]}" enable_activation_checkpointing=true
eight=(optimizer=bitsandbytes.optim.AdamW8bit optimizer.min_8bit_size=300)
each "full, 8-bit states" "${full[@]}" dtype=bf16 "${untied[@]}" "${eight[@]}"
each "LoRA, 8-bit states" "${lora[@]}" dtype=fp32 "${tied[@]}" "${eight[@]}"
each "every second layer checkpointed" "${lora[@]}" dtype=fp32 "${untied[@]}" ac_mode=selective ac_option=2
# Nothing is dropped: the A's of q, k, v and of gate, up in one product each.
for dtype in fp32 bf16; do
    orders='any 6 1
last 7 2' each "LoRA in rows, $dtype" "${lora[@]}" dtype=$dtype "${tied[@]}" model.lora_dropout=0
done
# Magnitudes: dropped, and not; over NF4; on the head.
orders='any 8 1
last 9 2' each "DoRA" "${lora[@]}" dtype=fp32 "${untied[@]}" model.use_dora=true model.apply_lora_to_output=true
orders='first 8 4' each "QDoRA" "${qlora[@]}" dtype=bf16 "${untied[@]}" model.use_dora=true model.lora_dropout=0
each "random init, clipped" "${full[@]}" dtype=fp32 "${untied[@]}" model.init=random clip_grad_norm=0.5
orders='any 4 1
last 5 1' each "random init, NF4" "${qlora[@]}" dtype=bf16 "${untied[@]}" model.init=random
# Each micro-batch is a step: on so many ranks it is another run.
in_bwd=(optimizer_in_bwd=true batch_size=2)
for n in 1 2; do
    for order in plain any last first; do
        TRIMPOT_FENCE=$order TRIMPOT_FENCE_SEED=6 ranks $n "$([ $order = plain ] && echo "$trimpot" || echo "$build/trimpot_fence")" run "${full[@]}" \
            "${common[@]}" dtype=fp32 "${untied[@]}" "${in_bwd[@]}" --output "$scratch/$order" >"$scratch/$order.log" 2>&1 ||
            { fail "optimizer_in_bwd, $order, $n ranks"; tail -3 "$scratch/$order.log"; }
        [ $order = plain ] || same "optimizer_in_bwd, $order, $n ranks" "$scratch/plain" "$scratch/$order"
    done
    rm -rf "$scratch"/{plain,any,last,first}
done
say "optimizer_in_bwd"

# On hosts that share no memory gradients go by messages. Two of them are but names here.
if unshare --uts true 2>/dev/null; then
    host=(unshare --uts sh -c 'hostname "$0" && exec "$@"')
    again=("${full[@]}" dtype=fp32 "${untied[@]}" "${common[@]}" gradient_accumulation_steps=4 reduce_bucket=64KiB --output "$scratch/fence")
    under plain 0 1 "$scratch/plain" "${full[@]}" dtype=fp32 "${untied[@]}"
    for order in any last first; do
        TRIMPOT_FENCE=$order TRIMPOT_FENCE_SEED=5 mpirun -n 1 "${host[@]}" a "$build/trimpot_fence" run "${again[@]}" : \
            -n 1 "${host[@]}" b "$build/trimpot_fence" run "${again[@]}" >"$scratch/log" 2>&1 </dev/null || fail "messages: $(tail -3 "$scratch/log")"
        same "messages, $order" "$scratch/plain" "$scratch/fence"
        rm -rf "$scratch/fence"
    done
    rm -rf "$scratch/plain"
    say "messages"
else
    say "no messages: who may not name hosts has one"
fi

# ---- resume, evaluation, generation ---------------------------------------------------------------------------------------------
resume=("${lora[@]}" dtype=fp32 "${untied[@]}" save_every_n_steps=2 checkpointer.keep_last_n_checkpoints=9)
under plain 0 1 "$scratch/whole" "${resume[@]}"
under any 7 4 "$scratch/half" "${resume[@]}"
rm -rf "$scratch"/half/checkpoints/step-0000003 "$scratch"/half/export
for n in 1 2; do
    cp -r "$scratch/half" "$scratch/again"
    under last 8 $n "$scratch/again" "${resume[@]}" resume_from_checkpoint=true
    same "saved by 4 ranks, resumed by $n" "$scratch/whole" "$scratch/again"
    rm -rf "$scratch/again"
done
say "resume"

# said COMMAND…: what it prints, of the plain program and behind the fence.
said()
{
    local order
    "$trimpot" "$@" </dev/null >"$scratch/said.plain" 2>"$scratch/said.log" || { fail "plain: $*"; tail -3 "$scratch/said.log"; }
    for order in any last first; do
        TRIMPOT_FENCE=$order TRIMPOT_FENCE_SEED=9 "$build/trimpot_fence" "$@" </dev/null >"$scratch/said.$order" 2>"$scratch/said.log" ||
            { fail "$order: $*"; tail -3 "$scratch/said.log"; }
        cmp "$scratch/said.plain" "$scratch/said.$order" || fail "$order: $*"
    done
}
said eval "${untied[@]}" --data "$scratch/few.jsonl" device=cpu -q
said generate "${untied[@]}" --prompt "Row 3: the" --max-new-tokens 12 device=cpu -q
said generate "${untied[@]}" --adapter "$scratch/whole/adapter" --prompt "Row 3: the" --max-new-tokens 12 device=cpu -q
"$trimpot" export "$scratch/whole" --output "$scratch/exported.plain" -q || fail "export"
TRIMPOT_FENCE=last "$build/trimpot_fence" export "$scratch/whole" --output "$scratch/exported.fence" -q || fail "export behind the fence"
cmp "$scratch/exported.plain/model.safetensors" "$scratch/exported.fence/model.safetensors" || fail "export"
finish
