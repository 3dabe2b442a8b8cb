"""Reads safetensors and sketches tensors, in plain Python: shared by make_golden.py, compare.py and peers.py.

A golden keeps no final tensors, only a count sketch of each: element i is added with sign s(i) to one of 256 buckets.
The sketch is linear, so |sketch(a) - sketch(b)| estimates |a - b| (unbiased in the square, 9 % standard deviation) over
*all* elements; a tensor of at most 256 elements is kept as it is."""
import array
import json
import math
import struct
import sys

BUCKETS = 256
_plans = {}


def _plan(n):
    if n not in _plans:
        plan, state = [], n
        for _ in range(n):
            state = (state * 6364136223846793005 + 1442695040888963407) & (2**64 - 1)
            z = ((state >> 33) ^ state) * 0xFF51AFD7ED558CCD & (2**64 - 1)
            plan.append((z >> 40) % BUCKETS if z & 1 else -1 - (z >> 40) % BUCKETS)
        _plans[n] = plan
    return _plans[n]


def sketch(values):
    if len(values) <= BUCKETS:
        return list(values)
    out = [0.0] * BUCKETS
    for bucket, v in zip(_plan(len(values)), values):
        if bucket >= 0:
            out[bucket] += v
        else:
            out[-1 - bucket] -= v
    return out


def norm(values):
    return math.sqrt(math.fsum(v * v for v in values))


def relative(got, want):
    """|got - want| / |want| of two sketches."""
    if len(got) != len(want):
        return math.inf
    return norm([g - w for g, w in zip(got, want)]) / max(norm(want), 1e-30)


def _widen_bf16(raw):
    halves = array.array("H", raw)
    words = array.array("I", (h << 16 for h in halves))
    return array.array("f", words.tobytes())


def read_safetensors(path):
    """{name: (shape, array of floats)} of an F32 or BF16 file."""
    if sys.byteorder != "little":
        raise SystemExit("sketch.py: little-endian hosts only")
    out = {}
    with open(path, "rb") as f:
        blob = f.read()
    n = struct.unpack_from("<Q", blob)[0]
    for name, entry in json.loads(blob[8:8 + n]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = blob[8 + n + begin:8 + n + end]
        if entry["dtype"] == "F32":
            values = array.array("f", raw)
        elif entry["dtype"] == "BF16":
            values = _widen_bf16(raw)
        else:
            raise SystemExit(f"{path}: {name} is {entry['dtype']}, expected F32 or BF16")
        out[name] = (entry["shape"], values)
    return out
