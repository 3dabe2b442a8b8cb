#!/usr/bin/env python3
"""Writes tests/truth/golden: tiny random models, their data, and what PyTorch makes of them in ten steps.

    python3 make_golden.py [DIR [FAMILY ...]]        needs torch, transformers, peft, tokenizers

DIR/FAMILY/model/     a Hugging Face directory (f32 safetensors, tokenizer.json)
DIR/FAMILY/adapter/   a PEFT adapter with non-zero B, where the LoRA run starts
DIR/FAMILY/rows.jsonl 8 completion rows; all of them in every step
DIR/FAMILY/golden.json
    ids       per row: [BOS] + text + EOS (BOS only where the tokenizer has one), every label trained
    probe     ids of a prompt, and last-position logits of the model before training
    runs      NAME -> {settings, loss[10], loss_f32[10], grad_norm[10], tensors {name: sketch}, logits}

The golden numbers are float64: transformers' own modules in double, with the casts to float32 of RMSNorm and of eager
attention's softmax taken out; the rotary tables stay float32, as in every implementation. Windows, soft caps and scales are
such that leaving one out shows (`matters` says by how much). `loss_f32` is the same training by transformers unchanged in
float32, so that a reader sees how far two right programs are apart. Loss of a step = sum over the labels of all rows /
number of labels; rows are run one by one, so no row sees another. grad_norm is of that loss, before the step.
"""
import json
import math
import os
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig,
                          GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.phi3 import modeling_phi3
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sketch import relative, sketch  # noqa: E402

STEPS = 10
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
TEXTS = [
    "The harbour was quiet until the first boat came in with the tide.",
    "Seven plus five is twelve, and twelve minus two is ten.",
    "Rain, rain, and more rain: the river rose by 30 centimetres in one night!",
    "She opened the old book, read one line, and closed it again.",
    "Gr\u00fc\u00dfe aus K\u00f6ln \u2014 it's a long way to the caf\u00e9.",
    "for i in range(10):\n    print(i * i)",
    "A short one.",
    "What is the capital of Norway? The capital of Norway is Oslo, and it lies at the end of a long fjord.",
]
PROBE = "The river rose and the boat"
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(split, specials, merges, normalizer=None, bos=None, ignore_merges=False):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=256 + merges, special_tokens=[], show_progress=False, min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_special_tokens(specials)
    if bos:
        tok.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


def byte_fallback(merges, specials=("<unk>", "<s>", "</s>"), bos="<s>", more=(), prepend=True):
    """Llama 2's kind: spaces become U+2581, unknown characters become <0xNN> pieces. specials: the first ids; more: added
    after the vocabulary. Gemma's puts no U+2581 in front."""
    front = "\u2581" if prepend else ""
    texts = [front + t.replace(" ", "\u2581") for t in TEXTS if t.isascii()]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581?[^\u2581]+"), "isolated")
    learned.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=60 + merges, show_progress=False))
    model = json.loads(learned.to_str())["model"]
    vocab = {p: i for i, p in enumerate(list(specials) + [f"<0x{b:02X}>" for b in range(256)])}
    for piece in sorted(model["vocab"], key=model["vocab"].get):
        vocab.setdefault(piece, len(vocab))
    pairs = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = normalizers.Replace(" ", "\u2581")
    back = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prepend:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space])
        back.append(decoders.Strip(" ", 1, 0))
    else:
        tok.normalizer = space
        tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tok.decoder = decoders.Sequence(back)
    tok.add_special_tokens(list(specials) + list(more))
    tok.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                                                       special_tokens=[(bos, vocab[bos])])
    return tok


COMMON = dict(hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
              max_position_embeddings=256, initializer_range=0.08)


def llama3():
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tok = byte_level(LLAMA3_SPLIT, specials, 50, bos=specials[0], ignore_merges=True)
    bos, eos = (tok.token_to_id(s) for s in specials[:2])
    rope = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=64)
    cfg = LlamaConfig(vocab_size=tok.get_vocab_size(), num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-5,
                      rope_parameters=rope, bos_token_id=bos, eos_token_id=eos, **COMMON)
    return LlamaForCausalLM(cfg), tok, specials[0], specials[1]


def llama2():
    tok = byte_fallback(40)
    cfg = LlamaConfig(vocab_size=tok.get_vocab_size(), num_key_value_heads=4, tie_word_embeddings=False,
                      rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=10000.0),
                      bos_token_id=1, eos_token_id=2, **COMMON)
    return LlamaForCausalLM(cfg), tok, "<s>", "</s>"


def qwen2():
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tok = byte_level(QWEN2_SPLIT, specials, 50, normalizer=normalizers.NFC())
    cfg = Qwen2Config(vocab_size=tok.get_vocab_size() + 11, num_key_value_heads=2, tie_word_embeddings=True,
                      rms_norm_eps=1e-6, rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                      bos_token_id=None, eos_token_id=tok.token_to_id(specials[0]), **COMMON)
    return Qwen2ForCausalLM(cfg), tok, None, specials[0]


# Smaller: they are many. Four heads of 16 are wider than the residual stream, as in Qwen3 and Gemma.
SMALL = dict(COMMON, hidden_size=48, intermediate_size=80, num_key_value_heads=2)
PLAIN_ROPE = dict(rope_type="default", rope_theta=10000.0)


def qwen3():
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tok = byte_level(QWEN2_SPLIT, specials, 50, normalizer=normalizers.NFC())
    cfg = Qwen3Config(vocab_size=tok.get_vocab_size() + 5, tie_word_embeddings=False, rms_norm_eps=1e-6,
                      rope_parameters=dict(rope_type="default", rope_theta=1000000.0), bos_token_id=None,
                      eos_token_id=tok.token_to_id(specials[0]), **SMALL)
    return Qwen3ForCausalLM(cfg), tok, None, specials[0]


def mistral():
    tok = byte_fallback(40)
    cfg = MistralConfig(vocab_size=tok.get_vocab_size(), tie_word_embeddings=False, rms_norm_eps=1e-5, sliding_window=7,
                        rope_parameters=PLAIN_ROPE, bos_token_id=1, eos_token_id=2, **SMALL)
    return MistralForCausalLM(cfg), tok, "<s>", "</s>"


def gemma_tokens():
    return byte_fallback(40, ("<pad>", "<eos>", "<bos>", "<unk>"), "<bos>", ["<start_of_turn>", "<end_of_turn>"], prepend=False)


GEMMA = dict(SMALL, tie_word_embeddings=True, rms_norm_eps=1e-6, bos_token_id=2, eos_token_id=1, pad_token_id=0)


def gemma():
    tok = gemma_tokens()
    cfg = GemmaConfig(vocab_size=tok.get_vocab_size(), rope_parameters=PLAIN_ROPE, **GEMMA)
    return GemmaForCausalLM(cfg), tok, "<bos>", "<eos>"


def gemma2():
    tok = gemma_tokens()
    cfg = Gemma2Config(vocab_size=tok.get_vocab_size(), rope_parameters=PLAIN_ROPE, sliding_window=7, query_pre_attn_scalar=9,
                       attn_logit_softcapping=0.8, final_logit_softcapping=2.5, **GEMMA)
    return Gemma2ForCausalLM(cfg), tok, "<bos>", "<eos>"


def gemma3():
    tok = gemma_tokens()
    rope = dict(full_attention=dict(rope_type="linear", factor=4.0, rope_theta=1000000.0), sliding_attention=PLAIN_ROPE)
    cfg = Gemma3TextConfig(vocab_size=tok.get_vocab_size(), rope_parameters=rope, sliding_window=6, query_pre_attn_scalar=12,
                           sliding_window_pattern=3, **dict(GEMMA, num_hidden_layers=3, initializer_range=0.12))
    return Gemma3ForCausalLM(cfg), tok, "<bos>", "<eos>"


def phi3():
    tok = byte_fallback(40, more=["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>"])
    eos = tok.token_to_id("<|endoftext|>")
    rope = dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, original_max_position_embeddings=64,
                short_factor=[1.0, 1.05, 1.1, 1.3, 1.6, 2.0], long_factor=[1.0, 1.5, 3.0, 6.0, 12.0, 20.0])
    cfg = Phi3Config(vocab_size=tok.get_vocab_size(), tie_word_embeddings=False, rms_norm_eps=1e-5, sliding_window=9,
                     original_max_position_embeddings=64, rope_parameters=rope, bos_token_id=1, eos_token_id=eos,
                     pad_token_id=eos, **{k: v for k, v in SMALL.items() if k != "head_dim"} |
                     dict(num_attention_heads=3, num_key_value_heads=1))
    return Phi3ForCausalLM(cfg), tok, "<s>", "<|endoftext|>"


FAMILIES = {"llama3": llama3, "llama2": llama2, "qwen2": qwen2, "qwen3": qwen3, "mistral": mistral, "gemma": gemma,
            "gemma2": gemma2, "gemma3": gemma3, "phi3": phi3}
SEEDS = {"llama2": 1, "llama3": 2, "qwen2": 3, "qwen3": 4, "mistral": 5, "gemma": 6, "gemma2": 7, "gemma3": 8, "phi3": 10}
# AdamW's eps is 1e-4, 1 % of a usual gradient here. Some gradients nearly vanish (Qwen2's k bias: softmax does not see a
# shift of all keys; lora_B of q and k), and with eps 1e-8 AdamW makes whole steps of their rounding noise, on which no
# two programs agree: float32 and float64 PyTorch differ by 1.4e-4 in that bias, bf16 by 2e-2. The default eps is tested
# where the optimizer is: tests/kernels.
RUNS = {
    "full_adamw": dict(lora=False, optimizer="torch.optim.AdamW", lr=1e-3, weight_decay=0.01, eps=1e-4),
    "full_sgd": dict(lora=False, optimizer="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=0.0),
    "lora_adamw": dict(lora=True, optimizer="torch.optim.AdamW", lr=2e-3, weight_decay=0.01, eps=1e-4, rank=8, alpha=16),
}


def norm_forward(self, x):
    """RMSNorm in the dtype of x: transformers casts to float32, which would cap the golden's precision."""
    if x.dtype != torch.float64:
        return self.float32_forward(x)
    eps, weight = (self.eps, 1 + self.weight) if hasattr(self, "eps") else (self.variance_epsilon, self.weight)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


for norm_class in (modeling_llama.LlamaRMSNorm, modeling_qwen2.Qwen2RMSNorm, modeling_qwen3.Qwen3RMSNorm,
                   modeling_mistral.MistralRMSNorm, modeling_gemma.GemmaRMSNorm, modeling_gemma2.Gemma2RMSNorm,
                   modeling_gemma3.Gemma3RMSNorm, modeling_phi3.Phi3RMSNorm):
    norm_class.float32_forward, norm_class.forward = norm_class.forward, norm_forward

softmax_as_written = torch.nn.functional.softmax


def softmax(x, dim=None, dtype=None, **rest):
    """The same for eager attention, the only one that has soft caps."""
    return softmax_as_written(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype, **rest)


torch.nn.functional.softmax = softmax


def load(family_class, directory, **changes):
    config = family_class.config_class.from_pretrained(directory)
    for key, value in changes.items():
        setattr(config, key, value)
    return family_class.from_pretrained(directory, config=config, dtype=torch.float32)


def step_loss(model, ids):
    total, labels = 0.0, 0
    for row in ids:
        x = torch.tensor([row])
        logits = model(input_ids=x, use_cache=False).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, x[0, 1:], reduction="sum")
        labels += len(row) - 1
    return total / labels


def last_logits(model, probe):
    with torch.no_grad():
        return model(input_ids=torch.tensor([probe]), use_cache=False).logits[0, -1]


def train(directory, family_class, settings, ids, probe, dtype):
    model = load(family_class, os.path.join(directory, "model"))
    if settings["lora"]:
        model = PeftModel.from_pretrained(model, os.path.join(directory, "adapter"), is_trainable=True)
    model.to(dtype)
    params = [p for p in model.parameters() if p.requires_grad]
    extra = {k: settings[k] for k in ("momentum", "eps") if k in settings}
    optimizer = getattr(torch.optim, settings["optimizer"].split(".")[-1])(
        params, lr=settings["lr"], weight_decay=settings["weight_decay"], **extra)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = step_loss(model, ids)
        loss.backward()
        losses.append(loss.item())
        norms.append(math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in params)))
        optimizer.step()
    logits = last_logits(model, probe)
    tensors = {}
    if settings["lora"]:
        for name, p in model.named_parameters():
            if p.requires_grad:
                tensors[name.replace(".default", "")] = p
        merged = model.merge_and_unload()
        tensors.update({k: v for k, v in merged.state_dict().items()})
    else:
        tensors = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return losses, norms, {k: v.detach().double().flatten().tolist() for k, v in tensors.items()}, logits


def matters(family_class, directory, start, ids):
    """What the loss would be without each of what a family has beside Llama's block."""
    changes = {"sliding_window": 4096, "attn_logit_softcapping": None, "final_logit_softcapping": None}
    with torch.no_grad():
        told = [f"loss {step_loss(start, ids):.6f}"]
        for key, value in changes.items():
            if getattr(start.config, key, None):
                other = load(family_class, os.path.join(directory, "model"), **{key: value}).double()
                told.append(f"without {key} {step_loss(other, ids):.6f}")
    print(", ".join(told))


def rounded(values, digits):
    return [float(f"{v:.{digits}g}") for v in values]


def make(root, name):
    torch.manual_seed(SEEDS[name])
    directory = os.path.join(root, name)
    os.makedirs(directory, exist_ok=True)
    model, tok, bos, eos = FAMILIES[name]()
    # Norms and biases away from their trivial 1 and 0. Weights around 0 (1 + w) are far from it in real models too, and what
    # is compared is relative to them.
    spread = {"gemma": 0.5, "gemma2": 0.3, "gemma3": 0.3}.get(name, 0.1)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(spread * torch.randn_like(p))
    model.save_pretrained(os.path.join(directory, "model"))
    tok.save(os.path.join(directory, "model", "tokenizer.json"))
    with open(os.path.join(directory, "model", "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos,
                   "add_bos_token": bos is not None, "add_eos_token": False}, f, indent=2)
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=FUSED if name == "phi3" else LINEARS, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for key, p in adapted.named_parameters():
            if "lora_B" in key:
                p.normal_(0, 0.05 if model.config.hidden_size == 64 else 0.1)
    adapted.save_pretrained(os.path.join(directory, "adapter"))
    for stale in ("model/generation_config.json", "adapter/README.md"):
        if os.path.exists(os.path.join(directory, stale)):
            os.remove(os.path.join(directory, stale))
    config_path = os.path.join(directory, "adapter", "adapter_config.json")
    with open(config_path) as f:
        config = json.load(f)
    config.update(base_model_name_or_path=None, target_modules=sorted(config["target_modules"]))
    with open(config_path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
    with open(os.path.join(directory, "rows.jsonl"), "w") as f:
        f.writelines(json.dumps({"text": t}) + "\n" for t in TEXTS)
    encode = lambda text: tok.encode(text, add_special_tokens=False).ids  # noqa: E731
    head = [tok.token_to_id(bos)] if bos else []
    ids = [head + encode(t) + [tok.token_to_id(eos)] for t in TEXTS]
    probe = head + encode(PROBE)
    out = {"ids": ids, "probe": {"text": PROBE, "ids": probe, "logits": None}, "runs": {}}
    start = load(type(model), os.path.join(directory, "model")).double()
    matters(type(model), directory, start, ids)
    out["probe"]["logits"] = rounded(last_logits(start, probe).tolist(), 8)
    for run, settings in RUNS.items():
        losses, norms, tensors, logits = train(directory, type(model), settings, ids, probe, torch.float64)
        losses32, norms32, tensors32, _ = train(directory, type(model), settings, ids, probe, torch.float32)
        sketches = {k: sketch(v) for k, v in tensors.items()}
        worst = max(sketches, key=lambda k: relative(sketch(tensors32[k]), sketches[k]))
        print(f"{name} {run}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, grad norm {norms[0]:.3f} -> {norms[-1]:.3f}; "
              f"f32 against f64: loss {max(abs(a - b) / b for a, b in zip(losses32, losses)):.1e}, "
              f"tensor {relative(sketch(tensors32[worst]), sketches[worst]):.1e} ({worst})")
        out["runs"][run] = {"settings": settings, "loss": losses, "loss_f32": rounded(losses32, 9),
                            "grad_norm": rounded(norms, 10), "logits": rounded(logits.tolist(), 8),
                            "tensors": {k: rounded(v, 7) for k, v in sketches.items()}}
    with open(os.path.join(directory, "golden.json"), "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")
    for part in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        os.chmod(os.path.join(directory, part), 0o644)


def main():
    torch.set_num_threads(1)
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
    for name in sys.argv[2:] or FAMILIES:
        make(root, name)


if __name__ == "__main__":
    main()
