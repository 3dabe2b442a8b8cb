#!/usr/bin/env python3
"""A real model in trimpot and in PyTorch, side by side; called by run, which makes the model. Standard library only.

    real.py --trimpot BIN --python PEER_PYTHON --model DIR --rows gsm8k/train.jsonl --work DIR
            [--threads N] [--steps 6] [--only answers|full|lora] [--prompts 20] [--new-tokens 64]
            [--peer-seconds 120]

Exit 1 when answers differ, when the first losses differ by more than the bound of their precision, or when the exported
model answers otherwise in transformers. Prints a Markdown table."""
import argparse
import datetime
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "bench"))
from lora_vs_peft import json_lines, watch  # noqa: E402

ROWS, BATCH = 64, 4
RATES = {"full": 1e-5, "lora": 3e-4}
# Relative difference of the first losses. fp32: other orders of summation; bf16: each side rounds activations itself.
FIRST_LOSS = {"fp32": 1e-5, "bf16": 1e-2}
SPACE = " \t\n\r\f\v"  # `trimpot generate` prints answers without the white space around them
COMMON = ["device=cpu", f"batch_size={BATCH}", "gradient_accumulation_steps=1", "shuffle=false", "seed=1", "epochs=1",
          "optimizer=torch.optim.AdamW", "optimizer.weight_decay=0.01"]
LORA = ["model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]", "model.apply_lora_to_mlp=true",
        "model.lora_rank=16", "model.lora_alpha=32"]


class Bench:
    def __init__(self, args):
        self.args, self.failures = args, []
        self.rows = self.head(args.rows, "rows.jsonl", ROWS)
        self.prompts = self.head(os.path.join(HERE, "prompts.jsonl"), "prompts.jsonl", args.prompts)
        self.threads = {"OMP_NUM_THREADS": str(args.threads)}

    def head(self, path, name, n):
        with open(path, encoding="utf-8") as f:
            lines = f.readlines()[:n]
        if len(lines) < n:
            sys.exit(f"{path}: {len(lines)} rows, {n} are needed")
        copy = os.path.join(self.args.work, name)
        with open(copy, "w", encoding="utf-8") as f:
            f.writelines(lines)
        return copy

    def check(self, good, what):
        print(("ok    " if good else "FAIL  ") + what, flush=True)
        if not good:
            self.failures.append(what)

    def peer(self, *words):
        log = os.path.join(self.args.work, "peer.log")
        command = [self.args.python, os.path.join(HERE, "peer.py"), *map(str, words), str(self.args.threads)]
        _, lines, _, peak = watch(command, self.threads, log, lambda: json_lines(log))
        return lines, peak

    def answers(self, model, prompts):
        done = subprocess.run([self.args.trimpot, "generate", "--model", model, "--data", prompts, "--max-new-tokens",
                               str(self.args.new_tokens), "--json", "device=cpu", "dtype=fp32"],
                              env={**os.environ, **self.threads}, stdin=subprocess.DEVNULL, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"trimpot generate: exit {done.returncode}\n{done.stderr[-3000:]}")
        return [row["answer"] for row in map(json.loads, done.stdout.splitlines())]

    def compare_answers(self, what, model, prompts):
        ours = self.answers(model, prompts)
        theirs, _ = self.peer("answers", model, prompts, self.args.new_tokens)
        for row in theirs:
            row["answer"] = row["answer"].strip(SPACE)
        same = sum(a == b["answer"] for a, b in zip(ours, theirs))
        for number, (a, b) in enumerate(zip(ours, theirs), 1):
            if a != b["answer"]:
                print(f"      prompt {number}: trimpot      {a!r}\n"
                      f"      {'':{len(str(number)) + 7}}  transformers {b['answer']!r}\n"
                      f"      smallest lead of a token there: {min(b['margins']):.3g}")
        self.check(same == len(ours) == len(theirs), f"{what}: {same} of {len(theirs)} greedy answers are transformers' (fp32)")

    def trimpot_run(self, kind, dtype, steps):
        out = os.path.join(self.args.work, f"{kind}-{dtype}")
        metrics = os.path.join(out, "metrics.jsonl")
        command = [self.args.trimpot, "run", f"{kind}_finetune", "--model", self.args.model, "--data", self.rows,
                   "--output", out, *COMMON, f"dtype={dtype}", f"optimizer.lr={RATES[kind]}",
                   f"max_steps_per_epoch={steps}", *(LORA if kind == "lora" else [])]
        steps_of = lambda: [m for m in json_lines(metrics) if "loss" in m]  # noqa: E731
        _, lines, _, peak = watch(command, self.threads, os.path.join(self.args.work, "trimpot.log"), steps_of)
        return out, lines, peak

    def side_by_side(self, kind, dtype):
        """One more step than asked for: its loss is the one after so many updates."""
        steps = self.args.steps + 1
        out, ours, our_peak = self.trimpot_run(kind, dtype, steps)
        (exact, *theirs), peak = self.peer("train", self.args.model, self.rows, kind, dtype, steps, BATCH, RATES[kind],
                                             self.args.peer_seconds)
        exact = exact["exact"]
        trained = [m["trained"] for m in theirs]
        self.check(len(ours) == steps and [m["supervised_tokens"] for m in ours][:len(theirs)] == trained,
                   f"{kind} {dtype}: the same {sum(trained)} tokens are trained in {len(theirs)} steps")
        if len(theirs) < steps:
            print(f"      PyTorch's time was up after {len(theirs)} of {steps} steps")
        first = abs(ours[0]["loss"] - exact) / exact
        self.check(first <= FIRST_LOSS[dtype], f"{kind} {dtype}: first losses {ours[0]['loss']:.7f} and {exact:.7f} (PyTorch's "
                   f"logits, summed in float64; by itself {theirs[0]['loss']:.7f}), apart by {first:.1e} of {FIRST_LOSS[dtype]:.0e}")
        # The rows' own tokens, padding not counted, for both; the first step warms up, where there are more.
        warm = theirs[1:] or theirs
        tokens = sum(m["tokens"] for m in warm)
        timed = ours[len(theirs) - len(warm):len(theirs)]
        return out, {"kind": kind, "dtype": dtype, "first": (ours[0]["loss"], exact),
                     "last": (ours[-1]["loss"], theirs[-1]["loss"] if len(theirs) == steps else None), "peak": (our_peak, peak),
                     "rate": (tokens / sum(m["step_ms"] / 1e3 for m in timed),
                              tokens / sum(m["seconds"] for m in warm))}


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "unknown processor")


def versions(bench):
    theirs = subprocess.run([bench.args.python, "-c", "import torch, transformers, peft; print(f'PyTorch {torch.__version__}, "
                             "transformers {transformers.__version__}, PEFT {peft.__version__}')"], text=True, capture_output=True)
    ours = subprocess.run([bench.args.trimpot, "version"], text=True, capture_output=True)
    return ours.stdout.splitlines()[0], theirs.stdout.strip()


def table(bench, results):
    ours, theirs = versions(bench)
    steps = bench.args.steps
    names = {"full": "full fine-tuning", "lora": "LoRA (rank 16, all linear layers)"}
    print(f"\n{processor()}, {bench.args.threads} threads, {datetime.date.today()}; {ours}; {theirs}.\n"
          f"{os.path.basename(bench.args.model.rstrip('/'))}, the first {BATCH * (steps + 1)} of {ROWS} rows of GSM8K in batches "
          f"of {BATCH}; tokens without padding; peak resident memory of the process.\n")
    print(f"| | tok/s | PyTorch | ratio | memory | PyTorch | first loss | PyTorch | after {steps} steps | PyTorch |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for r in results:
        last = "not reached" if r["last"][1] is None else f"{r['last'][1]:.4f}"
        print(f"| {names[r['kind']]}, {r['dtype']} | {r['rate'][0]:.0f} | {r['rate'][1]:.0f} | {r['rate'][0] / r['rate'][1]:.1f} | "
              f"{r['peak'][0] / 1e9:.2f} GB | {r['peak'][1] / 1e9:.2f} GB | {r['first'][0]:.5f} | {r['first'][1]:.5f} | "
              f"{r['last'][0]:.4f} | {last} |")
    print(flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("trimpot", "python", "model", "rows", "work"):
        args.add_argument("--" + name, required=True)
    args.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args.add_argument("--steps", type=int, default=6)
    args.add_argument("--only", choices=("answers", "full", "lora"))
    args.add_argument("--prompts", type=int, default=20)
    args.add_argument("--new-tokens", type=int, default=64)
    args.add_argument("--peer-seconds", type=float, default=120, help="no step of PyTorch begins later")
    bench = Bench(args.parse_args())
    only, results = bench.args.only, []
    if not 0 < bench.args.steps < ROWS // BATCH:
        sys.exit(f"--steps must be from 1 to {ROWS // BATCH - 1}: {ROWS} rows are {ROWS // BATCH} batches")
    if only in (None, "answers"):
        bench.compare_answers("the model", bench.args.model, bench.prompts)
    for kind in ("full", "lora"):
        if only not in (None, kind):
            continue
        for dtype in ("fp32", "bf16"):
            out, result = bench.side_by_side(kind, dtype)
            results.append(result)
            if dtype == "fp32":
                bench.compare_answers(f"the export after {kind} {dtype}", os.path.join(out, "export"), bench.prompts)
    if results:
        table(bench, results)
    print(f"{len(bench.failures)} failures" if bench.failures else "all equal")
    sys.exit(bool(bench.failures))


if __name__ == "__main__":
    main()
