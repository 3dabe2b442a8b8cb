#!/bin/bash
# A file past 800 lines is split. Functions past 100 lines are listed (aim: under 70).
. "$(dirname "$0")/../lib.sh"

sources() {
    (cd "$1" && find launcher worker checkpoints collectives configs kernels tests CMakeLists.txt -type f \
        \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' -o -name '*.sh' -o -name '*.py' -o -name CMakeLists.txt \) 2>/dev/null || true)
}
# long_files ROOT MOST
long_files() { sources "$1" | while read -r f; do n=$(wc -l <"$1/$f"); [ "$n" -le "$2" ] || echo "$f: $n lines"; done; }
# long_functions ROOT MOST: a body is what stands between { and } at the beginning of a line.
long_functions() {
    sources "$1" | grep -E '\.(c|cu)$' | while read -r f; do
        awk -v file="$f" -v most="$2" '
            /^\{/ { start = NR; name = before }
            /^\}/ && start { if (NR - start - 1 > most) print file ":" start ": " NR - start - 1 " lines: " name; start = 0 }
            { before = $0 }' "$1/$f"
    done
}

found=$(long_files "$source" 800)
[ -z "$found" ] || fail "files past 800 lines:"$'\n'"$found"
found=$(long_functions "$source" 100)
[ -z "$found" ] || say "note: functions past 100 lines:"$'\n'"$found"

# The check itself must see what it is there for.
mkdir -p "$scratch/tree/worker"
{ echo 'void f(void)'; echo '{'; seq 820; echo '}'; } >"$scratch/tree/worker/long.c"
equal 'long file' "$(long_files "$scratch/tree" 800)" 'worker/long.c: 823 lines'
equal 'long function' "$(long_functions "$scratch/tree" 100)" 'worker/long.c:2: 820 lines: void f(void)'
finish
