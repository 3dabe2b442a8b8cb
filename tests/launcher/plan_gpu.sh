#!/usr/bin/env bash
# plan_gpu.sh BUILD_DIR: `trimpot plan --gpu NAME` plans and predicts for a GPU that is not here, from a config.json alone. The
# prediction is the speed model's table, the rows are the memory accounting's; what cannot be planned is refused.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
. "$source/tests/launcher/lib_models.sh"

lora=(lora_finetune model.lora_rank=16 'model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]' model.apply_lora_to_mlp=true)

# planned MODEL TOKENS ROWS ACCUMULATION GPU arguments…: the plan as JSON, whether or not it fits.
planned()
{
    local model=$1 length=$2 rows=$3 steps=$4 gpu=$5 rc=0
    shift 5
    "$trimpot" plan "$@" --model "$models/$model" --gpu "$gpu" --json -q tokenizer.max_seq_len="$length" batch_size="$rows" \
        gradient_accumulation_steps="$steps" 2>"$scratch/planned.log" </dev/null || rc=$?
    [ $rc = 0 ] || [ $rc = 11 ] || { cat "$scratch/planned.log" >&2; return 1; }
}

# ---- speed ---------------------------------------------------------------------------------------------------------------
# The table: thousands of tokens/s on an H100: LoRA, QLoRA (micro-batches of 8192 tokens), LoRA with recomputation, full (steps of
# 65536 tokens), full with recomputation; then MFU in % of LoRA and of full.
while read -r model length l q la f fa ml mf; do
    for row in "1 lora $l ${lora[*]}" "$((8192 / length)) qlora $q ${lora[*]} model.quantize_base=true" \
        "1 lora+ac $la ${lora[*]} enable_activation_checkpointing=true" "1 full $f full_finetune" \
        "1 full+ac $fa full_finetune enable_activation_checkpointing=true"; do
        read -r rows kind want words <<<"$row"
        read -r -a words <<<"$words"
        planned "$model" "$length" "$rows" $((65536 / length / rows)) h100 "${words[@]}" >"$scratch/plan.json" || fail "$model $kind"
        mfu=-
        [ "$kind" = lora ] && mfu=$ml
        [ "$kind" = full ] && mfu=$mf
        say "$model T $length $kind $want $mfu $(cat "$scratch/plan.json")"
    done
done >"$scratch/rows" <<'END'
llama3-8b    2048 18.3 17.7 12.9 13.2 10.2 59 62
llama3-8b    4096 17.4 16.9 12.4 12.8  9.9 59 62
llama3-8b    8192 15.8 15.4 11.4 11.9  9.2 59 62
llama3.2-1b  2048 89.5 87.7 67.3 68.5 54.7 49 54
llama3.2-1b  4096 81.8 80.3 61.8 63.9 51.0 48 53
llama3.2-1b  8192 69.4 68.4 52.8 56.1 44.8 46 51
qwen2.5-0.5b 2048  164  162  128  135  110 38 44
qwen2.5-0.5b 4096  147  146  115  123  100 38 44
qwen2.5-0.5b 8192  122  121   95  105   85 38 43
END
for row in "qwen3-8b 2048 17.8" "qwen3-8b 2048 12.7 enable_activation_checkpointing=true" "qwen2.5-7b 4096 18.8" "qwen3-0.6b 2048 126" \
    "qwen3-0.6b 2048 98 enable_activation_checkpointing=true"; do
    read -r model length want words <<<"$row"
    # shellcheck disable=SC2086
    planned "$model" "$length" 1 1 h100 "${lora[@]}" $words >"$scratch/plan.json" || fail "$model"
    say "$model T $length ceiling $want - $(cat "$scratch/plan.json")"
done >>"$scratch/rows"
python3 - "$scratch/rows" <<'END' || fail "the prediction is not the speed model's"
import json, sys

bad = n = 0
for line in open(sys.argv[1]):
    model, _, length, kind, want, mfu, plan = line.split(None, 6)
    p = json.loads(plan)["prediction"]
    off = p["tokens_per_s"] / (1000 * float(want)) - 1
    share = sum(p["shares"].values())
    wrong = abs(off) > 0.02 or abs(share - 1) > 0.001 or p["measured"] or (mfu != "-" and abs(100 * p["mfu"] / float(mfu) - 1) > 0.02)
    wrong = wrong or (p["shares"]["nf4"] > 0) != (kind == "qlora") or p["shares"]["communication"] != 0
    print(f"{model} T {length} {kind}: {p['tokens_per_s'] / 1000:.1f}k, the table has {want}k ({100 * off:+.1f} %){'  WRONG' if wrong else ''}")
    bad += wrong
    n += 1
sys.exit(bad > 0 or n != 50)
END

# ---- memory --------------------------------------------------------------------------------------------------------------
planned llama3-8b 4096 2 1 h100 "${lora[@]}" >"$scratch/plan.json"
python3 - "$scratch/plan.json" <<'END' || fail "the rows do not add up"
import json, sys

plan = json.load(open(sys.argv[1]))
rows, tokens, layers = plan["rows"], 8192, 32
C, q, kv, F, H, R, N, A, V = 4096, 4096, 1024, 14336, 32, 16, 8030261248, 41943040, 128256

def total(category, *names):
    return sum(r["bytes"] for r in rows if r["category"] == category and (not names or r["name"] in names))

def check(what, got, want, slack):
    print(f"{what}: {got}, accounted {want}")
    return 0 if want <= got <= want + slack else 1

page = 65536  # small tensors share pages, large ones begin on one
rows_of_adapters = 7 * layers * 2
# Adapters beside weights (gpu.md 6): 64 columns of room and the rank's rows.
room = sum(out * 64 + R * (inputs + 64) for out, inputs in ((q, C), (kv, C), (kv, C), (C, q), (F, C), (F, C), (C, F)))
bad = check("frozen, bf16", total("frozen weights"), 2 * N + 2 * layers * room, 300 * 64)
bad += check("trained, f32 and working copies", total("trained"), 6 * A, 6 * page * rows_of_adapters)
bad += check("gradients, f32", total("gradients"), 4 * A, 4 * page * rows_of_adapters)
bad += check("moments, f32", total("optimizer"), 8 * A, 8 * page * rows_of_adapters)
kept = 2 * (2 * C + 2 * q + 2 * kv + 2 * F) + 4 * (H + 2)  # norms and products are recomputed …
kept += 2 * 6 * 64  # … and x·Aᵀ with them; room behind q, k, v, what attention puts out, gate and up
bad += check("activations, 8192 tokens", total("activations"), layers * tokens * kept, layers * 20 * 64)
bad += check("a chunk of 4096 rows of logits, bf16", total("scratch", "logits chunk"), 2 * V * 4096, 64)
bad += check("workspace", total("workspace"), 1, 2**30)
bad += check("driver and libraries", total("library"), 2 * 10**8, 10**9)
bad += check("NCCL, which one rank does without", total("library", "buffers of NCCL"), 0, 0)
bad += check("all rows", sum(r["bytes"] for r in rows), plan["total_bytes"], 0)
sys.exit(bad)
END

# Offloaded: of 32 layers, two are on the device at a time and 30 have their slots on the host. Where whole blocks are recomputed
# only inputs leave and PCIe keeps up; with all that the default keeps it does not.
i=0
for how in "" "enable_activation_offloading=true" "enable_activation_checkpointing=true" \
    "enable_activation_checkpointing=true enable_activation_offloading=true" \
    "enable_activation_checkpointing=true enable_activation_offloading=true activation_offloading_use_streams=false"; do
    # shellcheck disable=SC2086
    planned llama3-8b 8192 1 1 h100 "${lora[@]}" $how >"$scratch/offload.$i.json" || fail "$how"
    i=$((i + 1))
done
python3 - "$scratch"/offload.{0..4}.json <<'END' || fail "what is offloaded does not add up"
import json, sys

stays, leaves, again, again_leaves, waits = (json.load(open(f)) for f in sys.argv[1:])
rows = lambda p, category: [r for r in p["rows"] if r["category"] == category]
total = lambda p, category: sum(r["bytes"] for r in rows(p, category))
speed = lambda p: p["prediction"]["tokens_per_s"]
ok = True
for before, after in ((stays, leaves), (again, again_leaves), (again, waits)):
    kept, ring, away = total(before, "activations"), total(after, "activations"), total(after, "offloaded")
    print(f"activations {kept / 1e9:.2f} GB -> {ring / 1e9:.2f} on the device, {away / 1e9:.2f} on the host; "
          f"{speed(before):.0f} -> {speed(after):.0f} tokens/s")
    ok &= ring * 16 == kept and ring + away == kept and not rows(before, "offloaded")
    ok &= {r["memory"] for r in rows(after, "offloaded")} == {"pinned"} and after["total_bytes"] == before["total_bytes"]
    ok &= (after["prediction"]["shares"]["offloading"] > 0) == (speed(after) < speed(before))
# 2.9 MB per token at 53 GB/s, each way, against 16k tokens/s without.
each = total(leaves, "offloaded") / 8192 / 53e9
ok &= speed(again_leaves) == speed(again) and speed(waits) < speed(again)
ok &= abs(speed(leaves) / (1 / (2 * each)) - 1) < 0.05
sys.exit(not ok)
END

# The ladder: what each rung keeps per token and layer (numerics.md 13: C 4096, q 4096, kv 1024, F 14336, 32 heads), and by how many
# weights it multiplies once more. The last layer has all of it still.
for rung in none products ffn attention block; do
    planned llama3-8b 8192 1 1 h100 full_finetune recompute=$rung >"$scratch/rung.$rung.json" || fail "recompute=$rung"
done
python3 - "$scratch" <<'END' || fail "the rungs do not add up"
import json, sys

C, Q, KV, F, H = 4096, 4096, 1024, 14336, 32
KEPT = {"none": 2 * (4 * C + 2 * Q + 2 * KV + 3 * F) + 4 * (H + 2), "products": 2 * (2 * C + 2 * Q + 2 * KV + 2 * F) + 4 * (H + 2),
        "ffn": 2 * (2 * C + 2 * Q + 2 * KV) + 4 * (H + 2), "attention": 2 * (2 * C + Q) + 4 * (H + 2), "block": 2 * C}
AGAIN = {"none": 0, "products": 0, "ffn": 2 * F * C, "attention": 2 * F * C + (Q + 2 * KV) * C}
ok, once = True, None
for rung, kept in KEPT.items():
    p = json.load(open(f"{sys.argv[1]}/rung.{rung}.json"))
    bytes_ = sum(r["bytes"] for r in p["rows"] if r["category"] == "activations")
    flop = p["prediction"]["gflop_per_token"]
    once = once or flop
    print(f"recompute={rung}: {bytes_ / 1e9:.2f} GB kept, {flop:.2f} GFLOP and {p['prediction']['tokens_per_s']:.0f} tokens/s")
    ok &= bytes_ == kept * 32 * 8192
    if rung in AGAIN:
        ok &= abs(flop - once - 2 * 31 * AGAIN[rung] / 1e9) < 0.002
sys.exit(not ok)
END

# Tiles: gate, up and product for 1024 tokens, whatever the rung and the number of layers; all else as on that rung. (The gradient of
# the product is in the logits chunk either way.)
planned llama3-8b 8192 1 1 h100 full_finetune mlp_tile_tokens=1024 >"$scratch/tiles.json" || fail "mlp_tile_tokens"
python3 - "$scratch" <<'END' || fail "tiles do not add up"
import json, sys

whole, tiles = (json.load(open(f"{sys.argv[1]}/{f}.json")) for f in ("rung.ffn", "tiles"))
size = lambda p, name: sum(r["bytes"] for r in p["rows"] if r["name"].startswith(name) and r["category"] in ("activations", "scratch"))
ok = True
for name in ("shared gate", "shared up", "shared product"):
    print(f"{name}: {size(whole, name)} -> {size(tiles, name)}")
    ok &= size(tiles, name) == 1024 * 14336 * 2 and size(whole, name) == 8 * size(tiles, name)
ok &= size(whole, "") - size(tiles, "") == 3 * 7168 * 14336 * 2
ok &= tiles["prediction"]["gflop_per_token"] - whole["prediction"]["gflop_per_token"] < 2 * 2 * 14336 * 4096 / 1e9 + 0.002
sys.exit(not ok)
END

# Scores that deterministic attention keeps: as many as it may.
for cap in 256MiB 1GiB; do
    planned llama3-8b 8192 1 1 h100 "${lora[@]}" deterministic=true attn_workspace=$cap >"$scratch/plan.$cap" || fail "attn_workspace=$cap"
done
if [ -e "$build/trimpot_cuda.so" ]; then
    python3 - "$scratch"/plan.{256MiB,1GiB} <<'END' || fail "attn_workspace is not the plan's"
import json, sys
small, large = (next(r["bytes"] for r in json.load(open(f))["rows"] if r["category"] == "workspace") for f in sys.argv[1:])
print(f"workspace with scores of 256 MiB {small}, of 1 GiB {large}")
sys.exit(not 0 < large - small <= 3 * 2**28)
END
fi
expect 11 'shrink with: attn_workspace, ' "$trimpot" plan "${lora[@]}" --model "$models/tiny" --gpu h100 tokenizer.max_seq_len=64 memory_budget=1MB

# What is planned for a GPU that is not here is what a run on one that is here plans: the emulated one, by the same code.
# twins RANKS RECIPE key=value …
twins()
{
    local n=$1 where
    shift
    for where in "device=emu" "--gpu h100"; do
        # shellcheck disable=SC2086
        ranks "$n" "$trimpot" plan "$@" $where --model "$models/tiny" --json -q tokenizer.max_seq_len=300 batch_size=3 seed=1 \
            2>"$scratch/log" | sed 's/,"prediction".*}}}/}/' >"$scratch/rows.${where##* }" || fail "$where: $(cat "$scratch/log")"
    done
    grep -q '"workspace"' "$scratch/rows.h100" || fail "no rows: $*"
    cmp "$scratch/rows.h100" "$scratch/rows.device=emu" || fail "two plans of one run, $n ranks: $*"
}
if [ -e "$build/trimpot_emu.so" ] && [ -e "$build/trimpot_cuda.so" ]; then
    twins 1 full_finetune
    twins 1 "${lora[@]}"
    twins 1 "${lora[@]}" model.quantize_base=true enable_activation_checkpointing=true
    twins 1 "${lora[@]}" enable_activation_offloading=true
    if command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ] && [ -e "$build/trimpot_emu_nccl.so" ]; then
        twins 2 full_finetune
        twins 2 full_finetune reduce=fast
    fi
fi

# Ranks exchange gradients: a row of memory, a part of the step.
if command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ]; then
    ranks 2 "$trimpot" plan "${lora[@]}" --model "$models/llama3.2-1b" --gpu h100 --json -q tokenizer.max_seq_len=2048 >"$scratch/two.json" 2>&1 ||
        fail "two ranks: $(tail -5 "$scratch/two.json")"
    python3 -c 'import json, sys
p = json.loads(sys.stdin.readlines()[-1])
sys.exit(not (p["prediction"]["shares"]["communication"] > 0 and any(r["category"] == "communication" for r in p["rows"])
              and any(r["name"] == "buffers of NCCL" and 2**29 < r["bytes"] < 2**30 for r in p["rows"])))' \
        <"$scratch/two.json" || fail "two ranks exchange nothing: $(tail -3 "$scratch/two.json")"
fi

# ---- without CUDA, and what is refused -----------------------------------------------------------------------------------
mkdir "$scratch/alone"
cp "$trimpot" "$scratch/alone/"
one=(--model "$models/llama3-8b" tokenizer.max_seq_len=4096 batch_size=1)
expect 0 'are estimates: this trimpot was built without CUDA' "$scratch/alone/trimpot" plan "${lora[@]}" --gpu h100 "${one[@]}"
expect 0 'not measured' "$trimpot" plan "${lora[@]}" --device cuda --gpu a100-80g "${one[@]}"
expect 0 'no prediction: its rates are those of bf16' "$trimpot" plan "${lora[@]}" --gpu h200 "${one[@]}" dtype=fp32
expect 11 'the plan needs' "$trimpot" plan full_finetune --gpu 4090 "${one[@]}"
expect 11 'of device memory' "$trimpot" plan full_finetune --gpu 4090 "${one[@]}"
expect 11 'A100' "$trimpot" plan full_finetune --gpu A100-40G "${one[@]}"
expect 2 'there are h100, ' "$trimpot" plan "${lora[@]}" --gpu h1000 "${one[@]}"
expect 2 'leave one of them out' "$trimpot" plan "${lora[@]}" --device cpu --gpu h100 "${one[@]}"
expect 2 'tokenizer.max_seq_len=N' "$trimpot" plan "${lora[@]}" --gpu h100 --model "$models/llama3-8b"
expect 2 'no such option' "$trimpot" run "${lora[@]}" --gpu h100 "${one[@]}" --output "$scratch/out"
# ---- what a key adds ------------------------------------------------------------------------------------------------------------
# The head's own magnitudes are a product more; a profiler's rows are in the plan.
for words in "model.apply_lora_to_output=true" "model.apply_lora_to_output=true model.use_dora=true" \
    "model.lora_attn_modules=[q_proj] model.apply_lora_to_mlp=false" "profiler.enabled=true"; do
    # shellcheck disable=SC2086
    planned llama3-8b 2048 1 1 h100 lora_finetune $words
done | python3 -c 'import json, sys
head, magnitudes, plain, traced = map(json.loads, sys.stdin)
time = lambda p: p["prediction"]["shares"]["head"] * p["prediction"]["step_s"]
rows = lambda p: {r["name"] for r in p["rows"]}
sys.exit(not 1.4 < time(magnitudes) / time(head) < 1.7 or not rows(traced) - rows(plain) >= {"calls of a trace", "events of the profiler: a guess"})' ||
    fail "a product or rows are missing"
finish
