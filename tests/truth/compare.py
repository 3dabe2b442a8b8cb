#!/usr/bin/env python3
"""Compares one trimpot run with the golden: losses, gradient norms, and every tensor it exported.

    compare.py ids    GOLDEN.json TOKENIZE.jsonl
    compare.py run    GOLDEN.json RUN OUTPUT LOSS_BOUND TENSOR_BOUND
    compare.py logits GOLDEN.json RUN|probe LOGITS.json BOUND

One line per comparison with the worst figure and where it was; exit status 1 when a bound is broken."""
import glob
import json
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sketch import read_safetensors, relative, sketch  # noqa: E402

ADAPTER_PREFIX = "base_model.model."


def verdict(what, worst, bound, where):
    ok = worst <= bound  # false for NaN
    print(f"    {'ok  ' if ok else 'FAIL'} {what}: {worst:.2e} (bound {bound:.3g}), worst at {where}")
    return ok


def worst_of(pairs):
    """(value, name) of the largest value, NaN counting as largest."""
    return max(pairs, key=lambda p: math.inf if math.isnan(p[0]) else p[0])


def series(metrics, golden, key, bound, what):
    got = [m[key] for m in metrics]
    if len(got) != len(golden):
        print(f"    FAIL {what}: {len(got)} steps in metrics.jsonl, {len(golden)} in the golden")
        return False
    worst, step = worst_of([(abs(g - w) / abs(w), f"step {i + 1}: {g:.9g}, golden {w:.9g}")
                            for i, (g, w) in enumerate(zip(got, golden))])
    return verdict(what, worst, bound, step)


def tensors(output, golden, bound):
    """Every exported file is compared in full: a missing, extra or misshapen tensor fails."""
    ok = True
    for kind in ("export", "adapter"):
        want = {k: v for k, v in golden.items() if k.startswith(ADAPTER_PREFIX) == (kind == "adapter")}
        found = {}
        for path in sorted(glob.glob(os.path.join(output, kind, "*.safetensors"))):
            found.update(read_safetensors(path))
        if not want and not found:
            continue
        if set(found) != set(want):
            print(f"    FAIL {kind}: missing {sorted(set(want) - set(found))}, extra {sorted(set(found) - set(want))}")
            ok = False
            continue
        worst, name = worst_of([(relative(sketch(found[k][1]), want[k]), k) for k in want])
        ok &= verdict(f"{kind}, {len(want)} tensors", worst, bound, name)
    return ok


def compare_run(golden, run, output, loss_bound, tensor_bound):
    run = golden["runs"][run]
    with open(os.path.join(output, "metrics.jsonl"), encoding="utf-8") as f:
        metrics = [m for m in map(json.loads, f) if "loss" in m]
    labels = sum(len(row) - 1 for row in golden["ids"])
    ok = series(metrics, run["loss"], "loss", loss_bound, "loss")
    ok &= series(metrics, run["grad_norm"], "grad_norm", 10 * loss_bound, "grad norm")
    counted = {m["supervised_tokens"] for m in metrics}
    if counted != {labels}:
        print(f"    FAIL supervised tokens: {sorted(counted)} per step, the golden trains {labels}")
        ok = False
    return ok & tensors(output, run["tensors"], tensor_bound)


def compare_ids(golden, path):
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line)["ids"] for line in f if line.strip()]
    for i, want in enumerate(golden["ids"]):
        got = rows[i] if i < len(rows) else None
        if got != want:
            print(f"    FAIL ids of row {i + 1}: got {got}, golden {want}")
            return False
    print(f"    ok   ids of {len(rows)} rows")
    return len(rows) == len(golden["ids"])


def compare_logits(golden, run, path, bound):
    want = golden["probe"]["logits"] if run == "probe" else golden["runs"][run]["logits"]
    with open(path, encoding="utf-8") as f:
        got = json.load(f)
    return verdict("logits", relative(got, want), bound, f"{len(want)} values after the probe")


def main(argv):
    with open(argv[2], encoding="utf-8") as f:
        golden = json.load(f)
    if argv[1] == "ids":
        ok = compare_ids(golden, argv[3])
    elif argv[1] == "logits":
        ok = compare_logits(golden, argv[3], argv[4], float(argv[5]))
    else:
        ok = compare_run(golden, argv[3], argv[4], float(argv[5]), float(argv[6]))
    return 0 if ok else 1


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv))
