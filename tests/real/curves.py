#!/usr/bin/env python3
"""Loss curves of full fine-tuning by what precision weights and optimizer states have, on a real model and real rows.

    curves.py --trimpot BIN --model DIR --rows gsm8k/train.jsonl --work DIR [--threads N] [--steps 100] [--batch 4] [--only NAME]

The model: SmolLM2-135M-Instruct, as `run` makes it. Each way trains on the same rows in the same order from the same weights; every
quarter of the steps the loss of 16 rows that are not trained on. Prints a Markdown table of validation losses with
the difference of the last from f32 AdamW's. Exit 1 when 8-bit AdamW ends more than 1 % above f32 AdamW. Standard library only."""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "bench"))
from lora_vs_peft import json_lines  # noqa: E402

HELD_OUT = 16
ADAMW, ADAMW8 = "optimizer=torch.optim.AdamW", "optimizer=bitsandbytes.optim.AdamW8bit"
# What has 16 bytes a weight comes first: the others are judged by it.
WAYS = {
    "f32, AdamW": ["dtype=fp32", ADAMW],
    "f32, 8-bit AdamW": ["dtype=fp32", ADAMW8],
    "bf16, f32 master and states": ["dtype=bf16", "master_weights=fp32", "state_dtype=fp32", ADAMW],
    "bf16, stochastic rounding, bf16 states (default)": ["dtype=bf16", ADAMW],
    "bf16, stochastic rounding, 8-bit states": ["dtype=bf16", ADAMW8],
    "bf16, nearest rounding, 8-bit states": ["dtype=bf16", "stochastic_rounding=false", ADAMW8],
}
JUDGED, ALLOWED = "f32, 8-bit AdamW", 0.01


def train(args, keys, data, held_out):
    out = os.path.join(args.work, "out")
    subprocess.run(["rm", "-rf", out], check=True)
    command = [args.trimpot, "run", "full_finetune", "--model", args.model, "--data", data, "--output", out, "device=cpu",
               f"dataset_val.data_files={held_out}", f"run_val_every_n_steps={max(1, args.steps // 4)}", f"batch_size={args.batch}",
               f"max_steps_per_epoch={args.steps}", "epochs=1", "shuffle=false", "seed=1", f"optimizer.lr={args.lr}",
               "optimizer.weight_decay=0.01", *keys]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(args.threads)}, stdin=subprocess.DEVNULL, text=True,
                          capture_output=True)
    if done.returncode != 0:
        sys.exit(f"exit {done.returncode}: {' '.join(command)}\n{done.stderr[-3000:]}")
    lines = json_lines(os.path.join(out, "metrics.jsonl"))
    subprocess.run(["rm", "-rf", out], check=True)
    return [(m["step"], m["val_loss"]) for m in lines if "val_loss" in m], [m["loss"] for m in lines if "loss" in m]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("trimpot", "model", "rows", "work"):
        args.add_argument("--" + name, required=True)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--steps", type=int, default=100)
    args.add_argument("--batch", type=int, default=4)
    args.add_argument("--lr", default="2e-5")
    args.add_argument("--only", default="")
    args = args.parse_args()
    with open(args.rows, encoding="utf-8") as f:
        lines = f.readlines()
    need = args.steps * args.batch
    if len(lines) < need + HELD_OUT:
        sys.exit(f"{args.rows}: {len(lines)} rows, {need + HELD_OUT} are needed")
    data, held_out = os.path.join(args.work, "train.jsonl"), os.path.join(args.work, "held_out.jsonl")
    for path, some in ((data, lines[:need]), (held_out, lines[-HELD_OUT:])):
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(some)
    last = {}
    for name, keys in WAYS.items():
        if args.only not in name:
            continue
        curve, losses = train(args, keys, data, held_out)
        if not last:
            print(f"| weights and states | {' | '.join(str(step) for step, _ in curve)} | last against the first row | last 8 steps |")
            print("|---" * (len(curve) + 3) + "|")
        last[name] = curve[-1][1]
        first = next(iter(last.values()))
        print(f"| {name} | {' | '.join(f'{loss:.4f}' for _, loss in curve)} | {100 * (last[name] / first - 1):+.2f} % | "
              f"{sum(losses[-8:]) / len(losses[-8:]):.4f} |", flush=True)
        with open(os.path.join(args.work, "curves.jsonl"), "a", encoding="utf-8") as f:
            f.write(json.dumps({"way": name, "validation": curve, "losses": losses}) + "\n")
    if JUDGED in last and last[JUDGED] > (1 + ALLOWED) * next(iter(last.values())):
        sys.exit(f"{JUDGED} ends {100 * (last[JUDGED] / next(iter(last.values())) - 1):.2f} % above the first row, {100 * ALLOWED:.0f} % are allowed")


if __name__ == "__main__":
    main()
