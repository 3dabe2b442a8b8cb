#!/usr/bin/env python3
"""The peer of lora_vs_peft.py and savings.py: fine-tuning with PyTorch, PEFT and bitsandbytes, on a CPU.

    lora_vs_peft_peer.py MODEL_DIR IDS.json STEPS THREADS fp32|bf16 [SETTING …]

IDS.json: [[ids, labels], …], one row per step; labels are shifted by the model, as in transformers. Settings (default: LoRA
with AdamW, all kept):
    full                 every weight is trained
    nf4                  the linears of the frozen base are bitsandbytes' NF4 with double quantisation
    checkpointing        of every block, as transformers does it
    8bit                 bitsandbytes' AdamW8bit
    optimizer_in_bwd     each parameter steps when its gradient is there
Prints one JSON object per step with the wall-clock time at its start and its duration; the process stays small: no Trainer, no loader."""
import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SETTINGS = {"full", "nf4", "checkpointing", "8bit", "optimizer_in_bwd"}


def make_model(directory, dtype, settings):
    options = {}
    if "nf4" in settings:
        from transformers import BitsAndBytesConfig
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                                            bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
        options["device_map"] = "cpu"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **options)
    if "full" not in settings:
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEARS,
                                                 task_type="CAUSAL_LM"))
    if "checkpointing" in settings:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    return model


def make_step(model, settings):
    """What comes behind the backward pass."""
    params = [p for p in model.parameters() if p.requires_grad]
    kind = torch.optim.AdamW
    if "8bit" in settings:
        from bitsandbytes.optim import AdamW8bit as kind
    if "optimizer_in_bwd" not in settings:
        optimizer = kind(params, lr=3e-4, weight_decay=0.01)

        def step():
            optimizer.step()
            optimizer.zero_grad()
        return step

    def at_once(p, own):
        def hook(_):
            own.step()
            own.zero_grad()
        p.register_post_accumulate_grad_hook(hook)
    for p in params:
        at_once(p, kind([p], lr=3e-4, weight_decay=0.01))
    return lambda: None


def main(directory, ids_path, steps, threads, dtype, settings):
    torch.set_num_threads(threads)
    model = make_model(directory, {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype], settings)
    after = make_step(model, settings)
    with open(ids_path, encoding="utf-8") as f:
        rows = json.load(f)
    for step in range(steps):
        began = time.time()
        ids, labels = rows[step % len(rows)]
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), use_cache=False).loss
        loss.backward()
        after()
        print(json.dumps({"step": step + 1, "began": began, "seconds": time.time() - began, "loss": loss.item(),
                          "tokens": len(ids)}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 6 or not set(sys.argv[6:]) <= SETTINGS:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], set(sys.argv[6:]))
