#!/usr/bin/env bash
# offload.sh BUILD_DIR: activations that wait in pinned memory change no bit on the emulated device either (../fence/offload.sh has the
# whole table): three seeds of its orders, 1 and 2 ranks, resumed without.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
head -8 "$rows" >"$scratch/few.jsonl"
common=(device=emu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1 --model "$(deeper llama2 5)" model.init=random)

# on SEED RANKS OUTPUT RECIPE key=value …
on()
{
    local seed=$1 n=$2 out=$3
    shift 3
    TRIMPOT_EMU_SEED=$seed TRIMPOT_EMU_ORDER=any ranks "$n" "$trimpot" run "$@" "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((4 / n)) >"$out.log" 2>&1 || { fail "seed $seed, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# each NAME RECIPE key=value … and, on standard input, lines of "SEED RANKS key=value …"
each()
{
    local name=$1 seed n how
    shift
    on 1 1 "$scratch/stays" "$@"
    while read -r seed n how; do
        # shellcheck disable=SC2086
        on "$seed" "$n" "$scratch/leaves" "$@" enable_activation_offloading=true $how
        same "$name: seed $seed, $n ranks, $how" "$scratch/stays" "$scratch/leaves"
        rm -rf "$scratch/leaves"
    done
    rm -rf "$scratch/stays"
    say "$name"
}

each "full fp32" "${full[@]}" dtype=fp32 <<'END'
1 1
2 2 ac_mode=selective ac_option=2
3 1 ac_mode=full activation_offloading_use_streams=false
END
each "LoRA bf16" "${lora[@]}" dtype=bf16 <<'END'
1 1 ac_mode=full
2 1
3 2
END
# Nothing is dropped: adapters lie behind what they read, and travel with it.
each "LoRA bf16, joined" "${lora[@]}" dtype=bf16 model.lora_dropout=0 <<'END'
4 1 ac_mode=selective ac_option=2
END
each "QLoRA bf16" "${qlora[@]}" dtype=bf16 <<'END'
1 2
2 1 ac_mode=full
3 1 ac_mode=selective ac_option=3
END

resume=("${lora[@]}" dtype=fp32 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
on 1 1 "$scratch/whole" "${resume[@]}"
on 2 2 "$scratch/half" "${resume[@]}" enable_activation_offloading=true
rm -rf "$scratch"/half/checkpoints/step-0000002 "$scratch"/half/export
on 3 1 "$scratch/half" "${resume[@]}" resume_from_checkpoint=true
same "saved offloaded by 2 ranks, resumed without by 1" "$scratch/whole" "$scratch/half"
finish
