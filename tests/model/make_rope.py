#!/usr/bin/env python3
"""Writes tests/model/golden/rope.json: config.json texts with the inverse frequencies and the attention factor that
transformers 5 makes of them (float32), for sequences of `longest` tokens.

    python3 make_rope.py        needs torch, transformers
"""
import json
import os
import tempfile

from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE = dict(model_type="llama", vocab_size=32, hidden_size=64, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=4, max_position_embeddings=4096)


def old(theta=None, **keys):
    return dict(BASE, rope_scaling=keys, **({"rope_theta": theta} if theta else {}))


def new(**keys):
    return dict(BASE, rope_parameters=keys)


QWEN = dict(type="yarn", factor=4.0, original_max_position_embeddings=32768)
SHORT, LONG = [1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0], [1.0, 1.5, 2.5, 6.0, 14.0, 30.0, 50.0, 64.0]
PHI3 = dict(BASE, model_type="phi3", original_max_position_embeddings=4096, max_position_embeddings=131072)
CASES = [
    (dict(BASE, rope_theta=500000.0), 100),
    (old(type="linear", factor=2.5), 100),
    (old(theta=500000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
         original_max_position_embeddings=8192) | dict(head_dim=128, max_position_embeddings=131072), 100),
    (old(type="dynamic", factor=2.0), 4096),
    (old(type="dynamic", factor=2.0), 4097),
    (old(type="dynamic", factor=4.0) | dict(head_dim=128), 20000),
    (new(rope_type="dynamic", rope_theta=1e6, factor=8.0), 65536),
    (old(theta=1e6, **QWEN) | dict(head_dim=128, max_position_embeddings=32768), 100),
    (old(theta=1e6, **QWEN) | dict(head_dim=128, max_position_embeddings=131072), 100),
    (old(type="yarn", factor=8.0), 100),
    (old(theta=1e6, rope_type="yarn", factor=None, original_max_position_embeddings=512), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=256, beta_fast=16,
         beta_slow=2) | dict(head_dim=64), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=256, beta_fast=None,
         beta_slow=0, truncate=False) | dict(head_dim=64), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=40.0, original_max_position_embeddings=4096, mscale=1.0,
         mscale_all_dim=0.707) | dict(head_dim=64), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=40.0, original_max_position_embeddings=4096, mscale=0.707), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=1024, attention_factor=0.8,
         mscale=1.0, mscale_all_dim=0.5), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=1.0, original_max_position_embeddings=1024), 100),
    (new(rope_type="yarn", rope_theta=5.0, factor=2.0, original_max_position_embeddings=8), 100),
    (new(rope_type="yarn", rope_theta=10000.0, factor=2.0, original_max_position_embeddings=4), 100),
    (dict(PHI3, rope_theta=10000.0, rope_scaling=dict(type="longrope", short_factor=SHORT, long_factor=LONG)), 4096),
    (dict(PHI3, rope_theta=10000.0, rope_scaling=dict(type="yarn", short_factor=SHORT, long_factor=LONG)), 4097),
    (dict(PHI3, rope_parameters=dict(rope_type="longrope", rope_theta=250000.0, attention_factor=1.25, short_factor=SHORT,
                                     long_factor=LONG)), 100),
    (dict(PHI3, max_position_embeddings=4096, rope_scaling=dict(type="longrope", short_factor=SHORT, long_factor=LONG)), 100),
    (new(rope_type="longrope", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=512, short_factor=SHORT,
         long_factor=LONG), 600),
]


def measure(config, longest):
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "config.json"), "w") as f:
            json.dump(config, f)
        c = AutoConfig.from_pretrained(directory)
    kind = c.rope_parameters["rope_type"]
    if kind == "default":
        f, a = LlamaRotaryEmbedding.compute_default_rope_parameters(c)
    else:
        f, a = ROPE_INIT_FUNCTIONS[kind](c, "cpu", seq_len=longest)
    return {"config": config, "longest": longest, "attention": float(a), "frequencies": [float(f"{x:.9g}") for x in f.tolist()]}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "golden", "rope.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(measure(*case)) for case in CASES) + "\n]\n")


if __name__ == "__main__":
    main()
