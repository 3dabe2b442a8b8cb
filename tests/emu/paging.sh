#!/usr/bin/env bash
# paging.sh BUILD_DIR: optimizer states that wait in pinned memory, or are the host's, which then steps, change no bit on the emulated device either (../fence/paging.sh has
# the whole table): three seeds of its orders, 1 and 2 ranks, tensors that step in the backward, where blocks are graphs, and resumed
# unpaged.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
head -8 "$rows" >"$scratch/few.jsonl"
common=(device=emu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1 --model "$source/tests/truth/golden/llama2/model")
wide=optimizer=bitsandbytes.optim.AdamW
eight=(optimizer=bitsandbytes.optim.AdamW8bit optimizer.min_8bit_size=300)

where=(optimizer.is_paged=true optimizer.paged_resident=0 optimizer.min_paged_size=1)

# on SEED RANKS OUTPUT RECIPE key=value …
on()
{
    local seed=$1 n=$2 out=$3
    shift 3
    TRIMPOT_EMU_SEED=$seed TRIMPOT_EMU_ORDER=any ranks "$n" "$trimpot" run "$@" "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((${items:-4} / n)) >"$out.log" 2>&1 || { fail "seed $seed, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# each NAME RECIPE key=value … and, on standard input, lines of "SEED RANKS key=value …"
each()
{
    local name=$1 seed n how
    shift
    on 1 1 "$scratch/stays" "$@"
    while read -r seed n how; do
        # shellcheck disable=SC2086
        on "$seed" "$n" "$scratch/leaves" "$@" "${where[@]}" $how
        same "$name: seed $seed, $n ranks, $how" "$scratch/stays" "$scratch/leaves"
        rm -rf "$scratch/leaves"
    done
    rm -rf "$scratch/stays"
    say "$name"
}

each "full fp32" "${full[@]}" "$wide" dtype=fp32 clip_grad_norm=0.5 <<'END'
1 1 optimizer.paged_window=8192
2 2 optimizer.paged_window=5000
END
each "full bf16, 8-bit" "${full[@]}" "${eight[@]}" dtype=bf16 <<'END'
1 2 optimizer.paged_window=4096 optimizer.min_paged_size=1000
END
items=1 each "LoRA bf16, 8-bit, stepped in the backward" "${lora[@]}" "${eight[@]}" dtype=bf16 optimizer_in_bwd=true <<'END'
3 1 optimizer.paged_window=512
END

# The CPU's update is the GPU's, bit for bit.
paged=("${where[@]}")
where=(optimizer=torchao.optim.CPUOffloadOptimizer optimizer.host_window=4096)
each "host: full bf16, clipped" "${full[@]}" dtype=bf16 clip_grad_norm=0.5 <<'END'
1 2
END
each "host: LoRA bf16, 8-bit" "${lora[@]}" optimizer=torchao.optim.AdamW8bit optimizer.min_8bit_size=300 dtype=bf16 <<'END'
2 1 optimizer.optimizer_class=torchao.optim.AdamW8bit optimizer.min_8bit_size=300
END
items=1 each "host: full fp32, stepped in the backward" "${full[@]}" dtype=fp32 optimizer_in_bwd=true <<'END'
3 1
END

resume=("${full[@]}" "${eight[@]}" dtype=bf16 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
on 1 1 "$scratch/whole" "${resume[@]}"
on 2 2 "$scratch/half" "${resume[@]}" "${paged[@]}" optimizer.paged_window=2048
rm -rf "$scratch"/half/checkpoints/step-0000002 "$scratch"/half/export
on 3 1 "$scratch/half" "${resume[@]}" resume_from_checkpoint=true
same "saved paged by 2 ranks, resumed unpaged by 1" "$scratch/whole" "$scratch/half"
finish
