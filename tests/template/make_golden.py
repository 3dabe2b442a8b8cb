#!/usr/bin/env python3
"""Writes what transformers' apply_chat_template makes of every template with every conversation of conversations.json.

    make_golden.py                                   golden/own.json, of templates/*.jinja (committed)
    make_golden.py --shared DIR --output FILE        the same of DIR/data/chat-templates (never committed)

Needs transformers and jinja2. A case is [conversation, add_generation_prompt, result]: result is null where it raises,
else the text, or for add_generation_prompt=true where the text of false is its beginning: the number of its bytes and
the rest. "generation" holds the byte spans that {% generation %} blocks wrote, "why" the exceptions. Ids are of the text
with the tokenizer's own special tokens and no BOS or EOS added, kept as [count, hash] for each conversation whose
contents hold no special-token text; hash = (hash ^ id) * FNV prime, 64 bits, over the ids."""
import argparse
import datetime
import glob
import json
import os

import jinja2
import transformers
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1709596029  # 2024-03-04 23:47:09 UTC, a Monday: one-digit day, afternoon
OWN_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
# Conversations whose contents hold text of special tokens of some tokenizer here.
QUOTING = {"special-token text"}


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=tz)  # without a zone, as now() has none


chat_template_utils.datetime = FixedClock


def conversations():
    with open(os.path.join(HERE, "conversations.json"), encoding="utf-8") as f:
        return json.load(f)


def own_templates():
    for path in sorted(glob.glob(os.path.join(HERE, "templates", "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            yield {"name": os.path.basename(path), "variables": OWN_TOKENS}, f.read()


def shared_templates(shared):
    for path in sorted(glob.glob(os.path.join(shared, "data", "chat-templates", "*"))):
        name = os.path.basename(path)
        with open(path, encoding="utf-8", newline="") as f:
            text = f.read()
        if name.endswith(".jinja"):
            yield {"name": name, "variables": OWN_TOKENS, "template": text}, text
        elif name.endswith(".json"):
            config = json.loads(text)
            tokens = {k: config[k] for k in ("bos_token", "eos_token", "pad_token") if config.get(k)}
            yield {"name": name, "variables": tokens, "template": config["chat_template"]}, config["chat_template"]


def own_tokenizers(root):
    for path in ("tests/truth/golden/llama2/model", "tests/truth/golden/llama3/model", "tests/truth/golden/qwen2/model",
                 "configs/quickstart/base"):
        file = Tokenizer.from_file(os.path.join(root, path, "tokenizer.json"))
        yield path, lambda text, file=file: file.encode(text, add_special_tokens=False).ids


def shared_tokenizers(shared):
    data = os.path.join(shared, "data", "tokenizers")
    for name in ("torchtune-assets/tokenizer.json", "torchtune-assets/tokenizer_gemma_cropped.json"):
        file = Tokenizer.from_file(os.path.join(data, name))
        yield os.path.join(data, name), lambda text, file=file: file.encode(text, add_special_tokens=False).ids
    qwen2 = AutoTokenizer.from_pretrained(os.path.join(data, "qwen2"))
    yield os.path.join(data, "qwen2"), lambda text: qwen2(text, add_special_tokens=False)["input_ids"]


def count_and_hash(ids):
    value = 0xCBF29CE484222325
    for i in ids:
        value = ((value ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return [len(ids), f"{value:016x}"]


def render(template, variables, conversation, prompt):
    """(text, None) or (None, why)."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **variables)
    try:
        return tokenizer.apply_chat_template(
            conversation["messages"], tools=conversation.get("tools"), chat_template=template, tokenize=False,
            add_generation_prompt=prompt, **conversation.get("extra", {})), None
    except Exception as e:  # whatever the template or jinja raises
        return None, f"{type(e).__name__}: {e}"


def generation_spans(template, variables, conversation, prompt, text):
    """Byte spans of {% generation %}, by the function that gives transformers its assistant mask."""
    messages = chat_template_utils._normalize_chat_messages(conversation["messages"])
    rendered, spans = chat_template_utils.render_jinja_template(
        conversations=[messages], tools=conversation.get("tools"), chat_template=template, add_generation_prompt=prompt,
        return_assistant_tokens_mask=True, **{**variables, **conversation.get("extra", {})})
    assert rendered == [text]
    return [[len(text[:begin].encode()), len(text[:end].encode())] for begin, end in spans[0] if begin < end]


def shorten(text, before):
    if before is None or not text.startswith(before):
        return text
    return [len(before.encode()), text[len(before):]]


def golden_of(head, template, talks, tokenizers):
    cases, spans, why, ids = [], [], [], {path: [] for path, _ in tokenizers}
    for number, conversation in enumerate(talks):
        before = None
        for prompt in (False, True):
            text, reason = render(template, head["variables"], conversation, prompt)
            if reason:
                why.append([number, prompt, reason])
            elif "{%" in template and "generation" in template.replace("add_generation_prompt", ""):
                spans.append([number, prompt, generation_spans(template, head["variables"], conversation, prompt, text)])
            cases.append([number, prompt, text if text is None else shorten(text, before)])
            before = text
            if prompt and text is not None and conversation["name"] not in QUOTING:
                for path, encode in tokenizers:
                    ids[path].append([number, *count_and_hash(encode(text))])
    return {**head, "cases": cases, "generation": spans, "why": why, "ids": ids}


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--shared")
    args.add_argument("--output", default=os.path.join(HERE, "golden", "own.json"))
    args = args.parse_args()
    transformers.logging.set_verbosity_error()
    if args.shared:
        templates, tokenizers = shared_templates(args.shared), list(shared_tokenizers(args.shared))
    else:
        templates, tokenizers = own_templates(), list(own_tokenizers(os.path.join(HERE, "..", "..")))
    talks = conversations()
    out = {"transformers": transformers.__version__, "jinja2": jinja2.__version__, "now": NOW,
           "conversations": [c["name"] for c in talks],
           "templates": [golden_of(head, template, talks, tokenizers) for head, template in templates]}
    os.makedirs(os.path.dirname(os.path.abspath(args.output)), exist_ok=True)
    with open(args.output, "w", encoding="utf-8") as f:
        f.write(lines(out) + "\n")
    print(f"{args.output}: {len(out['templates'])} templates, {len(talks)} conversations, "
          f"{sum(c[2] is None for t in out['templates'] for c in t['cases'])} of "
          f"{sum(len(t['cases']) for t in out['templates'])} cases raise")


def lines(value, depth=0):
    """JSON with one case a line, so that a change shows in a diff as what it is."""
    if depth == 4 or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value, ensure_ascii=False)
    keyed = isinstance(value, dict)
    items = [(json.dumps(k) + ": " if keyed else "") + lines(v, depth + 1) for k, v in (value.items() if keyed else enumerate(value))]
    return ("{" if keyed else "[") + "\n" + ",\n".join(items) + ("}" if keyed else "]")


if __name__ == "__main__":
    main()
