#!/usr/bin/env python3
"""The peer of tests/gpu/check's speeds: one step of LoRA r16 on all linears in bf16 with PEFT, of random weights made on the device.

    peer.py FOLDER TOKENS ROWS STEPS [DEVICE]

FOLDER has a config.json. Prints tokens/s, the median of STEPS steps behind five, how many those were, and the versions. Needs torch,
transformers, peft."""
import sys
import time

import torch
from peft import LoraConfig, __version__ as peft_version, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, __version__ as transformers_version

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WARM = 5


def main(folder, tokens, rows, steps, device="cuda"):
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    torch.manual_seed(1)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16, attn_implementation="sdpa")
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEARS, task_type="CAUSAL_LM"))
    model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4, fused=device == "cuda")
    took = []
    for _ in range(WARM + steps):
        ids = torch.randint(model.config.vocab_size, (rows, tokens), device=device)
        wait()
        began = time.perf_counter()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait()
        took.append(time.perf_counter() - began)
    took = sorted(took[WARM:])
    print(f"{rows * tokens / took[len(took) // 2]:.1f} {len(took)} PEFT {peft_version}, transformers {transformers_version}, "
          f"PyTorch {torch.__version__}")


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:])
