#!/usr/bin/env bash
# train.sh BUILD_DIR [--only N]: never a bit different, and plan = peak: combinations of everything that a memory technique has a key for
# (table.h), drawn so that every pair is among them, on the CPU, behind the fence and on the emulated device, on 1, 2 and 4 ranks: each
# trained, saved and resumed in the middle, and compared with the plain run of its numerics (run.h). For 20 of them the peak of the whole
# program is looked at from outside too. TRIMPOT_COMBOS=3000 TRIMPOT_COMBOS_SEED=$RANDOM tests/combos/train.sh build for a long night;
# --only N trains one again, and says what it does.
. "$(dirname "$0")/../lib.sh"
built trimpot test_combos trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
. "$source/tests/e2e/lib_peak.sh"
also=("${@:2}")
[ ${#also[@]} = 0 ] || also+=(--loud)
head -48 "$rows" >"$scratch/rows48.jsonl"
devices=(cpu)
[ -e "$build/trimpot_emu.so" ] && devices+=(emu) || say "SKIPPED: no emulated device was built"

# A model with more layers than offloading has places and than are dequantised ahead, with weights in files.
deep=$(deeper llama2 5)
"$trimpot" run full_finetune device=cpu dtype=fp32 seed=7 --data "$rows" --model "$deep" model.init=random optimizer.lr=0 max_steps_per_epoch=1 \
    -q --output "$scratch/made" >"$scratch/made.log" 2>&1 || die "no model: $(tail -n 3 "$scratch/made.log")"
"$build/test_combos" --store "$scratch/stored" || die "no model in NF4 files"

# leg LEG DEVICE RANKS PART/PARTS: in a process of so many ranks
leg()
{
    local log=$scratch/log.$1.$2.$3.${4%/*} rc=0
    ranks "$3" "$build/test_combos" --leg "$1" --device "$2" --part "$4" --scratch "$scratch" --model "$scratch/made/export" \
        --stored "$scratch/stored" --data "$scratch/rows48.jsonl" "${also[@]}" >"$log" 2>&1 || rc=$?
    [ $rc = 0 ] || say "FAIL: exit $rc: $1 of combinations on $3 rank(s) of $2" >>"$log"
    [ $rc = 0 ] || touch "$scratch/failed"
    grep -v 'built without NCCL' "$log" || true # the fence has none of its own
}

# The whole program, on a model of some size: what it took at most is what its plan says (e2e/plan.sh has the bound).
peaks()
{
    local n keys lines model=$scratch/wide
    scratch=$scratch/peaks
    mkdir -p "$scratch"
    mv "$scratch/../watch.so" "$scratch"
    cp -r "$deep" "$model"
    sed -i -E 's/("hidden_size":) *[0-9]+/\1 256/; s/("intermediate_size":) *[0-9]+/\1 512/; s/("head_dim":) *[0-9]+/\1 64/' "$model/config.json"
    mapfile -t lines < <("$build/test_combos" --keys 20)
    [ ${#lines[@]} = 20 ] || [ "${TRIMPOT_COMBOS:-300}" -lt 300 ] || fail "${#lines[@]} peaks to look at, not 20"
    for keys in "${lines[@]}"; do
        n=${keys%% *}
        # shellcheck disable=SC2086
        below "$n" ${keys#* } max_steps_per_epoch=2 model.init=random --model "$model" --data "$rows"
    done >"$scratch/log" 2>&1
    [ "$failures" = 0 ] || { cat "$scratch/log"; touch "$scratch/../failed"; }
    say "${#lines[@]} peaks of the whole program, $(grep -c '^peak' "$scratch/log") looked at: $((SECONDS - started)) s"
}

# Two processes or worlds at a time, but four ranks by themselves; each leg needs what the one before it left.
started=$SECONDS
if [ ${#also[@]} != 0 ]; then :; elif [ "$unseen" ]; then say "SKIPPED: $unseen: peaks are not looked at"; else peaks & fi
for what in plain run resume; do
    [ $what = plain ] && worlds="1:0/2 1:1/2" || worlds="2:0/1 1:0/1 4:0/1"
    for device in "${devices[@]}"; do
        for world in $worlds; do
            while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
            [ "${world%:*}" != 4 ] || wait
            leg $what "$device" "${world%:*}" "${world#*:}" &
            [ "${world%:*}" != 4 ] || wait
        done
    done
    wait
    [ ! -e "$scratch/failed" ] || { failures=1; break; }
done
"$build/test_combos" --summary
say "$((SECONDS - started)) s in all"
finish
