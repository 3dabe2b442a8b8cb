#!/usr/bin/env python3
"""The adapters of golden/adapters.json as PEFT directories, in plain Python.

    adapters.py list
    adapters.py write NAME DIR [DTYPE]      DTYPE: F32 (default), F16, BF16, F64
    adapters.py check NAME EVAL.json BOUND  the loss that `trimpot eval --json` printed, beside PEFT's
    adapters.py trained NAME OUTPUT LOSS TENSOR   a run's losses, gradient norms and tensors, within these bounds
    adapters.py same DIR DIR                do both hold the same tensors and mean the same modules? (copies of the base's that PEFT
                                            saves along may lack)

Tensors are formulas, the same for make_adapters.py, which gives PEFT the same values: multiples of 1/128 below 1, so that
every dtype holds them exactly; magnitudes and norms are 1 more."""
import json
import math
import os
import struct
import sys

from sketch import read_safetensors, relative, sketch

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden", "adapters.json")
PACK = {"F32": "f", "F64": "d", "F16": "e"}
WIDTH = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2}


def values(name, count):
    state = sum((i + 1) * b for i, b in enumerate(name.encode())) * 2654435761 % 2**64
    out = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(((state >> 40) % 65 - 32) / 128 + name.endswith(("magnitude_vector", "norm.weight")))
    return out


def encode(vals, dtype):
    if dtype == "BF16":
        return b"".join(struct.pack("<f", v)[2:] for v in vals)
    return struct.pack(f"<{len(vals)}{PACK[dtype]}", *vals)


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def read_raw(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as f:
        blob = f.read()
    n = struct.unpack_from("<Q", blob)[0]
    header = json.loads(blob[8:8 + n])
    header.pop("__metadata__", None)
    return {k: (e["dtype"], e["shape"], blob[8 + n + e["data_offsets"][0]:8 + n + e["data_offsets"][1]])
            for k, e in header.items()}


def cases():
    with open(GOLDEN, encoding="utf-8") as f:
        return {c["name"]: c for c in json.load(f)}


def write(case, out, dtype="F32"):
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "adapter_config.json"), "w", encoding="utf-8") as f:
        json.dump(case["config"], f, indent=2, sort_keys=True)
    tensors = {}
    for name, shape in case["tensors"].items():
        kind = dtype if ".lora_" in name or dtype != "F64" else "F32"  # of weights that are trained whole F64 is refused
        tensors[name] = (kind, shape, encode(values(name, math.prod(shape)), kind))
    model = read_raw(os.path.join(HERE, "golden", case["family"], "model", "model.safetensors"))
    for name, factor in case["base"].items():
        own = name.replace("base_model.model.", "").replace(".base_layer", "")
        kind, shape, raw = model[own if own in model else "model.embed_tokens.weight"]
        floats = struct.unpack(f"<{len(raw) // 4}f", raw)
        tensors[name] = (kind, shape, struct.pack(f"<{len(floats)}f", *(factor * v for v in floats)))
    write_safetensors(os.path.join(out, "adapter_model.safetensors"), tensors)


def check(case, path, bound):
    with open(path, encoding="utf-8") as f:
        got = json.load(f)["loss"]
    error = abs(got - case["loss"]) / case["loss"]
    print(f"    {'ok  ' if error <= bound else 'FAIL'} {case['name']}: loss {got:.9g}, PEFT {case['loss']:.9g}")
    return error <= bound


def same(*directories):
    a, b = (read_raw(os.path.join(d, "adapter_model.safetensors")) for d in directories)
    configs = []
    for d in directories:
        with open(os.path.join(d, "adapter_config.json"), encoding="utf-8") as f:
            configs.append(json.load(f))
    was, found = configs
    if not was.get("modules_to_save"):
        a = {k: v for k, v in a.items() if k in b or ".lora_" in k}
    differ = [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]
    # The first of a pattern that matches counts, so that their order is part of them.
    differ += [k for k in ("rank_pattern", "alpha_pattern") if k in was and list(was[k].items()) != list(found[k].items())]
    differ += [k for k in ("modules_to_save",) if k in was and was[k] != found[k]]
    if differ:
        print("    differ:", sorted(differ))
    return not differ


def trained(case, output, loss_bound, tensor_bound):
    want = case["trained"]
    with open(os.path.join(output, "metrics.jsonl"), encoding="utf-8") as f:
        metrics = [m for m in map(json.loads, f) if "loss" in m]
    tensors = read_safetensors(os.path.join(output, "adapter", "adapter_model.safetensors"))
    found = [("steps", abs(len(metrics) - len(want["loss"])), 0)]
    for key, bound in (("loss", loss_bound), ("grad_norm", 10 * loss_bound)):
        found.append((key, max(abs(m[key] - w) / w for m, w in zip(metrics, want[key])), bound))
    errors = {n: relative(sketch(tensors[n][1]), s) for n, s in want["tensors"].items()}
    worst = max(errors, key=errors.get)
    found.append((worst, errors[worst], tensor_bound))
    for what, error, bound in found:
        print(f"    {'ok  ' if error <= bound else 'FAIL'} {what}: {error:.1e} (bound {bound:g})")
    return all(error <= bound for _, error, bound in found)


def main(argv):
    if argv[1] == "list":
        print("\n".join(f"{c['name']} {c['family']}" for c in cases().values()))
    elif argv[1] == "write":
        write(cases()[argv[2]], *argv[3:])
    elif argv[1] == "same":
        return not same(*argv[2:4])
    elif argv[1] == "trained":
        return not trained(cases()[argv[2]], argv[3], float(argv[4]), float(argv[5]))
    elif not check(cases()[argv[2]], argv[3], float(argv[4])):
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv))
