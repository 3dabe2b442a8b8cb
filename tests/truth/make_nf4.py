#!/usr/bin/env python3
"""Writes tests/truth/golden/nf4: weights that bitsandbytes has quantised, and what transformers and PEFT make of them.

    python3 make_nf4.py [DIR]        needs torch, transformers, peft, bitsandbytes (made with 2.15.0, 5.24.0, 0.21.2, 0.50.2)

DIR/NAME/model/         golden/FAMILY/model as save_pretrained leaves it after BitsAndBytesConfig(load_in_4bit, nf4)
DIR/NAME/golden.json    as make_golden.py's: the LoRA run of its RUNS from golden/FAMILY/adapter, over this directory
    runs.dequantized    merged into the dequantised base; or runs.original: into golden/FAMILY/model
    loss_peft           the losses of PEFT on the directory itself, in float32
    decoded             weight -> crc32 of what bitsandbytes dequantises it to, widened to float32
DIR/parts.safetensors   single weights: odd sizes, several groups of scales, another code book of scales, 16-bit storage
DIR/parts.json          weight -> {dtype, rows, cols, nested, storage, crc32 as above}

Losses and tensors are float64, of the dequantised weights, as in make_golden.py; loss_peft shows that the quantised directory trains
so."""
import json
import os
import shutil
import sys
import tempfile
import zlib

import bitsandbytes
import bitsandbytes.functional as F
import numpy as np
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute as generic
from bitsandbytes.backends.utils import _get_4bit_code
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_golden as golden  # noqa: E402
from sketch import sketch  # noqa: E402

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
# dtype: what the weights are when they are quantised. The second in several files, with linears that stay as they are.
DIRECTORIES = {
    "double": dict(family="llama3", dtype=torch.bfloat16, double=True, skip=None, shard="1GB", merge="original"),
    "single": dict(family="qwen2", dtype=torch.float16, double=False, shard="60KB", merge="dequantized",
                   skip=["lm_head", "model.layers.1.mlp.down_proj", "model.layers.0.self_attn"]),
}


def dequantize_4bit(codes, quant_state=None, absmax=None, out=None, blocksize=None, quant_type="nf4"):
    """bitsandbytes' generic implementation, whose blocks run across rows, as they do when it quantises and on every GPU. Its CPU kernel
    of 0.50.2 begins a block with each row: [64, 112] comes back up to 2.2 wrong."""
    state = quant_state
    scales = state.absmax
    if state.nested:
        scales = F.dequantize_blockwise(state.absmax, state.state2)
        scales += state.offset
    code = _get_4bit_code(state.quant_type, codes.device)
    found = generic(codes.contiguous().view(torch.uint8).reshape(-1), scales.float(), code, state.blocksize, state.shape, state.dtype)
    return found.t() if codes.shape[0] == 1 else found


def matmul_4bit(x, codes, quant_state, out=None, bias=None):
    """Forward and backward with the weight as dequantize_4bit gives it, in the dtype that it was, as up to 0.49 (0.50's forward makes
    the dtype of x of it directly, on a CPU by the kernel above; its backward does not)."""
    return torch.nn.functional.linear(x, dequantize_4bit(codes, quant_state).to(x.dtype), bias)


F.dequantize_4bit = dequantize_4bit
bitsandbytes.matmul_4bit = matmul_4bit


def crc(values):
    return zlib.crc32(values.detach().float().contiguous().numpy().tobytes())


def clean(directory):
    for stale in ("generation_config.json",):
        if os.path.exists(os.path.join(directory, stale)):
            os.remove(os.path.join(directory, stale))
    for name in os.listdir(directory):
        os.chmod(os.path.join(directory, name), 0o644)


def peft_losses(directory, adapter, settings, ids):
    """Ten steps of PEFT over the quantised directory, in float32; weights are dequantised to the dtype they were."""
    model = AutoModelForCausalLM.from_pretrained(directory, device_map={"": "cpu"})
    for p in model.parameters():
        if p.is_floating_point():
            p.data = p.data.float()
    model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    model.train()  # else bitsandbytes repacks weights for inference on a CPU
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=settings["lr"], weight_decay=settings["weight_decay"], eps=settings["eps"])
    losses = []
    for _ in range(golden.STEPS):
        optimizer.zero_grad()
        loss = golden.step_loss(model, ids)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return losses


def make(root, name, family, dtype, double, skip, shard, merge):
    directory, base = os.path.join(root, name), os.path.join(HERE, family)
    shutil.rmtree(directory, ignore_errors=True)
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
                             bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=skip)
    model = AutoModelForCausalLM.from_pretrained(os.path.join(base, "model"), quantization_config=how, dtype=dtype,
                                                 device_map={"": "cpu"})
    model.save_pretrained(os.path.join(directory, "model"), max_shard_size=shard)
    clean(os.path.join(directory, "model"))
    decoded, weights = {}, {}
    for key, p in model.named_parameters():
        weights[key] = p.detach()
        if getattr(p, "quant_state", None) is not None:
            weights[key] = F.dequantize_4bit(p.data, p.quant_state)
            decoded[key] = crc(weights[key])
    with open(os.path.join(base, "golden.json"), encoding="utf-8") as f:
        old = json.load(f)
    out = {"family": family, "ids": old["ids"], "probe": dict(old["probe"]), "decoded": decoded, "runs": {}}
    settings = golden.RUNS["lora_adamw"]
    with tempfile.TemporaryDirectory() as work:
        shutil.copytree(os.path.join(base, "adapter"), os.path.join(work, "adapter"))
        plain = AutoModelForCausalLM.from_pretrained(os.path.join(base, "model"), dtype=torch.float32)
        kind, first = type(plain), dict(plain.state_dict())
        original = {k: v.double() for k, v in first.items()}
        plain.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
        plain.save_pretrained(os.path.join(work, "model"))
        start = golden.load(kind, os.path.join(work, "model")).double()
        out["probe"]["logits"] = golden.rounded(golden.last_logits(start, old["probe"]["ids"]).tolist(), 8)
        losses, norms, tensors, logits = golden.train(work, kind, settings, old["ids"], old["probe"]["ids"], torch.float64)
        merged = {}
        for key, values in tensors.items():
            if key.startswith("base_model.") or key not in original:
                continue
            delta = torch.tensor(values) - plain.state_dict()[key].double().flatten()
            merged[key] = (original[key].flatten() + delta).tolist()
        losses_peft = peft_losses(os.path.join(directory, "model"), os.path.join(work, "adapter"), settings, old["ids"])
    worst = max(abs(a - b) / b for a, b in zip(losses_peft, losses))
    print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}; PEFT on the directory against float64: {worst:.1e}")
    for run, found in [("dequantized", tensors) if merge == "dequantized" else ("original", {**tensors, **merged})]:
        out["runs"][run] = {"settings": settings, "loss": losses, "loss_peft": golden.rounded(losses_peft, 9),
                            "grad_norm": golden.rounded(norms, 10), "logits": golden.rounded(logits.tolist(), 8),
                            "tensors": {k: golden.rounded(sketch(v), 7) for k, v in found.items()}}
    with open(os.path.join(directory, "golden.json"), "w", encoding="utf-8") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


PARTS = {
    "odd": dict(rows=37, cols=53, dtype=torch.float32, double=True),
    "groups": dict(rows=130, cols=129, dtype=torch.bfloat16, double=True),
    "half": dict(rows=65, cols=66, dtype=torch.float16, double=False),
    "small": dict(rows=16, cols=64, dtype=torch.float16, double=False, scale=2.0**-13),
    "book": dict(rows=48, cols=64, dtype=torch.float32, double=True, book=True),
    "words": dict(rows=32, cols=48, dtype=torch.bfloat16, double=True, storage=torch.bfloat16),
}


def make_parts(root):
    tensors, told = {}, {}
    torch.manual_seed(11)
    for name, how in PARTS.items():
        w = (torch.randn(how["rows"], how["cols"]) * how.get("scale", 0.5)).to(how["dtype"])
        storage = how.get("storage", torch.uint8)
        codes, state = F.quantize_4bit(w, blocksize=64, compress_statistics=how["double"], quant_type="nf4", quant_storage=storage)
        if how.get("book"):  # as one made without fused products has it: some entries an ulp off
            state.state2.code = torch.from_numpy(np.nextafter(state.state2.code.numpy(), np.float32(2), dtype=np.float32))
        packed = state.as_dict(packed=True)
        tensors[f"{name}.weight"] = codes
        tensors.update({f"{name}.weight.{key}": value for key, value in packed.items()})
        told[name] = {"dtype": str(how["dtype"])[6:], "rows": how["rows"], "cols": how["cols"], "nested": how["double"],
                      "storage": str(storage)[6:], "crc32": crc(F.dequantize_4bit(codes, state))}
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(root, "parts.safetensors"))
    os.chmod(os.path.join(root, "parts.safetensors"), 0o644)
    with open(os.path.join(root, "parts.json"), "w", encoding="utf-8") as f:
        json.dump(told, f, indent=1)
        f.write("\n")


def main():
    torch.set_num_threads(1)
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "nf4")
    os.makedirs(root, exist_ok=True)
    make_parts(root)
    for name, how in DIRECTORIES.items():
        make(root, name, **how)


if __name__ == "__main__":
    main()
