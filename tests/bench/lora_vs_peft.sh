#!/usr/bin/env bash
# lora_vs_peft.sh BUILD_DIR [options of lora_vs_peft.py]: LoRA on a 0.5B Qwen2.5-shaped model with random weights, trimpot
# and PEFT in alternating runs, and the step's matrix products alone as the limit. Takes some ten minutes and 12 GB.
#   TRIMPOT_PEERS    a virtual environment that has torch, transformers and peft; default: made under the cache folder
#   TRIMPOT_SHARED   folder with data/tokenizers/qwen2; without it a byte vocabulary is used
#   TRIMPOT_BENCH    where the model is kept between calls (2 GB); default: under the cache folder
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?usage: lora_vs_peft.sh BUILD_DIR [--steps N] [--rounds N] [--threads N] [--data full|half|both] [--dtype fp32|bf16] [--tokens N] [--isa avx2]}" && pwd)
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trimpot
dtype=f32 # of the model's files: what it is trained in, as published models are
[[ " $* " == *" --dtype bf16 "* ]] && dtype=bf16
model=${TRIMPOT_BENCH:-$cache/bench}/qwen2.5-0.5b-$dtype
tokenizer=${TRIMPOT_SHARED:-$here/../../../shared}/data/tokenizers/qwen2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

peers=${TRIMPOT_PEERS:-$cache/peers}
if [ ! -x "$peers/bin/python" ]; then
    echo "installing PyTorch, transformers and PEFT into $peers (once)"
    python3 -m venv "$peers"
    "$peers/bin/pip" install --quiet torch transformers peft || { rm -rf "$peers"; exit 1; }
fi
"$peers/bin/python" -c 'import torch, transformers, peft
print(f"peer: PEFT {peft.__version__} on PyTorch {torch.__version__}, transformers {transformers.__version__}")' 2>/dev/null
"$build/trimpot" version
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /processor: /'

options=()
[ -d "$tokenizer" ] && options+=(--tokenizer "$tokenizer")
[ -e "$model/model.safetensors" ] || python3 "$here/make_random_model.py" "$model" --dtype "$dtype" "${options[@]}"
cat "$model"/model.safetensors >/dev/null # into the page cache, for both
gemm=()
[ -x "$build/bench_gemm" ] && gemm=(--bench-gemm "$build/bench_gemm")
python3 "$here/lora_vs_peft.py" --trimpot "$build/trimpot" --model "$model" --work "$work" --peer "$peers/bin/python" \
    "${gemm[@]}" "$@"
