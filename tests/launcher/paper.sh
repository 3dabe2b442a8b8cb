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
sys.exit(bad > 0)
END
finish
