#!/usr/bin/env bash
# paper.sh BUILD_DIR: what Llama-3-8B takes of a GPU, from `trimpot plan --gpu` on its config.json, held against figures of others and, row by
# row, against arithmetic that a person can do (numerics.md 13). Bytes are SI, GiB where a framework prints GiB.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
[ -e "$build/trimpot_cuda.so" ] || [ -e "$build/trimpot_emu.so" ] || skip "sizes of a GPU's workspaces are estimates in this build"
. "$source/tests/launcher/lib_models.sh"

python3 - "$trimpot" "$models/llama3-8b" <<'END' || die "a figure is not reached, or not what its rows come to"
import json, subprocess, sys

trimpot, model = sys.argv[1:]
GB, GIB = 10**9, 2**30
# The model: width, queries, keys and values, feed-forward, heads, layers, vocabulary; parameters of all, of the blocks' products.
C, q, kv, F, H, L, V = 4096, 4096, 1024, 14336, 32, 32, 128256
LINEARS = L * (C * q + 2 * C * kv + q * C + 3 * C * F)
N = LINEARS + 2 * V * C + L * 2 * C + C
assert N == 8030261248 and LINEARS == 6979321856
bad = 0

def plan(gpu, *words):
    r = subprocess.run([trimpot, "plan", *words, "--gpu", gpu, "--model", model, "--json", "-q"], capture_output=True, text=True)
    if r.returncode not in (0, 11):
        sys.exit(r.stderr)
    p = json.loads(r.stdout)
    p["fits"] = r.returncode == 0
    return p

def bytes_of(p, category, *names):
    return sum(r["bytes"] for r in p["rows"] if r["category"] == category and r["memory"] == "device" and (not names or r["name"] in names))

def device(p):
    return sum(r["bytes"] for r in p["rows"] if r["memory"] == "device")

def row(p, category, want, slack, *names):
    """A row of a plan is what it should be, but for the ends of pages and alignment."""
    global bad
    got = bytes_of(p, category, *names)
    wrong = not want <= got <= want + slack
    bad += wrong
    print(f"    {category:<16} {got / 1e9:8.3f} GB, by hand {want / 1e9:8.3f}{'  WRONG' if wrong else ''}")

def figure(what, got, most, unit, name):
    global bad
    wrong = got > most * unit
    bad += wrong
    print(f"{what}: {got / unit:.3f} {name}, at most {most}{'  NOT REACHED' if wrong else ''}")

# ---- all weights, 8-bit states, each stepping in the backward pass, whole blocks recomputed, 2048 tokens, one GPU ----------------------
T = 2048
full = ["full_finetune", f"tokenizer.max_seq_len={T}", "batch_size=1", "optimizer_in_bwd=true", "enable_activation_checkpointing=true"]
p = plan("h100", *full, "optimizer=bitsandbytes.optim.AdamW8bit")
figure("8B in full, 8-bit, on one GPU", device(p), 37, GB, "GB")
row(p, "trained", 2 * N, 64 * 2**20)                                    # bf16 weights; 291 tensors begin on pages of 64 Ki elements
row(p, "optimizer", 2 * N + 2 * 4 * N // 256, 64 * 2**20)               # two codes, and an absmax for 256 of each: 2.03125 B
row(p, "gradients", 4 * V * C, 2**20)                                   # the largest, in f32
row(p, "activations", L * 2 * C * T, 2**20)                             # block inputs
row(p, "scratch", 2 * V * T, 64, "logits chunk")                        # all 2048 rows, in bf16
# One block's n1, x2, n2, branch; q, k, v, o; gate, up, product and LSE; one gradient of the residual stream, three head rows.
block = 2 * T * (4 * C + 2 * q + 2 * kv + 3 * F) + 4 * T * H
row(p, "scratch", 2 * V * T + block + 2 * T * C + 3 * 2 * T * C, 4 * 2**20)
row(p, "workspace", 12 * T * H * 128, 4 * 2**20)                        # attention's backward: f32 dQ, dK, dV by query head

# ---- the same in 24 GB: offloaded, states paged ----------------------------------------------------------------------------------------
p = plan("4090", *full, "enable_activation_offloading=true", "optimizer=bitsandbytes.optim.PagedAdamW8bit", "memory_budget=24GB")
figure("8B in full, offloaded and paged", device(p), 24, GB, "GB")
bad += not p["fits"]
row(p, "activations", 2 * 2 * C * T, 2**20)                             # two layers' inputs of the 32
row(p, "trained", 2 * N, 64 * 2**20)
away = sum(r["bytes"] for r in p["rows"] if r["category"] == "paged")
print(f"    {away / 1e9:.3f} GB of states wait on the host, {bytes_of(p, 'optimizer') / 1e9:.3f} are on the device")
bad += not 2 * N + 2 * 4 * N // 256 <= away + bytes_of(p, "optimizer") <= 2 * N + 2 * 4 * N // 256 + 2**27
least = device(p) - bytes_of(p, "optimizer")
figure("  the same without a state on the device", least, 20.5, GB, "GB")

# ---- the same with the optimizer on the host: no state is left here, bf16 moments of all weights are there -----------------------------
p = plan("4090", *full, "enable_activation_offloading=true", "optimizer=torchao.optim.CPUOffloadOptimizer", "memory_budget=24GB")
figure("8B in full, offloaded, stepping on the host", device(p), 20.5, GB, "GB")
bad += not p["fits"]
row(p, "optimizer", 0, 0)
hosted = sum(r["bytes"] for r in p["rows"] if r["category"] == "host optimizer")
print(f"    {hosted / 1e9:.3f} GB of states are on the host, by hand {4 * N / 1e9:.3f}")
bad += not 4 * N <= hosted <= 4 * N + 2**27

# ---- QLoRA -----------------------------------------------------------------------------------------------------------------------------
# Blocks' products in NF4 with scales quantised again, embedding, head and norms in bf16.
frozen = LINEARS // 2 + LINEARS // 64 + 4 * LINEARS // 16384 + 2 * (N - LINEARS)

def qlora(p, A, tokens, what):
    """Of A adapter weights: f32, working copies in bf16, gradients, 8-bit states; two layers' inputs, offloaded by the others."""
    row(p, "frozen weights", frozen, 2**20)
    row(p, "trained", 6 * A, 6 * 65536 * 448)                           # each of 448 begins on a page
    row(p, "activations", 2 * 2 * C * tokens, 2**20)

# Batch 2 x 2048, torchtune's adapters (rank 8 on q, v, o and the MLP). Its 7.4 GiB are what PyTorch has allocated, without the context and
# the libraries: so are these. One linear in bf16 and three that tiles share instead of two layers, 512 rows of logits, the MLP by 256 tokens.
words = ["lora_finetune", "model.quantize_base=true", "tokenizer.max_seq_len=2048", "batch_size=2", "model.lora_rank=8",
         "model.lora_attn_modules=[q_proj,v_proj,output_proj]", "model.apply_lora_to_mlp=true", "optimizer=bitsandbytes.optim.PagedAdamW8bit",
         "optimizer_in_bwd=true", "enable_activation_checkpointing=true", "enable_activation_offloading=true", "mlp_tile_tokens=256",
         "head_chunk_rows=512", "dequantize_ahead=false"]
p = plan("h100", *words)
T, A = 4096, L * 8 * (C + q + C + kv + q + C + 3 * (C + F))
figure("8B QLoRA, batch 2 x 2048, allocated", device(p) - bytes_of(p, "library"), 6.5, GIB, "GiB")
print(f"    with the driver's context and the libraries, as guessed: {device(p) / GIB:.3f} GiB")
qlora(p, A, T, "2 x 2048")
row(p, "scratch", 3 * 2 * C * F, 64, "dequantised linears, bf16")
row(p, "scratch", 2 * V * 512, 64, "logits chunk")
row(p, "workspace", 12 * T * H * 128, 2**20)

# Rank 32 on all, one row on a 24 GB card (23.6 GiB of it CUDA shows): the longest row; Unsloth has 78k.
words = ["lora_finetune", "model.quantize_base=true", "batch_size=1", "model.lora_rank=32", "optimizer=bitsandbytes.optim.AdamW8bit",
         "enable_activation_checkpointing=true", "enable_activation_offloading=true", "mlp_tile_tokens=1024"]
T, A = 81920, L * 32 * (C + q + 2 * (C + kv) + q + C + 3 * (C + F))
p = plan("4090", *words, f"tokenizer.max_seq_len={T}")
bad += not p["fits"]
figure(f"8B QLoRA, rank 32, {T} tokens in a row", device(p), 24, GB, "GB")
qlora(p, A, T, "long")
# n1, x2, n2, branch, q, k, v, o, LSE; gradients of the residual stream, q and o, while those of norms, k and v lie in the chunk of 4096 rows
# of logits; that chunk and three rows beside it; two layers dequantised; a tile of gate, up, product and its gradient; the largest linear
# as it is read from a file. Beside it 64 columns of room for adapters in most, and RoPE's tables.
row(p, "scratch", 2 * T * (4 * C + 2 * q + 2 * kv) + 4 * T * H + 2 * T * (C + 2 * q) + 2 * 4096 * (V + 3 * C) + 2 * 2 * LINEARS // L
    + 4 * 2 * 1024 * F + 2 * C * F, 2 * T * 64 * 10 + 4 * T * 128 + 5 * 10**7)
row(p, "workspace", 12 * T * H * 128, 3 * 10**8)
lo, hi = T, 4 * T
while hi - lo > 1024:
    mid = (lo + hi) // 2
    lo, hi = (mid, hi) if plan("4090", *words, f"tokenizer.max_seq_len={mid}")["fits"] else (lo, mid)
print(f"    the longest row is {lo} tokens")
bad += lo < 80000
sys.exit(bad > 0)
END
finish
