#!/usr/bin/env python3
"""The peer of lora_vs_peft.py: LoRA with PEFT on PyTorch, on a CPU. Needs torch, transformers, peft.

    lora_vs_peft_peer.py MODEL_DIR IDS.json STEPS THREADS fp32|bf16

IDS.json: [[ids, labels], …], one row per step; labels are shifted by the model, as in transformers. Prints one JSON
object per step with the wall-clock time at its start and its duration; the process stays small: no Trainer, no loader."""
import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main(directory, ids_path, steps, threads, dtype):
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEARS,
                                             task_type="CAUSAL_LM"))
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=3e-4, weight_decay=0.01)
    with open(ids_path, encoding="utf-8") as f:
        rows = json.load(f)
    for step in range(steps):
        began = time.time()
        ids, labels = rows[step % len(rows)]
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"step": step + 1, "began": began, "seconds": time.time() - began, "loss": loss.item(),
                          "tokens": len(ids)}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
