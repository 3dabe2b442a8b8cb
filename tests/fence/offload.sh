#!/usr/bin/env bash
# offload.sh BUILD_DIR: activations that wait in pinned memory change no bit. Over a device whose memory the host cannot touch and whose
# streams run in any order (tests/ref/fence.h), over more layers than the ring has places: full, LoRA and QLoRA, fp32 and bf16, without
# checkpointing, with it and with every second layer's, with streams and without, on 1 and 2 ranks, accumulated, evaluated in between,
# stepping in the backward, and resumed; and what is planned is bound.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
. "$source/tests/fence/lib_each.sh"
head -12 "$rows" >"$scratch/few.jsonl"
common=(device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" epochs=1 --model "$(deeper llama2 5)" model.init=random)
beside=(enable_activation_offloading=true)

for kind in full lora qlora; do
    declare -n recipe=$kind
    for dtype in fp32 bf16; do
        each "$kind $dtype" "${recipe[@]}" dtype=$dtype <<'END'
any 1 1
last 2 1
first 3 2
any 2 2 enable_activation_checkpointing=true
any 3 1 enable_activation_checkpointing=true activation_offloading_use_streams=false
last 1 1 ac_mode=selective ac_option=2
first 2 1 ac_mode=selective ac_option=3 offload_with_streams=true
END
    done
done
# At once: whoever touches tensor memory dies where he does it.
each "at once" "${lora[@]}" dtype=fp32 max_steps_per_epoch=1 <<<'now 0 1'
each "evaluated" "${lora[@]}" dtype=fp32 dataset_val_fraction=0.3 run_val_every_n_steps=1 <<'END'
any 4 1
first 5 1 enable_activation_checkpointing=true
last 6 2
END
items=1 each "stepped in the backward" "${full[@]}" dtype=fp32 optimizer_in_bwd=true <<'END'
any 4 1
first 5 1 enable_activation_checkpointing=true
END

# ---- saved and resumed, with and without ---------------------------------------------------------------------------------------
resume=("${lora[@]}" dtype=bf16 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
under plain 0 1 "$scratch/whole" "${resume[@]}"
under any 7 2 "$scratch/half" "${resume[@]}" "${beside[@]}"
rm -rf "$scratch"/half/checkpoints/step-0000003 "$scratch"/half/export
cp -r "$scratch/half" "$scratch/again"
under last 8 1 "$scratch/again" "${resume[@]}" "${beside[@]}" enable_activation_checkpointing=true resume_from_checkpoint=true
same "saved by 2 ranks, resumed by 1" "$scratch/whole" "$scratch/again"
under plain 0 1 "$scratch/half" "${resume[@]}" resume_from_checkpoint=true
same "saved offloaded, resumed without" "$scratch/whole" "$scratch/half"
say "resume"

# ---- planned and bound ---------------------------------------------------------------------------------------------------------
# planned KEYS…: what the plan has of activations on the device and of offloaded ones on the host, then all that is bound.
planned()
{
    "$build/trimpot_fence" plan "${common[@]}" -q --json "$@" | python3 -c "
import json, sys
plan = json.load(sys.stdin)
of = lambda c, m: sum(r['bytes'] for r in plan['rows'] if r['category'] == c and r['memory'] == m)
print(of('activations', 'device'), of('offloaded', 'pinned'), plan['bound_bytes'])"
}
for how in ac_mode=none ac_mode=full "ac_mode=selective ac_option=2"; do
    # shellcheck disable=SC2086
    read -r here _ all <<<"$(planned "${full[@]}" dtype=bf16 $how)"
    # shellcheck disable=SC2086
    read -r ring away bound <<<"$(planned "${full[@]}" dtype=bf16 $how "${beside[@]}")"
    # shellcheck disable=SC2086
    taken=$(TRIMPOT_FENCE=any "$build/trimpot_fence" run "${full[@]}" dtype=bf16 $how "${beside[@]}" "${common[@]}" -v --output "$scratch/bound" \
        max_steps_per_epoch=1 2>&1 </dev/null | sed -nE 's/.*bound ([0-9]+) bytes.*/\1/p')
    rm -rf "$scratch/bound"
    say "$how: activations $here -> $ring, and $away offloaded"
    equal "bound, $how" "$bound" "$taken"
    equal "what leaves is what is not there any more, $how" "$((ring + away))" "$here"
    equal "all, $how" "$bound" "$all"
    [ "$away" -gt 0 ] || fail "nothing is offloaded, $how"
done
# More than the host has: warned of, and refused before anything is taken.
for text in "pinned memory cannot be swapped" "of host memory" "shrink with: enable_activation_checkpointing=true"; do
    expect 11 "$text" "$build/trimpot_fence" plan "${full[@]}" device=cpu "${beside[@]}" --model "$(deeper llama2 5)" model.init=random \
        batch_size=1000000 tokenizer.max_seq_len=1000
done
finish
