#!/usr/bin/env python3
"""For fused.sh: a Phi-3 directory as the Mistral directory of the same model, and adapters between the two.

    fused.py unfuse PHI3_DIR MISTRAL_DIR       qkv_proj and gate_up_proj as the projections that they hold
    fused.py split ADAPTER_DIR OUT_DIR PARTS HEADS KV_HEADS HEAD_DIM
                                               an adapter on PARTS of qkv_proj ("qv") as one adapter on each; its zeros are checked
    fused.py same A_DIR B_DIR BOUND            two adapter directories have the same tensors, within BOUND of the largest of each
"""
import json
import os
import shutil
import struct
import sys


def read(path):
    """name -> (shape, floats); F32 only."""
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        start = f.tell()
        out = {}
        for name, t in header.items():
            if name == "__metadata__":
                continue
            assert t["dtype"] == "F32", (name, t["dtype"])
            f.seek(start + t["data_offsets"][0])
            n = (t["data_offsets"][1] - t["data_offsets"][0]) // 4
            out[name] = (t["shape"], struct.unpack("<%df" % n, f.read(4 * n)))
    return out


def write(path, tensors):
    header, at, data = {"__metadata__": {"format": "pt"}}, 0, b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * len(values)]}
        at += 4 * len(values)
        data += struct.pack("<%df" % len(values), *values)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def rows(t, first, n):
    shape, values = t
    width = shape[1]
    return [n, width], values[first * width:(first + n) * width]


def columns(t, first, n):
    shape, values = t
    return [shape[0], n], [v for r in range(shape[0]) for v in values[r * shape[1] + first:r * shape[1] + first + n]]


def unfuse(phi3, mistral):
    shutil.copytree(phi3, mistral)
    c = json.load(open(os.path.join(phi3, "config.json")))
    head = c["hidden_size"] // c["num_attention_heads"]
    q, kv, f = head * c["num_attention_heads"], head * c["num_key_value_heads"], c["intermediate_size"]
    c.update(model_type="mistral", architectures=["MistralForCausalLM"], head_dim=head)
    json.dump(c, open(os.path.join(mistral, "config.json"), "w"))
    parts = {"qkv_proj": (("q_proj", q), ("k_proj", kv), ("v_proj", kv)), "gate_up_proj": (("gate_proj", f), ("up_proj", f))}
    out = {}
    for name, t in read(os.path.join(phi3, "model.safetensors")).items():
        fused = next((p for p in parts if p in name), None)
        at = 0
        for part, n in parts.get(fused, ()):
            out[name.replace(fused, part)] = rows(t, at, n)
            at += n
        if not fused:
            out[name] = t
    write(os.path.join(mistral, "model.safetensors"), out)


def split(adapter, out_dir, parts, heads, kv_heads, head):
    c = json.load(open(os.path.join(adapter, "adapter_config.json")))
    rank, alpha = c["rank_pattern"].pop("qkv_proj"), c["alpha_pattern"].pop("qkv_proj")
    assert rank == c["r"] * len(parts) and alpha == c["lora_alpha"] * len(parts), (rank, alpha)
    c["target_modules"] = [m for m in c["target_modules"] if m != "qkv_proj"] + [p + "_proj" for p in parts]
    place = {"q": (0, heads * head), "k": (heads * head, kv_heads * head), "v": ((heads + kv_heads) * head, kv_heads * head)}
    out = {}
    for name, t in read(os.path.join(adapter, "adapter_model.safetensors")).items():
        if "qkv_proj" not in name:
            out[name] = t
            continue
        nonzero = 0
        for i, p in enumerate(parts):
            first, n = place[p]
            own = rows(t, i * c["r"], c["r"]) if "lora_A" in name else columns(rows(t, first, n), i * c["r"], c["r"])
            out[name.replace("qkv_proj", p + "_proj")] = own
            nonzero += sum(v != 0 for v in own[1])
        if "lora_B" in name:
            assert nonzero == sum(v != 0 for v in t[1]), f"{name}: not zero outside of its parts"
    os.makedirs(out_dir)
    json.dump(c, open(os.path.join(out_dir, "adapter_config.json"), "w"))
    write(os.path.join(out_dir, "adapter_model.safetensors"), out)


def same(a, b, bound):
    a, b = (read(os.path.join(d, "adapter_model.safetensors")) for d in (a, b))
    assert a.keys() == b.keys(), set(a) ^ set(b)
    worst = 0
    for name in a:
        assert a[name][0] == b[name][0], name
        largest = max(map(abs, b[name][1]))
        assert largest > 0, name
        worst = max(worst, max(abs(x - y) for x, y in zip(a[name][1], b[name][1])) / largest)
    print(f"{len(a)} tensors, {worst:.1e} apart, {bound} allowed")
    sys.exit(worst > float(bound))


if __name__ == "__main__":
    what, args = sys.argv[1], sys.argv[2:]
    if what == "split":
        split(*args[:3], *map(int, args[3:]))
    else:
        {"unfuse": unfuse, "same": same}[what](*args)
