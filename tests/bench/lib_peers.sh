# lib_peers.sh — sourced by the benchmarks that run PyTorch beside trimpot on a 0.5B Qwen2.5-shaped model with random weights.
#   TRIMPOT_PEERS    a virtual environment that has torch, transformers, peft (and bitsandbytes); default: made under the cache folder
#   TRIMPOT_SHARED   folder with data/tokenizers/qwen2; without it a byte vocabulary is used
#   TRIMPOT_BENCH    where the model is kept between calls (2 GB); default: under the cache folder
cache=${XDG_CACHE_HOME:-$HOME/.cache}/trimpot
peers=${TRIMPOT_PEERS:-$cache/peers}

# Installs the peers where there are none, and says who is compared on what.
introduce_peers() {
    if [ ! -x "$peers/bin/python" ]; then
        echo "installing PyTorch, transformers, PEFT and bitsandbytes into $peers (once)"
        python3 -m venv "$peers"
        "$peers/bin/pip" install --quiet torch transformers peft bitsandbytes || { rm -rf "$peers"; exit 1; }
    fi
    "$peers/bin/python" -c 'import torch, transformers, peft
print(f"peer: PEFT {peft.__version__} on PyTorch {torch.__version__}, transformers {transformers.__version__}")' 2>/dev/null
    "$build/trimpot" version
    grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /processor: /'
}

# random_model f32|bf16: sets `model` to its folder, made if need be, its weights in the page cache.
random_model() {
    local tokenizer=${TRIMPOT_SHARED:-$here/../../../shared}/data/tokenizers/qwen2 options=()
    model=${TRIMPOT_BENCH:-$cache/bench}/qwen2.5-0.5b-$1
    [ -d "$tokenizer" ] && options+=(--tokenizer "$tokenizer")
    [ -e "$model/model.safetensors" ] || python3 "$here/make_random_model.py" "$model" --dtype "$1" "${options[@]}"
    cat "$model"/model.safetensors >/dev/null
}
