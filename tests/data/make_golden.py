#!/usr/bin/env python3
"""Writes golden/torchtune.json: what torchtune itself makes of the shared rows, for test_data_torchtune.c.

    make_golden.py TORCHTUNE_SOURCE_DIR SHARED_DIR

Needs torch, sentencepiece, tiktoken and regex. torchtune's packages are imported from a source checkout without running
the __init__ files that pull in models and hub clients; what tokenising never touches is a stub. Rows go through
torchtune's own message transforms, tokenizers and SFTTransform. Of every case the first row is kept whole and all
rows as one FNV-1a hash over (length, ids, labels) as little-endian int32.
"""
import importlib.abc
import importlib.machinery
import json
import os
import struct
import sys
import types
from unittest.mock import MagicMock

import regex

STUBS = ("torchvision", "torchao", "datasets", "torchdata", "omegaconf", "blobfile", "kagglehub", "torchtune.utils",
         "torchtune.data._collate", "torchtune.data._torchdata", "torchtune.config")
NO_INIT = ("torchtune", "torchtune.models", "torchtune.modules", "torchtune.modules.transforms", "torchtune.datasets")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, root):
        self.root = root

    def find_spec(self, name, path=None, target=None):
        models = name.startswith("torchtune.models.") and name.count(".") == 2
        if any(name == s or name.startswith(s + ".") for s in STUBS) or name in NO_INIT or models:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        if spec.name.startswith("torchtune") and not any(spec.name.startswith(s) for s in STUBS):
            module = types.ModuleType(spec.name)
            module.__path__ = [os.path.join(self.root, *spec.name.split("."))]
        else:
            module = MagicMock(name=spec.name)
            module.__path__ = []
        return module

    def exec_module(self, module):
        module.Transform = object  # the protocol class that torchtune.modules.transforms exports


def fnv(samples):
    h = 0xCBF29CE484222325
    for ids, labels in samples:
        for byte in struct.pack("<%di" % (1 + 2 * len(ids)), len(ids), *ids, *labels):
            h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def main():
    root, shared = sys.argv[1:3]
    sys.path.insert(0, root)
    sys.meta_path.insert(0, Finder(root))
    from torchtune.data import _messages as M
    from torchtune.data import _prompt_templates as P
    from torchtune.datasets._sft import SFTTransform
    from torchtune.models.gemma._tokenizer import GemmaTokenizer
    from torchtune.models.llama2._prompt_template import Llama2ChatTemplate
    from torchtune.models.llama2._tokenizer import Llama2Tokenizer
    from torchtune.models.llama3._tokenizer import Llama3Tokenizer
    from torchtune.models.mistral._prompt_template import MistralChatTemplate
    from torchtune.models.mistral._tokenizer import MistralTokenizer
    from torchtune.models.phi3._tokenizer import PHI3_SPECIAL_TOKENS, Phi3MiniTokenizer
    from torchtune.models.phi4._tokenizer import CL100K_PATTERN, PHI4_SPECIAL_TOKENS, Phi4Tokenizer
    from torchtune.models.qwen2._tokenizer import Qwen2Tokenizer
    from torchtune.models.qwen3._tokenizer import Qwen3Tokenizer

    tok = os.path.join(shared, "data/tokenizers/")
    spm = "mistral-v3/mistral_instruct_tokenizer_240323.model.v3"
    templates = {None: None, "QuestionAnswerTemplate": P.QuestionAnswerTemplate,
                 "SummarizeTemplate": P.SummarizeTemplate}

    def template(name, default):
        return templates[name]() if name else default

    families = {
        "llama3": ("torchtune-assets/tiktoken_small.model", None, lambda p, m, t, k: Llama3Tokenizer(
            p, max_seq_len=k, prompt_template=template(t, None))),
        "qwen2": ("qwen2/vocab.json", "qwen2/merges.txt", lambda p, m, t, k: Qwen2Tokenizer(
            p, m, max_seq_len=k, prompt_template=template(t, None))),
        "llama2": (spm, None, lambda p, m, t, k: Llama2Tokenizer(
            p, max_seq_len=k, prompt_template=template(t, Llama2ChatTemplate()))),
        "mistral": (spm, None, lambda p, m, t, k: MistralTokenizer(
            p, max_seq_len=k, prompt_template=template(t, MistralChatTemplate()))),
        "gemma": (spm, None, lambda p, m, t, k: GemmaTokenizer(
            p, max_seq_len=k, prompt_template=template(t, None))),
        "qwen3": ("qwen2/vocab.json", "qwen2/merges.txt", lambda p, m, t, k: Qwen3Tokenizer(
            p, m, max_seq_len=k, prompt_template=template(t, None))),
        # its numbers follow Phi-3's 32,000 pieces; this vocabulary has 32,768
        "phi3": (spm, None, lambda p, m, t, k: Phi3MiniTokenizer(
            p, {piece: id + 768 for piece, id in PHI3_SPECIAL_TOKENS.items()}, max_seq_len=k,
            prompt_template=template(t, None))),
    }
    def phi4(path, merges, t, k):
        """Its numbers follow Phi-4's 100,256 pieces; this vocabulary has 151,643. Text is split by the pattern that stands in
        torchtune's file, which is that of the model's tokenizer.json; what its class splits by takes numbers whole."""
        made = Phi4Tokenizer(merges, path, {piece: id + 51387 for piece, id in PHI4_SPECIAL_TOKENS.items()}, max_seq_len=k,
                             prompt_template=template(t, None))
        made.tokenizer_model.pat = regex.compile(CL100K_PATTERN)
        sys.modules[type(made.tokenizer_model).__module__].re = regex
        return made

    families["phi4"] = ("qwen2/vocab.json", "qwen2/merges.txt", phi4)
    # name: file, kind of trimpot's config, column_map, rows, torchtune's transform (masking -> object)
    pair = {"input": "question", "output": "answer"}
    tiny = {"input": "instruction", "output": "response"}
    sets = {
        "chat_tiny": ("tokenizers/torchtune-assets/chat_tiny.json", "chat", None, 1,
                      lambda m: M.ShareGPTToMessages(masking_strategy=m)),
        "instruct_tiny": ("tokenizers/torchtune-assets/instruct_tiny.json", "instruct", tiny, 2,
                          lambda m: M.InputOutputToMessages(column_map=tiny, masking_strategy=m)),
        "alpaca_tiny": ("tokenizers/torchtune-assets/alpaca_tiny.json", "alpaca", None, 60,
                        lambda m: M.AlpacaToMessages(masking_strategy=m)),
        "gsm8k": ("gsm8k/test.jsonl", "instruct", pair, 100,
                  lambda m: M.InputOutputToMessages(column_map=pair, masking_strategy=m)),
    }

    def rows_of(path, n):
        text = open(os.path.join(shared, "data", path), encoding="utf-8").read()
        rows = json.loads(text) if text.lstrip()[0] == "[" else [json.loads(s) for s in text.splitlines() if s.strip()]
        return rows[:n]

    cases = []
    for family in families:
        for name, masking, cut, prompt_template in (
                ("chat_tiny", "train_on_assistant", None, None), ("chat_tiny", "train_on_last", None, None),
                ("chat_tiny", "train_on_all", None, None),
                ("instruct_tiny", "train_on_assistant", None, None),
                ("alpaca_tiny", "train_on_all", None, None), ("alpaca_tiny", "train_on_assistant", None, None),
                ("gsm8k", "train_on_assistant", None, None), ("gsm8k", "train_on_assistant", None, "QuestionAnswerTemplate"),
                ("gsm8k", "train_on_all", 24, None)):
            if family == "mistral" and name == "chat_tiny":
                continue  # its template refuses the system message
            path, merges, make = families[family]
            file, kind, column_map, n, transform = sets[name]
            more = {"add_end_tokens": True} if family.startswith("phi") else {}  # as Phi3's __call__ does; Phi4's forgets it
            tokenizer = make(tok + path, tok + merges if merges else None, prompt_template, cut)
            sft = SFTTransform(message_transform=transform(masking),
                               model_transform=lambda s: dict(zip(("tokens", "mask"),
                                                                  tokenizer.tokenize_messages(s["messages"], **more))))
            samples = []
            for row in rows_of(file, n):
                out = sft(row)
                samples.append(([int(i) for i in out["tokens"]], [int(i) for i in out["labels"]]))
            cases.append({"family": family, "tokenizer": path, "merges": merges, "file": file, "kind": kind,
                          "column_map": column_map, "masking": masking, "max_seq_len": cut,
                          "prompt_template": prompt_template, "rows": len(samples), "hash": fnv(samples),
                          "first": [{"ids": i, "labels": l} for i, l in samples[:1]]})
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "golden", "torchtune.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
