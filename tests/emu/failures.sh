#!/usr/bin/env bash
# failures.sh BUILD_DIR: what can be wrong with a GPU, before a run and in its middle: one message that says it, the right exit code,
# every rank ends, and the last checkpoint continues to the same bits.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
head -8 "$rows" >"$scratch/few.jsonl"
run=("$trimpot" run "${lora[@]}" device=emu dtype=fp32 seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" --model "$model" -q
     epochs=1 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
out=$scratch/out

# ended CODE 'words' LOG RC: how a run ended that has written LOG.
ended()
{
    local errors
    [ "$4" = "$1" ] || { fail "exit $4, expected $1, for: $2"; tail -n 5 "$3"; }
    errors=$(grep -c '^error: \|^\[.*error: ' "$3" || true)
    [ "$errors" = 1 ] || { fail "$errors messages, expected one: $2"; grep error "$3"; }
    grep -qF -- "$2" "$3" || { fail "no '$2'"; tail -n 5 "$3"; }
    ! pgrep -f -- "--output $out" >/dev/null || fail "ranks are left: $2"
}

# refused CODE 'words' RANKS NAME=value …: a run that does not begin.
refused()
{
    local code=$1 words=$2 n=$3 rc=0
    shift 3
    (export "$@" && ranks "$n" "${run[@]}" --output "$out") >"$scratch/log" 2>&1 || rc=$?
    ended "$code" "$words" "$scratch/log" "$rc"
    [ ! -d "$out/checkpoints" ] || fail "a checkpoint of a run that did not begin: $words"
    rm -rf "$out"
}

for n in 1 2; do
    say "$n rank(s)"
    refused 16 'there is no NVIDIA driver here' $n TRIMPOT_EMU_DRIVER=0
    refused 16 'the NVIDIA driver here is CUDA 12.4' $n TRIMPOT_EMU_DRIVER=12040
    refused 16 'the driver shows no GPU' $n TRIMPOT_EMU_DEVICES=0
    refused 16 "the driver shows no GPU (CUDA_VISIBLE_DEVICES is '7')" $n TRIMPOT_EMU_DEVICES=4 CUDA_VISIBLE_DEVICES=7
    refused 16 'has compute capability 7.5; 8.0 or newer is needed' $n TRIMPOT_EMU_SM=75
    refused 11 'has no room for this process' $n TRIMPOT_EMU_MEMORY=500M
    refused 11 'of device memory per rank, the budget is' $n TRIMPOT_EMU_MEMORY=600M
    refused 11 'of GPU memory: ' $n TRIMPOT_EMU_FAIL=alloc:2
    refused 11 'of pinned host memory' $n TRIMPOT_EMU_FAIL=pinned:1
done
refused 16 '3 ranks on this host, but 2 GPUs are visible' 3 TRIMPOT_EMU_DEVICES=2
refused 16 'ranks 0 and 1 have the same GPU (GPU-' 2 TRIMPOT_EMU_DEVICES=1
refused 16 'ranks 0 and 1 have the same GPU (GPU-' 2 CUDA_VISIBLE_DEVICES=3

# one_bad CODE 'words' NAME=value …: what is wrong with the GPU of rank 1 only.
one_bad()
{
    local code=$1 words=$2 rc=0
    shift 2
    mpirun -n 1 "${run[@]}" --output "$out" : -n 1 env "$@" "${run[@]}" --output "$out" >"$scratch/log" 2>&1 </dev/null || rc=$?
    ended "$code" "$words" "$scratch/log" "$rc"
    rm -rf "$out"
}
one_bad 16 'emulated GPU has compute capability 7.5' TRIMPOT_EMU_SM=75
one_bad 11 'emulated GPU has no room for this process' TRIMPOT_EMU_MEMORY=500M
one_bad 11 'of GPU memory: ' TRIMPOT_EMU_FAIL=alloc:3

# ---- in the middle ------------------------------------------------------------------------------------------------------------

# on RANKS OUTPUT key=value …; the last rank has $fault in its environment.
fault=
on()
{
    local n=$1 to=$2 each=("${run[@]}" --output "$2" gradient_accumulation_steps=$((2 / $1)))
    shift 2
    case $n in
    1) env $fault "${each[@]}" "$@" </dev/null ;;
    2) mpirun -n 1 "${each[@]}" "$@" : -n 1 env $fault "${each[@]}" "$@" </dev/null ;;
    esac >"$to.log" 2>&1
}

# breaks CODE RANKS WHAT FIRST 'words': the FIRST-th call of that kind fails, or a later one, so that there is a checkpoint by then. The
# run ends as it must, and its continuation is the run that nothing happened to.
breaks()
{
    local code=$1 n=$2 what=$3 at=$4 words=$5 rc
    for (( ; ; at += $4)); do
        rm -rf "$out"
        rc=0
        fault=TRIMPOT_EMU_FAIL=$what:$at
        on "$n" "$out" || rc=$?
        fault=
        [ $rc != 0 ] || die "$what: no call fails between the first checkpoint and the end"
        ended "$code" "$words" "$out.log" $rc
        [ ! -d "$out/checkpoints/step-0000001" ] || break
    done
    say "$n rank(s): $what $at fails, at $(ls "$out/checkpoints" | grep -c .) of 4 checkpoints"
    on "$n" "$out" resume_from_checkpoint=true || { fail "$what: resume"; tail -n 3 "$out.log"; }
    same "$n rank(s), after $what $at" "$scratch/whole" "$out"
}

on 1 "$scratch/whole" || die "the run that nothing happens to"
for n in 1 2; do
    breaks 16 $n stream 700 "the GPU's work"
    breaks 16 $n launch 700 'cudaErrorLaunchOutOfResources: too many resources requested for launch (GPU '
done
breaks 11 2 host 3 'queueing a call of the host: cudaErrorMemoryAllocation: out of memory (GPU '
finish
