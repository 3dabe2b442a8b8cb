#!/usr/bin/env bash
# adapters.sh BUILD_DIR: adapters on some layers, modules and ranks (golden/adapters.json, adapters.py): the loss that PEFT
# gives, in every dtype a file may have, and of those with magnitudes and whole modules what PEFT trains in ten steps; trained on,
# exported, merged, resumed and on two ranks they stay one and the same.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
golden=$source/tests/truth/golden
adapters=$source/tests/truth/adapters.py
two=$([ -e "$build/trimpot_mpi.so" ] && command -v mpirun >/dev/null && echo 2 || true)
[ -n "$two" ] || say "SKIP two ranks: no mpirun or no trimpot_mpi.so"
log=$scratch/log

# mean FAMILY OUT options…: the loss of the family's rows, as JSON
mean()
{
    local family=$1 out=$2
    shift 2
    "$trimpot" eval --data "$golden/$family/rows.jsonl" --json device=cpu dtype=fp32 "$@" >"$out" 2>"$log" </dev/null ||
        { fail "eval $*"; tail -3 "$log"; }
}
loss() { sed -E 's/.*"loss":([^,]+),.*/\1/' "$1"; }
near() { awk -v a="$2" -v b="$3" 'BEGIN { d = a - b; exit !((d < 0 ? -d : d) <= 1e-6 * b) }' || fail "$1: $2 and $3"; }

say "losses beside PEFT's"
while read -r name family; do
    for dtype in F32 F16 BF16 F64; do
        rm -rf "$scratch/a"
        "$adapters" write "$name" "$scratch/a" $dtype
        mean "$family" "$scratch/json" --model "$golden/$family/model" --adapter "$scratch/a"
        "$adapters" check "$name" "$scratch/json" 1e-6 >"$scratch/verdict" || fail "$name $dtype"
    done
    cat "$scratch/verdict"
done < <("$adapters" list)

say "ten steps beside PEFT's"
for case in "dora llama2" "dora-rslora qwen2" "dora-head llama2" "saved llama2" "saved-ranks qwen2"; do
    read -r name family <<<"$case"
    rm -rf "$scratch"/{a,run}
    "$adapters" write "$name" "$scratch/a"
    for more in "dtype=fp32 batch_size=8" "dtype=fp32 batch_size=3 gradient_accumulation_steps=3" "dtype=bf16 batch_size=8"; do
        read -r -a keys <<<"$more"
        bounds=(1e-5 1e-4)
        [[ $more != *bf16* ]] || bounds=(1e-2 1e-2)
        "$trimpot" run lora_finetune --model "$golden/$family/model" --data "$golden/$family/rows.jsonl" --output "$scratch/run" -q \
            checkpointer.adapter_checkpoint="$scratch/a" device=cpu shuffle=false seed=1 epochs=10 "${keys[@]}" \
            optimizer=torch.optim.AdamW optimizer.lr=2e-3 optimizer.weight_decay=0.01 optimizer.eps=1e-4 >"$log" 2>&1 </dev/null ||
            { fail "$name: $more"; tail -3 "$log"; }
        "$adapters" trained "$name" "$scratch/run" "${bounds[@]}" || fail "$name: $more"
        rm -rf "$scratch/run"
    done
done

say "magnitudes begin with the lengths that there are"
for base in false true; do
    for kind in false true; do
        "$trimpot" run lora_finetune --model "$golden/llama2/model" --data "$golden/llama2/rows.jsonl" --output "$scratch/begun-$kind" -q device=cpu \
            dtype=fp32 seed=1 max_steps_per_epoch=1 model.use_dora=$kind model.quantize_base=$base >"$log" 2>&1 || { fail "use_dora=$kind"; tail -3 "$log"; }
    done
    equal "first loss, quantize_base=$base" "$(loss "$scratch/begun-false/metrics.jsonl")" "$(loss "$scratch/begun-true/metrics.jsonl")"
    grep -q '"use_dora": true' "$scratch/begun-true/adapter/adapter_config.json" || fail "adapter_config.json does not say use_dora"
    mean llama2 "$scratch/adapter" --model "$golden/llama2/model" --adapter "$scratch/begun-true/adapter"
    mean llama2 "$scratch/merged" --model "$scratch/begun-true/export"
    near "merged, quantize_base=$base" "$(loss "$scratch/adapter")" "$(loss "$scratch/merged")"
    rm -rf "$scratch"/begun-*
done

say "magnitudes that adapter_config.json does not know of, as torchtune writes them"
"$adapters" write dora "$scratch/a"
sed -i 's/"use_dora": true/"use_dora": false/' "$scratch/a/adapter_config.json"
expect 12 "does not say use_dora: true; torchtune leaves it out" \
    "$trimpot" eval --model "$golden/llama2/model" --adapter "$scratch/a" --data "$golden/llama2/rows.jsonl" device=cpu

# further RANKS OUTPUT key=value …: four steps from the adapter in $scratch/a, of four rows each whatever the ranks
further()
{
    local n=$1 out=$2
    shift 2
    ranks "$n" "$trimpot" run lora_finetune --model "$golden/$family/model" --data "$golden/$family/rows.jsonl" --output "$out" -q \
        checkpointer.adapter_checkpoint="$scratch/a" device=cpu dtype=fp32 seed=3 batch_size=2 epochs=2 optimizer.lr=2e-3 \
        save_every_n_steps=2 gradient_accumulation_steps=$((2 / n)) "$@" >"$log" 2>&1 && return
    fail "$name: run $*"
    tail -3 "$log"
}
same() { cmp -s "$2/adapter/adapter_model.safetensors" "$3/adapter/adapter_model.safetensors" || fail "$name: $1"; }

for case in "layer-0-only qwen2" "mixed-modules llama2" "head-replaced llama2" "head-tied qwen2" "ranks-rslora qwen2" "excluded qwen2" \
    "dora-rslora qwen2" "saved-ranks qwen2"; do
    read -r name family <<<"$case"
    say "$name, trained on"
    rm -rf "$scratch"/{a,still,run,half,two}
    "$adapters" write "$name" "$scratch/a"

    further 1 "$scratch/still" optimizer.lr=0
    "$adapters" same "$scratch/a" "$scratch/still/adapter" || fail "$name: an adapter that was not moved comes out changed"

    further 1 "$scratch/run" model.lora_dropout=0.1
    mean "$family" "$scratch/before" --model "$golden/$family/model" --adapter "$scratch/a"
    mean "$family" "$scratch/adapter" --model "$golden/$family/model" --adapter "$scratch/run/adapter"
    mean "$family" "$scratch/merged" --model "$scratch/run/export"
    near "$name: loss of adapter and of merged export" "$(loss "$scratch/adapter")" "$(loss "$scratch/merged")"
    awk -v a="$(loss "$scratch/adapter")" -v b="$(loss "$scratch/before")" 'BEGIN { exit !(a < b) }' || fail "$name: training did not help"
    for where in "--model $golden/$family/model --adapter $scratch/run/adapter" "--model $scratch/run/export"; do
        # shellcheck disable=SC2086
        "$trimpot" generate $where --prompt "The river" --max-new-tokens 8 device=cpu dtype=fp32 2>>"$log" </dev/null
    done >"$scratch/said"
    equal "$name: answers of adapter and of merged export" "$(sort -u "$scratch/said" | wc -l)" "$(($(wc -l <"$scratch/said") / 2))"

    cp -r "$scratch/run" "$scratch/half"
    rm -rf "$scratch/half"/{adapter,export,checkpoints/step-0000004}
    further 1 "$scratch/half" model.lora_dropout=0.1 resume_from_checkpoint=true
    same "resumed" "$scratch/run" "$scratch/half"
    [ -z "$two" ] || { further 2 "$scratch/two" model.lora_dropout=0.1; same "two ranks" "$scratch/run" "$scratch/two"; }
done
finish
