#!/usr/bin/env python3
"""Writes a model directory with random weights, for benchmarks: streamed, standard library only.

    make_random_model.py DIR [--shape qwen2.5-0.5b|llama3.2-1b|tiny] [--layers N] [--dtype f32|bf16] [--tokenizer DIR]

The values are normal with deviation 0.02 (norms 1), drawn from one table of a prime length, so that no two rows of a
matrix are equal. --tokenizer: files to copy beside (vocab.json, merges.txt, tokenizer.json …); without it a plain byte
vocabulary is written, under which a lower-case letter is one token."""
import argparse
import array
import json
import os
import random
import shutil
import struct
import sys

SHAPES = {  # hidden, layers, heads, kv heads, feed-forward, vocabulary
    "qwen2.5-0.5b": ("qwen2", 896, 24, 14, 2, 4864, 151936),
    "llama3.2-1b": ("llama", 2048, 16, 32, 8, 8192, 128256),
    "tiny": ("qwen2", 64, 2, 4, 2, 160, 512),
}
TABLE = 1000003


def config(family, c, layers, heads, kv, f, vocab, dtype):
    out = {"architectures": ["Qwen2ForCausalLM" if family == "qwen2" else "LlamaForCausalLM"], "model_type": family,
           "hidden_size": c, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
           "intermediate_size": f, "vocab_size": vocab, "tie_word_embeddings": True, "hidden_act": "silu",
           "max_position_embeddings": 32768, "attention_dropout": 0.0, "initializer_range": 0.02,
           "torch_dtype": {"f32": "float32", "bf16": "bfloat16"}[dtype]}
    if family == "qwen2":
        out.update(rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False, max_window_layers=layers,
                   sliding_window=32768)
    else:
        out.update(rms_norm_eps=1e-5, rope_theta=500000.0, attention_bias=False, head_dim=c // heads,
                   rope_scaling={"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                                 "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})
    return out


def tensors(family, c, layers, heads, kv, f, vocab):
    d = c // heads
    yield "model.embed_tokens.weight", (vocab, c)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (c,)
        yield p + "post_attention_layernorm.weight", (c,)
        for name, rows in (("q", heads * d), ("k", kv * d), ("v", kv * d)):
            yield f"{p}self_attn.{name}_proj.weight", (rows, c)
            if family == "qwen2":
                yield f"{p}self_attn.{name}_proj.bias", (rows,)
        yield p + "self_attn.o_proj.weight", (c, heads * d)
        yield p + "mlp.gate_proj.weight", (f, c)
        yield p + "mlp.up_proj.weight", (f, c)
        yield p + "mlp.down_proj.weight", (c, f)
    yield "model.norm.weight", (c,)


def table(dtype):
    rng = random.Random(1)
    values = array.array("f", (rng.gauss(0.0, 0.02) for _ in range(TABLE)))
    if dtype == "f32":
        return values
    words = array.array("I", values.tobytes())
    return array.array("H", (w >> 16 for w in words))


def write_weights(path, shape, dtype):
    size = {"f32": 4, "bf16": 2}[dtype]
    one = array.array("f", [1.0]) if dtype == "f32" else array.array("H", [0x3F80])
    header, at = {"__metadata__": {"format": "pt"}}, 0
    plan = list(tensors(*shape))
    for name, dims in plan:
        n = dims[0] * (dims[1] if len(dims) > 1 else 1)
        header[name] = {"dtype": dtype.upper(), "shape": list(dims), "data_offsets": [at, at + n * size]}
        at += n * size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 8)
    values, start = table(dtype), 0
    with open(path + ".tmp", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, dims in plan:
            left = dims[0] * (dims[1] if len(dims) > 1 else 1)
            if name.endswith("norm.weight"):
                (one * left).tofile(out)
                continue
            while left:
                part = values[start:start + left]
                part.tofile(out)
                left -= len(part)
                start = (start + len(part)) % TABLE
    os.replace(path + ".tmp", path)


def byte_vocabulary(folder):
    """GPT-2's byte alphabet and one merge of two bytes that never meet in text, since the file may not be empty."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    alphabet = [chr(b) if b in printable else chr(next(rest)) for b in range(256)]
    vocab = {piece: i for i, piece in enumerate(alphabet)}
    vocab[alphabet[0] + alphabet[1]] = 256
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(vocab, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write(f"#version: 0.2\n{alphabet[0]} {alphabet[1]}\n")
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": specials[0],
                   "pad_token": specials[0],
                   "added_tokens_decoder": {str(257 + i): {"content": s, "special": True, "normalized": False,
                                                           "lstrip": False, "rstrip": False, "single_word": False}
                                            for i, s in enumerate(specials)}}, f, indent=2)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("dir")
    args.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    args.add_argument("--layers", type=int)
    args.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    args.add_argument("--tokenizer")
    args = args.parse_args()
    if sys.byteorder != "little":
        sys.exit("make_random_model.py: little-endian hosts only")
    shape = list(SHAPES[args.shape])
    shape[2] = args.layers or shape[2]
    os.makedirs(args.dir, exist_ok=True)
    with open(os.path.join(args.dir, "config.json"), "w") as f:
        json.dump(config(*shape, args.dtype), f, indent=2)
    if args.tokenizer:
        for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
            if os.path.exists(os.path.join(args.tokenizer, name)):
                shutil.copyfile(os.path.join(args.tokenizer, name), os.path.join(args.dir, name))
    else:
        byte_vocabulary(args.dir)
    write_weights(os.path.join(args.dir, "model.safetensors"), shape, args.dtype)


if __name__ == "__main__":
    main()
