# lib_each.sh — sourced behind e2e/libe2e.sh by tests of what a device with its own memory and time must not change: runs over the fence
# beside plain ones. The test says `common`, keys of both, and `beside`, what the fence's have besides.

# under ORDER SEED RANKS OUTPUT RECIPE key=value …: behind the fence; ORDER plain: not. A step is of $items rows, or 4.
under()
{
    local order=$1 seed=$2 n=$3 out=$4 program=$build/trimpot_fence
    shift 4
    [ "$order" = plain ] && program=$trimpot
    TRIMPOT_FENCE=$order TRIMPOT_FENCE_SEED=$seed ranks "$n" "$program" run "${common[@]}" -q --output "$out" \
        gradient_accumulation_steps=$((${items:-4} / n)) "$@" >"$out.log" 2>&1 || { fail "$order, $n ranks: $*"; tail -3 "$out.log"; }
}

# each NAME RECIPE key=value … and, on standard input, lines of "ORDER SEED RANKS key=value …"
each()
{
    local name=$1 order seed n how
    shift
    under plain 0 1 "$scratch/plain" "$@"
    while read -r order seed n how; do
        # shellcheck disable=SC2086
        under "$order" "$seed" "$n" "$scratch/fence" "$@" "${beside[@]}" $how
        same "$name: $order, seed $seed, $n ranks, $how" "$scratch/plain" "$scratch/fence"
        rm -rf "$scratch/fence"
    done
    rm -rf "$scratch/plain"
    say "$name"
}
