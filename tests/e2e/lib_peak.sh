# lib_peak.sh — sourced after ../lib.sh: what a process took, seen from outside (preload/watch.c). Without a C compiler, or of a program
# with sanitizers, whose memory is another's, $unseen says why nothing can be seen.
unseen=
if grep -q __asan_init "$trimpot"; then
    unseen="sanitizers: allocations and peaks are those of another program"
elif ! command -v cc >/dev/null; then
    unseen="no C compiler for the preloaded counter"
else
    cc -O1 -shared -fPIC -o "$scratch/watch.so" "$source/tests/e2e/preload/watch.c" -ldl || die "watch.c does not compile"
fi

# watched RANKS command…: prints "ALLOCATIONS PEAK_KB", the largest of the ranks.
watched()
{
    local n=$1
    shift
    rm -f "$scratch/watch"
    if [ "$n" = 1 ]; then WATCH_OUT=$scratch/watch LD_PRELOAD=$scratch/watch.so "$@" >"$scratch/watched.log" 2>&1 </dev/null
    else mpirun -n "$n" -x WATCH_OUT="$scratch/watch" -x LD_PRELOAD="$scratch/watch.so" "$@" >"$scratch/watched.log" 2>&1 </dev/null
    fi || { say "$*"; tail -3 "$scratch/watched.log"; } >&2
    sort -n "$scratch/watch" | tail -1
}

# below RANKS KEYS…: peak − peak of `trimpot version` ≤ plan · 1.03 + 16 MB.
below()
{
    local n=$1 plan peak base
    shift
    plan=$(ranks "$n" "$trimpot" plan "$@" --json 2>/dev/null | sed -E 's/.*"total_bytes":([0-9]+).*/\1/')
    base=$(watched "$n" "$trimpot" version | cut -d' ' -f2)
    rm -rf "$scratch/run"
    peak=$(watched "$n" "$trimpot" run "$@" --output "$scratch/run" -q | cut -d' ' -f2)
    say "peak $((peak / 1024)) MiB − $((base / 1024)) MiB (version), plan $((plan / 1048576)) MiB, $n rank(s): $*"
    [ $(((peak - base) * 1024)) -le $((plan + plan * 3 / 100 + 16000000)) ] || fail "$(((peak - base) * 1024)) bytes, the plan says $plan: $*"
}
