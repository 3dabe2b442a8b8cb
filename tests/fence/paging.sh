#!/usr/bin/env bash
# paging.sh BUILD_DIR: optimizer states that wait in pinned memory, or are the host's, which then steps, change no bit. Over a device whose memory the host cannot touch and
# whose streams run in any order (tests/ref/fence.h): 32-bit and 8-bit states, all away or as many as a budget leaves, in windows that cut
# tensors, on 1 and 2 ranks, full and LoRA, clipped, with masters, stepping in the backward, with steps that are skipped, saved and
# resumed at another number of ranks and unpaged; and what is planned is bound.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_fence trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
. "$source/tests/fence/lib_each.sh"
head -12 "$rows" >"$scratch/few.jsonl"
common=(device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" epochs=1 --model "$source/tests/truth/golden/llama2/model")
wide=optimizer=bitsandbytes.optim.AdamW
eight=(optimizer=bitsandbytes.optim.AdamW8bit optimizer.min_8bit_size=300)
paged=(optimizer.is_paged=true optimizer.min_paged_size=1)
none=optimizer.paged_resident=0
beside=("${paged[@]}") # what the fence's run has beside the plain one's

each "full fp32" "${full[@]}" "$wide" dtype=fp32 clip_grad_norm=0.5 <<END
any 1 1 $none optimizer.paged_window=4096
last 2 2 $none optimizer.paged_window=9000
first 3 1 optimizer.paged_resident=300KiB optimizer.paged_window=2048
END
each "full bf16, masters" "${full[@]}" "$wide" dtype=bf16 master_weights=fp32 <<END
any 2 2 $none optimizer.paged_window=4096 optimizer.min_paged_size=1000
first 1 1 $none optimizer.paged_window=4096
END
each "full bf16, 8-bit" "${full[@]}" "${eight[@]}" dtype=bf16 <<END
any 1 1 $none optimizer.paged_window=4096
last 3 2 optimizer.paged_resident=100KiB optimizer.paged_window=1024 optimizer.min_paged_size=1000
first 2 1 $none optimizer.paged_window=512
END
each "LoRA fp32, 8-bit" "${lora[@]}" "${eight[@]}" dtype=fp32 <<END
any 3 2 $none optimizer.paged_window=512
last 1 1 $none optimizer.paged_window=256
END
each "LoRA bf16, SGD" "${lora[@]}" optimizer=bitsandbytes.optim.SGD optimizer.momentum=0.9 dtype=bf16 <<END
first 3 1 $none optimizer.paged_window=512
END
# At once: whoever touches tensor memory dies where he does it.
each "at once" "${lora[@]}" "${eight[@]}" dtype=fp32 max_steps_per_epoch=1 <<END
now 0 1 $none optimizer.paged_window=512
END
items=1 each "stepped in the backward" "${full[@]}" "$wide" dtype=fp32 optimizer_in_bwd=true <<END
any 4 1 $none optimizer.paged_window=4096
first 5 1 $none optimizer.paged_window=4096 optimizer.min_paged_size=1000 enable_activation_offloading=true
END
items=1 each "stepped in the backward, 8-bit" "${full[@]}" "${eight[@]}" dtype=bf16 optimizer_in_bwd=true <<END
last 4 1 $none optimizer.paged_window=2048
END

# ---- the host steps -------------------------------------------------------------------------------------------------------------
beside=(optimizer=torchao.optim.CPUOffloadOptimizer optimizer.host_window=4096)
each "host: full fp32" "${full[@]}" dtype=fp32 clip_grad_norm=0.5 lr_scheduler=cosine lr_scheduler.num_warmup_steps=1 <<END
any 1 1
last 2 2
first 3 1 optimizer.host_window=100000
END
each "host: full bf16, 8-bit" "${full[@]}" optimizer=torchao.optim.AdamW8bit optimizer.min_8bit_size=300 dtype=bf16 <<END
any 4 2 optimizer.optimizer_class=torchao.optim.AdamW8bit optimizer.min_8bit_size=300
END
each "host: LoRA bf16" "${lora[@]}" dtype=bf16 optimizer=torch.optim.SGD optimizer.momentum=0.9 optimizer.nesterov=true <<END
first 1 1 optimizer.optimizer_class=torch.optim.SGD optimizer.momentum=0.9 optimizer.nesterov=true optimizer.host_window=512
last 2 2 optimizer.optimizer_class=torch.optim.SGD optimizer.momentum=0.9 optimizer.nesterov=true
END
each "host: LoRA fp32, at once" "${lora[@]}" dtype=fp32 max_steps_per_epoch=1 <<END
now 0 1
END
items=1 each "host: full bf16, stepped in the backward" "${full[@]}" dtype=bf16 optimizer_in_bwd=true <<END
any 5 1
first 6 1 enable_activation_checkpointing=true enable_activation_offloading=true
END
items=1 each "host: QLoRA fp32, stepped in the backward" "${qlora[@]}" dtype=fp32 optimizer_in_bwd=true <<END
last 7 1 optimizer.host_window=512
END
resume=("${full[@]}" dtype=bf16 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
under plain 0 1 "$scratch/whole" "${resume[@]}"
under any 7 2 "$scratch/half" "${resume[@]}" "${beside[@]}"
rm -rf "$scratch"/half/checkpoints/step-0000003 "$scratch"/half/export
cp -r "$scratch/half" "$scratch/again"
under last 8 1 "$scratch/again" "${resume[@]}" "${beside[@]}" resume_from_checkpoint=true
same "host: saved by 2 ranks, resumed by 1" "$scratch/whole" "$scratch/again"
under plain 0 1 "$scratch/half" "${resume[@]}" resume_from_checkpoint=true
same "host: saved there, resumed without" "$scratch/whole" "$scratch/half"
rm -rf "$scratch"/{whole,half,again}
say "host: resume"

# ---- saved and resumed, with and without ---------------------------------------------------------------------------------------
resume=("${full[@]}" "${eight[@]}" dtype=bf16 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
now=("${paged[@]}" $none optimizer.paged_window=2048)
under plain 0 1 "$scratch/whole" "${resume[@]}"
under any 7 2 "$scratch/half" "${resume[@]}" "${now[@]}"
rm -rf "$scratch"/half/checkpoints/step-0000003 "$scratch"/half/export
cp -r "$scratch/half" "$scratch/again"
under last 8 1 "$scratch/again" "${resume[@]}" "${now[@]}" optimizer.paged_window=4096 resume_from_checkpoint=true
same "saved by 2 ranks, resumed by 1" "$scratch/whole" "$scratch/again"
if grep "continuity" "$scratch/again.log"; then fail "windows are taken for a change"; fi
under plain 0 1 "$scratch/half" "${resume[@]}" optimizer=bitsandbytes.optim.PagedAdamW8bit resume_from_checkpoint=true
same "saved paged, resumed where one memory is" "$scratch/whole" "$scratch/half"
say "resume"

# ---- planned and bound ---------------------------------------------------------------------------------------------------------
# planned KEYS…: what the plan has of states on the device and in pinned memory, of all on the device, and all that is bound.
planned()
{
    "$build/trimpot_fence" plan "${common[@]}" -q --json "$@" | python3 -c "
import json, sys
plan = json.load(sys.stdin)
of = lambda c, m: sum(r['bytes'] for r in plan['rows'] if r['category'] == c and r['memory'] == m)
device = sum(r['bytes'] for r in plan['rows'] if r['memory'] == 'device')
print(of('optimizer', 'device'), of('paged', 'pinned'), device, plan['bound_bytes'])"
}
for kind in "$wide" "${eight[*]}"; do
    # shellcheck disable=SC2086
    read -r all _ device _ <<<"$(planned "${full[@]}" dtype=bf16 $kind)"
    for few in 0 $((all / 3)) $((all / 2)); do
        # shellcheck disable=SC2206
        how=("${full[@]}" dtype=bf16 $kind "${paged[@]}" optimizer.paged_window=1024 memory_budget=$((device - few)))
        read -r here gone there bound <<<"$(planned "${how[@]}")"
        taken=$(TRIMPOT_FENCE=any "$build/trimpot_fence" run "${how[@]}" "${common[@]}" -v --output "$scratch/bound" \
            max_steps_per_epoch=1 2>&1 </dev/null | sed -nE 's/.*bound ([0-9]+) bytes.*/\1/p')
        rm -rf "$scratch/bound"
        say "$kind, $few bytes too few: states $all -> $here, and $gone away"
        equal "bound" "$bound" "$taken"
        [ "$there" -le $((device - few)) ] || fail "$there bytes on the device, the budget is $((device - few))"
        [ "$few" = 0 ] || [ "$there" -gt $((device - few - 30000)) ] || fail "$((device - few - there)) bytes are left"
        [ $((few > 0)) = $((gone > 0)) ] || fail "$gone bytes are away"
    done
done
# The host's: no state is on the device, what crosses is planned, and bound.
read -r all _ device _ <<<"$(planned "${full[@]}" dtype=bf16)"
read -r here _ there bound <<<"$(planned "${full[@]}" dtype=bf16 "${beside[@]}")"
taken=$(TRIMPOT_FENCE=any "$build/trimpot_fence" run "${full[@]}" dtype=bf16 "${beside[@]}" "${common[@]}" -v --output "$scratch/bound" \
    max_steps_per_epoch=1 2>&1 </dev/null | sed -nE 's/.*bound ([0-9]+) bytes.*/\1/p')
rm -rf "$scratch/bound"
equal "bound, host" "$bound" "$taken"
equal "states on the device, host" 0 "$here"
equal "what the device saves, host" "$all" $((device - there))
expect 2 "master_weights" "$trimpot" plan "${full[@]}" "${common[@]}" "${beside[@]}" dtype=bf16 master_weights=fp32
expect 0 "host and device are one memory here (optimizer.on_host)" "$trimpot" plan "${full[@]}" "${common[@]}" "${beside[@]}"
# Not even windows fit: refused before anything is taken.
expect 11 "the plan needs" "$build/trimpot_fence" plan "${common[@]}" "${full[@]}" "$wide" "${paged[@]}" memory_budget=10KiB
# Where host and device are one memory nothing is moved, and the start says so.
expect 0 "nothing is moved: host and device are one memory here (optimizer.is_paged)" "$trimpot" run "${full[@]}" "${common[@]}" \
    optimizer=bitsandbytes.optim.PagedAdamW $none --output "$scratch/cpu" max_steps_per_epoch=1
finish
