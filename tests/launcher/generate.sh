#!/usr/bin/env bash
# generate.sh BUILD_DIR: answers do not depend on what else is in the batch nor on what is cached, in both dtypes; a seed
# repeats what was drawn, another one does not.
. "$(dirname "$0")/../lib.sh"
built trimpot
model=$source/configs/quickstart/base
cd "$scratch"

# answers FILE option…; most tokens in $most.
most=24
answers() { "$trimpot" generate --model "$model" --data "$1" --max-new-tokens $most "${@:2}" 2>/dev/null || fail "generate $*"; }

head -6 "$source/configs/quickstart/heldout.jsonl" >rows.jsonl
equal "answers to six rows" "$(answers rows.jsonl | wc -l)" 6
for dtype in fp32 bf16; do
    answers rows.jsonl "dtype=$dtype" >together.txt
    while read -r row; do
        printf '%s\n' "$row" >one.jsonl
        answers one.jsonl "dtype=$dtype"
    done <rows.jsonl >alone.txt
    equal "answers together and alone, $dtype" "$(cat together.txt)" "$(cat alone.txt)"
done

# A short answer is the begin of the long one.
most=3 answers rows.jsonl dtype=fp32 | sed -E 's/.*"answer":"([^"]*)".*/\1/' >short.txt
answers rows.jsonl dtype=fp32 | sed -E 's/.*"answer":"([^"]*)".*/\1/' >long.txt
paste -d '\n' short.txt long.txt | while read -r short && read -r long; do
    [ "${long:0:${#short}}" = "$short" ] || echo "$short / $long"
done >differ.txt
equal "answers cut short" "$(cat differ.txt)" ""

drawn() { answers rows.jsonl --temperature 1.5 --seed "$1"; }
equal "drawn twice with one seed" "$(drawn 1)" "$(drawn 1)"
[ "$(drawn 1)" != "$(drawn 2)" ] || fail "two seeds drew the same"
finish
