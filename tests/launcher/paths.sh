#!/usr/bin/env bash
# paths.sh BUILD_DIR: a path is a path, whatever its name: every option and argument that names one, of every verb, with names
# that YAML, ${…}, ~/, a shell or a format would read as something else; beside each the folder that such a reader would take.
. "$(dirname "$0")/../lib.sh"
built trimpot
golden=$source/tests/truth/golden/llama3
cd "$scratch"

# Two models, two files of rows, and a run of each: whatever is mixed up gives other bits.
train=(run lora_finetune device=cpu seed=1 max_steps_per_epoch=1 -q)
cp -r "$golden/model" other
head -2 "$golden/rows.jsonl" >other.jsonl
tail -3 "$golden/rows.jsonl" >rows.jsonl
printf '%s\n' '{"question": "Which harbour?", "answer": "Ours."}' >questions.jsonl
printf '%s\n' '{"question": "Why?", "answer": "No."}' >other-questions.jsonl
"$trimpot" run full_finetune --model other --data other.jsonl --output first device=cpu seed=1 max_steps_per_epoch=1 -q dtype=fp32 ||
    die "the second model"
mv first/export model
"$trimpot" "${train[@]}" --model "$scratch/model" --data "$scratch/rows.jsonl" --output ours 2>log || die "$(cat log)"
"$trimpot" "${train[@]}" --model other --data other.jsonl --output theirs 2>log || die "$(cat log)"
cmp -s ours/adapter/adapter_model.safetensors theirs/adapter/adapter_model.safetensors && die "two runs are one"
loss=$("$trimpot" eval --model model --adapter ours/adapter --data rows.jsonl 2>/dev/null)
base=$("$trimpot" eval --model model --data rows.jsonl 2>/dev/null)
answer=$("$trimpot" generate --model model --data questions.jsonl --max-new-tokens 8 2>/dev/null)
ids=$("$trimpot" tokenize --tokenizer model rows.jsonl 2>/dev/null)
[ "$loss" != "$base" ] || die "the adapter does nothing"

# NAME, and after a / the folder that a reader of YAML would find instead (none: it would fail, or take null)
names=('run #2/run' ' a/a' 'a /a' "'q'/q" '"d"/d' '[x]/x' '{a}' 'a: b' 'null' '~' '${x}' '${seed}/1' '\${x}/${x}' '-dash' 'seed=1'
    'a=b' '~x' '100%' '%s%n' '!tag' '&anchor' '|' '`tick`' '\back\' '---' '--' 'é 日本' '- item'
    '$(touch pwned)' $'new\nline' $'tab\tx' $'\e[1m' "it's")

# The word as an argument of a verb: what begins with - stands after --.
argument() { if [ "${name:0:1}" = - ]; then words=(-- "$name"); else words=("$name"); fi; }
trained() { cmp -s "$1/adapter/adapter_model.safetensors" ../ours/adapter/adapter_model.safetensors || fail "$2: other weights"; }
call() { "$trimpot" "$@" >out.txt 2>err.txt </dev/null || { fail "$what: $*"; tail -3 err.txt; }; }
place() { rm -rf "./$name" "./${decoy:-.nothing}"; [ -z "$decoy" ] || cp -r "../$2" "./$decoy"; cp -r "../$1" "./$name"; }

as_model() {
    place model other
    call "${train[@]}" --model="$name" --data ../rows.jsonl --output trained && trained trained "$what"
    call export trained --output again && cmp -s again/model.safetensors ../ours/export/model.safetensors || fail "$what: export"
    call eval --model="$name" --data ../rows.jsonl && equal "$what: eval" "$(cat out.txt)" "$base"
    call tokenize --tokenizer="$name" ../rows.jsonl && equal "$what: tokenize" "$(cat out.txt)" "$ids"
    call tokenize --model="$name" ../rows.jsonl && equal "$what: tokenize" "$(cat out.txt)" "$ids"
}
as_rows() {
    place rows.jsonl other.jsonl
    call "${train[@]}" --model ../model --data="$name" --output trained dataset.source=json && trained trained "$what"
    argument
    call tokenize --tokenizer ../model "${words[@]}" && equal "$what: tokenize" "$(cat out.txt)" "$ids"
    place questions.jsonl other-questions.jsonl
    call generate --model ../model --data="$name" dataset.source=json --max-new-tokens 8
    equal "$what: generate" "$(cat out.txt)" "$answer"
}
as_output() {
    place ours theirs
    rm -rf "./$name"
    call run lora_finetune --model ../model --data ../rows.jsonl --output="$name" device=cpu seed=1 max_steps_per_epoch=1
    trained "./$name" "$what"
    # What the run printed at its end works when it is pasted.
    local line
    line=$(sed -n "/^try it  */,\$s/^try it *trimpot//p" err.txt)
    call generate --model ../model --adapter="$name/adapter" --prompt=… && mv out.txt expected.txt
    eval "\"\$trimpot\" $line" >out.txt 2>err.txt || { fail "$what: trimpot$line"; cat err.txt; }
    cmp -s out.txt expected.txt || fail "$what: trimpot$line: another answer"
    argument
    call export --output again "${words[@]}" && cmp -s again/model.safetensors ../ours/export/model.safetensors ||
        fail "$what: export"
    call run lora_finetune --model ../model --data ../rows.jsonl --output="$name" device=cpu seed=1 max_steps_per_epoch=1 \
        epochs=2 resume_from_checkpoint=true
    grep -qF 'resumed from' err.txt || fail "$what: resume"
    place ours theirs && rm -r "./$name"
    call export ../ours --output="$name" && cmp -s "./$name/model.safetensors" ../ours/export/model.safetensors ||
        fail "$what: --output of export"
}
as_adapter() {
    place ours/adapter theirs/adapter
    call eval --model ../model --adapter="$name" --data ../rows.jsonl && equal "$what: eval" "$(cat out.txt)" "$loss"
}
as_config() {
    printf 'seed: 1\ndevice: cpu\nmax_steps_per_epoch: 1\n' >../c.yaml && printf 'seed: 2\n' >../other.yaml
    place c.yaml other.yaml
    call run lora_finetune --config="$name" --model ../model --data ../rows.jsonl --output trained && trained trained "$what"
    argument
    call validate --model ../model --data ../rows.jsonl "${words[@]}"
    equal "$what: validate" "$(cat out.txt)" "$name: valid"
    rm "./$name"
    [ "${name:0:1}" = - ] && words=(llama3_2/1B_lora -- "$name") || words=(llama3_2/1B_lora "$name")
    call cp "${words[@]}" && [ -s "./$name" ] || fail "$what: cp"
    rm -f "./$name" && mkdir "./$name" && call cp "${words[@]}" && [ -s "./$name/1B_lora.yaml" ] || fail "$what: cp into a folder"
}
as_text() {
    call generate --model ../model --prompt="$name" --max-new-tokens 8 --json && mv out.txt prompt.txt
    python3 -c 'import json, sys; print(json.dumps({"question": sys.argv[1], "answer": "?"}))' "$name" >question.jsonl
    call generate --model ../model --data question.jsonl --max-new-tokens 8
    equal "$what" "$(sed 's/}$//' prompt.txt)" "$(sed 's/,"expected":.*//' out.txt)"
}

for row in "${names[@]}"; do
    name=${row%/*} decoy=
    [ "$name" = "$row" ] || decoy=${row##*/}
    for role in model rows output adapter config text; do
        mkdir here && cd here
        what="'$name' as $role"
        "as_$role"
        [ ! -e pwned ] || fail "$what: a command was run"
        cd .. && rm -r here
    done
done

# A folder that is called ~ is not the home directory, and a saved configuration says so.
mkdir -p here/'~' home && cd here && cp -r ../model '~/m'
name='~/m' what='~/m'
HOME=$scratch/home call "${train[@]}" --model '~/m' --data ../rows.jsonl --output '~/run' && trained './~/run' "$what"
HOME=$scratch/home call export '~/run' --output again && cmp -s again/model.safetensors ../ours/export/model.safetensors ||
    fail "export of ~/run"
[ -z "$(ls ../home)" ] || fail "written into the home directory: $(ls ../home)"
HOME=$scratch call eval --model x checkpointer.checkpoint_dir='~/model' --data ../rows.jsonl # key=value: as ever
equal 'key=~/model' "$(cat out.txt)" "$base"
cd ..

# key=value is YAML as ever; the value of an option gives way to it.
cp -r model x && expect 0 "loss" "$trimpot" eval --model nowhere 'checkpointer.checkpoint_dir="x" # a remark' --data rows.jsonl

# Bytes that no configuration can hold are refused, by the option.
odd=$'caf\xe9'
cp -r model "$odd"
expect 2 "--model: the name is not UTF-8 at byte 3; rename it, or make a link to it (ln -s)" "$trimpot" eval --model "$odd" --data rows.jsonl
expect 2 "--adapter: the name is not UTF-8" "$trimpot" eval --model model --adapter "$odd" --data rows.jsonl
expect 2 "--output: the name is not UTF-8" "$trimpot" "${train[@]}" --model model --data rows.jsonl --output "$odd"
expect 2 "OUTPUT_DIR: the name is not UTF-8" bash -c 'mkdir -p "$1/x" && cp -r ours/. "$1" && exec "$0" export "$1"' "$trimpot" "$odd"
expect 2 "--tokenizer: the name is not UTF-8" "$trimpot" tokenize --tokenizer "$odd" rows.jsonl
[ "$(grep -c . expect.out)" = 1 ] || fail "more than one line: $(cat expect.out)"
expect 2 "--prompt: not valid UTF-8" "$trimpot" generate --model model --prompt "$odd"

# What is not there and looks like a key, or like an option, says how a path is written.
expect 2 "'run=3' is no path that exists, so it was taken for a key" "$trimpot" export run=3
expect 2 "a path of that name is written ./-run" "$trimpot" export -run
finish
