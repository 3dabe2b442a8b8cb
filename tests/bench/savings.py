#!/usr/bin/env python3
"""What each memory technique saves on a 0.5B Qwen2.5-shaped model on a CPU, and what it costs; called by savings.sh.

    savings.py --trimpot BIN --model DIR --work DIR [--peer PYTHON] [--steps 4] [--threads 2] [--tokens 512] [--only TEXT] [--json]

One row per technique, alone and all together, of full fine-tuning and of LoRA, in bf16:
plan       what `trimpot plan` announces before the first byte is taken
peak       VmHWM of the process, weight pages of the mapped file included
saved      of the plan, against the first row of its kind: what the technique is for
time       of a step, median without the first two, as a ratio against that first row
peer       PyTorch, with PEFT for adapters and bitsandbytes for 8 and 4 bits, with the same setting where it can run it
Steps of both run one after the other, never at once. Standard library only."""
import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys

from lora_vs_peft import WARM_UP, Words, json_lines, watch, write_rows

HERE = os.path.dirname(os.path.abspath(__file__))
COMMON = ["device=cpu", "dtype=bf16", "batch_size=1", "shuffle=false", "seed=1", "epochs=1", "optimizer.lr=3e-4", "optimizer.weight_decay=0.01"]
ADAMW, ADAMW8 = "optimizer=torch.optim.AdamW", "optimizer=bitsandbytes.optim.AdamW8bit"
KEEP, BLOCKS, IN_BWD = "recompute=none", "enable_activation_checkpointing=true", "optimizer_in_bwd=true"
LORA = ["model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]", "model.apply_lora_to_mlp=true", "model.lora_rank=16", "model.lora_alpha=32",
        "save_adapter_weights_only=true"]
NF4 = "model.quantize_base=true"

# kind, technique, its keys, the peer's settings (None: the peer has nothing like it)
ROWS = [
    ("full", "all kept, f32 states", [KEEP, ADAMW, "state_dtype=fp32"], None),
    ("full", "all kept, states as weights", [KEEP, ADAMW], []),
    ("full", "norms and products again", [ADAMW], None),
    ("full", "gate and up again", ["recompute=ffn", ADAMW], None),
    ("full", "q, k and v again", ["recompute=attention", ADAMW], None),
    ("full", "checkpointing", [BLOCKS, ADAMW], ["checkpointing"]),
    ("full", "optimizer in backward", [KEEP, IN_BWD, ADAMW], ["optimizer_in_bwd"]),
    ("full", "8-bit states", [KEEP, ADAMW8], ["8bit"]),
    ("full", "all together", [BLOCKS, IN_BWD, ADAMW8], ["checkpointing", "optimizer_in_bwd", "8bit"]),
    ("lora", "all kept", [KEEP, ADAMW], []),
    ("lora", "norms and products again", [ADAMW], None),
    ("lora", "gate and up again", ["recompute=ffn", ADAMW], None),
    ("lora", "q, k and v again", ["recompute=attention", ADAMW], None),
    ("lora", "MLP in tiles of 128 tokens", ["mlp_tile_tokens=128", ADAMW], None),
    ("lora", "checkpointing", [BLOCKS, ADAMW], ["checkpointing"]),
    ("lora", "NF4 base (QLoRA)", [KEEP, NF4, ADAMW], ["nf4"]),
    ("lora", "all together", [BLOCKS, NF4, IN_BWD, ADAMW8], ["checkpointing", "nf4", "optimizer_in_bwd", "8bit"]),
]


def planned(command):
    shown = subprocess.run(command, text=True, capture_output=True)
    found = re.search(r'"total_bytes":(\d+)', shown.stdout)
    if shown.returncode != 0 or not found:
        sys.exit(f"exit {shown.returncode}: {' '.join(command)}\n{shown.stderr[-2000:]}")
    return int(found.group(1))


def run_trimpot(args, kind, keys, data):
    out = os.path.join(args.work, "out")
    subprocess.run(["rm", "-rf", out], check=True)
    what = [kind + "_finetune", "--model", args.model, "--data", data, "--output", out, *COMMON, *(LORA if kind == "lora" else []), *keys]
    plan = planned([args.trimpot, "plan", *what, "--json"])
    metrics = os.path.join(out, "metrics.jsonl")
    _, lines, _, peak = watch([args.trimpot, "run", *what], {"OMP_NUM_THREADS": str(args.threads)}, os.path.join(args.work, "trimpot.log"),
                              lambda: [m for m in json_lines(metrics) if "loss" in m])
    return {"plan": plan, "peak": peak, "seconds": statistics.median(m["step_ms"] / 1000 for m in lines[WARM_UP:])}


def run_peer(args, kind, settings, ids):
    log = os.path.join(args.work, "peer.log")
    command = [args.peer, os.path.join(HERE, "lora_vs_peft_peer.py"), args.model, ids, str(args.steps), str(args.threads), "bf16",
               *(["full"] if kind == "full" else []), *settings]
    threads = {"OMP_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    try:
        _, lines, _, peak = watch(command, threads, log, lambda: json_lines(log))
    except SystemExit as failed:
        return {"failed": str(failed).strip().split("\n")[-1][:100]}
    return {"peak": peak, "seconds": statistics.median(m["seconds"] for m in lines[WARM_UP:])}


def show(kind, name, ours, first, peer):
    gb = lambda n: f"{n / 1e9:.2f}"
    theirs = "-" if peer is None else peer["failed"] if "failed" in peer else f"{gb(peer['peak'])} GB, {peer['seconds']:.2f} s"
    print(f"| {kind} | {name} | {gb(ours['plan'])} | {gb(ours['peak'])} | {gb(first['plan'] - ours['plan'])} | {ours['seconds']:.2f} s, "
          f"{ours['seconds'] / first['seconds']:.2f} × | {theirs} |", flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("trimpot", "model", "work"):
        args.add_argument("--" + name, required=True)
    args.add_argument("--peer")
    args.add_argument("--steps", type=int, default=4)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--tokens", type=int, default=512)
    args.add_argument("--only", default="", help="rows whose kind and name hold this")
    args.add_argument("--json", action="store_true")
    args = args.parse_args()
    if args.steps <= WARM_UP:
        sys.exit(f"--steps must be above {WARM_UP}, the steps of the warm-up")
    data, ids = write_rows(Words(args.model, random.Random(3), args.tokens), "full", args.steps, args.work)
    if not args.json:
        print("| | technique | plan, GB | peak, GB | saved, GB | step | PyTorch: peak, step |\n|---|---|---|---|---|---|---|")
    first = {}
    for kind, name, keys, settings in ROWS:
        if args.only not in f"{kind} {name}":
            continue
        ours = run_trimpot(args, kind, keys, data)
        peer = run_peer(args, kind, settings, ids) if args.peer and settings is not None else None
        first.setdefault(kind, ours)
        if args.json:
            print(json.dumps({"kind": kind, "technique": name, "keys": keys, "trimpot": ours, "peer": peer}), flush=True)
        else:
            show(kind, name, ours, first[kind], peer)


if __name__ == "__main__":
    main()
