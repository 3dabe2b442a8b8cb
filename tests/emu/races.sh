#!/usr/bin/env bash
# races.sh BUILD_DIR: no kernel has two accesses of one byte that nothing orders, in any case of its op.
. "$(dirname "$0")/../lib.sh"
built trimpot_emu_races.so test_ops
"$build/test_ops" emu_races >"$scratch/log" 2>&1 || fail "$(grep -A 3 '^emu: kernel' "$scratch/log" || tail -n 30 "$scratch/log")"
finish
