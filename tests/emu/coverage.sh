#!/usr/bin/env bash
# coverage.sh BUILD_DIR [-v]: of the lines of each kernels/cuda/*.cu, which the ops' cases reach on the emulated device: at least 95 %,
# but for those that coverage.txt lists with a reason. -v prints the lines that are missed.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib_variants.sh"
need gcov g++
need_variants
verbose=${2:-}
least=95
exceptions=$source/tests/emu/coverage.txt
jobs=${TRIMPOT_MUTATION_JOBS:-$(nproc)}
parts=(emu_runtime interface trimpot_emu)

# A line counts when any instance of its template has run. Prints "lines missed"; the missed ones to $2.
count() {
    awk -F: -v missed_to="$2" -v file="$3" '
        FNR == NR { if ($0 !~ /^ *(#|$)/) { split($0, e, "|"); if (e[1] == file) except[e[2]] = 1 }; next }
        { line = $2 + 0; hits = $1; gsub(/[ *]/, "", hits) }
        line > 0 && hits != "-" {
            if (!(line in code)) { text = $0; sub(/^[^:]*:[^:]*:/, "", text); code[line] = text }
            if (hits !~ /^[#=]+$/) ran[line] = 1
        }
        END {
            for (line in code) {
                skip = 0
                for (t in except) if (index(code[line], t)) skip = 1
                if (skip && !(line in ran)) continue
                lines++
                if (!(line in ran)) { missed++; print file ":" line ": " code[line] > missed_to }
            }
            print lines + 0, missed + 0
        }' "$exceptions" "$1"
}

flags=(-fno-sanitize=thread -O1 -g --coverage -w)
variant_headers colsum "${flags[@]}" >"$scratch/ahead.log" 2>&1 || die "headers: $(cat "$scratch/ahead.log")"
made=()
for cu in "$source"/kernels/cuda/*.cu; do
    name=$(basename "$cu" .cu)
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    (cd "$scratch" && variant_compile "$name" "$cu" "$scratch/$name.cc.o" "${flags[@]}") &
    made+=("$scratch/$name.cc.o")
done
wait
for object in "${made[@]}"; do [ -e "$object" ] || die "${object##*/} was not made"; done
variant_home "$scratch/bin"
variant_link "$scratch/bin/trimpot_emu.so" --coverage "${made[@]}"
export TRIMPOT_EMU_THREADS=1
for program in test_ops test_bits; do
    "$scratch/bin/$program" emu >"$scratch/$program.log" 2>&1 || fail "$program: $(tail -n 20 "$scratch/$program.log")"
done
# One call that goes to cuDNN's twin, where there is its header: its offsets are made by a kernel.
TRIMPOT_EMU_CUDNN=say TRIMPOT_TEST_OP=attn_fwd TRIMPOT_TEST_WORK="600 600 0 0" TRIMPOT_TEST_CASE="150 4 2 64 3" "$scratch/bin/test_ops" emu \
    >"$scratch/cudnn.log" 2>&1 || fail "attention by cuDNN: $(tail -n 20 "$scratch/cudnn.log")"
cd "$scratch"
all=0 all_missed=0
for cu in "$source"/kernels/cuda/*.cu; do
    name=$(basename "$cu" .cu)
    [ "$name" != sdpa_offsets ] || grep -q 'cuDNN 9' cudnn.log || continue
    gcov "$scratch/$name.cc.gcda" >gcov.log 2>&1 || fail "gcov $name: $(tail -n 3 gcov.log)"
    [ -e "$name.cu.gcov" ] || { fail "$name.cu: nothing of it ran"; continue; }
    read -r lines missed < <(count "$name.cu.gcov" "$name.missed" "$name.cu")
    say "$(printf '%-16s %4d lines %5.1f %%' "$name.cu" "$lines" "$((1000 * (lines - missed) / (lines ? lines : 1)))e-1")"
    [ "$((100 * (lines - missed)))" -ge "$((least * lines))" ] || fail "$name.cu: $(cat "$name.missed")"
    [ "$verbose" != -v ] || cat "$name.missed" 2>/dev/null || true
    all=$((all + lines)) all_missed=$((all_missed + missed))
done
say "$(printf '%-16s %4d lines %5.1f %%' all "$all" "$((1000 * (all - all_missed) / all))e-1")"
finish
