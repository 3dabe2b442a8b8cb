#!/usr/bin/env bash
# savings.sh BUILD_DIR [options of savings.py]: what each memory technique saves and costs on a 0.5B model in bf16, planned and seen
# from outside, beside PyTorch with the same setting. Takes half an hour and 12 GB. (lib_peers.sh says which variables it heeds.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:?usage: savings.sh BUILD_DIR [--steps N] [--threads N] [--tokens N] [--only TEXT] [--json]}" && pwd)
shift
. "$here/lib_peers.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
introduce_peers
random_model bf16
python3 "$here/savings.py" --trimpot "$build/trimpot" --model "$model" --work "$work" --peer "$peers/bin/python" "$@"
