#!/usr/bin/env python3
"""Runs of golden/starts.json (make_starts.py) in plain Python.

    starts.py list                             NAME FAMILY, one a line
    starts.py keys NAME                        key=value of the run, one a line
    starts.py check NAME OUTPUT LOSS PRODUCT   losses, gradient norms and products of a run's adapter, within these bounds
    starts.py near NAME EVAL.json BOUND        the loss of `trimpot eval --json` beside the one after the golden's run
    starts.py drawn gaussian|orthogonal DIR    an adapter that was not trained: is it distributed so?
"""
import json
import math
import os
import re
import sys

from sketch import read_safetensors, relative, sketch

HERE = os.path.dirname(os.path.abspath(__file__))


def cases():
    with open(os.path.join(HERE, "golden", "starts.json"), encoding="utf-8") as f:
        return {c["name"]: c for c in json.load(f)}


def keys(case):
    out = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in case["keys"].items()]
    if case["adapter"]:
        out.append("checkpointer.adapter_checkpoint=" + os.path.join(HERE, "golden", case["family"], "adapter"))
    return out


def product(a, b, scale, first, last):
    """scale B A of the ranks [first, last)"""
    (rank, width), a = a
    rows = [a[k * width:(k + 1) * width] for k in range(rank)]
    out = []
    for o in range(b[0][0]):
        total = [0.0] * width
        for k in range(first, last):
            factor = scale * b[1][o * rank + k]
            total = [t + factor * x for t, x in zip(total, rows[k])]
        out += total
    return out


def products(output, case):
    """(change, start) of the modules that the golden shows. A portable adapter holds [A; A0] and [B, -B0]."""
    directory = os.path.join(output, "adapter")
    with open(os.path.join(directory, "adapter_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    tensors = read_safetensors(os.path.join(directory, "adapter_model.safetensors"))
    change, start = {}, {}
    for module in case["change"]:
        a, b = (tensors[f"base_model.model.model.layers.{module}.lora_{x}.weight"] for x in "AB")
        rank = a[0][0]
        path = "model.layers." + module
        alpha = next((v for k, v in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({k})$", path)), config["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
        change[module] = product(a, b, scale, 0, rank)
        if case["start"]:
            start[module] = product(a, b, -scale, rank // 2, rank)
    return change, start


def verdict(what, worst, bound):
    print(f"    {'ok  ' if worst <= bound else 'FAIL'} {what}: {worst:.1e} (bound {bound:g})")
    return worst <= bound


def check(case, output, loss_bound, product_bound):
    with open(os.path.join(output, "metrics.jsonl"), encoding="utf-8") as f:
        metrics = [m for m in map(json.loads, f) if "loss" in m]
    if len(metrics) != len(case["loss"]):
        print(f"    FAIL {len(metrics)} steps, {len(case['loss'])} in the golden")
        return False
    ok = True
    for key, bound in (("loss", loss_bound), ("grad_norm", 10 * loss_bound)):
        ok &= verdict(key, max(abs(m[key] - w) / w for m, w in zip(metrics, case[key])), bound)
    files = read_safetensors(os.path.join(output, "adapter", "adapter_model.safetensors"))
    whole = {k for k in files if ".lora_" not in k}
    if whole != set(case["saved"]):
        print(f"    FAIL saved whole: {sorted(whole)}, PEFT {sorted(case['saved'])}")
        ok = False
    for name, want in case["saved"].items():
        ok &= name in whole and verdict(name, relative(sketch(files[name][1]), want), product_bound)
    for what, found in zip(("change", "start"), products(output, case)):
        for module, want in case[what].items():
            ok &= verdict(f"{what} of {module}", relative(sketch(found[module]), want), product_bound)
    return ok


def drawn(how, directory):
    """Of all A, and all B, in multiples of what the law says: mean 0 and deviation 1 within five of their own deviations. gaussian:
    N(0, 1/r^2). orthogonal: a sum of r/2 products of N(0, 1) with elements of rows of length 1, so of variance 1/2, a tenth of it."""
    tensors = read_safetensors(os.path.join(directory, "adapter_model.safetensors"))
    ok = True
    for which in "AB":
        values = []
        for name, (shape, v) in tensors.items():
            rank = shape[0 if which == "A" else 1]
            if f".lora_{which}." in name:
                values += [x * (rank if how == "gaussian" else 10 * math.sqrt(2)) for x in v]
        n = len(values)
        mean = sum(values) / n
        deviation = math.sqrt(sum(x * x for x in values) / n)
        if how == "gaussian" and which == "B":
            ok &= verdict("B", max(map(abs, values)), 0)
            continue
        free = n if how == "gaussian" else n / 2  # the r elements for one input or output are made of r/2 numbers
        ok &= verdict(f"mean of {n} of {which}", abs(mean), 5 / math.sqrt(free))
        ok &= verdict(f"deviation of {n} of {which}", abs(deviation - 1), 5 / math.sqrt(2 * free))
    for name, a in tensors.items():
        if how == "orthogonal" and ".lora_A." in name:
            b = tensors[name.replace("lora_A", "lora_B")]
            most = max(map(abs, product(a, b, 1, 0, a[0][0])))
            # f32 factors of some 0.1: r roundings of products of 0.01, twice
            if most > a[0][0] * 2 ** -24:
                ok = verdict(f"B A of {name}", most, a[0][0] * 2 ** -24)
    return ok


def main(argv):
    if argv[1] == "list":
        print("\n".join(f"{c['name']} {c['family']}" for c in cases().values()))
    elif argv[1] == "keys":
        print("\n".join(keys(cases()[argv[2]])))
    elif argv[1] == "near":
        with open(argv[3], encoding="utf-8") as f:
            got, want = json.load(f)["loss"], cases()[argv[2]]["after"]
        return not verdict(f"loss {got:.9g}, golden {want:.9g}", abs(got - want) / want, float(argv[4]))
    elif argv[1] == "drawn":
        return not drawn(argv[2], argv[3])
    else:
        return not check(cases()[argv[2]], argv[3], float(argv[4]), float(argv[5]))
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv))
