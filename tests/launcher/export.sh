#!/usr/bin/env bash
# export.sh BUILD_DIR: an export holds the tokenizer that was used; an answer ends where the directories say so: the model's
# generation_config.json or config.json, the tokenizer's EOS, and the adapter's own generation_config.json.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
base=$source/configs/quickstart/base
cd "$scratch"
cp -r "$base" m && rm m/generation_config.json # a base that does not say where its turns end
head -1 "$source/configs/quickstart/heldout.jsonl" >rows.jsonl
train=("$trimpot" run lora_finetune --model m --data rows.jsonl device=cpu seed=1 max_steps_per_epoch=1 -q)

mkdir tok && cp m/tokenizer.json tok/
printf '%s\n' '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "mine": 1}' \
    >tok/tokenizer_config.json
"${train[@]}" --output own || die "a run"
cmp m/tokenizer_config.json own/export/tokenizer_config.json || fail "the base's tokenizer"
cmp m/tokenizer_config.json own/adapter/tokenizer_config.json || fail "the base's tokenizer beside the adapter"
[ ! -e own/adapter/config.json ] || fail "the adapter's folder looks like a model"
"${train[@]}" --output elsewhere tokenizer.path=tok || die "a run with another tokenizer"
cmp tok/tokenizer_config.json elsewhere/export/tokenizer_config.json || fail "the tokenizer that was used"

# An answer of several tokens, the first of them, and the id of the second.
answer() { "$trimpot" generate --data rows.jsonl --max-new-tokens 8 "$@" 2>/dev/null | sed -E 's/.*"answer":"([^"]*)".*/\1/'; }
long=$(answer --model m)
printf '"%s"\n' "$long" | "$trimpot" tokenize --tokenizer m --no-special - >tokens.json
read -r first id < <(python3 -c 'import json; o = json.load(open("tokens.json")); print(o["pieces"][0], o["ids"][1])')

cp -r m listed && printf '{"eos_token_id": [5, %s]}' "$id" >listed/generation_config.json
equal "by generation_config.json" "$(answer --model listed)" "$first"
cp -r m only && sed -i "s/\"eos_token_id\": 882/\"eos_token_id\": $id/" only/config.json
equal "by config.json" "$(answer --model only)" "$first"
cp -r m plain && sed -i "s/\"eos_token_id\": 882/\"eos_token_id\": $id/" plain/config.json
printf '{"eos_token_id": 882}' >plain/generation_config.json
equal "generation_config.json goes before config.json" "$(answer --model plain)" "$long"

# What the run trained ends an answer in other programs too: the end mark of the template.
eot=$("$trimpot" tokenize --tokenizer m --no-special - <<<'"<|eot_id|>"' | sed -E 's/.*"ids":\[([0-9]+)\].*/\1/')
for dir in own/adapter own/export; do
    grep -q "\"eos_token_id\": \[882, $eot\]" $dir/generation_config.json || fail "$dir: $(cat $dir/generation_config.json)"
    cmp m/chat_template.jinja $dir/chat_template.jinja || fail "the template that was trained on"
done
"$trimpot" generate --model m --adapter own/adapter --data rows.jsonl --max-new-tokens 40 2>/dev/null | grep -q '"answer":"[^"]*assistant' &&
    fail "an answer of the trained adapter does not end"
rm own/adapter/generation_config.json
equal "with an adapter" "$(answer --model m --adapter own/adapter)" "$long"
printf '{"eos_token_id": %s}' "$id" >own/adapter/generation_config.json
equal "as the adapter's run trained" "$(answer --model m --adapter own/adapter)" "$first"
printf '{"eos' >own/adapter/generation_config.json
expect 15 "own/adapter/generation_config.json:1:" "$trimpot" generate --model m --adapter own/adapter --prompt x

# An adapter is asked in the words that it was trained on, whatever template its base has.
"${train[@]}" --output marks chat_template=chatml || die "a run with another template"
grep -q im_start marks/adapter/chat_template.jinja || fail "the template that was trained on"
asked() { "$trimpot" generate --data rows.jsonl --max-new-tokens 1 "$@" 2>/dev/null | grep -c '<|im_start|>user' || :; }
equal "asked as trained" "$(asked --model m --adapter marks/adapter)" 1
equal "asked as configured" "$(asked --model m --adapter marks/adapter chat_template=model)" 0
equal "the base is asked as itself" "$(asked --model m)" 0
equal "the export is asked as trained" "$(asked --model marks/export)" 1

# Under a launcher rank 0 does it, and waits for nobody.
if command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ]; then
    ranks 2 timeout 60 "$trimpot" export own --output by2 -q || fail "export on 2 ranks"
    cmp own/export/model.safetensors by2/model.safetensors || fail "what 2 ranks exported"
    equal "an answer on 2 ranks" "$(ranks 2 timeout 60 "$trimpot" generate --model m --data rows.jsonl --max-new-tokens 8 2>/dev/null | grep -c answer)" 1
fi

# No token ends an answer by its name: the model writes on behind <|eot_id|>.
"$trimpot" generate --model m --data rows.jsonl --max-new-tokens 40 >all.txt 2>/dev/null
grep -q '"answer":"[^"]*assistant' all.txt || fail "a list of names still ends answers: $(cat all.txt)"
finish
