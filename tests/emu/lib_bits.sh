# lib_bits.sh — sourced after ../lib.sh and ../e2e/libe2e.sh: one run on the CPU, on the emulated device, and there on several ranks.
golden=$source/tests/truth/golden
head -16 "$rows" >"$scratch/few.jsonl"
common=(seed=7 batch_size=1 optimizer.lr=2e-3 --data "$scratch/few.jsonl" -q epochs=1)
# Relative bounds on losses: numerics.md 15.1, "whole tiny model" and "bf16 op".
declare -A bound_of=([fp32]=1e-5 [bf16]=1e-2)

# on DEVICE SEED RANKS OUTPUT RECIPE key=value …: $items, or 8, of a step. $late, or 4, ranks and more in the order that is quickest: late.
on()
{
    local device=$1 seed=$2 n=$3 out=$4 order=any
    shift 4
    [ "$n" -lt "${late:-4}" ] || order=last
    TRIMPOT_EMU_SEED=$seed TRIMPOT_EMU_ORDER=$order ranks "$n" "$trimpot" run "$@" "device=$device" "${common[@]}" --output "$out" \
        gradient_accumulation_steps=$((${items:-8} / n)) >"$out.log" 2>&1 || { fail "$device, seed $seed, $n ranks: $*"; tail -n 3 "$out.log"; }
}

# each NAME BOUND RECIPE key=value …: losses of the CPU backend within BOUND; on $also, or 1, 2 and 4, ranks, each with another seed, the
# same bits.
each()
{
    local name=$1 bound=$2 seed n
    shift 2
    on cpu 0 1 "$scratch/cpu" "$@"
    on emu 1 1 "$scratch/first" "$@"
    near "$name" "$scratch/cpu" "$scratch/first" "$bound"
    for n in ${also:-1 2 4}; do
        seed=$((n + 1))
        on emu $seed "$n" "$scratch/other" "$@"
        same "$name: seed $seed, $n ranks" "$scratch/first" "$scratch/other"
        rm -rf "$scratch/other"
    done
    rm -rf "$scratch"/{cpu,first}
}
