# lib.sh — sourced by the .sh tests:  . "$(dirname "$0")/../lib.sh"
# Each gets the build directory as its first argument and runs in the source directory.
set -euo pipefail

build=$(cd "${1:?usage: $0 BUILD_DIRECTORY}" && pwd)
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
trimpot=$build/trimpot
shared=${TRIMPOT_SHARED:-$source/../shared}
test_name=$(basename "$(dirname "$0")")/$(basename "$0" .sh)

# A private folder that goes away with the test.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/trimpot-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# Open MPI in containers and on machines with fewer cores than ranks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_pml=ob1 # which it comes to anyway, after it has loaded and asked all others
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
# Open MPI and its plugins leak by design: leaks are looked for in bare runs.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

failures=0
say() { printf '%s\n' "$*"; }
fail() { say "FAIL: $*"; failures=$((failures + 1)); }
die() { say "FAIL: $*"; exit 1; }
skip() { say "SKIP $test_name: $*"; exit 77; }
need() { for program in "$@"; do command -v "$program" >/dev/null || skip "$program is not installed"; done; }
need_shared() { [ -d "$shared" ] || skip "no shared folder (set TRIMPOT_SHARED)"; }
built() { for f in "$@"; do [ -e "$build/$f" ] || skip "$f was not built"; done; }

# ranks N command…: under mpirun, stdin closed; 1 = bare.
ranks() {
    local n=$1
    shift
    if [ "$n" = 1 ]; then "$@" </dev/null; else mpirun -n "$n" "$@" </dev/null; fi
}

# equal WHAT A B
equal() { [ "$2" = "$3" ] || fail "$1: '$2' and '$3' differ"; }

# expect CODE 'text in the message' command…: runs it; checks exit code and that stderr or stdout holds the text.
expect() {
    local code=$1 text=$2 rc=0
    shift 2
    "$@" >"$scratch/expect.out" 2>&1 </dev/null || rc=$?
    [ "$rc" = "$code" ] || { fail "exit $rc, expected $code: $*"; tail -5 "$scratch/expect.out"; }
    grep -qF -- "$text" "$scratch/expect.out" || { fail "no '$text' in the output of: $*"; tail -5 "$scratch/expect.out"; }
}

# The last line of every test.
finish() { [ "$failures" = 0 ] || die "$failures failures in $test_name"; say "ok $test_name"; }
