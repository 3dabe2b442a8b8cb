#!/usr/bin/env bash
# joins.sh BUILD_DIR: which products a LoRA or QLoRA step on the GPU consists of (gemm_choices.c writes the shapes of all that are new).
# Where nothing is dropped, adapters are part of their projection's product, forward and backward, and nothing is summed in f32 rows but
# the gradients of q and k that have norms.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so
need python3
. "$source/tests/e2e/libe2e.sh"
head -4 "$rows" >"$scratch/few.jsonl"

# summed FAMILY key=value …: width and depth of products into f32 rows, those of weight gradients left out
summed()
{
    local model=$source/tests/truth/golden/$1/model
    shift
    TRIMPOT_GEMM_TIME=$scratch/shapes "$trimpot" run "${lora[@]}" "$@" dtype=bf16 device=emu seed=7 batch_size=1 --data "$scratch/few.jsonl" \
        --model "$model" -q epochs=1 --output "$scratch/run" >"$scratch/log" 2>&1 || die "$*: $(tail -n 3 "$scratch/log")"
    python3 - "$scratch/shapes" <<'END'
import sys
TA, TB, BF16_IN, BF16_OUT = 1, 2, 4, 8
found = set()
for line in open(sys.argv[1]):
    _, m, n, k, traits, *_ = line.split()
    traits = int(traits, 16)
    if traits & BF16_IN and not traits & (BF16_OUT | TA): found.add(f"{n}x{k}{'ᵀ' if traits & TB else ''}")
print(*sorted(found))
END
    rm -rf "$scratch"/{run,shapes}
}

# Width 64, keys 32, ffn 112.
nf4=model.quantize_base=true
equal 'joined' "$(summed llama3 model.lora_dropout=0)" ''
equal 'joined, biases' "$(summed qwen2 model.lora_dropout=0)" ''
equal 'joined, NF4' "$(summed llama3 model.lora_dropout=0 $nf4)" ''
equal 'joined, NF4, fused' "$(summed phi3 model.lora_dropout=0 $nf4)" ''
# With dropout every forward. (Backward the mask stands between.)
equal 'dropped' "$(summed llama3 model.lora_dropout=0.1)" '112x64ᵀ 32x64ᵀ 64x112ᵀ 64x64ᵀ'
equal 'dropped, NF4' "$(summed llama3 model.lora_dropout=0.1 $nf4)" '112x64ᵀ 32x64ᵀ 64x112ᵀ 64x64ᵀ'
# What norms of heads read has no room: backward of q and k, of width 48.
equal 'q and k normed' "$(summed qwen3 model.lora_dropout=0)" '48x32 48x64'
finish
