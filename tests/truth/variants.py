#!/usr/bin/env python3
"""Directories that hold the tiny models of golden/ in other ways, and the losses that transformers computes of them.

    variants.py list                  NAME and the warning that is due, one a line, tab-separated
    variants.py make NAME DIR         writes DIR/model and DIR/rows.jsonl; python3 alone
    variants.py check NAME LOSS       against golden/variants.json
    variants.py golden                writes golden/variants.json; needs torch and transformers 5

A loss is the mean over the labels of all rows, each row run alone in float64; the model must load there without missing,
unexpected or misshapen tensors."""
import json
import os
import shutil
import struct
import sys

from adapters import write_safetensors

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")
BOUND = 1e-5
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


# ---- tensors: {name: (dtype, shape, bytes)} ---------------------------------------------------------------------------

def read(path):
    with open(path, "rb") as f:
        raw = f.read()
    n = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
    header.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[v["data_offsets"][0]:v["data_offsets"][1]]) for k, v in header.items()}


def upside_down(tensor):
    """A head of its own: the rows in reverse order."""
    dtype, shape, raw = tensor
    width = len(raw) // shape[0]
    return dtype, shape, b"".join(raw[i:i + width] for i in range(len(raw) - width, -1, -width))


def head_differs(t):
    t[HEAD] = upside_down(t[EMBED])


def head_equal(t):
    t[HEAD] = t[EMBED]


def head_only(t):
    t[HEAD] = t.pop(EMBED)


def bare(t):
    for name in list(t):
        t[name[len("model."):] if name.startswith("model.") else name] = t.pop(name)


def wrapped(t):
    for name in list(t):
        t["model." + name] = t.pop(name)


def bare_head_differs(t):
    head_differs(t)
    bare(t)


def half_head(t):
    """Equal in value, not in type."""
    dtype, shape, raw = t[EMBED]
    half = b"".join(raw[i + 2:i + 4] for i in range(0, len(raw), 4))
    t[HEAD] = ("BF16", shape, half)
    t[EMBED] = (dtype, shape, b"".join(b"\0\0" + half[i:i + 2] for i in range(0, len(half), 2)))


# ---- files ------------------------------------------------------------------------------------------------------------

def single(directory, tensors):
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors)


def shards(directory, tensors, wrong=(), unnamed=(), extra=()):
    """Two shards; the index is wrong about some tensors, has not heard of others, and names some that are nowhere."""
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {}
    for file, part in zip(files, (names[:len(names) // 2], names[len(names) // 2:])):
        write_safetensors(os.path.join(directory, file), {k: tensors[k] for k in part})
        weight_map.update({k: file for k in part})
    for k in wrong:
        weight_map[k] = files[weight_map[k] == files[0]]
    for k in unnamed:
        weight_map.pop(k)
    weight_map.update({k: files[0] for k in extra})
    index(directory, weight_map)


def index(directory, weight_map):
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": 0}, "weight_map": weight_map}, f)


def single_beside_stale_index(directory, tensors):
    single(directory, tensors)
    write_safetensors(os.path.join(directory, "model-00001-of-00001.safetensors"),
          {k: upside_down(v) for k, v in tensors.items()})
    index(directory, {k: "model-00001-of-00001.safetensors" for k in tensors})


def single_beside_broken_index(directory, tensors):
    single(directory, tensors)
    index(directory, {k: "model-00001-of-00009.safetensors" for k in tensors})


def shards_wrong_index(directory, tensors):
    shards(directory, tensors, wrong=["model.norm.weight"], unnamed=[EMBED])


def shards_head_gone(directory, tensors):
    shards(directory, tensors, extra=[HEAD])


# ---- the table --------------------------------------------------------------------------------------------------------

def rope(kind, **keys):
    return {"rope_parameters": dict(rope_type=kind, **keys)}


YARN = dict(factor=4.0, original_max_position_embeddings=32, rope_theta=10000.0)
KEPT = "both are kept"
VARIANTS = {
    "yarn": dict(family="qwen2", config=rope("yarn", **YARN)),
    "yarn-old-spelling": dict(family="llama2", config={
        "rope_parameters": None, "rope_theta": 10000.0,
        "rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 24}}),
    "yarn-all-keys": dict(family="llama3", config=rope("yarn", beta_fast=8, beta_slow=2, mscale=0.8, mscale_all_dim=1.5,
                                                       truncate=False, **YARN)),
    "yarn-attention-factor": dict(family="llama2", config=rope("yarn", attention_factor=1.75, **YARN)),
    "dynamic": dict(family="llama2", config=dict(rope("dynamic", factor=3.0, rope_theta=10000.0),
                                                 max_position_embeddings=16), rows=[7],
                    warning="dynamic RoPE: stretched for"),
    "dynamic-within": dict(family="llama2", config=rope("dynamic", factor=3.0, rope_theta=10000.0)),
    # rows that are all beyond the original positions: transformers chooses the factors row by row
    "longrope-long": dict(family="phi3", rows=[0, 2, 3, 4, 5, 7], config=dict(rope(
        "longrope", rope_theta=10000.0, partial_rotary_factor=0.75, original_max_position_embeddings=12,
        short_factor=[1.0] * 6, long_factor=[1.0, 1.5, 3.0, 6.0, 12.0, 20.0]), original_max_position_embeddings=12),
        warning="longrope: the long factors"),
    "longrope-old-spelling": dict(family="phi3", config={
        "rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": {
            "type": "yarn", "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0], "long_factor": [2.0] * 8}}),
    "layers-old-spelling": dict(family="gemma3", config={
        "rope_parameters": None, "rope_theta": 500000.0, "rope_local_base_freq": 20000.0, "layer_types": None,
        "sliding_window_pattern": 2, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "layers-listed": dict(family="gemma2", config={"layer_types": ["full_attention", "sliding_attention"]}),
    "capless": dict(family="gemma2", config={"attn_logit_softcapping": None, "final_logit_softcapping": 1.5}),
    "windows-above": dict(family="qwen3", config={"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1,
                                                  "layer_types": None}),
    "no-window": dict(family="mistral", config={"sliding_window": None}),
    "legacy-activation": dict(family="gemma", config={"hidden_act": "gelu"}),
    "head-differs": dict(family="llama3", tensors=head_differs, warning=KEPT),
    "head-equal": dict(family="llama3", tensors=head_equal),
    "head-equal-in-bf16": dict(family="llama3", tensors=half_head),
    "head-only": dict(family="qwen2", tensors=head_only),
    "head-in-another-shard": dict(family="qwen2", tensors=head_differs, files=shards, warning=KEPT),
    "head-gone-from-shards": dict(family="qwen2", files=shards_head_gone, warning="in none of its files"),
    "bare-names": dict(family="llama3", tensors=bare),
    "bare-names-untied": dict(family="llama2", tensors=bare),
    "bare-names-head-differs": dict(family="qwen2", tensors=bare_head_differs, warning=KEPT),
    "wrapped-names": dict(family="llama2", tensors=wrapped),
    "stale-index": dict(family="llama2", files=single_beside_stale_index, warning="the index beside it"),
    "broken-index": dict(family="llama2", files=single_beside_broken_index, warning="the index beside it"),
    "wrong-index": dict(family="llama2", files=shards_wrong_index, warning="are not in the file that it says"),
    "dropouts": dict(family="llama2", config={"attention_dropout": 0.1, "resid_pdrop": 0.1}),
}


def make(name, out):
    v = VARIANTS[name]
    source, model = os.path.join(GOLDEN, v["family"]), os.path.join(out, "model")
    os.makedirs(model)
    for file in os.listdir(os.path.join(source, "model")):
        if not file.startswith(("model", "config.json")):
            shutil.copyfile(os.path.join(source, "model", file), os.path.join(model, file))
    with open(os.path.join(source, "model", "config.json")) as f:
        config = json.load(f)
    config.update(v.get("config", {}))
    with open(os.path.join(model, "config.json"), "w") as f:
        json.dump({k: x for k, x in config.items() if x is not None or k not in v.get("config", {})}, f, indent=2)
    tensors = read(os.path.join(source, "model", "model.safetensors"))
    v.get("tensors", lambda t: None)(tensors)
    v.get("files", single)(model, tensors)
    with open(os.path.join(source, "rows.jsonl")) as f:
        lines = f.readlines()
    with open(os.path.join(out, "rows.jsonl"), "w") as f:
        f.writelines(lines[i] for i in v.get("rows", range(len(lines))))


def golden():
    import tempfile
    import torch
    from make_golden import step_loss  # takes the float32 out of RMSNorm
    from transformers import AutoModelForCausalLM
    losses = {}
    for name, v in VARIANTS.items():
        with open(os.path.join(GOLDEN, v["family"], "golden.json")) as f:
            ids = json.load(f)["ids"]
        with tempfile.TemporaryDirectory() as out:
            make(name, out)
            model, info = AutoModelForCausalLM.from_pretrained(os.path.join(out, "model"), dtype=torch.float32,
                                                               output_loading_info=True)
        faults = {k: x for k, x in info.items() if x}
        assert not faults, (name, faults)
        with torch.no_grad():
            losses[name] = step_loss(model.double().eval(), [ids[i] for i in v.get("rows", range(len(ids)))]).item()
        print(f"{name}: {losses[name]:.6f}")
    with open(os.path.join(GOLDEN, "variants.json"), "w") as f:
        json.dump(losses, f, indent=1)
        f.write("\n")


def check(name, loss):
    with open(os.path.join(GOLDEN, "variants.json")) as f:
        want = json.load(f)[name]
    worst = abs(float(loss) - want) / want
    print(f"    {'ok  ' if worst <= BOUND else 'FAIL'} {name}: loss {float(loss):.6f}, transformers {want:.6f} ({worst:.1e})")
    return worst <= BOUND


def main():
    verb = sys.argv[1]
    if verb == "list":
        for name, v in VARIANTS.items():
            print(f"{name}\t{v.get('warning', '')}")
    elif verb == "make":
        make(*sys.argv[2:4])
    elif verb == "golden":
        golden()
    else:
        return not check(*sys.argv[2:4])
    return 0


if __name__ == "__main__":
    sys.exit(main())
