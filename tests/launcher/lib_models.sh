# lib_models.sh — folders with a config.json and no more, to plan for: $models/NAME. Sourced after lib.sh.
# shellcheck disable=SC2034
models=$scratch/models

python3 - "$models" <<'END'
import json, os, sys

def write(name, **shape):
    os.makedirs(f"{sys.argv[1]}/{name}")
    base = {"rope_theta": 500000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "hidden_act": "silu"}
    with open(f"{sys.argv[1]}/{name}/config.json", "w") as f:
        json.dump({**base, **shape}, f)

def sizes(c, f, l, h, k, d, v):
    return {"hidden_size": c, "intermediate_size": f, "num_hidden_layers": l, "num_attention_heads": h, "num_key_value_heads": k,
            "head_dim": d, "vocab_size": v}

write("llama3-8b", model_type="llama", tie_word_embeddings=False, **sizes(4096, 14336, 32, 32, 8, 128, 128256))
write("llama3.2-1b", model_type="llama", tie_word_embeddings=True, **sizes(2048, 8192, 16, 32, 8, 64, 128256))
write("qwen2.5-0.5b", model_type="qwen2", tie_word_embeddings=True, **sizes(896, 4864, 24, 14, 2, 64, 151936))
write("qwen2.5-7b", model_type="qwen2", tie_word_embeddings=False, **sizes(3584, 18944, 28, 28, 4, 128, 152064))
write("tiny", model_type="qwen2", tie_word_embeddings=True, **sizes(64, 160, 2, 4, 2, 16, 512))
write("qwen3-8b", model_type="qwen3", tie_word_embeddings=False, **sizes(4096, 12288, 36, 32, 8, 128, 151936))
write("qwen3-0.6b", model_type="qwen3", tie_word_embeddings=True, **sizes(1024, 3072, 28, 16, 8, 128, 151936))
END
