#!/usr/bin/env bash
# lora_vs_peft.sh BUILD_DIR [options of lora_vs_peft.py]: LoRA on a 0.5B Qwen2.5-shaped model with random weights, trimpot
# and PEFT in alternating runs, and the step's matrix products alone as the limit. Takes some ten minutes and 12 GB.
# (lib_peers.sh says which variables it heeds.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?usage: lora_vs_peft.sh BUILD_DIR [--steps N] [--rounds N] [--threads N] [--data full|half|both] [--dtype fp32|bf16] [--tokens N] [--isa avx2]}" && pwd)
shift
. "$here/lib_peers.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
introduce_peers
dtype=f32 # of the model's files: what it is trained in, as published models are
[[ " $* " == *" --dtype bf16 "* ]] && dtype=bf16
random_model "$dtype"
gemm=()
[ -x "$build/bench_gemm" ] && gemm=(--bench-gemm "$build/bench_gemm")
python3 "$here/lora_vs_peft.py" --trimpot "$build/trimpot" --model "$model" --work "$work" --peer "$peers/bin/python" \
    "${gemm[@]}" "$@"
