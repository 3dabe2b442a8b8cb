#!/usr/bin/env bash
# starts.sh BUILD_DIR: LoRA+, and adapters that start from the weights they sit on, beside what PEFT made of them (golden/starts.json,
# make_starts.py): losses, gradient norms, what the weights became and, up to the signs of singular vectors, where it began.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_emu.so
need python3
here=$source/tests/truth
golden=$here/golden

two=$([ -e "$build/trimpot_mpi.so" ] && command -v mpirun >/dev/null && echo 2 || true)
[ -n "$two" ] || say "SKIP two ranks: no mpirun or no trimpot_mpi.so"

# go NAME FAMILY OUTPUT key=value …: ten steps; of $binary, on $n ranks, into what is there ($kept), if given.
go()
{
    local name=$1 family=$2 out=$3 all
    shift 3
    mapfile -t all < <(python3 "$here/starts.py" keys "$name")
    [ -n "${kept:-}" ] || rm -rf "$out"
    ranks "${n:-1}" "${binary:-$trimpot}" run lora_finetune --model "$golden/$family/model" --data "$golden/$family/rows.jsonl" --output "$out" \
        device=cpu dtype=fp32 shuffle=false seed=1 epochs=10 batch_size=8 model.apply_lora_to_mlp=true "${all[@]}" "$@" \
        >"$scratch/log" 2>&1 </dev/null || { fail "$name $*"; tail -n 5 "$scratch/log"; }
}
check() { python3 "$here/starts.py" check "$@" || fail "$1"; }

# mean FAMILY options…: the loss of the family's rows, as JSON
mean() { "$trimpot" eval --data "$golden/$1/rows.jsonl" --json device=cpu dtype=fp32 "${@:2}" 2>"$scratch/log" </dev/null || { fail "eval ${*:2}"; tail -n 3 "$scratch/log"; }; }

while read -r name family; do
    say "$name ($family)"
    go "$name" "$family" "$scratch/$name"
    check "$name" "$scratch/$name" 1e-5 1e-4
    mean "$family" --model "$golden/$family/model" --adapter "$scratch/$name/adapter" >"$scratch/on"
    mean "$family" --model "$scratch/$name/export" >"$scratch/merged"
    for where in on merged; do python3 "$here/starts.py" near "$name" "$scratch/$where" 1e-5 || fail "$name, $where"; done
    rm -rf "${scratch:?}/$name"
done < <(python3 "$here/starts.py" list)

# The same bits on any number of ranks, in the backward pass, behind the fence, resumed at another number of ranks and exported again.
say "starts: ranks, resume, the fence"
same() { cmp "$2/adapter/adapter_model.safetensors" "$3/adapter/adapter_model.safetensors" && cmp "$2/export/model.safetensors" "$3/export/model.safetensors" || fail "$1"; }
while read -r name family more; do
    read -r -a with <<<"batch_size=2 gradient_accumulation_steps=4 epochs=3 $more"
    go "$name" "$family" "$scratch/plain" "${with[@]}"
    binary=$build/trimpot_fence go "$name" "$family" "$scratch/fence" "${with[@]}"
    same "$name $more: the fence" "$scratch/plain" "$scratch/fence"
    [ -n "$two" ] || continue
    n=2 go "$name" "$family" "$scratch/two" "${with[@]}" gradient_accumulation_steps=2 save_every_n_steps=2
    same "$name $more: two ranks" "$scratch/plain" "$scratch/two"
    rm -rf "$scratch"/two/{adapter,export,checkpoints/step-0000003}
    kept=1 go "$name" "$family" "$scratch/two" "${with[@]}" resume_from_checkpoint=true
    same "$name $more: resumed" "$scratch/plain" "$scratch/two"
    rm -rf "$scratch"/two/{adapter,export}
    "$trimpot" export "$scratch/two" -q >"$scratch/log" 2>&1 || { fail "$name: export"; tail -n 3 "$scratch/log"; }
    same "$name $more: exported again" "$scratch/plain" "$scratch/two"
done <<'END'
pissa llama2
olora-rslora qwen2 dtype=bf16
pissa-dora-plus qwen2
pissa-plus-fused phi3 model.init_lora_weights=pissa_niter_4 model.init=random
pissa qwen2 model.init_lora_weights=orthogonal
saved llama2 dtype=bf16 optimizer=bitsandbytes.optim.AdamW8bit
saved-linears qwen2 model.init_lora_weights=true model.lora_dropout=0.1
saved-plus phi3 dtype=bf16 model.init_lora_weights=gaussian model.quantize_base=true
END
go saved llama2 "$scratch/plain" epochs=3
go saved llama2 "$scratch/in_bwd" epochs=3 optimizer_in_bwd=true enable_activation_checkpointing=true
same "saved whole: in the backward pass" "$scratch/plain" "$scratch/in_bwd"
# Further from what was exported: modules and weights are the adapter's now.
n=1 ranks 1 "$trimpot" run lora_finetune --model "$golden/llama2/model" --data "$golden/llama2/rows.jsonl" --output "$scratch/further" device=cpu \
    dtype=fp32 seed=1 optimizer.lr=0 optimizer.weight_decay=0 checkpointer.adapter_checkpoint="$scratch/plain/adapter" >"$scratch/log" 2>&1 ||
    fail "an adapter with whole modules is not taken: $(tail -n 3 "$scratch/log")"
cmp "$scratch"/{plain,further}/adapter/adapter_model.safetensors || fail "saved whole: not moved, and changed"
go saved llama2 "$scratch/cpu" epochs=2
go saved llama2 "$scratch/emu" epochs=2 device=emu
mean llama2 --model "$scratch/cpu/export" >"$scratch/a"
mean llama2 --model "$scratch/emu/export" >"$scratch/b"
python3 - "$scratch/a" "$scratch/b" <<'END' || fail "the emulated device"
import json, sys
a, b = (json.load(open(p))["loss"] for p in sys.argv[1:3])
sys.exit(abs(a - b) > 1e-5 * b)
END

say "starts: how they are drawn, and what is refused"
for how in gaussian orthogonal; do
    go pissa llama2 "$scratch/$how" model.init_lora_weights=$how optimizer.lr=0 optimizer.weight_decay=0 epochs=1
    python3 "$here/starts.py" drawn $how "$scratch/$how/adapter" || fail $how
done
refuse()
{
    expect 2 "$1" "$trimpot" run lora_finetune --model "$golden/llama2/model" --data "$golden/llama2/rows.jsonl" --output "$scratch/no" \
        device=cpu dtype=fp32 "${@:2}"
}
refuse 'model.layers.0.self_attn.q_proj.weight is [64, 64], which has no 65 parts to start from' model.init_lora_weights=pissa model.lora_rank=65
refuse 'that of model.layers.0.self_attn.q_proj.weight is 3: it must be even' model.init_lora_weights=orthogonal model.lora_rank=3
refuse 'to 4 bits again would make another base' model.init_lora_weights=olora model.quantize_base=true
refuse 'checkpointer.adapter_checkpoint says what the adapter starts as' model.init_lora_weights=pissa \
    checkpointer.adapter_checkpoint="$golden/llama2/adapter"

refuse "model.rank_pattern: 'proj' is no module with an adapter" 'model.rank_pattern={q_proj: 3, proj: 4}'
refuse "model.alpha_pattern: 'lm_head' is no module with an adapter" 'model.alpha_pattern={lm_head: 3}'
refuse "the configuration: model: rank_pattern has the regular expression \"(q\", which is wrong at byte" 'model.rank_pattern={"(q": 3}'
refuse "model.modules_to_save: 'lm_heads' is no module with weights of its own" 'model.modules_to_save=[lm_heads]'
refuse 'selects model.layers.0.self_attn.q_proj.weight, which has an adapter' 'model.modules_to_save=[q_proj]'
refuse 'which is held in 4 bits' 'model.modules_to_save=[q_proj]' 'model.lora_attn_modules=[v_proj]' model.quantize_base=true
for name in lm_head embed_tokens; do
    expect 2 'this model ties its output head to its embedding' "$trimpot" run lora_finetune --model "$golden/qwen2/model" \
        --data "$golden/qwen2/rows.jsonl" --output "$scratch/no" device=cpu dtype=fp32 model.modules_to_save=$name
done
mkdir "$scratch/none"
echo 'no library' >"$scratch/none/liblapack.so.3"
expect 18 "LAPACK is not installed" env LD_LIBRARY_PATH="$scratch/none" "$trimpot" run lora_finetune --model "$golden/llama2/model" \
    --data "$golden/llama2/rows.jsonl" --output "$scratch/no" device=cpu dtype=fp32 model.init_lora_weights=pissa
"$trimpot" plan lora_finetune --model "$golden/llama2/model" --data "$golden/llama2/rows.jsonl" device=cpu dtype=fp32 --json \
    model.init_lora_weights=pissa >"$scratch/plan" 2>"$scratch/log" || fail plan
python3 - "$scratch/plan" <<'END' || fail "the plan"
import json, sys
rows = {r["name"]: r["bytes"] for r in json.load(open(sys.argv[1]))["rows"]}
same = rows["adapters as they started, f32"] == rows["parameters, f32"]
sys.exit(not same or rows["a weight taken apart, f64"] < 64 * 64 * 8)
END

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
