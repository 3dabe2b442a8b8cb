#!/usr/bin/env python3
"""Loads what trimpot wrote in transformers and PEFT and compares: called by peers.sh, needs torch, transformers, peft.

    peers.py GOLDEN_DIR RUN OUTPUT LOGIT_BOUND LOSSES.jsonl LOSS_BOUND

RUN is one of golden.json, or a case of adapters.json. OUTPUT/export, and OUTPUT/adapter on the golden's base model, must give the golden's logits after the probe; and for
each row of the data transformers' mean token loss of OUTPUT/export must be what `trimpot eval` printed for it."""
import json
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import adapters  # noqa: E402
from compare import verdict, worst_of  # noqa: E402
from sketch import relative  # noqa: E402


def load(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def row_loss(model, ids):
    return torch.nn.functional.cross_entropy(logits(model, ids)[:-1].double(), torch.tensor(ids[1:])).item()


def main(gold, run, output, logit_bound, losses, loss_bound):
    with open(os.path.join(gold, "golden.json"), encoding="utf-8") as f:
        golden = json.load(f)
    probe, runs = golden["probe"]["ids"], golden["runs"]
    want = (runs[run] if run in runs else adapters.cases()[run]["trained"])["logits"]
    export = os.path.join(output, "export")
    model = load(export)
    ok = verdict("logits of export/ in transformers", relative(logits(model, probe)[-1].tolist(), want), logit_bound, "probe")
    if os.path.isdir(os.path.join(output, "adapter")):
        adapted = PeftModel.from_pretrained(load(os.path.join(gold, "model")), os.path.join(output, "adapter"))
        got = logits(adapted, probe)[-1].tolist()
        ok &= verdict("logits of adapter/ in PEFT", relative(got, want), logit_bound, "probe")
    with open(losses, encoding="utf-8") as f:
        ours = [json.loads(line)["loss"] for line in f]
    theirs = [row_loss(model, ids) for ids in golden["ids"]]
    worst, where = worst_of([(abs(a - b) / b, f"row {i + 1}: {a:.9g}, transformers {b:.9g}")
                             for i, (a, b) in enumerate(zip(ours, theirs))])
    ok &= verdict(f"loss of {len(ours)} rows by trimpot eval", worst, loss_bound, where) and len(ours) == len(theirs)
    tokenizer = AutoTokenizer.from_pretrained(export)
    head = golden["probe"]["ids"]
    if tokenizer(golden["probe"]["text"]).input_ids != head:
        print(f"    FAIL tokenizer of export/: {tokenizer(golden['probe']['text']).input_ids}, golden {head}")
        ok = False
    return 0 if ok else 1


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), sys.argv[5], float(sys.argv[6])))
