#!/usr/bin/env bash
# bench_optim.sh BUILD_DIR [THREADS [ELEMENTS]]: a step of AdamW with 8-bit states, beside one with f32 states and beside bitsandbytes'
# AdamW8bit, on the same cores, as ratios. PYTHON: one that has bitsandbytes. The bars: ≤ 1.5 of f32 states, < 1 of bitsandbytes.
. "$(dirname "$0")/../lib.sh"
threads=${2:-$(env -u OMP_NUM_THREADS nproc)} elements=${3:-16777216} python=${PYTHON:-python3}
"$python" -c 'import bitsandbytes' 2>/dev/null || skip "$python has no bitsandbytes (set PYTHON)"
[ -x "$build/bench_optim" ] || cmake --build "$build" --target bench_optim >/dev/null

"$build/bench_optim" "$threads" "$elements" | tee "$scratch/ours"
"$python" - "$threads" "$elements" 2>/dev/null <<'END' | tee "$scratch/theirs"
import sys, time
import torch, bitsandbytes
threads, n = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
    w = torch.nn.Parameter((torch.randn(n) * 0.02).to(dtype))
    w.grad = (torch.randn(n) * 1e-3).to(dtype)
    optimizer = bitsandbytes.optim.AdamW8bit([w], lr=1e-3, weight_decay=0.01)
    best = float("inf")
    for i in range(6):
        start = time.perf_counter()
        optimizer.step()
        best = min(best, time.perf_counter() - start) if i else best
    print(f"bitsandbytes {bitsandbytes.__version__}, {name:4} weights, 8-bit states  {best / n * 1e9:7.3f} ns/element")
END
for dtype in f32 bf16; do
    ours=$(awk -v d="$dtype" '$2 == d && $4 == "8-bit" { print $6 }' "$scratch/ours")
    theirs=$(awk -v d="$dtype" '$3 == d { print $7 }' "$scratch/theirs")
    awk -v a="$ours" -v b="$theirs" -v d="$dtype" 'BEGIN { printf "ratio %s: ours / bitsandbytes = %.3f\n", d, a / b; exit !(a < b) }' ||
        fail "$dtype: slower than bitsandbytes"
done
awk '/^ratio f32/ { exit !($NF <= 1.5) }' "$scratch/ours" || fail "above 1.5 of f32 states"
finish
