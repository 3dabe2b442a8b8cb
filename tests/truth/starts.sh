#!/usr/bin/env bash
# starts.sh BUILD_DIR: LoRA+, and adapters that start from the weights they sit on, beside what PEFT made of them (golden/starts.json,
# make_starts.py): losses, gradient norms, what the weights became and, up to the signs of singular vectors, where it began.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence
need python3
here=$source/tests/truth
golden=$here/golden

# go NAME FAMILY OUTPUT key=value …: ten steps; under $binary, if given.
go()
{
    local name=$1 family=$2 out=$3 all
    shift 3
    mapfile -t all < <(python3 "$here/starts.py" keys "$name")
    rm -rf "$out"
    "${binary:-$trimpot}" run lora_finetune --model "$golden/$family/model" --data "$golden/$family/rows.jsonl" --output "$out" \
        device=cpu dtype=fp32 shuffle=false seed=1 epochs=10 batch_size=8 model.apply_lora_to_mlp=true "${all[@]}" "$@" \
        >"$scratch/log" 2>&1 </dev/null || { fail "$name $*"; tail -n 5 "$scratch/log"; }
}
check() { python3 "$here/starts.py" check "$@" || fail "$1"; }

while read -r name family; do
    say "$name ($family)"
    go "$name" "$family" "$scratch/$name"
    check "$name" "$scratch/$name" 1e-5 1e-4
done < <(python3 "$here/starts.py" list | grep '^plus')

say "in the backward pass, in 8 bits, with a schedule, behind the fence"
eight="optimizer=bitsandbytes.optim.AdamW8bit optimizer.min_8bit_size=300"
for more in "optimizer.lr=1e-3" "$eight" "lr_scheduler=cosine lr_scheduler.num_warmup_steps=3 $eight"; do
    read -r -a with <<<"$more"
    go plus-adamw llama2 "$scratch/plain" "${with[@]}"
    go plus-adamw llama2 "$scratch/in_bwd" "${with[@]}" optimizer_in_bwd=true
    binary=$build/trimpot_fence go plus-adamw llama2 "$scratch/fence" "${with[@]}"
    go plus-adamw llama2 "$scratch/alike" "${with[@]}" model.lora_plus_ratio=null
    for other in in_bwd fence; do
        cmp "$scratch"/{plain,$other}/adapter/adapter_model.safetensors || fail "$other: $more"
    done
    cmp -s "$scratch"/{plain,alike}/adapter/adapter_model.safetensors && fail "the ratio changes nothing: $more"
done

say "a rate of 1 is no rate; another one is told on resume"
go plus-adamw llama2 "$scratch/one" model.lora_plus_ratio=1 save_every_n_steps=4
go plus-adamw llama2 "$scratch/none" model.lora_plus_ratio=null
cmp "$scratch"/{one,none}/adapter/adapter_model.safetensors || fail "a ratio of 1 changes bits"
rm -rf "$scratch"/one/{adapter,export,checkpoints/step-0000010}
mapfile -t all < <(python3 "$here/starts.py" keys plus-adamw)
"$trimpot" run lora_finetune --model "$golden/llama2/model" --data "$golden/llama2/rows.jsonl" --output "$scratch/one" device=cpu dtype=fp32 \
    shuffle=false seed=1 epochs=10 batch_size=8 model.apply_lora_to_mlp=true "${all[@]}" resume_from_checkpoint=true >"$scratch/log" 2>&1 ||
    fail "resume with another ratio"
grep -q 'model.lora_plus_ratio: 1 -> 16' "$scratch/log" || { fail "another ratio is not told on resume"; cat "$scratch/log"; }
finish
