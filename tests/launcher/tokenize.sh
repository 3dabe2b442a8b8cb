#!/bin/bash
# trimpot tokenize: strings and data rows, masks, standard input, and what it refuses.
. "$(dirname "$0")/../lib.sh"
built trimpot
need_shared
qwen=$shared/data/tokenizers/qwen2
[ -d "$qwen" ] || skip "no tokenizer at $qwen"
cd "$scratch"

echo '"Hello world"' >rows.jsonl
expected='{"ids":[9707,1879],"pieces":["Hello","Ġworld"],"mask":[false,false]}'
equal 'a string' "$("$trimpot" tokenize --tokenizer "$qwen" rows.jsonl)" "$expected"
equal 'standard input' "$("$trimpot" tokenize --tokenizer "$qwen" --no-special - <rows.jsonl)" "$expected"
equal 'a tokenizer in the working directory' "$(cd "$qwen" && "$trimpot" tokenize --tokenizer . "$scratch/rows.jsonl")" "$expected"

printf '%s\n' '{"question": "1+1?", "answer": "2"}' >rows.jsonl
# The template of the directory has a system prompt of its own; the answer is trained on with its end mark, its header is not.
printf -v expected '%s%s%s%s%s' '{"ids":[151644,8948,198,2610,525,264,10950,17847,13,151645,198,151644,872,198,16,10,16,30,151645,198,' \
    '151644,77091,198,17,151645,198],"pieces":["<|im_start|>","system","Ċ","You","Ġare","Ġa","Ġhelpful","Ġassistant",".",' \
    '"<|im_end|>","Ċ","<|im_start|>","user","Ċ","1","+","1","?","<|im_end|>","Ċ","<|im_start|>","assistant","Ċ","2",' \
    '"<|im_end|>","Ċ"],"mask":[true,true,true,true,true,true,true,true,true,true,true,true,true,true,true,true,true,' \
    'true,true,true,true,true,true,false,false,true]}'
equal "by the model's template" "$("$trimpot" tokenize --tokenizer "$qwen" rows.jsonl 2>/dev/null)" "$expected"
equal 'trained on the question too' \
    "$("$trimpot" tokenize --tokenizer "$qwen" rows.jsonl dataset.train_on_input=true 2>/dev/null | grep -o false | wc -l)" 6

printf -v expected '%s%s%s' '{"ids":[151644,872,198,16,10,16,30,151645,198,151644,77091,198,17,151645],' \
    '"pieces":["<|im_start|>","user","Ċ","1","+","1","?","<|im_end|>","Ċ","<|im_start|>","assistant","Ċ","2","<|im_end|>"],' \
    '"mask":[true,true,true,true,true,true,true,true,true,false,false,false,false,false]}'
torchtune="torchtune_templates=true"
equal 'as torchtune' "$("$trimpot" tokenize --tokenizer "$qwen" rows.jsonl $torchtune 2>/dev/null)" "$expected"
equal 'as torchtune, trained on the question too' \
    "$("$trimpot" tokenize --tokenizer "$qwen" rows.jsonl $torchtune dataset.train_on_input=true 2>/dev/null | grep -o true | wc -l)" 0
equal 'cut to 5' "$("$trimpot" tokenize --tokenizer "$qwen" --max-seq-len 5 rows.jsonl 2>/dev/null | grep -o '"ids":[^]]*]')" \
    '"ids":[151644,8948,198,2610,525]'
equal 'cut to 5 as torchtune does' \
    "$("$trimpot" tokenize --tokenizer "$qwen" --max-seq-len 5 rows.jsonl $torchtune 2>/dev/null | grep -o '"ids":[^]]*]')" \
    '"ids":[151644,872,198,16,151645]'
# What a user writes is text, even when it looks like a special token.
echo '{"question": "<|im_end|>", "answer": "x"}' >special.jsonl
equal 'specials in user text' \
    "$("$trimpot" tokenize --tokenizer "$qwen" special.jsonl 2>/dev/null | grep -o '"<|im_end|>"' | wc -l)" 3
printf 'tokenizer: {path: %s}\ndataset: {source: json, data_files: rows.jsonl, train_on_input: true}\n' "$qwen" >my.yaml
equal 'as a configuration says' "$("$trimpot" tokenize --config my.yaml --model "$qwen" rows.jsonl 2>/dev/null | grep -o false | wc -l)" 6
equal 'rows by --data, as other verbs have them' "$("$trimpot" tokenize --tokenizer "$qwen" --data rows.jsonl 2>/dev/null)" \
    "$("$trimpot" tokenize --tokenizer "$qwen" rows.jsonl 2>/dev/null)"
expect 2 "given twice" "$trimpot" tokenize --tokenizer "$qwen" --data rows.jsonl rows.jsonl
expect 2 "its arguments are missing; usage: trimpot tokenize ROWS" "$trimpot" tokenize --tokenizer "$qwen"

expect 2 "--tokenizer DIR_OR_FILE is missing" "$trimpot" tokenize rows.jsonl
expect 2 "--no-special is for lines that are strings" "$trimpot" tokenize --tokenizer "$qwen" --no-special rows.jsonl
expect 14 "/nonexistent" "$trimpot" tokenize --tokenizer /nonexistent rows.jsonl
expect 14 "none.jsonl" "$trimpot" tokenize --tokenizer "$qwen" none.jsonl
printf '"fine"\n{"q' >bad.jsonl
expect 20 "bad.jsonl:2" "$trimpot" tokenize --tokenizer "$qwen" bad.jsonl
echo 42 >bad.jsonl
expect 20 "bad.jsonl:1" "$trimpot" tokenize --tokenizer "$qwen" bad.jsonl
echo '{"colour": "red"}' >bad.jsonl
expect 20 "no known shape" "$trimpot" tokenize --tokenizer "$qwen" bad.jsonl
: >bad.jsonl
expect 20 "empty" "$trimpot" tokenize --tokenizer "$qwen" bad.jsonl
expect 2 "did you mean" "$trimpot" tokenize --tokenizer "$qwen" rows.jsonl dataset.trian_on_input=true
expect 2 "argument 5 ('dataset.trian_on_input" "$trimpot" tokenize --tokenizer "$qwen" rows.jsonl dataset.trian_on_input=true
finish
