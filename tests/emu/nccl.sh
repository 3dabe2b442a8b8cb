#!/usr/bin/env bash
# nccl.sh BUILD_DIR: gradients that go from GPU to GPU by NCCL, on emulated GPUs under mpirun: the same bits on 1, 2, 3 and 4 ranks, with
# any order of what may happen in any, as through the hosts; NCCL's own sum; in buckets behind the backward the same as at once; what
# becomes of a job whose NCCL fails or whose rank dies: of whole runs too, which go on from the last step that was saved.
. "$(dirname "$0")/../lib.sh"
need mpirun pgrep
built trimpot test_comm trimpot_mpi.so
[ -e "$build/trimpot_emu_nccl.so" ] || skip "no emulated NCCL: it is built where CUDA's and NCCL's headers are"
export TRIMPOT_INIT_TIMEOUT=30

for way in "1 1 any" "2 1 any" "2 2 last" "3 1 any" "4 3 first"; do
    read -r n seed order <<<"$way"
    TRIMPOT_EMU_SEED=$seed TRIMPOT_EMU_ORDER=$order ranks "$n" "$build/test_comm" gpu emu >"$scratch/out" 2>&1 ||
        fail "$way: $(tail -5 "$scratch/out")"
    grep '^hash' "$scratch/out" | while read -r _ leaves hash _; do echo "$hash" >>"$scratch/$leaves"; done
    [ "$n" = 1 ] || equal "$way: reductions through NCCL" "$(grep -c '^hash.*NCCL$' "$scratch/out")" "$([ "$n" = 3 ] && say 3 || say 7)"
done
for leaves in 8 24 16 48 32 12; do
    equal "V=$leaves: different sums" "$(sort -u "$scratch/V=$leaves" | wc -l)" 1
done
for n in 2 4; do # within the rounding; in another order than the tree's, so that some sum has other bits
    ranks "$n" "$build/test_comm" fast emu >"$scratch/fast" 2>&1 || fail "fast on $n ranks: $(tail -5 "$scratch/fast")"
done
grep -q "^hash V=48 $(head -n 1 "$scratch/V=48") " "$scratch/fast" && fail "reduce: fast adds in the tree's order: NCCL did not add"


# ends CODE 'cause' command…: no rank names more than one.
ends()
{
    local rank
    expect "$@"
    for rank in 0 1 2; do
        [ "$(grep -c "^\[rank $rank\] error: " "$scratch/expect.out")" -le 1 ] || fail "rank $rank names several causes: ${*:3}"
    done
}
lost='remote process exited or there was a network error; NCCL_DEBUG=INFO says more (rank'
for group in 1 4; do # at the start, and in reductions: while the host asks whether a call is done, or when the guard does
    TRIMPOT_EMU_FAIL=nccl:$group ends 17 "$lost" mpirun -n 2 "$build/test_comm" gpu emu
done
TRIMPOT_INIT_TIMEOUT=2 TRIMPOT_EMU_FAIL=join:1 \
    ends 21 'joining the GPUs of all ranks: not done after 2 s' mpirun -n 2 "$build/test_comm" gpu emu
ends 137 'ended without a word' mpirun -n 3 "$build/test_comm" killed 1 emu

# A run of four steps of two groups each, behind three of the start. The third step's first one never ends.
. "$source/tests/e2e/libe2e.sh"
head -16 "$rows" >"$scratch/few.jsonl"
# train_on_gpus RANKS …
train_on_gpus()
{
    mpirun -n "$1" "$trimpot" run lora_finetune device=emu dtype=fp32 seed=7 batch_size=1 epochs=1 optimizer.lr=2e-3 \
        gradient_accumulation_steps=$((4 / $1)) --data "$scratch/few.jsonl" --model "$model" -q "${@:2}" </dev/null
}
train_on_gpus 2 --output "$scratch/whole" >"$scratch/log" 2>&1 || fail "a run: $(tail -3 "$scratch/log")"
TRIMPOT_EMU_FAIL=nccl:8 ends 17 "$lost" train_on_gpus 2 --output "$scratch/broken" save_every_n_steps=1
[ "$(curve "$scratch/broken" | tail -n 1 | cut -d' ' -f1)" -le 2 ] || fail 'a step was made whose gradients never arrived'
train_on_gpus 2 --output "$scratch/broken" save_every_n_steps=1 resume_from_checkpoint=true >"$scratch/log" 2>&1 ||
    fail "going on: $(tail -3 "$scratch/log")"
same 'broken off and gone on' "$scratch/whole" "$scratch/broken"

# ---- behind the backward ----------------------------------------------------------------------------------------------------------
# full RANKS OUTPUT key=value …: of the last step's micro-batches one or two are empty, of the last ranks
head -n 13 "$rows" >"$scratch/odd.jsonl"
full()
{
    ranks "$1" "${binary:-$trimpot}" run full_finetune device=emu dtype=fp32 seed=7 batch_size=1 epochs=1 optimizer.lr=2e-3 \
        gradient_accumulation_steps=$((4 / $1)) --data "$scratch/odd.jsonl" --model "$source/tests/truth/golden/llama2/model" -q \
        --output "${@:2}" >"$scratch/log" 2>&1 || fail "${*:3} on $1 ranks: $(tail -3 "$scratch/log")"
}
full 1 "$scratch/alone"
for way in "2 1 any 32MiB" "2 2 last 32KiB" "2 3 first 32KiB" "4 4 any 32KiB"; do
    read -r n seed order bucket <<<"$way"
    TRIMPOT_EMU_SEED=$seed TRIMPOT_EMU_ORDER=$order full "$n" "$scratch/together" reduce_bucket="$bucket"
    same "$way" "$scratch/alone" "$scratch/together"
    rm -rf "$scratch/together"
done
mkdir "$scratch/apart" # where NCCL was not built
cp "$trimpot" "$build/trimpot_emu.so" "$build/trimpot_mpi.so" "$scratch/apart"
binary=$scratch/apart/trimpot full 2 "$scratch/together" reduce_bucket=32KiB
grep -q 'built without NCCL' "$scratch/log" || fail 'a folder without the plugin has NCCL'
same 'through the hosts, in buckets' "$scratch/alone" "$scratch/together"

# The second bucket of a step's many never arrives, while the rest of the backward is queued.
TRIMPOT_EMU_FAIL=nccl:6 ends 17 "$lost" train_on_gpus 2 --output "$scratch/stuck" reduce_bucket=4KiB
[ ! -s "$scratch/stuck/metrics.jsonl" ] || fail 'a step was made one of whose buckets never arrived'
# A rank dies in the middle of one step or the next.
train_on_gpus 2 --output "$scratch/dies" reduce_bucket=4KiB epochs=200 >"$scratch/log" 2>&1 &
job=$!
for _ in $(seq 600); do [ "$(wc -l 2>/dev/null <"$scratch/dies/metrics.jsonl" || say 0)" -lt 3 ] || break; sleep 0.1; done
mapfile -t pids < <(pgrep -P "$(pgrep -P $job -x mpirun)" -x trimpot)
[ ${#pids[@]} = 2 ] || die "a run of two ranks has ${#pids[@]}: $(tail -3 "$scratch/log")"
kill -KILL "${pids[1]}"
rc=0
wait $job || rc=$?
equal 'a rank that was killed: exit code' $rc 137
grep -q 'ended without a word' "$scratch/log" || fail "the rank that was killed is not named: $(tail -3 "$scratch/log")"

train_on_gpus 4 --output "$scratch/added" reduce=fast >"$scratch/log" 2>&1 || fail "reduce=fast: $(tail -3 "$scratch/log")"
cmp -s <(curve "$scratch/whole") <(curve "$scratch/added") && fail 'reduce=fast has the bits of reduce=tree: NCCL did not add'
rounded() { curve "$1" | awk '{ printf "%d %.3f\n", $1, $2 }'; }
equal 'losses of reduce=fast' "$(rounded "$scratch/added")" "$(rounded "$scratch/whole")"
finish
