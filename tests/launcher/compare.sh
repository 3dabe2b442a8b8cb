#!/usr/bin/env bash
# compare.sh BUILD_DIR: `trimpot plan --compare` prints a row per memory technique. Each side of a row is the plan and the prediction of
# the line with those keys, to the byte; what it saves adds up; what cannot be combined says why.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
. "$source/tests/launcher/lib_models.sh"

lora=(lora_finetune model.lora_rank=16)
line=(--model "$models/llama3.2-1b" --gpu h100 -q tokenizer.max_seq_len=1024 batch_size=4)

# rows RECIPE key=value …: the comparison, and for each side of each row the plan of a line of its own.
rows()
{
    "$trimpot" plan "$@" "${line[@]}" --compare --json >"$scratch/compare" || { fail "no comparison: $*"; return; }
    "$trimpot" plan "$@" "${line[@]}" --compare >"$scratch/table" || fail "no table: $*"
    python3 - "$scratch" "$trimpot" "$1" "${line[@]}" "${@:2}" <<'END' || fail "the rows are not those of plans: $*"
import json, subprocess, sys

scratch, trimpot, recipe, *words = sys.argv[1:]
table = open(f"{scratch}/table").read()
bad = n = changed = 0
for text in open(f"{scratch}/compare"):
    row = json.loads(text)
    n += 1
    bad += row["technique"] not in table
    if "refused" in row:
        print(f"{row['technique']}: refused: {row['refused']}")
        bad += row["refused"] not in table
        continue
    sides = {}
    for side in ("off", "on"):
        keys = row[f"{side}_keys"].replace("{rows}", "4").replace("{ranks}", "1").split()
        as_recipe = next((k[7:] for k in keys if k.startswith("recipe=")), recipe)
        r = subprocess.run([trimpot, "plan", as_recipe, *words, *(k for k in keys if not k.startswith("recipe=")), "--json"],
                           capture_output=True, text=True)
        if r.returncode not in (0, 11):
            print(f"{row['technique']}, {side}: {r.stderr}")
            bad += 1
            break
        plan = sides[side] = json.loads(r.stdout)
        device = sum(x["bytes"] for x in plan["rows"] if x["memory"] == "device")
        token_s = "prediction" in plan and 1 / plan["prediction"]["tokens_per_s"] or None
        if device != row[side]["device_bytes"] or plan["total_bytes"] - device != row[side]["host_bytes"]:
            print(f"{row['technique']}, {side}: {row[side]} and the plan has {device} on the device, {plan['total_bytes'] - device} else")
            bad += 1
        bad += (token_s is None) != (row[side]["token_s"] is None) or token_s and abs(row[side]["token_s"] / token_s - 1) > 1e-4 or 0
    if len(sides) < 2:
        continue
    by = lambda p, c: sum(x["bytes"] for x in p["rows"] if x["category"] == c)
    for category in {x["category"] for p in sides.values() for x in p["rows"]}:
        if by(sides["off"], category) - by(sides["on"], category) != row["saved"].get(category, 0):
            print(f"{row['technique']}: {category} {row['saved'].get(category, 0)}")
            bad += 1
    less = row["off"]["device_bytes"] - row["on"]["device_bytes"]
    changed += less > 0
    slower = row["on"]["token_s"] and row["off"]["token_s"] and row["on"]["token_s"] / row["off"]["token_s"] - 1
    print(f"{row['technique']}: {less / 1e6:.0f} MB of the device, time {slower}")
    bad += less < 0 and row["technique"] not in ("LoRA", "gradient accumulation") or row["same_bits"] and slower is not None and slower < 0
sys.exit(bad > 0 or n < 9 or changed < n - 4)
END
}

rows full_finetune
rows "${lora[@]}"
rows "${lora[@]}" model.quantize_base=true enable_activation_checkpointing=true clip_grad_norm=1
grep -q 'optimizer step in backward refused here: .*the norm of all gradients' "$scratch/table" || fail "clipping goes with optimizer_in_bwd"
expect 0 'activation offloading' "$trimpot" plan "${lora[@]}" --device cpu --model "$models/tiny" tokenizer.max_seq_len=64 --compare
grep -qE 'recompute ffn  .*activations -' "$scratch/expect.out" || fail "what little a small model saves is called nothing"
grep -q 'activation offloading  *0 .*nothing changes' "$scratch/expect.out" || fail "offloading moves something on a CPU"
if command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ]; then
    ranks 2 "$trimpot" plan "${lora[@]}" "${line[@]}" --compare >"$scratch/two" 2>&1 || fail "two ranks: $(tail -3 "$scratch/two")"
    [ "$(grep -c 'activation checkpointing ' "$scratch/two")" = 1 ] || fail "two ranks print other than one table"
fi
finish
