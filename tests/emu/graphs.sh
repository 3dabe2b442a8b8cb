#!/usr/bin/env bash
# graphs.sh BUILD_DIR: whole runs on the emulated device, blocks launched as graphs (kernels/record.h) or call by call: the same losses
# and weights, with any seed of its orders, on 1 and 2 ranks, whatever the memory technique; every stretch whose like came before is
# a graph, and a step takes fewer launches for it.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_emu.so trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"
golden=$source/tests/truth/golden
export TRIMPOT_EMU_COUNT=1

# Rows of equal length, other tokens in each: what comes again in every step is the same work.
a_step=()
for i in $(seq 0 15); do echo "{\"text\": \"Row $((i % 10)): the harbour keeps $((i * 7 % 10)) boats while seven lamps burn over water\"}"; done >"$scratch/even.jsonl"
# Pairs of equal length, the shorter document first in two steps of four rows, and last in two.
for i in $(seq 0 15); do
    a='cold water' b='the harbour keeps its boats while seven lamps burn'
    [ $((i % 2)) = $((i / 8)) ] && echo "{\"text\": \"$((i % 10)) $a\"}" || echo "{\"text\": \"$((i % 10)) $b\"}"
done >"$scratch/pairs.jsonl"
data=$scratch/even.jsonl

# on GRAPHS SEED RANKS OUTPUT RECIPE key=value …
on()
{
    local graphs=$1 seed=$2 n=$3 out=$4
    shift 4
    TRIMPOT_EMU_SEED=$seed ranks "$n" "$trimpot" run "$@" device=emu cuda_graphs="$graphs" seed=7 optimizer.lr=2e-3 --data "$data" \
        epochs=1 --output "$out" -v >"$out.log" 2>&1 || { fail "cuda_graphs=$graphs, seed $seed, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# told OUTPUT: "stretches pieces launched made dropped plain" of a run, or nothing.
told() { sed -nE 's/^graphs: ([0-9]+) stretches of [0-9]+ calls in ([0-9]+) pieces: ([0-9]+) launched as graphs \(([0-9]+) made, ([0-9]+) dropped\), ([0-9]+) plain$/\1 \2 \3 \4 \5 \6/p' "$1.log"; }

# launches OUTPUT: of all ranks.
launches() { sed -nE 's/^emu: ([0-9]+) launches.*/\1/p' "$1.log" | awk '{ n += $1 } END { print n }'; }

# each NAME WHAT RECIPE key=value …: without graphs, and with them by two other seeds, the second on 2 ranks. WHAT told says of each of
# the latter: "of one rank|of two"; a step is two micro-batches, so that two ranks have one each, and their slots take turns.
each()
{
    local name=$1 one=${2%|*} two=${2#*|}
    shift 2
    on false 1 1 "$scratch/plain" "$@" gradient_accumulation_steps=2
    on true 2 1 "$scratch/one" "$@" gradient_accumulation_steps=2
    on true 3 2 "$scratch/two" "$@" gradient_accumulation_steps=1
    same "$name: graphs" "$scratch/plain" "$scratch/one"
    same "$name: graphs, 2 ranks" "$scratch/plain" "$scratch/two"
    equal "$name: without graphs" "$(told "$scratch/plain")" ''
    equal "$name: graphs of 1 rank" "$(told "$scratch/one")" "$one"
    equal "$name: graphs of the first of 2 ranks" "$(told "$scratch/two")" "$two"
    say "$name: $(launches "$scratch/plain") launches, $(launches "$scratch/one") with graphs"
    [ "$(launches "$scratch/one")" -lt "$(launches "$scratch/plain")" ] || fail "$name: graphs save no launch"
    rm -rf "$scratch"/{plain,one,two}
}

# 8 steps of 2 layers, forward and backward, 2 micro-batches: 8 lists, each plain in the first step and a graph from the second on.
# Of 2 ranks: 4 stretches a step, in the other slot every second one: a graph from the third step on.
all='64 64 56 8 0 8|32 32 24 8 0 8'
# Of adapters besides, 4 forwards of probes when they are merged (worker/merge.c): where training drops, lists of their own.
probed='72 72 64 8 0 8|40 40 32 8 0 8' dropped='72 72 60 12 0 12|40 40 28 12 0 12'
tied=(batch_size=1 --model "$golden/llama3/model")
untied=(batch_size=1 --model "$golden/llama2/model")
for dtype in fp32 bf16; do
    each "full $dtype" "$all" "${full[@]}" dtype=$dtype "${untied[@]}"
    each "LoRA $dtype" "$dropped" "${lora[@]}" dtype=$dtype "${tied[@]}"
    each "NF4 $dtype" "$dropped" "${qlora[@]}" dtype=$dtype "${untied[@]}"
done
each "LoRA, joined" "$probed" "${lora[@]}" model.lora_dropout=0 dtype=bf16 "${tied[@]}"
# Of 3 layers, of which two are dequantised at a time: each always in the same place.
each "NF4, joined" '108 108 96 12 0 12|60 60 48 12 0 12' "${qlora[@]}" model.lora_dropout=0 dtype=bf16 batch_size=1 --model "$(deeper llama2 3)" \
    model.init=random
each "full, checkpointed, masters" "$all" "${full[@]}" dtype=bf16 master_weights=fp32 enable_activation_checkpointing=true "${untied[@]}"
each "full, validated" '72 72 64 8 0 8|36 36 28 8 0 8' "${full[@]}" dtype=fp32 "${untied[@]}" \
    dataset_val_fraction=0.25 run_val_every_n_steps=2
# cuDNN's attention, whose plans are made when a shape is new (TRIMPOT_EMU_CUDNN: tests/emu/cudnn.cc).
export TRIMPOT_EMU_CUDNN=1
each "cuDNN" "$dropped" "${lora[@]}" dtype=bf16 deterministic=true "${tied[@]}"
unset TRIMPOT_EMU_CUDNN

# ---- documents of other lengths in the same places ------------------------------------------------------------------------------
data=$scratch/pairs.jsonl
each "pairs" '32 32 24 8 0 8|16 16 8 8 0 8' "${full[@]}" dtype=fp32 --model "$golden/llama2/model" batch_size=2 shuffle=false

# ---- what a step costs the host ----------------------------------------------------------------------------------------------------
data=$scratch/even.jsonl
for graphs in false true; do
    for steps in 6 8; do
        on $graphs 1 1 "$scratch/$graphs-$steps" "${lora[@]}" dtype=bf16 "${tied[@]}" gradient_accumulation_steps=2 max_steps_per_epoch=$steps
    done
    a_step[${#a_step[@]}]=$((($(launches "$scratch/$graphs-8") - $(launches "$scratch/$graphs-6")) / 2))
done
say "LoRA: a step of 2 layers and 2 micro-batches is ${a_step[0]} launches, ${a_step[1]} with graphs"
[ $((6 * a_step[1])) -lt "${a_step[0]}" ] || fail "graphs save too few launches of a step"

# ---- in the plan: what the recorder holds, and a guess of what graphs do -----------------------------------------------------------------
plan() { "$trimpot" plan "${lora[@]}" dtype=bf16 "${tied[@]}" gradient_accumulation_steps=2 --data "$data" "$@" 2>/dev/null; }
case $(plan device=emu) in *'graphs: what is known'*'graphs of blocks: a guess'*) ;; *) fail "graphs are not in the plan" ;; esac
case $(plan device=emu cuda_graphs=false)$(plan device=cpu) in *graphs*) fail "a plan has graphs that its run does not make" ;; esac
equal "bytes bound" "$(plan device=emu --json | grep -o '"bound_bytes":[0-9]*')" \
    "\"bound_bytes\":$(sed -nE 's/^bound ([0-9]+) bytes/\1/p' "$scratch/true-8.log")"

# ---- where every tensor steps in the backward ----------------------------------------------------------------------------------------
in_bwd=("${full[@]}" dtype=fp32 "${untied[@]}" optimizer_in_bwd=true max_steps_per_epoch=5)
on false 1 1 "$scratch/plain" "${in_bwd[@]}"
on true 2 1 "$scratch/one" "${in_bwd[@]}"
same "optimizer_in_bwd" "$scratch/plain" "$scratch/one"
equal "optimizer_in_bwd: forward is graphs" "$(told "$scratch/one" | awk '{ print ($3 > 0) }')" 1
on true 3 2 "$scratch/two" "${in_bwd[@]}" max_steps_per_epoch=2
equal "optimizer_in_bwd, 2 ranks: nothing is recorded" "$(told "$scratch/two")" ''
finish
