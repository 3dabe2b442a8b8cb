#!/usr/bin/env python3
"""Times `trimpot run lora_finetune` and PEFT on the same rows in alternating runs; called by lora_vs_peft.sh.

    lora_vs_peft.py --trimpot BIN --model DIR --work DIR [--peer PYTHON] [--bench-gemm BIN]
                    [--steps 10] [--rounds 2] [--threads 2] [--data full|half|both] [--dtype fp32|bf16]
                    [--tokens 512|2048|4096] [--isa avx2] [--json]

tok/s      median over the steps after the first two, over all rounds; tokens of the step / wall time of the step
memory     VmHWM of the process (its peak resident set, mapped weight pages included), the largest of the rounds
start      start of the process to the begin of its first step, the smallest of the rounds (weights in page cache)
limit      tok/s of the step's matrix products alone (bench_gemm's replay, in the same dtype: f32 by dnnl_sgemm, bf16 by
           the program's own products), before and after each pair of runs; only for --data full: with half of the rows
           supervised the products of the head are half as many
--dtype    of trimpot's activations and frozen weights, of PEFT's whole model, and of the limit
--tokens   of a row, which is a step
--isa avx2 holds trimpot, PyTorch with its libraries, and the limit to AVX2, as far as they can be told
Standard library only; whatever needs PyTorch is in lora_vs_peft_peer.py."""
import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time

WARM_UP = 2
HERE = os.path.dirname(os.path.abspath(__file__))
LORA = ["device=cpu", "batch_size=1", "gradient_accumulation_steps=1", "shuffle=false", "seed=1",
        "epochs=1", "model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]", "model.apply_lora_to_mlp=true",
        "model.lora_rank=16", "model.lora_alpha=32", "optimizer=torch.optim.AdamW", "optimizer.lr=3e-4",
        "optimizer.weight_decay=0.01", "save_adapter_weights_only=true"]
# What holds each library to AVX2: trimpot (and its oneDNN), any oneDNN, PyTorch's own loops, MKL (on Intel processors).
AVX2 = {"TRIMPOT_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


class Words:
    """Words that are one token each, so that the ids of a row are known without a tokenizer."""

    def __init__(self, model, rng, row):
        self.row = row
        with open(os.path.join(model, "vocab.json"), encoding="utf-8") as f:
            self.vocab = json.load(f)
        with open(os.path.join(model, "tokenizer_config.json"), encoding="utf-8") as f:
            config = json.load(f)
        self.special = {v["content"]: int(k) for k, v in config["added_tokens_decoder"].items()}
        self.eos = self.special[config["eos_token"]]
        self.spaced = [w[1:] for w, i in self.vocab.items() if re.fullmatch("\u0120[a-z]{3,7}", w) and i < 8000]
        self.bare = [w for w in self.vocab if re.fullmatch("[a-z]{3,7}", w) and self.vocab[w] < 8000] if self.spaced else []
        self.rng = rng

    def text(self, n):
        """A text of n tokens and its ids."""
        if not self.spaced:  # byte vocabulary: letters
            letters = "".join(self.rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(n))
            return letters, [self.vocab[c] for c in letters]
        words = [self.rng.choice(self.bare)] + [self.rng.choice(self.spaced) for _ in range(n - 1)]
        return " ".join(words), [self.vocab[words[0]]] + [self.vocab["\u0120" + w] for w in words[1:]]

    def piece(self, text):
        """Ids of a role name and its newline, as the ChatML rendering has them."""
        name = [self.vocab[text]] if text in self.vocab else [self.vocab[c] for c in text]
        return name + [self.vocab["\u010a"]]

    def full(self):
        text, ids = self.text(self.row - 1)
        ids = ids + [self.eos]
        return {"text": text}, ids, ids

    def half(self):
        """ChatML with the assistant's header, answer and <|im_end|> trained: half of the row's tokens."""
        start, end, newline = self.special["<|im_start|>"], self.special["<|im_end|>"], self.vocab["\u010a"]
        head = [start] + self.piece("user")
        answer = [start] + self.piece("assistant")
        question, q_ids = self.text(self.row // 2 - len(head) - 2)
        reply, r_ids = self.text(self.row // 2 - len(answer) - 1)
        masked = head + q_ids + [end, newline]
        ids = masked + answer + r_ids + [end]
        return {"input": question, "output": reply}, ids, [-100] * len(masked) + ids[len(masked):]


def write_rows(words, kind, steps, work):
    rows = [getattr(words, kind)() for _ in range(steps)]
    data, ids = os.path.join(work, f"{kind}.jsonl"), os.path.join(work, f"{kind}.ids.json")
    with open(data, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row, _, _ in rows)
    with open(ids, "w", encoding="utf-8") as f:
        json.dump([[i, l] for _, i, l in rows], f)
    assert all(len(i) == words.row for _, i, _ in rows)
    return data, ids


def peak_bytes(pid, so_far):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            return max(so_far, next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return so_far


def watch(command, environment, log_path, lines_of):
    """Runs the command; returns (process start, steps as lines_of() gives them, time each was first seen, VmHWM)."""
    with open(log_path, "w", encoding="utf-8") as log:
        began, peak, seen = time.time(), 0, []
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env={**os.environ, **environment})
        while process.poll() is None:
            peak = peak_bytes(process.pid, peak)
            seen += [time.time()] * (len(lines_of()) - len(seen))
            time.sleep(0.01)
    if process.returncode != 0:
        with open(log_path, encoding="utf-8", errors="replace") as log:
            sys.exit(f"exit {process.returncode}: {' '.join(command)}\n{log.read()[-3000:]}")
    return began, lines_of(), seen, peak


def json_lines(path):
    try:
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f.read().split("\n")[:-1] if line.startswith("{")]
    except FileNotFoundError:
        return []


def run_trimpot(args, data, work, steps):
    out = os.path.join(work, "out")
    subprocess.run(["rm", "-rf", out], check=True)
    metrics = os.path.join(out, "metrics.jsonl")
    command = [args.trimpot, "run", "lora_finetune", "--model", args.model, "--data", data, "--output", out,
               f"dtype={args.dtype}", *LORA]
    began, lines, seen, peak = watch(command, {"OMP_NUM_THREADS": str(args.threads)}, os.path.join(work, "trimpot.log"),
                                     lambda: [m for m in json_lines(metrics) if "loss" in m])
    if [m["tokens"] for m in lines] != [args.tokens] * steps:
        sys.exit(f"trimpot trained {[m['tokens'] for m in lines]} tokens per step, expected {steps} times {args.tokens}")
    rates = [1000.0 * m["tokens"] / m["step_ms"] for m in lines[WARM_UP:]]
    return {"rates": rates, "peak": peak, "start": seen[0] - began - lines[0]["step_ms"] / 1000.0 if seen else None,
            "loss": lines[0]["loss"], "supervised": lines[0].get("supervised_tokens")}


def run_peer(args, ids, work, steps):
    log = os.path.join(work, "peer.log")
    command = [args.peer, os.path.join(HERE, "lora_vs_peft_peer.py"), args.model, ids, str(steps), str(args.threads),
               args.dtype]
    threads = {"OMP_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    began, lines, _, peak = watch(command, threads, log, lambda: json_lines(log))
    rates = [m["tokens"] / m["seconds"] for m in lines[WARM_UP:]]
    return {"rates": rates, "peak": peak, "start": lines[0]["began"] - began, "loss": lines[0]["loss"]}


def run_limit(args):
    """tok/s of the matrix products of a step with all rows supervised; None when bench_gemm is absent."""
    if not args.bench_gemm:
        return None
    dtype = {"fp32": "f32", "bf16": "bf16"}[args.dtype]
    shown = subprocess.run([args.bench_gemm, dtype, str(args.threads), str(args.tokens), "24", "step"], text=True,
                           capture_output=True)
    line = r"by dnnl_sgemm: ([\d.]+) s" if args.dtype == "fp32" else r"step of .* GFLOP, ([\d.]+) s"
    found = re.search(line, shown.stdout)
    if shown.returncode != 0 or not found:
        sys.exit(f"{args.bench_gemm}: exit {shown.returncode}\n{shown.stdout}{shown.stderr}")
    return args.tokens / float(found.group(1))


def summary(runs):
    starts = [r["start"] for r in runs if r["start"] is not None]
    return {"tok_s": statistics.median(rate for r in runs for rate in r["rates"]), "peak_bytes": max(r["peak"] for r in runs),
            "start_s": min(starts) if starts else None, "first_loss": runs[0]["loss"]}


def bench(args, kind, work):
    words = Words(args.model, random.Random(3), args.tokens)
    data, ids = write_rows(words, kind, args.steps, work)
    ours, theirs, limits = [], [], []
    for number in range(args.rounds):
        limits.append(run_limit(args) if kind == "full" else None)
        ours.append(run_trimpot(args, data, work, args.steps))
        if args.peer:
            theirs.append(run_peer(args, ids, work, args.steps))
        print(f"  {kind}, round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
    limits.append(run_limit(args) if kind == "full" else None)
    limits = [x for x in limits if x]
    out = {"data": kind, "dtype": args.dtype, "tokens": args.tokens, "trimpot": summary(ours)}
    if theirs:
        out["peft"] = summary(theirs)
        out["speed_ratio"] = out["trimpot"]["tok_s"] / out["peft"]["tok_s"]
        out["memory_ratio"] = out["trimpot"]["peak_bytes"] / out["peft"]["peak_bytes"]
        out["first_loss_difference"] = abs(ours[0]["loss"] - theirs[0]["loss"]) / theirs[0]["loss"]
    if limits:
        out["limit_tok_s"] = statistics.median(limits)
        out["share_of_limit"] = out["trimpot"]["tok_s"] / out["limit_tok_s"]
    return out


def show(result):
    print(f"\n{'all' if result['data'] == 'full' else 'half'} of the {result['tokens']} tokens of a step supervised, {result['dtype']}")
    print(f"  {'':10}{'tok/s':>9}{'peak resident':>16}{'to first step':>15}{'first loss':>12}")
    for who in ("trimpot", "peft"):
        if who in result:
            r = result[who]
            start = f"{r['start_s']:.2f} s" if r["start_s"] is not None else "-"
            print(f"  {who:10}{r['tok_s']:9.1f}{r['peak_bytes'] / 1e9:13.2f} GB{start:>15}{r['first_loss']:12.5f}")
    if "peft" in result:
        print(f"  trimpot / PEFT: {result['speed_ratio']:.2f} x the speed, {100 * result['memory_ratio']:.0f} % of the memory")
    if "limit_tok_s" in result:
        print(f"  matrix products alone: {result['limit_tok_s']:.1f} tok/s; trimpot reaches "
              f"{100 * result['share_of_limit']:.0f} % of it")
    elif result["data"] == "full":
        print("  matrix products alone: not measured (bench_gemm was not built)")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("trimpot", "model", "work"):
        args.add_argument("--" + name, required=True)
    args.add_argument("--peer")
    args.add_argument("--bench-gemm")
    args.add_argument("--steps", type=int, default=10)
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--data", choices=("full", "half", "both"), default="both")
    args.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    args.add_argument("--tokens", type=int, default=512)
    args.add_argument("--isa", choices=("avx2",))
    args.add_argument("--json", action="store_true")
    args = args.parse_args()
    if args.steps <= WARM_UP:
        sys.exit(f"--steps must be above {WARM_UP}, the steps of the warm-up")
    if args.isa:
        os.environ.update(AVX2)
    for kind in ("full", "half") if args.data == "both" else (args.data,):
        result = bench(args, kind, args.work)
        print(json.dumps(result)) if args.json else show(result)


if __name__ == "__main__":
    main()
