#!/usr/bin/env python3
"""PyTorch's side of real.py. Needs torch, transformers, peft. Prints one JSON object per line.

    peer.py answers MODEL_DIR ROWS.jsonl NEW_TOKENS THREADS             greedy, through the model's chat template, fp32
    peer.py train MODEL_DIR ROWS.jsonl full|lora fp32|bf16 STEPS BATCH RATE SECONDS THREADS

Rows are {question, answer}. A batch is padded to its longest row; the answer and the mark that ends it are trained. The
optimizer is torch.optim.AdamW; in bf16 full fine-tuning its states and the weights are bf16, in LoRA the adapters stay
fp32, as PEFT makes them. No step begins after SECONDS: without AVX-512 PyTorch takes minutes for one in bf16."""
import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def render(tokenizer, messages, prompt=False):
    return tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)


def answers(directory, rows, new_tokens):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for row in read(rows):
        ids = torch.tensor([render(tokenizer, [{"role": "user", "content": row["question"]}], prompt=True)])
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new_tokens,
                                 output_logits=True, return_dict_in_generate=True)
        new = out.sequences[0, ids.shape[1]:]
        # How far each chosen token stands above the next: tells a tie in rounding from a fault where answers differ.
        margins = [(lambda top: (top[0] - top[1]).item())(logits[0].topk(2).values) for logits in out.logits]
        print(json.dumps({"answer": tokenizer.decode(new, skip_special_tokens=True), "margins": margins}), flush=True)


def labelled(tokenizer, row):
    question = [{"role": "user", "content": row["question"]}]
    ids = render(tokenizer, question + [{"role": "assistant", "content": row["answer"]}])
    header = render(tokenizer, question, prompt=True)
    end = len(ids) - ids[::-1].index(tokenizer.eos_token_id)
    assert ids[:len(header)] == header and len(header) < end
    return ids, [-100] * len(header) + ids[len(header):end] + [-100] * (len(ids) - end)


def padded(rows, pad):
    longest = max(len(ids) for ids, _ in rows)
    fill = [longest - len(ids) for ids, _ in rows]
    return {"input_ids": torch.tensor([ids + [pad] * n for (ids, _), n in zip(rows, fill)]),
            "labels": torch.tensor([labels + [-100] * n for (_, labels), n in zip(rows, fill)]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * n for (ids, _), n in zip(rows, fill)])}


def exact_loss(model, rows):
    """The mean over the trained tokens with the cross entropy in float64: PyTorch's own in float32 lies some 1.6e-5 below
    it on 49152 logits. Row by row and before the training, so that the peak memory is that of the training."""
    total, n = 0.0, 0
    with torch.no_grad():
        for ids, labels in rows:
            wanted = torch.tensor(labels[1:])
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1][wanted != -100]
            wanted = wanted[wanted != -100]
            total += torch.nn.functional.cross_entropy(logits.double(), wanted, reduction="sum").item()
            n += len(wanted)
    return total / n


def train(directory, rows, kind, dtype, steps, batch, rate, limit):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    if kind == "lora":
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEARS,
                                                 task_type="CAUSAL_LM"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    data = [labelled(tokenizer, row) for row in read(rows)]
    print(json.dumps({"exact": exact_loss(model, data[:batch])}), flush=True)
    start = time.time()
    for step in range(steps):
        if time.time() - start > limit:
            break
        chosen = [data[(step * batch + i) % len(data)] for i in range(batch)]
        began = time.time()
        loss = model(**padded(chosen, tokenizer.pad_token_id), use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"loss": loss.item(), "seconds": time.time() - began, "tokens": sum(len(i) for i, _ in chosen),
                          "trained": sum(x != -100 for _, labels in chosen for x in labels)}), flush=True)


def main(verb, directory, rows, *rest):
    torch.set_num_threads(int(rest[-1]))
    if verb == "answers":
        answers(directory, rows, int(rest[0]))
    else:
        kind, dtype, steps, batch, rate, limit = rest[:-1]
        train(directory, rows, kind, dtype, int(steps), int(batch), float(rate), float(limit))


if __name__ == "__main__":
    if len(sys.argv) not in (6, 11) or sys.argv[1] not in ("answers", "train"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
