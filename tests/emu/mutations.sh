#!/usr/bin/env bash
# mutations.sh BUILD_DIR [pattern]: do the tests of kernels see what they are for? Each row of mutations.txt breaks one kernel (or
# header) by one word; the op's cases on the emulated device must then fail. Of the rows whose text holds `pattern`, if given.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib_variants.sh"
need perl g++
need_variants
pattern=${2:-}
table=$source/tests/emu/mutations.txt
jobs=${TRIMPOT_MUTATION_JOBS:-$(nproc)}

# One line of what a failed run said: the emulation's own words, else the first failed check, else how it died.
said() {
    local log=$1 rc=$2
    grep -h -m 1 -e '^emu: [^e]' "$log" || grep -h -m 1 -e ' off by ' -e 'ERROR: ' -e 'changed what' -e 'exception' -e 'is [-0-9.naif]*, ' "$log" || grep -h -m 1 -e 'LINE' "$log" || echo "exit $rc"
}

# judge FOLDER OP: runs the op's cases with one seed after the other, until something is seen. Prints what.
judge() {
    local home=$1 op=$2 seed rc bits=
    for seed in 1 2 3; do
        rc=0
        TRIMPOT_EMU_SEED=$seed TRIMPOT_TEST_OP=$op timeout 120 "$home/test_ops" emu_races >"$home/log" 2>&1 || rc=$?
        [ $rc = 0 ] || { said "$home/log" $rc; return 0; }
        rc=0
        TRIMPOT_EMU_SEED=$seed TRIMPOT_TEST_OP=$op timeout 120 "$home/test_bits" emu_races >"$home/log.bits" 2>&1 || rc=$?
        [ $rc = 0 ] || { said "$home/log.bits" $rc; return 0; }
        local now
        now=$(grep 'bits of all outputs' "$home/log")
        [ -z "$bits" ] || [ "$bits" = "$now" ] || { echo "other bits with another seed"; return 0; }
        bits=$now
    done
    return 1
}

# mutate FILE NTH OLD NEW: prints the file with the NTH place of OLD changed; fails where there is none.
mutate() {
    OLD=$3 NEW=$4 perl -0777 -pe '
        BEGIN { $nth = shift @ARGV; $place = 0 }
        s/\Q$ENV{OLD}\E/++$place == $nth ? $ENV{NEW} : $&/ge;
        END { exit($place < $nth) }' "$2" "$1"
}

# one NUMBER UNIT OP FILE NTH OLD NEW: builds and judges a mutant; its result is a line of $scratch/NUMBER.result.
one() {
    local number=$1 unit=$2 op=$3 file=$4 nth=$5 old=$6 new=$7 home=$scratch/$1 result=$scratch/$1.result what
    local shown="$file #$nth: ${old:0:60} -> ${new:-(nothing)}"
    variant_home "$home/bin"
    mkdir -p "$home/kernels/cuda"
    if ! mutate "$source/kernels/cuda/$file" "$nth" "$old" "$new" >"$home/kernels/cuda/$file"; then
        echo "STALE	$shown	there is no such text" >"$result"
        return
    fi
    local main=$home/kernels/cuda/$unit.cu
    [ -e "$main" ] || main=$source/kernels/cuda/$unit.cu
    if ! variant_compile "$unit" "$main" "$home/$unit.cc.o" "-I$home" "${flags[@]}" >"$home/compile.log" 2>&1; then
        what="the compiler: $(grep -m 1 error "$home/compile.log" || tail -n 1 "$home/compile.log")"
        echo "BROKEN	$shown	$what" >"$result"
    elif ! variant_link "$home/bin/trimpot_emu_races.so" "$home/$unit.cc.o" >"$home/link.log" 2>&1; then
        echo "BROKEN	$shown	$(tail -n 1 "$home/link.log")" >"$result"
    elif what=$(judge "$home/bin" "$op"); grep -q 'is missing in a backend' "$home/bin/log"; then
        echo "BROKEN	$shown	the plugin lacks an op: is it built from these sources?" >"$result"
    elif [ -n "$what" ]; then
        echo "caught	$shown	${what:0:120}" >"$result"
    else
        echo "MISSED	$shown	$op passes with three seeds" >"$result"
    fi
    rm -rf "$home"
}

# (That every op passes as it is, is races.sh's to show; that a variant does in which nothing was changed, the first row's, is shown here:
# what fails for another cause would count as caught.)
number=0
while IFS='|' read -r unit op file nth old new; do
    case $unit in '' | '#'*) continue ;; esac
    [ -e "$source/kernels/cuda/$unit.cu" ] || die "mutations.txt: there is no kernels/cuda/$unit.cu"
    case "$unit|$op|$file|$old|$new" in *"$pattern"*) ;; *) continue ;; esac
    number=$((number + 1))
    rows[number]=$(printf '%s|%s|%s|%s|%s|%s' "$unit" "$op" "${file:-$unit.cu}" "$nth" "$old" "$new")
done <"$table"
[ $number -gt 0 ] || die "no row of $table"
IFS='|' read -r unit op file nth old new <<<"${rows[1]}"
# Where the compiler's time goes is mostly headers and optimisation; the accesses that are judged are the same.
flags=(-O1 -w)
variant_headers "$unit" "${flags[@]}" >"$scratch/ahead.log" 2>&1 || die "headers: $(cat "$scratch/ahead.log")"
one unchanged "$unit" "$op" "$file" "$nth" "$old" "$old" &
for i in "${!rows[@]}"; do
    IFS='|' read -r unit op file nth old new <<<"${rows[i]}"
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    one "$i" "$unit" "$op" "$file" "$nth" "$old" "$new" &
done
wait
grep -q '^MISSED' "$scratch/unchanged.result" || die "a variant without a change does not pass: $(cat "$scratch/unchanged.result")"
for i in "${!rows[@]}"; do cat "$scratch/$i.result"; done | tee "$scratch/table" | tr '\t' '|' | column -t -s '|' -c 200 || true
caught=$(grep -c '^caught' "$scratch/table" || true)
say "$caught of $number mutations are caught"
[ "$caught" = "$number" ] || fail "$((number - caught)) mutations are not caught"
finish
