#!/usr/bin/env bash
# template_date.sh BUILD_DIR: a chat template that writes the date (here: to the second) gives the run that resumes the text
# of the run it resumes, and all ranks the same.
. "$(dirname "$0")/../lib.sh"
built trimpot
cd "$scratch"
cp -r "$source/tests/truth/golden/qwen2/model" m
cat >m/chat_template.jinja <<'END'
{{- '<|im_start|>system\nToday: ' + strftime_now('%d %b %Y %H:%M:%S') + '<|im_end|>\n' }}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
END
for i in $(seq 16); do printf '{"question": "%d + %d", "answer": "%d"}\n' "$i" "$i" $((2 * i)); done >rows.jsonl
run=("$trimpot" run full_finetune --model m --data rows.jsonl device=cpu seed=3 dtype=fp32 batch_size=1 save_every_n_steps=2)

ranks 1 "${run[@]}" gradient_accumulation_steps=4 --output whole >whole.log 2>&1 || { cat whole.log; die "the whole run"; }
grep -q 'Today: [0-9]' whole.log || fail "the date is not in the first row: $(cat whole.log)"
cp -r whole part
rm -r part/export part/checkpoints/step-0000004
sleep 1.1
ranks 2 "${run[@]}" gradient_accumulation_steps=2 --output part resume_from_checkpoint=true >part.log 2>&1 ||
    { cat part.log; die "the resumed run"; }
grep -q 'resumed from .* at step 2' part.log || fail "not resumed: $(cat part.log)"
grep -q 'continuity ends' part.log && fail "another data set: $(cat part.log)"
cmp whole/export/model.safetensors part/export/model.safetensors || fail "other weights than the uninterrupted run's"
equal "the date" "$(grep -o 'Today: .*' part.log)" "$(grep -o 'Today: .*' whole.log)"
finish
