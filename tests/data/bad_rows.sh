#!/bin/bash
# A run over a file with bad rows: it stops and names them all, or trains on the rest and writes them beside its output,
# once, whatever the number of ranks. Columns that nothing uses are told.
. "$(dirname "$0")/../lib.sh"
built trimpot

base=$source/configs/quickstart/base
run() { ranks "$1" "$trimpot" run lora_finetune --model "$base" --data "$scratch/rows.tsv" --output "$scratch/out" "${@:2}"; }
printf 'Question\tAnswer\tid\nfirst\tone\t1\nbroken\n"Hi" she said\ttwo\t2\nx\ty\tz\tmore\n' >"$scratch/rows.tsv"

expect 20 '2 of 4 rows cannot be used' run 1
grep -qF "rows.tsv:3: 1 values" "$scratch/expect.out" || fail 'the first bad row is not named'
grep -qF "rows.tsv:5: 4 values" "$scratch/expect.out" || fail 'the second bad row is not named'
[ ! -e "$scratch/out/skipped_rows.jsonl" ] || fail 'a stopped run has written skipped rows'

several=; [ ! -e "$build/trimpot_mpi.so" ] || several=2
for n in 1 $several; do
    rm -rf "$scratch/out"
    expect 0 'columns not used: id' run "$n" dataset.on_bad_row=skip epochs=1 batch_size=1
    grep -qF '2 skipped as bad' "$scratch/expect.out" || fail "$n ranks: the summary does not count the skipped rows"
    equal "$n ranks: skipped rows" "$(python3 -c '
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    print(row["file"].split("/")[-1], row["line"], row["reason"].split(" ")[0], row["row"].replace("\t", " "))
' "$scratch/out/skipped_rows.jsonl" | paste -sd ';')" 'rows.tsv 3 1 broken;rows.tsv 5 4 x y z more'
done

# A later run without bad rows into the same place leaves no stale file.
printf 'Question\tAnswer\nfirst\tone\n' >"$scratch/rows.tsv"
rm -rf "$scratch/out/checkpoints"
expect 0 'export' run 1 epochs=1 dataset.on_bad_row=skip
[ ! -e "$scratch/out/skipped_rows.jsonl" ] || fail 'skipped rows of an earlier run are still there'
finish
