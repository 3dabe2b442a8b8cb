#!/usr/bin/env bash
# failures.sh BUILD_DIR: what can be wrong with a GPU, before a run and in its middle: one message that says it, the right exit code,
# every rank ends, and the last checkpoint continues to the same bits.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"
head -16 "$rows" >"$scratch/few.jsonl"
run=("$trimpot" run "${lora[@]}" device=emu dtype=fp32 seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" --model "$model" -q
     gradient_accumulation_steps=2 save_every_n_steps=1 checkpointer.keep_last_n_checkpoints=9)
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
finish
