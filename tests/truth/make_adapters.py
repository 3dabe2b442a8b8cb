#!/usr/bin/env python3
"""Writes golden/adapters.json: adapters on some layers, modules and ranks, and the loss that PEFT gives with each.

    python3 make_adapters.py        needs torch, transformers, peft, and the models that make_golden.py wrote

Per case: the model's family, adapter_config.json as PEFT saves it (what is at its default left out), the tensors PEFT
saves and their shapes, and the mean loss of PeftModel.from_pretrained on the family's rows: so that what selects what is
PEFT's word. `base` are tensors of the base that PEFT saves as well, and the factor by which they differ from it here.
Of adapters with magnitudes and with whole modules also what ten steps make of them, in float64 as in make_golden.py: losses, gradient
norms, sketches of the tensors outside layer 0, and the logits behind the probe."""
import json
import math
import os
import shutil
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import adapters  # noqa: E402
from make_golden import STEPS, last_logits, rounded, step_loss  # noqa: E402
from sketch import sketch  # noqa: E402

ALWAYS = ("peft_type", "task_type", "r", "lora_alpha", "target_modules", "init_lora_weights", "bias", "peft_version")
STRIPPED = ("base_model_name_or_path", "inference_mode")
# Patterns are in the order in which PEFT's save_pretrained writes them, whatever the order of the one who trained.
CASES = [
    ("layer-1-only", "llama2", dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
    ("layer-0-only", "qwen2", dict(target_modules=["k_proj", "up_proj"], layers_to_transform=0, layers_pattern="layers")),
    ("mixed-modules", "llama2", dict(target_modules=r".*(0.*(q|down)|1.*(k|o|gate))_proj")),
    ("mixed-modules-qwen", "qwen2", dict(target_modules=r"model\.layers\.(0\.mlp\.(up|down)|1\.self_attn\.[kv])_proj")),
    ("one-module", "qwen2", dict(target_modules=["layers.1.mlp.down_proj"])),
    ("excluded", "qwen2", dict(target_modules="all-linear", exclude_modules=["up_proj", "layers.0.self_attn.q_proj"])),
    ("excluded-by-regex", "llama2", dict(target_modules=["q_proj", "o_proj", "gate_proj"], exclude_modules=r".*\.0\..*proj")),
    ("defaults", "qwen2", dict(target_modules=None)),
    ("all-linear", "llama2", dict(target_modules="all-linear", use_rslora=True)),
    ("head", "llama2", dict(target_modules=["q_proj", "lm_head"])),
    ("head-tied", "qwen2", dict(target_modules=["q_proj", "lm_head"])),
    ("head-only", "llama2", dict(target_modules=["lm_head"], layers_to_transform=[1])),
    ("head-replaced", "llama2", dict(target_modules=["v_proj", "lm_head"]), 0.75),
    ("embeddings-came-along", "llama2", dict(target_modules=["q_proj"]), 0.75, True),
    ("embeddings-came-along-tied", "qwen2", dict(target_modules=["q_proj"]), 0.75, True),
    ("ranks", "llama2", dict(target_modules="all-linear", rank_pattern={r"^.*\.0\..*": 3, "layers.1.mlp.*": 6, "q_proj": 2},
                             alpha_pattern={"(q|k)_proj": 9, "1.mlp.up_proj": 1.5})),
    ("ranks-rslora", "qwen2", dict(target_modules=["q_proj", "down_proj"], use_rslora=True, rank_pattern={"1.*q_proj": 9},
                                   alpha_pattern={"down_proj": 0.5})),
    ("dora", "llama2", dict(target_modules=["q_proj", "o_proj", "gate_proj"], use_dora=True)),
    ("dora-rslora", "qwen2", dict(target_modules=["k_proj", "v_proj", "down_proj"], use_dora=True, use_rslora=True,
                                  rank_pattern={"v_proj": 3})),
    ("dora-head", "llama2", dict(target_modules=["up_proj", "lm_head"], use_dora=True)),
    ("saved", "llama2", dict(target_modules=["q_proj", "gate_proj"], modules_to_save=["lm_head", "embed_tokens", "model.norm"])),
    ("saved-ranks", "qwen2", dict(target_modules=["q_proj", "down_proj"], modules_to_save=["k_proj", "0.self_attn.o_proj", "layernorm"],
                                  rank_pattern={"0.self_attn.q_proj": 7}, alpha_pattern={"down_proj": 9.5})),
]
TRAINING = dict(lr=2e-3, weight_decay=0.01, eps=1e-4)


def load(family):
    return AutoModelForCausalLM.from_pretrained(os.path.join(adapters.HERE, "golden", family, "model"), dtype=torch.float32)


def mean_loss(model, ids):
    total, labels = 0.0, 0
    with torch.no_grad():
        for row in ids:
            logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1].double()
            total += torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum").item()
            labels += len(row) - 1
    return total / labels


def saved(directory):
    """{name: shape} of the adapter's file"""
    with safe_open(os.path.join(directory, "adapter_model.safetensors"), "pt") as f:
        return {k: list(f.get_slice(k).get_shape()) for k in sorted(f.keys())}


def config_of(directory):
    with open(os.path.join(directory, "adapter_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key].sort()
    default = json.loads(json.dumps(LoraConfig().to_dict()))
    return {k: v for k, v in config.items() if k in ALWAYS or (k not in STRIPPED and v != default[k])}


def trained(family, directory, ids, probe):
    model = PeftModel.from_pretrained(load(family), directory, is_trainable=True).double()
    params = {n.replace(".modules_to_save", "").replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector"): p
              for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(params.values(), **TRAINING)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = step_loss(model, ids)
        loss.backward()
        losses.append(loss.item())
        norms.append(math.sqrt(sum(float((p.grad ** 2).sum()) for p in params.values())))
        optimizer.step()
    return {"loss": losses, "grad_norm": rounded(norms, 10), "logits": rounded(last_logits(model, probe).tolist(), 8),
            "tensors": {n: rounded(sketch(p.detach().flatten().tolist()), 7) for n, p in sorted(params.items())
                        if ".layers.0." not in n}}


def make(name, family, settings, factor=1, embeddings="auto"):
    with open(os.path.join(adapters.HERE, "golden", family, "golden.json"), encoding="utf-8") as f:
        golden = json.load(f)
    ids = golden["ids"]
    directory = tempfile.mkdtemp()
    model = get_peft_model(load(family), LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **settings))
    model.save_pretrained(directory, save_embedding_layers=embeddings)
    tensors = saved(directory)
    whole = bool(settings.get("modules_to_save"))  # of values like adapters'
    case = {"name": name, "family": family, "config": config_of(directory),
            "tensors": {k: v for k, v in tensors.items() if whole or ".lora_" in k},
            "base": {k: factor for k in tensors if not whole and ".lora_" not in k}}
    adapters.write(case, directory)
    case["loss"] = mean_loss(PeftModel.from_pretrained(load(family), directory), ids)
    if whole or settings.get("use_dora"):
        case["trained"] = trained(family, directory, ids, golden["probe"]["ids"])
        print(f"{name}: loss {case['trained']['loss'][0]:.6f} -> {case['trained']['loss'][-1]:.6f}")
    shutil.rmtree(directory)
    print(f"{name} ({family}): {len(case['tensors'])} tensors, loss {case['loss']:.9g}")
    return case


def main():
    torch.set_num_threads(1)
    out = [make(*case) for case in CASES]
    with open(adapters.GOLDEN, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(case, sort_keys=True) for case in out) + "\n]\n")


if __name__ == "__main__":
    main()
