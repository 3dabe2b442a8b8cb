#!/usr/bin/env bash
# nf4.sh BUILD_DIR: directories that bitsandbytes has quantised (golden/nf4, make_nf4.py), trained as they are on the CPU and on the
# emulated device, beside float64 of the dequantised weights and PEFT's own losses; what adapters are merged into; what is refused.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib_runs.sh"
built trimpot trimpot_fence
need python3
gold=$here/golden
read -r -d '' -a lora <<<"${keys[lora_adamw]}" || true

# quantised NAME FAMILY OUTPUT key=value …: ten steps, or what it says; its messages in $scratch/log
quantised()
{
    local name=$1 family=$2 out=$3
    shift 3
    rm -rf "$out"
    ranks "${n:-1}" "$trimpot" run lora_finetune --model "$gold/nf4/$name/model" --data "$gold/$family/rows.jsonl" --output "$out" \
        tokenizer.path="$gold/$family/model" checkpointer.adapter_checkpoint="$gold/$family/adapter" device=cpu shuffle=false seed=1 \
        epochs=10 "${whole[@]}" "${lora[@]}" "$@" >"$scratch/log" 2>&1 </dev/null && return
    fail "$name: $*"
    tail -n 5 "$scratch/log" | sed 's/^/    | /'
}
# golden NAME RUN OUTPUT BOUNDS…
compare() { python3 "$here/compare.py" run "$gold/nf4/$1/golden.json" "$2" "$3" "$4" "$5" || fail "$1 $2"; }
said() { grep -qF -- "$1" "$scratch/log" || { fail "not said: $1"; tail -n 5 "$scratch/log"; }; }
differ() { sed -nE 's/.*differ by at most ([^ ]+) from.*/\1/p' "$scratch/log"; } # the probe's figure
below() { awk -v a="$(differ)" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 <= b) }' || fail "$1: the probe says '$(differ)', expected ≤ $2"; }

devices=cpu
[ ! -e "$build/trimpot_emu.so" ] || devices="cpu emu"
for on in $devices; do
    say "$on: double quantisation, merged into the original"
    quantised double llama3 "$scratch/$on-double" device=$on dtype=fp32 merge_base="$gold/llama3/model"
    compare double original "$scratch/$on-double" "${fp32[@]}"
    said "NF4 as the directory has it, with double quantisation: 14 linears, and 0 of the blocks as they were"
    said "the base's rounding to 4 bits is part of that"
    say "$on: f32 scales, several files, linears left as they were, merged into the dequantised base"
    quantised single qwen2 "$scratch/$on-single" device=$on dtype=fp32 merge_base=dequantized
    compare single dequantized "$scratch/$on-single" "${fp32[@]}"
    said "NF4 as the directory has it: 9 linears, and 5 of the blocks as they were"
    below "$on, dequantised" 1e-5 # of logits up to 2.7: numerics.md §15, 1e-5 of their norm
done
! grep -q quantization_config "$scratch/cpu-single/export/config.json" || fail "the export's config.json still says that it is quantised"
python3 -m json.tool "$scratch/cpu-single/export/config.json" >/dev/null || fail "the export's config.json is no JSON"

say "with magnitudes, a layer ahead and in turn"
for on in $devices; do
    for ahead in true false; do
        ${trimpot} run lora_finetune --model "$gold/nf4/single/model" --data "$gold/qwen2/rows.jsonl" --output "$scratch/dora-$on-$ahead" \
            tokenizer.path="$gold/qwen2/model" device=$on dtype=fp32 seed=1 epochs=4 optimizer.lr=5e-3 "${whole[@]}" model.use_dora=true \
            merge_base=dequantized dequantize_ahead=$ahead >"$scratch/log" 2>&1 || { fail "DoRA on $on"; tail -3 "$scratch/log"; }
        below "DoRA on $on, ahead $ahead" 1e-5
    done
done

say "PEFT's losses on the directories"
python3 - "$gold"/nf4/*/golden.json <<'P' || fail "PEFT and float64"
import json, sys
for path in sys.argv[1:]:
    (run,) = json.load(open(path))["runs"].values()
    worst = max(abs(a - b) / b for a, b in zip(run["loss_peft"], run["loss"]))
    print(f"    {path.split('/')[-2]}: float64 and PEFT in float32 {worst:.1e}")
    assert len(run["loss_peft"]) == 10 and worst < 1e-6
P

say "bf16"
quantised double llama3 "$scratch/bf16" dtype=bf16 merge_base="$gold/llama3/model"
compare double original "$scratch/bf16" "${bf16_lora[@]}"
said "computed in bf16, as dtype says, where bnb_4bit_compute_dtype is f32"

say "the same bits: quantize_base, which asks for what is, accumulation, paged states, resume, two ranks"
same() { cmp -s "$scratch/$2/adapter/adapter_model.safetensors" "$scratch/$3/adapter/adapter_model.safetensors" || fail "$1: other bits"; }
quantised double llama3 "$scratch/base" dtype=fp32 batch_size=4 gradient_accumulation_steps=2 save_every_n_steps=4
said "merge    none: the base is quantised"
[ ! -e "$scratch/base/export" ] || fail "an export, though nothing says what to merge into"
quantised double llama3 "$scratch/asked" dtype=fp32 batch_size=4 gradient_accumulation_steps=2 model.quantize_base=true \
    enable_activation_checkpointing=true
same "quantize_base" base asked
trimpot=$build/trimpot_fence quantised double llama3 "$scratch/paged" dtype=fp32 batch_size=4 gradient_accumulation_steps=2 \
    optimizer=bitsandbytes.optim.PagedAdamW optimizer.paged_resident=0 optimizer.paged_window=4096 optimizer.min_paged_size=300
said "of optimizer states per rank wait in pinned memory"
same "paged states, on a device" base paged
cp -r "$scratch/base" "$scratch/half"
rm -rf "$scratch"/half/{adapter,checkpoints/step-0000008,checkpoints/step-0000010}
"$trimpot" run lora_finetune --config "$scratch/half/config.resolved.yaml" --output "$scratch/half" resume_from_checkpoint=true >"$scratch/log" 2>&1 ||
    { fail "resume"; tail -3 "$scratch/log"; }
same "resumed" base half
if [ -e "$build/trimpot_mpi.so" ] && command -v mpirun >/dev/null; then
    n=2 quantised double llama3 "$scratch/two" dtype=fp32 batch_size=4 gradient_accumulation_steps=1
    same "two ranks" base two
fi

say "export"
expect 2 'merge_base=DIR' "$trimpot" export "$scratch/base" --output "$scratch/merged"
expect 0 'merge    into ' "$trimpot" export "$scratch/base" --output "$scratch/merged" merge_base="$gold/llama3/model"
expect 2 'never overwrites' "$trimpot" export "$scratch/base" --output "$gold/llama3/model" merge_base="$gold/llama3/model"
expect 0 'merge    into the dequantised base' "$trimpot" export "$scratch/base" --output "$scratch/codes" merge_base=dequantized
loss() { "$trimpot" eval --data "$gold/llama3/rows.jsonl" --json device=cpu dtype=fp32 tokenizer.path="$gold/llama3/model" "$@" 2>>"$scratch/log" </dev/null |
    sed -E 's/.*"loss":([0-9.]{8}).*/\1/'; }
equal "loss of the adapter and of the dequantised merge" "$(loss --model "$scratch/codes")" \
    "$(loss --model "$gold/nf4/double/model" --adapter "$scratch/base/adapter")"

say "quantised while loading"
plain=("$trimpot" run lora_finetune --model "$gold/llama3/model" --data "$gold/llama3/rows.jsonl" device=cpu dtype=fp32 seed=1 "${whole[@]}")
"${plain[@]}" --output "$scratch/q" model.quantize_base=true merge_base=dequantized >"$scratch/log" 2>&1 || fail "merge_base=dequantized"
below "quantised while loading, dequantised" 1e-5
expect 0 'the base'\''s rounding' "${plain[@]}" --output "$scratch/q2" model.quantize_base=true
"${plain[@]}" --output "$scratch/q3" >"$scratch/log" 2>&1 || fail "LoRA"
below "LoRA" 1e-5

say "refused"
cp -r "$gold/nf4/double/model" "$scratch/m"
bad() # CODE 'message' sed-expression of config.json, options…
{
    local code=$1 text=$2 edit=$3
    shift 3
    sed -E "$edit" "$gold/nf4/double/model/config.json" >"$scratch/m/config.json"
    expect "$code" "$text" "$trimpot" run lora_finetune --model "$scratch/m" --data "$gold/llama3/rows.jsonl" --output "$scratch/bad" \
        device=cpu tokenizer.path="$gold/llama3/model" "$@"
    equal "errors of: $text" "$(grep -c '^error: ' "$scratch/expect.out")" 1
}
key() { printf 's/"%s": [^,]*/"%s": %s/' "$1" "$1" "$2"; }
bad 18 'load_in_8bit is true' "$(key load_in_8bit true)"
bad 18 'bnb_4bit_quant_type is "fp4"; only nf4 is read' "$(key bnb_4bit_quant_type '"fp4"')"
bad 18 'quantization_config by "gptq"' "$(key quant_method '"gptq"')"
bad 15 'bnb_4bit_use_double_quant is false; correct that key' "$(key bnb_4bit_use_double_quant false)"
bad 15 'bnb_4bit_quant_storage says bf16' "$(key bnb_4bit_quant_storage '"bfloat16"')"
bad 18 'bnb_4bit_compute_dtype is "float8"' "$(key bnb_4bit_compute_dtype '"float8"')"
bad 18 'is quantised, which llm_int8_skip_modules' "$(key llm_int8_skip_modules '["mlp.up_proj"]')"
bad 18 'a regular expression' "$(key llm_int8_skip_modules '["layers.*.mlp"]')"
bad 18 'nobody here knows what it changes' 's/"llm_int8_threshold"/"turned": 1, "llm_int8_threshold"/'
bad 18 'config.json has no' 's/"quantization_config"/"no_longer"/'
cp "$gold/llama3/model/model.safetensors" "$scratch/m/"
bad 15 'is not quantised (F32), but config.json' ''
cp "$gold/nf4/double/model/model.safetensors" "$scratch/m/"
bad 13 'quantised already; start with true' '' model.init_lora_weights=pissa
bad 13 'model.init: random has no weights to read' '' model.init=random
bad 13 'is quantised too, and what is merged is never quantised again' '' merge_base="$gold/nf4/double/model"
bad 13 'is a qwen2 model' '' merge_base="$gold/qwen2/model"
bad 14 'no such' '' merge_base="$scratch/absent"
# relatives: the same shapes with the halves of one weight changed over
for weight in model.layers.1.mlp.up_proj.weight model.norm.weight; do
    rm -rf "$scratch/relative"
    cp -r "$gold/llama3/model" "$scratch/relative"
    python3 - "$scratch/relative/model.safetensors" "$weight" <<'END'
import json, struct, sys
raw = open(sys.argv[1], "rb").read()
n = 8 + struct.unpack("<Q", raw[:8])[0]
lo, hi = (n + at for at in json.loads(raw[8:n])[sys.argv[2]]["data_offsets"])
half = (lo + hi) // 2
open(sys.argv[1], "wb").write(raw[:lo] + raw[half:hi] + raw[lo:half] + raw[hi:])
END
    bad 13 "of the values of $weight that were looked at are others" '' merge_base="$scratch/relative"
done
bad 2 'merges nothing; keep one of the two keys' '' merge_base=dequantized save_adapter_weights_only=true
expect 13 '4-bit codes, which cannot be trained; run lora_finetune' "$trimpot" run full_finetune --model "$scratch/m" \
    --data "$gold/llama3/rows.jsonl" --output "$scratch/bad" device=cpu tokenizer.path="$gold/llama3/model"
expect 13 'the base is not quantised' "${plain[@]}" --output "$scratch/bad" merge_base=dequantized
expect 13 'is not quantised and is what its adapter is merged into' "${plain[@]}" --output "$scratch/bad" merge_base="$gold/llama3/model"
finish
