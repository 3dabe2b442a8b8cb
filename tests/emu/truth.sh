#!/usr/bin/env bash
# truth.sh BUILD_DIR: the whole trainer on the emulated device: every family's golden run, within the bounds that the CPU is held to.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so
need python3
. "$source/tests/truth/lib_runs.sh"
device=emu
for family in "${families[@]}"; do
    one "$family" full_adamw "${fp32[@]}" dtype=fp32 "${whole[@]}"
    one "$family" lora_adamw "${bf16_lora[@]}" dtype=bf16 "${whole[@]}"
done
one llama3 full_adamw "${bf16[@]}" dtype=bf16 "${whole[@]}"
one qwen2 full_sgd "${fp32[@]}" dtype=fp32 "${whole[@]}"
one llama2 lora_adamw "${fp32[@]}" dtype=fp32 "${whole[@]}"
finish
