#!/usr/bin/env python3
"""Makes golden/directories.json: what transformers makes of directories, by the class, flags and token files beside the
same few vocabularies.

    pip install transformers==5.24.0 tokenizers sentencepiece tiktoken protobuf
    python3 tests/tokenizer/make_directories.py SHARED_DATA_FOLDER

Each case is a set of vocabulary files of the shared data (or a small SentencePiece model of its own, in hexadecimal) under the
names a model directory has them, and small JSON files beside them. What transformers says is written as it is, and the test wants the same; cases where this project differs on
purpose are not here but in test_directories.c, with the reason."""
import json
import os
import shutil
import sys
import tempfile

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"
import sentencepiece
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(sys.argv[1], "tokenizers")
MISTRAL = {"tokenizer.model": "mistral-v3/mistral_instruct_tokenizer_240323.model.v3"}
UNIGRAM = {"tokenizer.model": "torchtune-assets/m.model"}
T5 = {"tokenizer.model": "torchtune-assets/sentencepiece.model"}
BYTES = {"vocab.json": "qwen2/vocab.json", "merges.txt": "qwen2/merges.txt"}
TINY = {"tokenizer.json": "torchtune-assets/tiny_bpe_tokenizer.json"}
GEMMA = {"tokenizer.json": "torchtune-assets/tokenizer_gemma_cropped.json"}

STRINGS = [
    "Hello world", " Hello  World", "   three", "trailing  ", "\n", " ", "a\n\nb", "ied 4 ½ months", "Führer", "q\u0323\u0307 e\u0301",
    "и\u0306 а\u0301 ä", "3.14 12345", "I'M it's", "工作1314天～", "🦙.cpp 😶", "x\tpass  # y\n\tz", "snake_case(a[i] += 2);", "▁a ▁▁ b", " ▁a",
    "<s> a</s>b <s>", "<unk> a", "[INST] x [/INST]y", "<|im_start|>user\nHi<|im_end|>\n", "<|endoftext|> a<|endoftext|>",
    "a<think> b</think> c", "<think> Hello", "x [PAD] y[PAD]", "<T> <tool>z <T>", "▁<PRE> a▁<MID> b", "<bos>a<eos> <pad>",
]


MODELS = []


def trained(kind, bytes_, prefix, trim):
    """A small model with user-defined and control pieces; settings that the shared ones do not have."""
    with tempfile.TemporaryDirectory() as d:
        sentencepiece.SentencePieceTrainer.train(
            input=os.path.join(sys.argv[1], "text/tinyshakespeare.txt"), model_prefix=os.path.join(d, "m"), model_type=kind,
            vocab_size=440 if bytes_ else 180, byte_fallback=bytes_, add_dummy_prefix=prefix, remove_extra_whitespaces=trim,
            normalization_rule_name="identity", user_defined_symbols=["<T>", "the", "  "], control_symbols=["<tool>"],
            input_sentence_size=3000, num_threads=1, minloglevel=2)
        with open(os.path.join(d, "m.model"), "rb") as f:
            MODELS.append(f.read().hex())
    return {"tokenizer.model": {"model": len(MODELS) - 1}}


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True, **flags}


def cases():
    chat = {"151643": token("<|endoftext|>"), "151644": token("<|im_start|>"), "151645": token("<|im_end|>")}
    think = {"151646": token("<think>", special=False), "151647": token("</think>", special=False, rstrip=True)}
    llama = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    named = {"0": token("<unk>", normalized=True), "1": token("<s>", normalized=True), "2": token("</s>", normalized=True),
             "32768": token("<think>", special=False, normalized=True)}
    for model_type in ["llama", "mistral"]:
        for legacy in [None, True, False]:
            for prefix in [None, False]:
                config = dict(llama)
                if legacy is not None:
                    config["legacy"] = legacy
                if prefix is not None:
                    config["add_prefix_space"] = prefix
                yield MISTRAL, model_type, {"tokenizer_config": config}
        yield MISTRAL, model_type, {"tokenizer_config": dict(llama, added_tokens_decoder=named)}
        yield MISTRAL, model_type, {"tokenizer_config": llama, "added_tokens": {"<think>": 32768, "[PAD]": 32769},
                                    "special_tokens_map": {"pad_token": "[PAD]", "bos_token": token("<s>", normalized=True)}}
    yield MISTRAL, "llama", {"tokenizer_config": {"tokenizer_class": "LlamaTokenizerFast"}}
    yield MISTRAL, "llama", {"tokenizer_config": dict(llama, add_eos_token=True, add_bos_token=False)}
    yield MISTRAL, "llama", {"tokenizer_config": dict(llama, pad_token={"__type": "AddedToken", **token("[PAD]", normalized=True)})}
    yield MISTRAL, "llama", {"tokenizer_config": {"tokenizer_class": "CodeLlamaTokenizer"}}
    yield MISTRAL, "gemma", {"tokenizer_config": {"tokenizer_class": "GemmaTokenizer"}}
    yield MISTRAL, "llama", {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"}}
    yield UNIGRAM, "llama", {"tokenizer_config": dict(llama)}
    yield UNIGRAM, "mistral", {"tokenizer_config": dict(llama)}
    yield T5, "llama", {"tokenizer_config": dict(llama)}

    for model in [trained("bpe", True, True, False), trained("bpe", False, True, True), trained("bpe", True, False, True),
                  trained("unigram", True, True, True), trained("unigram", False, False, False)]:
        for name, model_type, legacy in [("LlamaTokenizer", "llama", True), ("LlamaTokenizer", "mistral", True), ("LlamaTokenizer", "mistral", False),
                                         ("GemmaTokenizer", "gemma", True)]:
            yield model, model_type, {"tokenizer_config": {"tokenizer_class": name, "legacy": legacy, "add_bos_token": True}}

    qwen = {"tokenizer_class": "Qwen2Tokenizer"}
    for model_type in ["llama", "qwen2"]:
        yield BYTES, model_type, {"tokenizer_config": qwen}
        yield BYTES, model_type, {"tokenizer_config": dict(qwen, eos_token="<|im_end|>", added_tokens_decoder={**chat, **think})}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, add_prefix_space=True)}
    yield BYTES, "llama", {"tokenizer_config": qwen, "added_tokens": {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<think>": 151646}}
    yield BYTES, "llama", {"tokenizer_config": qwen, "added_tokens": {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<think>": 151646},
                           "special_tokens_map": {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<think>"]}}
    yield BYTES, "llama", {"tokenizer_config": qwen, "special_tokens_map": {"eos_token": "<|im_end|>", "pad_token": "[PAD]", "additional_special_tokens": ["<T>"]}}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, eos_token="<T>"), "special_tokens_map": {"eos_token": "<|im_end|>"}}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, eos_token="<|im_end|>", added_tokens_decoder=chat), "special_tokens_map": {"eos_token": "<T>"},
                           "added_tokens": {"[PAD]": 151650}}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, eos_token=None, pad_token=None)}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, extra_special_tokens={"a_token": "<T>"}, image_token="<tool>")}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, bos_token="<|endoftext|>", add_bos_token=True, add_eos_token=True, eos_token="<|im_end|>")}
    yield BYTES, "llama", {"tokenizer_config": dict(qwen, add_bos_token=True)}
    for name in ["GPT2Tokenizer", "GPTNeoXTokenizer"]:
        yield BYTES, "llama", {"tokenizer_config": {"tokenizer_class": name}}
        yield BYTES, "llama", {"tokenizer_config": {"tokenizer_class": name + "Fast", "add_bos_token": True, "add_eos_token": True, "add_prefix_space": True}}

    flags = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": True, "add_eos_token": True}
    for name in ["PreTrainedTokenizerFast", "Qwen2Tokenizer"]:
        yield TINY, "llama", {"tokenizer_config": dict(flags, tokenizer_class=name)}
        yield TINY, "llama", {"tokenizer_config": {"tokenizer_class": name, "eos_token": "<|im_end|>", "pad_token": "[PAD]"}}
        yield TINY, "llama", {"tokenizer_config": {"tokenizer_class": name, "eos_token": "<|im_end|>"}, "added_tokens": {"<think>": 2003, "<|im_end|>": 2010},
                              "special_tokens_map": {"pad_token": "<T>"}}
        yield TINY, "llama", {"tokenizer_config": {"tokenizer_class": name, "eos_token": "<|im_end|>", "added_tokens_decoder": {
            "2000": token("<|endoftext|>"), "2001": token("<|im_start|>"), "2002": token("<|im_end|>"), "2003": token("<think>", special=False)}}}
    yield GEMMA, "gemma", {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                                                "pad_token": "<pad>", "add_bos_token": False}}


def one(files, model_type, texts):
    texts = {**texts, "config": {"model_type": model_type}}
    with tempfile.TemporaryDirectory() as d:
        for name, source in files.items():
            if isinstance(source, dict):
                with open(os.path.join(d, name), "wb") as f:
                    f.write(bytes.fromhex(MODELS[source["model"]]))
            else:
                shutil.copyfile(os.path.join(DATA, source), os.path.join(d, name))
        for name, value in texts.items():
            with open(os.path.join(d, name + ".json"), "w") as f:
                json.dump(value, f)
        t = AutoTokenizer.from_pretrained(d)
        ids = [t.encode(s, add_special_tokens=False) for s in STRINGS]
        around = t.encode("", add_special_tokens=True)
        before = [i for i in around if i == t.bos_token_id][:1]
        after = around[len(before):]
        for s, i in zip(STRINGS, ids):
            assert t.encode(s) == before + i + after, (texts, s)
    none = lambda i: -1 if i is None else i
    return {"files": files, "texts": texts, "ids": ids, "prefix": before, "suffix": after, "bos": none(t.bos_token_id),
            "eos": none(t.eos_token_id), "pad": none(t.pad_token_id)}


with open(os.path.join(HERE, "golden", "directories.json"), "w") as f:
    done = [one(*c) for c in cases()]
    json.dump({"strings": STRINGS, "models": MODELS, "cases": done}, f, ensure_ascii=True, separators=(",", ":"))
    f.write("\n")
