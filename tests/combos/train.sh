#!/usr/bin/env bash
# train.sh BUILD_DIR [--only N]: never a bit different, and plan = peak: combinations of everything that a memory technique has a key for
# (table.h), drawn so that every pair is among them, on the CPU, behind the fence and on the emulated device, on 1, 2 and 4 ranks: each
# trained, saved and resumed in the middle, and compared with the plain run of its numerics (run.h). TRIMPOT_COMBOS=1000
# TRIMPOT_COMBOS_SEED=$RANDOM tests/combos/train.sh build for a long night; --only N trains one again, and says what it does.
. "$(dirname "$0")/../lib.sh"
built trimpot test_combos trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
also=("${@:2}")
[ ${#also[@]} = 0 ] || also+=(--loud)
head -48 "$rows" >"$scratch/rows48.jsonl"
devices=(cpu)
[ -e "$build/trimpot_emu.so" ] && devices+=(emu) || say "SKIPPED: no emulated device was built"

# A model with more layers than offloading has places and than are dequantised ahead, with weights in files.
"$trimpot" run full_finetune device=cpu dtype=fp32 seed=7 --data "$rows" --model "$(deeper llama2 5)" model.init=random optimizer.lr=0 \
    max_steps_per_epoch=1 -q --output "$scratch/made" >"$scratch/made.log" 2>&1 || die "no model: $(tail -n 3 "$scratch/made.log")"
model=$scratch/made/export

# leg LEG DEVICE RANKS PART/PARTS: in a process of that many ranks
leg()
{
    local log=$scratch/log.$1.$2.$3.${4%/*} rc=0
    ranks "$3" "$build/test_combos" --leg "$1" --device "$2" --part "$4" --scratch "$scratch" --model "$model" --data "$scratch/rows48.jsonl" \
        "${also[@]}" >"$log" 2>&1 || rc=$?
    [ $rc = 0 ] || echo "exit $rc of $1 on $3 rank(s) of $2" >>"$log"
    cat "$log"
    [ $rc = 0 ] || touch "$scratch/failed"
}

# Two at a time: emulated ranks beside plain ones.
for what in plain run resume; do
    for device in "${devices[@]}"; do
        if [ $what = plain ]; then worlds="1:0/2 1:1/2"; else worlds="4:0/1 2:0/1 1:0/2 1:1/2"; fi
        for world in $worlds; do
            while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
            leg $what "$device" "${world%:*}" "${world#*:}" &
        done
    done
    wait
    [ ! -e "$scratch/failed" ] || { failures=1; break; }
done
finish
