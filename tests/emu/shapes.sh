#!/usr/bin/env bash
# shapes.sh BUILD_DIR: rows of many lengths become products of few shapes on a GPU, and few graphs: micro-batches there are filled up to a
# multiple of 64 tokens (worker/batch.h), which nothing shows but the shapes (gemm_choices.c writes those that are new): tokens and
# supervised tokens of every step are those of the CPU, and so are the losses.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so
need python3
. "$source/tests/e2e/libe2e.sh"
head -16 "$rows" >"$scratch/few.jsonl"

# on DEVICE: its metrics are in $scratch/DEVICE
on()
{
    TRIMPOT_GEMM_TIME=$scratch/shapes "$trimpot" run "${full[@]}" dtype=fp32 device="$1" seed=7 batch_size=1 --data "$scratch/few.jsonl" \
        --model "$model" -q epochs=1 --output "$scratch/$1" >"$scratch/log" 2>&1 || die "$1: $(tail -n 3 "$scratch/log")"
}
on cpu
on emu
near "filled up" "$scratch/cpu" "$scratch/emu" 1e-5
python3 - "$scratch" "$model" <<'END' || fail "shapes"
import json, sys
scratch, model = sys.argv[1:]
vocab = -(-json.load(open(f"{model}/config.json"))["vocab_size"] // 64) * 64
steps = {d: [json.loads(l) for l in open(f"{scratch}/{d}/metrics.jsonl")] for d in ("cpu", "emu")}
for a, b in zip(steps["cpu"], steps["emu"], strict=True):
    for key in ("tokens", "supervised_tokens"):
        if a[key] != b[key]: sys.exit(f"step {a['step']}: {key} {b[key]} on emu, {a[key]} on cpu")
TA = 1
tokens = set()
for line in open(f"{scratch}/shapes"):
    _, m, n, k, traits, *_ = line.split()
    if str(vocab) in (m, n, k): continue  # of the head, whose rows are the supervised ones; its logits have room
    tokens.add(int(k if int(traits, 16) & TA else m))
lengths = {s["tokens"] for s in steps["cpu"]}
print(f"micro-batches of {len(lengths)} numbers of tokens, {min(lengths)} to {max(lengths)}; products of {sorted(tokens)}")
if len(lengths) < 8 or not tokens or len(tokens) > max(lengths) // 64 + 1 or any(t % 64 for t in tokens):
    sys.exit("rows of products are not few multiples of 64")
END

# Dropout, in every step another, and documents that lie elsewhere in each are no hindrance: of a row's length alone nothing is left.
"$trimpot" run "${lora[@]}" dtype=bf16 device=emu seed=7 batch_size=1 gradient_accumulation_steps=4 --data "$scratch/few.jsonl" \
    --model "$model" -v epochs=4 cuda_graphs=true model.lora_dropout=0.1 --output "$scratch/lora" >"$scratch/log" 2>&1 || die "graphs: $(tail -n 3 "$scratch/log")"
told=$(sed -nE 's/^graphs: ([0-9]+) stretches .*: ([0-9]+) launched as graphs \(([0-9]+) made, .*/\1 \2 \3/p' "$scratch/log")
read -r stretches launched made <<<"$told"
say "LoRA, 16 rows four times: $launched of $stretches stretches launched, of $made graphs"
[ $((4 * ${launched:-0})) -ge $((3 * ${stretches:-1})) ] || fail "graphs are not found again"
finish
