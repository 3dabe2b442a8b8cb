#!/usr/bin/env python3
"""Golden numbers of PyTorch's optimizers and of bitsandbytes' NF4, and of AdamW8bit of bitsandbytes and torchao, for
test_optim.c, test_nf4.c and test_states8.c.

Needs torch, bitsandbytes and torchao (made with torch 2.15.0, bitsandbytes 0.50.2, torchao 0.18.0). Writes beside itself:
  golden/optim.h   final w of 20 steps of every optimizer, float32 and float64
  golden/nf4.bin   codes, u8 absmax, f32 nested absmax, f32 offset of W (n = NF4_N), then crc32 of the f32 and bf16 decode
  golden/states8.bin  after 1 and 50 steps of bitsandbytes' AdamW8bit on STATES_N elements: codes and f32 absmax of m and of v, f32 w
  golden/states8_ao.bin  the same of torchao's after 50 steps on STATES_AO elements (it quantises no fewer)
Inputs are integers from a 32-bit LCG, so that C makes the same ones: see lcg() in both.
"""
import pathlib
import struct
import zlib

import torch
import bitsandbytes
import bitsandbytes.functional as F
import torchao.optim

HERE = pathlib.Path(__file__).parent / "golden"
N, STEPS, NF4_N, STATES_N, STATES_AO, STATES_STEPS = 37, 20, 64 * 260 + 10, 1124, 4096, 50


class lcg:
    def __init__(self, seed):
        self.x = seed

    def u16(self):
        self.x = (self.x * 1664525 + 1013904223) & 0xFFFFFFFF
        return self.x >> 16

    def unit(self):
        return (self.u16() - 32768) / 32768


CASES = [
    ("adamw", torch.optim.AdamW, dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    ("adamw_small_eps_large_lr", torch.optim.AdamW, dict(lr=0.125, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.0)),
    ("adam", torch.optim.Adam, dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)),
    ("sgd", torch.optim.SGD, dict(lr=1e-2, weight_decay=0.01)),
    ("momentum", torch.optim.SGD, dict(lr=1e-2, momentum=0.9, dampening=0.25, weight_decay=0.01)),
    ("nesterov", torch.optim.SGD, dict(lr=1e-2, momentum=0.9, nesterov=True)),
]


def train(make, options, dtype):
    random = lcg(7)
    w = torch.nn.Parameter(torch.tensor([random.unit() for _ in range(N)], dtype=dtype))
    optimizer = make([w], foreach=False, **options)
    for _ in range(STEPS):
        w.grad = torch.tensor([random.unit() for _ in range(N)], dtype=dtype)
        optimizer.step()
    return [x.item() for x in w.detach()]


def floats(values, digits):
    rows = [values[i:i + 5] for i in range(0, len(values), 5)]
    return "\n".join("    " + " ".join("%.*g," % (digits, x) for x in row) for row in rows)


def write_optim():
    text = ["/* Made by ../make_golden.py: w after %d steps. */\n" % STEPS, "enum { GOLDEN_N = %d, GOLDEN_STEPS = %d };\n" % (N, STEPS)]
    for name, make, options in CASES:
        for suffix, dtype, digits in (("f32", torch.float32, 9), ("f64", torch.float64, 17)):
            text.append("static const double golden_%s_%s[GOLDEN_N] = {\n%s\n};\n" % (name, suffix, floats(train(make, options, dtype), digits)))
    (HERE / "optim.h").write_text("".join(text))


def write_nf4():
    random = lcg(11)
    w = torch.tensor([(sum(random.u16() for _ in range(4)) - 131070) / 2**20 for _ in range(NF4_N)], dtype=torch.float32)
    packed, state = F.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert state.state2.blocksize == 256
    decoded = F.dequantize_4bit(packed, state)
    state.dtype = torch.bfloat16
    half = F.dequantize_4bit(packed, state)
    assert half.dtype == torch.bfloat16 and decoded.dtype == torch.float32
    body = b"".join(t.contiguous().numpy().tobytes() for t in (packed.flatten(), state.absmax, state.state2.absmax))
    body += struct.pack("<f", state.offset.item())
    body += struct.pack("<I", zlib.crc32(decoded.contiguous().numpy().tobytes()))
    body += struct.pack("<I", zlib.crc32(half.contiguous().view(torch.int16).numpy().tobytes()))
    (HERE / "nf4.bin").write_bytes(body)


OPTIONS8 = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def of_bitsandbytes(w):
    optimizer = bitsandbytes.optim.AdamW8bit([w], min_8bit_size=1, **OPTIONS8)
    return optimizer, lambda state: (state["state1"], state["absmax1"], state["state2"], state["absmax2"])


def of_torchao(w):
    torch.compile = lambda f, **_: f  # the same arithmetic, one operation after the other
    optimizer = torchao.optim.AdamW8bit([w], **OPTIONS8)
    return optimizer, lambda state: [t for key in ("exp_avg", "exp_avg_sq") for t in (state[key].codes, state[key].scale)]


def write_states8(name, make, n, at):
    random = lcg(5)
    w = torch.nn.Parameter(torch.tensor([random.unit() for _ in range(n)], dtype=torch.float32))
    optimizer, states = make(w)
    body = b""
    for step in range(1, STATES_STEPS + 1):
        w.grad = torch.tensor([random.unit() ** 3 for _ in range(n)], dtype=torch.float32)
        optimizer.step()
        kept = [*states(optimizer.state[w]), w.detach()]
        assert kept[0].dtype == torch.uint8
        if step in at:
            body += b"".join(t.contiguous().numpy().tobytes() for t in kept)
    (HERE / name).write_bytes(body)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    write_optim()
    write_nf4()
    write_states8("states8.bin", of_bitsandbytes, STATES_N, (1, STATES_STEPS))
    write_states8("states8_ao.bin", of_torchao, STATES_AO, (STATES_STEPS,))
