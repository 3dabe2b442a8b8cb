#!/usr/bin/env bash
# links.sh BUILD_DIR: where there is no driver, the plugins' calls still have what they call: every symbol of trimpot_cuda.so and
# trimpot_cuda_nccl.so is bound by the real libraries or by the program that loads them, and NCCL's by the real libnccl.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_cuda.so
need nm ldd readelf
unset LD_LIBRARY_PATH # they find their libraries by themselves
folder=$(readelf -d "$build/trimpot_cuda.so" | sed -nE 's/.*(RUNPATH|RPATH).*\[([^]:]*).*/\2/p')
ls "${folder:-nowhere}"/libcublasLt.so.* >/dev/null 2>&1 || fail "trimpot_cuda.so looks for cuBLASLt in '$folder', which has none"

symbols() { nm -D "$@" | awk '{print $NF}' | sed 's/@.*//' | sort -u; }
symbols --defined-only "$build/trimpot" >"$scratch/program"
symbols --defined-only "$build/trimpot_cuda.so" >"$scratch/backend"

# unbound PLUGIN: what neither its libraries, nor the program, nor the backend's plugin has. NCCL's answer without a driver is not asked.
unbound() {
    ldd -r "$1" >"$scratch/ldd" 2>&1 || true
    grep 'not found' "$scratch/ldd" && fail "$1 does not find its libraries"
    sed -nE 's/^undefined symbol: ([^[:space:],]+).*/\1/p' "$scratch/ldd" | sort -u | sort -u - "$scratch/program" "$scratch/backend" |
        comm -23 - <(sort -u "$scratch/program" "$scratch/backend")
}
equal "unbound symbols of trimpot_cuda.so" "$(unbound "$build/trimpot_cuda.so")" ""

if [ -e "$build/trimpot_cuda_nccl.so" ]; then
    equal "unbound symbols of trimpot_cuda_nccl.so" "$(unbound "$build/trimpot_cuda_nccl.so")" ""
    library=$(ldd "$build/trimpot_cuda_nccl.so" | awk '$1 ~ /^libnccl\.so/ {print $3}')
    [ -e "$library" ] || die "trimpot_cuda_nccl.so does not need libnccl"
    symbols --undefined-only "$build/trimpot_cuda_nccl.so" | grep '^nccl' >"$scratch/called" || die "no call of NCCL in trimpot_cuda_nccl.so"
    equal "calls that $library does not have" "$(comm -23 "$scratch/called" <(symbols --defined-only "$library"))" ""
    say "$(wc -l <"$scratch/called") functions of NCCL: $(paste -sd ' ' "$scratch/called")"
else
    say "no trimpot_cuda_nccl.so: built without NCCL"
fi
finish
