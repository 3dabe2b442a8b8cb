#!/usr/bin/env bash
# fit.sh BUILD_DIR: `memory_budget` and `trimpot plan --fit` choose, for a GPU that is not here: of all plans with what is left open the one
# that fits and is predicted to be fastest, never against a key that is written; what --fit prints is a configuration that fits.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
. "$source/tests/launcher/lib_models.sh"

# cheapest BUDGET RECIPE KEYS…: the choice, and every plan with all that it could have chosen, each by a line of its own.
cheapest()
{
    python3 - "$trimpot" "$models/llama3-8b" "$@" <<'END' || fail "not the cheapest that fits: $*"
import itertools, json, re, subprocess, sys

trimpot, model, budget, recipe, *keys = sys.argv[1:]
line = [trimpot, "plan", recipe, "--gpu", "h100", "--model", model, "--json", "tokenizer.max_seq_len=8192", *keys]
# The first of each is what is configured: written, so that nothing is chosen.
axes = (["recompute=auto", "recompute=ffn", "recompute=attention", "recompute=block"],
        ["enable_activation_offloading=false", "enable_activation_offloading=true"], ["optimizer_in_bwd=false", "optimizer_in_bwd=true"],
        ["optimizer=torch.optim.AdamW", "optimizer=bitsandbytes.optim.PagedAdamW optimizer.is_paged=true", "optimizer.on_host=true"])
axes = [a for a in axes if not any(k.split("=")[0] + "=" in word for k in keys for word in a)]
device = lambda p: sum(r["bytes"] for r in p["rows"] if r["memory"] == "device")
plans, fits, count = {}, {}, {}
for point in itertools.product(*axes):
    r = subprocess.run([*line, *" ".join(point).split(), f"memory_budget={budget}GB"], capture_output=True, text=True)
    words = " ".join(w for w, a in zip(point, axes) if w != a[0])
    plans[words] = r
    count[words] = sum(w != a[0] for w, a in zip(point, axes))
    if r.returncode == 0:
        fits[words] = json.loads(r.stdout)
best = max(p["prediction"]["tokens_per_s"] for p in fits.values())
r = subprocess.run([*line, f"memory_budget={budget}GB"], capture_output=True, text=True)
said = re.search(r"budget   (.*?): ", r.stderr)
words = said and said[1] or ""
if "fits as configured" in r.stderr:
    words = ""
chosen = json.loads(r.stdout)
print(f"{budget} GB, {recipe} {' '.join(keys)}: {words or 'nothing'}: {device(chosen) / 1e9:.1f} GB, "
      f"{chosen['prediction']['tokens_per_s']:.0f} tokens/s; {len(fits)} of {len(plans)} fit, the best has {best:.0f}")
fewest = min(count[w] for w, p in fits.items() if abs(p["prediction"]["tokens_per_s"] / best - 1) < 1e-5)
ok = words in fits and chosen["rows"] == fits[words]["rows"] and abs(chosen["prediction"]["tokens_per_s"] / best - 1) < 1e-5
sys.exit(not (r.returncode == 0 and ok and count[words] == fewest))
END
}
cheapest 78 lora_finetune batch_size=2
cheapest 24 lora_finetune batch_size=2 optimizer_in_bwd=false
cheapest 30 lora_finetune batch_size=2 enable_activation_offloading=false optimizer=torch.optim.AdamW
cheapest 79 full_finetune batch_size=1 recompute=auto
cheapest 40 full_finetune batch_size=1 optimizer_in_bwd=true recompute=block

line=(--gpu h100 --model "$models/llama3-8b" tokenizer.max_seq_len=8192)
# The micro-batch goes last, and its step stays as it was.
expect 0 'budget   batch_size=1 gradient_accumulation_steps=2' "$trimpot" plan lora_finetune "${line[@]}" memory_budget=21GB
grep -q '1 rows of 8192 tokens' "$scratch/expect.out" || fail "the micro-batch is not smaller"
expect 11 'none fits; the leanest takes' "$trimpot" plan lora_finetune "${line[@]}" memory_budget=20GB batch_size=2
expect 11 'shrink with: ' "$trimpot" plan lora_finetune "${line[@]}" memory_budget=20GB batch_size=2
expect 11 'every key is written' "$trimpot" plan lora_finetune "${line[@]}" memory_budget=20GB batch_size=2 recompute=none \
    enable_activation_offloading=false optimizer_in_bwd=false optimizer.on_host=false
expect 0 'budget   the plan fits as configured' "$trimpot" plan lora_finetune "${line[@]}" memory_budget=auto batch_size=1

# ---- lines to paste ------------------------------------------------------------------------------------------------------------
# pasted GPU RECIPE LENGTH KEYS…: what --fit prints is a file that fits, and plans what was said.
pasted()
{
    local gpu=$1 recipe=$2 length=$3
    shift 3
    "$trimpot" plan "$recipe" --gpu "$gpu" --model "$models/llama3-8b" -q tokenizer.max_seq_len="$length" "$@" --fit >"$scratch/fit.yaml" 2>"$scratch/log" ||
        { fail "nothing fits: $gpu $recipe $length $*: $(tail -1 "$scratch/log")"; return; }
    cat "$scratch/fit.yaml"
    expect 0 'memory plan' "$trimpot" plan "$recipe" --config "$scratch/fit.yaml" --gpu "$gpu" --model "$models/llama3-8b" \
        tokenizer.max_seq_len="$length" "$@"
    grep -q " $(sed -nE 's/^# .*; ([0-9]+) tokens.s predicted$/\1/p' "$scratch/fit.yaml") tokens/s" "$scratch/expect.out" ||
        fail "the lines do not plan what was said"
}
pasted 4090 lora_finetune 4096
pasted 4090 lora_finetune 32768 batch_size=1
grep -q 'quantize_base: true' "$scratch/fit.yaml" || fail "32768 tokens fit a 4090 without NF4"
! grep -q 'optimizer' "$scratch/fit.yaml" || fail "states in 8 bits are not worth their while"
pasted h100 full_finetune 4096
"$trimpot" plan full_finetune --gpu h100 --model "$models/llama3-8b" -q tokenizer.max_seq_len=4096 --fit --json 2>"$scratch/log" |
    python3 -c 'import json, sys
found = json.load(sys.stdin)
sys.exit(found["settings"] != ["optimizer_in_bwd=true"] or not 0 < found["device_bytes"] < 86e9 or not found["tokens_per_s"] > 0)' ||
    fail "--fit --json is not the JSON of what it found: $(tail -1 "$scratch/log")"
expect 11 'the leanest takes' "$trimpot" plan full_finetune --gpu 4090 --model "$models/llama3-8b" tokenizer.max_seq_len=4096 \
    optimizer=torch.optim.AdamW optimizer.on_host=false --fit
finish
