#!/usr/bin/env python3
"""Writes golden/starts.json: what PEFT makes of LoRA+, and of adapters that start from the weights they sit on.

    python3 make_starts.py                      needs torch, transformers, peft, and the models that make_golden.py wrote
    python3 make_starts.py load NAME ADAPTER    PEFT's loss of the base with an adapter that trimpot exported, beside the golden's

Per case: the family, the settings as trimpot's keys, loss and gradient norm of ten steps of AdamW or SGD on the family's rows, the
mean loss after them, and of some modules sketches (sketch.py) of the change of the weight, s(BA - B0 A0), and of the part it started
from, s B0 A0: signs of singular vectors are free, products are not. PEFT takes the parts from the weights in float32; the training
is float64, as in make_golden.py."""
import json
import math
import os
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoModelForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_golden import FUSED, LINEARS, STEPS, rounded, step_loss  # noqa: E402
from sketch import sketch  # noqa: E402

GOLDEN_DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")

SHOWN = {"llama2": ["0.self_attn.q_proj", "0.mlp.gate_proj", "1.self_attn.v_proj", "1.mlp.down_proj"],
         "qwen2": ["0.self_attn.k_proj", "1.mlp.down_proj"],  # those that have adapters
         "phi3": ["0.self_attn.qkv_proj", "1.mlp.gate_up_proj"]}
ADAMW = dict(optimizer="torch.optim.AdamW", lr=1e-3, weight_decay=0.01, eps=1e-4)
SGD = dict(optimizer="torch.optim.SGD", lr=0.02, momentum=0.9, weight_decay=0.02)
RANKS = {r"^.*\.0\..*_proj": 3, "1.mlp.(up|down)_proj": 7, "q_proj": 2}
ALPHAS = {"mlp.*": 9, "self_attn.[qk]_proj": 2.5, "down_proj": 1}
# name, family, optimizer, ratio of LoRA+, adapter (None: as make_golden.py's, where B is not zero)
CASES = [
    ("plus-adamw", "llama2", ADAMW, 16, None),
    ("plus-sgd", "qwen2", SGD, 5, None),
    ("pissa", "llama2", ADAMW, None, dict(init_lora_weights="pissa", r=4, lora_alpha=6)),
    ("pissa-rslora", "qwen2", SGD, None, dict(init_lora_weights="pissa", r=3, lora_alpha=5, use_rslora=True)),
    ("pissa-plus-fused", "phi3", ADAMW, 4, dict(init_lora_weights="pissa", r=8, lora_alpha=8)),
    ("patterns", "llama2", ADAMW, None, dict(init_lora_weights="pissa", r=4, lora_alpha=6, rank_pattern=RANKS, alpha_pattern=ALPHAS)),
    ("patterns-rslora", "qwen2", SGD, None, dict(init_lora_weights="olora", r=2, lora_alpha=1, use_rslora=True, alpha_pattern=ALPHAS,
                                                 rank_pattern={r".*\.1\..*down_proj": 6, "0.self_attn.k_proj": 3})),
    ("saved", "llama2", ADAMW, None, dict(init_lora_weights="pissa", r=4, lora_alpha=6,
                                          modules_to_save=["lm_head", "embed_tokens", "norm"])),
    ("saved-plus", "phi3", SGD, 3, dict(init_lora_weights="olora", r=2, lora_alpha=2, modules_to_save=["lm_head", "model.norm"])),
    ("saved-linears", "qwen2", ADAMW, 4, dict(init_lora_weights="olora", r=2, lora_alpha=1, lora_attn_modules=[],
                                              modules_to_save=["q_proj", "0.self_attn.o_proj", "post_attention_layernorm"])),
    ("pissa-dora-plus", "qwen2", ADAMW, 3, dict(init_lora_weights="pissa", r=4, lora_alpha=6, use_dora=True)),
    ("olora", "llama2", SGD, None, dict(init_lora_weights="olora", r=4, lora_alpha=2)),
    ("olora-rslora", "qwen2", ADAMW, None, dict(init_lora_weights="olora", r=6, lora_alpha=3, use_rslora=True)),
]


def load(family):
    return AutoModelForCausalLM.from_pretrained(os.path.join(GOLDEN_DIR, family, "model"), dtype=torch.float32)


def adapted(family, adapter):
    if not adapter:
        return PeftModel.from_pretrained(load(family), os.path.join(GOLDEN_DIR, family, "adapter"), is_trainable=True)
    settings = {k: v for k, v in adapter.items() if k != "lora_attn_modules"}
    targets = FUSED if family == "phi3" else LINEARS[4:] if settings != adapter else LINEARS
    return get_peft_model(load(family), LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **settings))


def products(model, family):
    """s BA of the modules that are shown."""
    out = {}
    for name in SHOWN[family]:
        m = model.get_submodule("base_model.model.model.layers." + name)
        if not hasattr(m, "lora_A"):
            continue
        out[name] = (m.scaling["default"] * m.lora_B["default"].weight @ m.lora_A["default"].weight).detach().double()
    return out


def optimizer_of(model, settings, ratio):
    cls = getattr(torch.optim, settings["optimizer"].split(".")[-1])
    extra = {k: settings[k] for k in ("momentum", "eps") if k in settings}
    if ratio:
        return create_loraplus_optimizer(model, cls, lr=settings["lr"], loraplus_lr_ratio=ratio,
                                         loraplus_weight_decay=settings["weight_decay"], **extra)
    return cls([p for p in model.parameters() if p.requires_grad], lr=settings["lr"], weight_decay=settings["weight_decay"], **extra)


def sketched(matrices):
    return {k: rounded(sketch(v.flatten().tolist()), 7) for k, v in matrices.items()}


def make(name, family, settings, ratio, adapter):
    with open(os.path.join(GOLDEN_DIR, family, "golden.json"), encoding="utf-8") as f:
        ids = json.load(f)["ids"]
    model = adapted(family, adapter)
    start = products(model, family)
    model.double()
    optimizer = optimizer_of(model, settings, ratio)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = step_loss(model, ids)
        loss.backward()
        losses.append(loss.item())
        norms.append(math.sqrt(sum(float((p.grad ** 2).sum()) for p in model.parameters() if p.requires_grad)))
        optimizer.step()
    with torch.no_grad():
        after = step_loss(model, ids).item()
    change = {k: v - (start[k] if adapter else 0) for k, v in products(model, family).items()}
    # PEFT's copies: what they have become, as they are named in files
    saved = sketched({n.replace(".modules_to_save.default", ""): p.detach() for n, p in model.named_parameters() if "modules_to_save" in n})
    print(f"{name} ({family}): loss {losses[0]:.5f} -> {after:.5f}")
    keys = {f"optimizer.{k}" if k != "optimizer" else k: v for k, v in settings.items()}
    if ratio:
        keys["model.lora_plus_ratio"] = ratio
    names = dict(r="lora_rank")  # else as in PEFT
    keys.update({"model." + names.get(k, k): v for k, v in (adapter or {}).items()})
    return {"name": name, "family": family, "keys": keys, "adapter": not adapter, "loss": losses, "grad_norm": rounded(norms, 10),
            "after": after, "saved": saved, "change": sketched(change), "start": sketched(start) if adapter else {}}


def load_adapter(name, directory):
    with open(os.path.join(GOLDEN_DIR, "starts.json"), encoding="utf-8") as f:
        case = next(c for c in json.load(f) if c["name"] == name)
    with open(os.path.join(GOLDEN_DIR, case["family"], "golden.json"), encoding="utf-8") as f:
        ids = json.load(f)["ids"]
    with torch.no_grad():
        got = step_loss(PeftModel.from_pretrained(load(case["family"]), directory).double(), ids).item()
    error = abs(got - case["after"]) / case["after"]
    print(f"    {'ok  ' if error <= 1e-5 else 'FAIL'} {name} in PEFT: loss {got:.9g}, golden {case['after']:.9g}")
    return error > 1e-5


def main():
    if sys.argv[1:2] == ["load"]:
        return load_adapter(*sys.argv[2:4])
    torch.set_num_threads(1)
    out = [make(*case) for case in CASES]
    with open(os.path.join(GOLDEN_DIR, "starts.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]\n")  # the first pattern that matches counts: no sorting


if __name__ == "__main__":
    sys.exit(main())
