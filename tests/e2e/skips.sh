#!/usr/bin/env bash
# skips.sh BUILD_DIR: steps that are not finite are skipped by all ranks alike, and max_skipped_steps ends the run with the step
# that reaches it, although ranks launch a step before they know what the last one came to.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"

# A learning rate that makes the first step the last finite one.
for most in 1 3; do
    for n in 1 2 4; do
        say "max_skipped_steps=$most, $n rank(s)"
        out=$scratch/$most.$n
        rc=0
        train $n "$out" "${full[@]}" dtype=fp32 optimizer.lr=1e30 max_skipped_steps=$most epochs=1 || rc=$?
        equal "exit code" "$rc" 19
        equal "steps told" "$(wc -l <"$out/metrics.jsonl")" "$most"
        equal "steps skipped" "$(grep -oE 'step [0-9]+ skipped' "$out.log" | tr -dc '0-9\n' | xargs)" "$(seq 2 $((most + 1)) | xargs)"
        equal "the reason" "$(grep -c "$most steps in a row had a non-finite loss or gradient" "$out.log")" 1
        cmp -s <(curve "$scratch/$most.1") <(curve "$out") || fail "$n ranks: other numbers than one"
    done
done

# With optimizer_in_bwd a step cannot be left out: the run ends, saying which.
for n in 1 2; do
    say "optimizer_in_bwd, $n rank(s)"
    out=$scratch/in_bwd.$n
    rc=0
    ranks $n "$trimpot" run "${full[@]}" "${common[@]}" --output "$out" batch_size=$((2 / n)) optimizer_in_bwd=true dtype=fp32 \
        optimizer.lr=1e30 epochs=1 >"$out.log" 2>&1 || rc=$?
    equal "exit code" "$rc" 19
    equal "steps told" "$(wc -l <"$out/metrics.jsonl")" 1
    equal "the reason" "$(grep -c 'step 2: the gradient of .* is not finite' "$out.log")" 1
done
finish
