#!/usr/bin/env bash
# fused.sh BUILD_DIR: adapters on some projections of a fused linear, as torchtune's Phi configurations ask for, are those of the same model
# with the projections apart: Phi-3 beside itself as a Mistral, from the same A, on one rank and two. What is
# exported is one adapter for PEFT, with zeros where nothing is adapted; it loads again, and means what was merged.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/truth/lib_runs.sh"
tool=$here/fused.py
phi3=$here/golden/phi3/model
python3 "$tool" unfuse "$phi3" "$scratch/mistral"
common=(device=cpu seed=1 dtype=fp32 shuffle=false batch_size=2 epochs=1 --data "$here/golden/phi3/rows.jsonl" -q optimizer.weight_decay=0.01
    optimizer.eps=1e-4 model.lora_rank=4 model.lora_alpha=8)

# on RANKS MODEL OUTPUT key=value …
on() {
    local n=$1 model=$2 out=$3
    shift 3
    ranks "$n" "$trimpot" run lora_finetune --model "$model" --output "$out" "${common[@]}" gradient_accumulation_steps=$((2 / n)) "$@" \
        >"$out.log" 2>&1 || { fail "$n ranks: $*"; tail -n 3 "$out.log"; }
}

# loss OPTION …: of the rows, to five digits.
loss() { "$trimpot" eval "$@" --data "$here/golden/phi3/rows.jsonl" device=cpu dtype=fp32 --json 2>/dev/null | sed -nE 's/.*"loss": *([0-9.]{7}).*/\1/p'; }

# both PARTS NAMES RANKS key=value …
both() {
    local parts=$1 names=$2 n=$3
    shift 3
    say "$parts, $n ranks, $*"
    on 1 "$phi3" "$scratch/start" "model.lora_attn_modules=$names" optimizer.lr=0 max_steps_per_epoch=1 "$@"
    python3 "$tool" split "$scratch/start/adapter" "$scratch/begin" "$parts" 3 1 16 || fail "what $parts starts from"
    on "$n" "$phi3" "$scratch/fused" "model.lora_attn_modules=$names" optimizer.lr=5e-3 epochs=5 "$@"
    on 1 "$scratch/mistral" "$scratch/apart" "model.lora_attn_modules=$names" optimizer.lr=5e-3 epochs=5 "$@" \
        checkpointer.adapter_checkpoint="$scratch/begin"
    python3 "$tool" split "$scratch/fused/adapter" "$scratch/end" "$parts" 3 1 16 || fail "what $parts ends with"
    python3 "$tool" same "$scratch/end" "$scratch/apart/adapter" "${fp32[1]}" || fail "$parts: fused and apart differ"
    equal "$parts: loss of the adapter and of what was merged" "$(loss --model "$phi3" --adapter "$scratch/fused/adapter")" \
        "$(loss --model "$scratch/fused/export")"
    rm -rf "$scratch"/{start,begin,fused,apart,end}
}

both qv '[q_proj,v_proj,output_proj]' 1 model.apply_lora_to_mlp=false
both qv '[q_proj,v_proj]' 2 model.apply_lora_to_mlp=false
both k '[k_proj]' 1 model.apply_lora_to_mlp=false enable_activation_checkpointing=true
both qk '[q_proj,k_proj]' 1 model.apply_lora_to_mlp=false optimizer_in_bwd=true gradient_accumulation_steps=1

# The zeros must stay: what would move them is refused.
for key in use_rslora=true use_dora=true init_lora_weights=pissa 'rank_pattern={qkv_proj: 2}'; do
    expect 2 "on a part of it only plain adapters are built" "$trimpot" run lora_finetune --model "$phi3" --output "$scratch/none" \
        "${common[@]}" model.lora_attn_modules='[q_proj]' "model.$key"
done

# The emulated device adds into parts of a matrix as the CPU does.
if [ -e "$build/trimpot_emu.so" ]; then
    few=(model.lora_attn_modules='[q_proj,v_proj]' optimizer.lr=5e-3 model.apply_lora_to_mlp=false)
    on 1 "$phi3" "$scratch/cpu" "${few[@]}"
    on 1 "$phi3" "$scratch/emu" "${few[@]}" device=emu
    python3 "$tool" same "$scratch/emu/adapter" "$scratch/cpu/adapter" "${fp32[1]}" || fail "emu and cpu differ"
else
    say "SKIPPED: trimpot_emu.so was not built"
fi
finish
