#!/usr/bin/env bash
# rows.sh BUILD_DIR: tokenize reads every kind of file that run reads, by its ending or as dataset.source says; generate
# refuses rows without a prompt.
. "$(dirname "$0")/../lib.sh"
built trimpot
model=$source/tests/truth/golden/llama3/model
cd "$scratch"
show() { "$trimpot" tokenize --tokenizer "$model" "$@" 2>/dev/null || fail "tokenize $*"; }

printf '%s\n' '{"question": "a, b", "answer": "c \"d\""}' '{"question": "e", "answer": "f"}' >rows.jsonl
printf 'question,answer\n"a, b","c ""d"""\ne,f\n' >rows.csv
printf 'question\tanswer\na, b\tc "d"\ne\tf\n' >rows.tsv
printf '%s\n' '{"text": "one"}' '{"text": "two words"}' >texts.jsonl
printf 'one\ntwo words\n' >texts.txt
expected=$(show rows.jsonl) texts=$(show texts.jsonl)
[ "$(wc -l <<<"$expected")" = 2 ] && [ "$(wc -l <<<"$texts")" = 2 ] || fail "not two rows"
cp rows.csv ROWS.CSV && cp rows.csv csv && cp rows.csv odd.name && cp rows.jsonl jsonl
equal "CSV" "$(show rows.csv)" "$expected"
equal "CSV in capitals" "$(show ROWS.CSV)" "$expected"
equal "TSV" "$(show rows.tsv)" "$expected"
equal "text" "$(show texts.txt)" "$texts"
equal "no ending, CSV" "$(show csv dataset.source=csv)" "$expected"
equal "another ending, CSV" "$(show odd.name dataset.source=csv)" "$expected"
equal "no ending" "$(show jsonl)" "$expected"
equal "standard input" "$(show - <rows.jsonl)" "$expected"
equal "standard input, CSV" "$(show - dataset.source=csv <rows.csv)" "$expected"
equal "standard input, text" "$(show - dataset.source=text <texts.txt)" "$texts"
expect 18 "rows.parquet: parquet files have no reader yet" "$trimpot" tokenize --tokenizer "$model" rows.parquet
printf 'question,answer\nonly one\n' >bad.csv
expect 20 "bad.csv:2" "$trimpot" tokenize --tokenizer "$model" bad.csv

for file in texts.jsonl texts.txt; do
    expect 20 "$file:1: its rows are texts alone, with no prompt to answer; give rows of questions and answers" \
        "$trimpot" generate --model "$model" --data $file
done
expect 0 '"expected":"f"' "$trimpot" generate --model "$model" --data rows.tsv --max-new-tokens 1
finish
