#!/bin/bash
# The same bits on 1, 2, 3, 4, 6 and 8 ranks, through shared memory and through messages. Ranks that wait for a late one take no core.
. "$(dirname "$0")/../lib.sh"
need mpirun
built test_comm trimpot_mpi.so

for n in 1 2 3 4 6 8; do
    ranks "$n" "$build/test_comm" >"$scratch/out.$n" || fail "test_comm on $n ranks"
    grep '^hash' "$scratch/out.$n" | while read -r _ leaves hash _; do echo "$hash" >>"$scratch/$leaves"; done
    [ "$n" = 1 ] || for way in shared messages; do
        grep -q "^hash.*$way\$" "$scratch/out.$n" || fail "$n ranks did not reduce through: $way"
    done
done
for leaves in 8 24 16 48; do
    [ "$(sort -u "$scratch/V=$leaves" | wc -l)" = 1 ] || fail "V=$leaves gave several results: $(sort "$scratch/V=$leaves" | uniq -c)"
done
[ "$(wc -l <"$scratch/V=24")" -ge 12 ] || fail "V=24 should have run on six rank counts, both ways"
ranks 3 "$build/test_comm" late 1 >"$scratch/late" || fail "ranks that wait are busy: $(cat "$scratch/late")"
finish
