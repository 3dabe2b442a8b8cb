#!/usr/bin/env bash
# limit.sh BUILD_DIR: a file that reaches the limit on file sizes (ulimit -f) is a failed write, as on a full disk: the run
# goes on or ends with the exit code of one, says the limit, and leaves no half-written file.
. "$(dirname "$0")/../lib.sh"
built trimpot
golden=$source/tests/truth/golden/llama3
cd "$scratch"
limited() { (ulimit -f "$1" && shift && exec "$@"); }
lora=("$trimpot" run lora_finetune --model "$golden/model" --data "$golden/rows.jsonl" device=cpu seed=1 max_steps_per_epoch=2 save_every_n_steps=1)
clean() { local left; left=$(find . -name '*.tmp'); [ -z "$left" ] || fail "$1 left $left"; }
size() { stat -c %s "$@" | sort -n | tail -1; }

"${lora[@]}" --output whole save_adapter_weights_only=true -q || die "a run without a limit"
export_kb=$((($(size whole/export/*) + 1023) / 1024)) save_kb=$((($(size whole/checkpoints/step-0000002/*.h5) + 1023) / 1024))
[ $((export_kb + 8)) -lt $save_kb ] || die "a checkpoint is no larger than an export"

# No checkpoint fits, the export does: trained to the end, and 22.
expect 22 "the limit on file sizes is" limited $((export_kb + 8)) "${lora[@]}" --output saves save_adapter_weights_only=true
grep -qF "the checkpoint of step 1 is not saved" expect.out || fail "no word of the checkpoint"
cmp saves/export/adapter_model.safetensors whole/export/adapter_model.safetensors || fail "another training"
[ -z "$(ls -A saves/checkpoints)" ] || fail "in saves/checkpoints: $(ls -A saves/checkpoints)"
clean "a run whose checkpoints do not fit"

# Nor does the export: 14.
expect 14 "the limit on file sizes is" limited 24 "${lora[@]}" --output exports
clean "a run whose export does not fit"
expect 14 "the limit on file sizes is" limited 24 "$trimpot" export whole --output again
clean "export"
# Standard output that does not fit is no success.
expect 14 "standard output: File too large" bash -c 'ulimit -f 1; "$0" run --help >help.txt' "$trimpot"

# With ranks all say the same: one cannot save, none has.
if [ -e "$build/trimpot_mpi.so" ] && command -v mpirun >/dev/null; then
    expect 22 "the limit on file sizes is" ranks 2 bash -c "ulimit -f $((export_kb + 8)); exec \"\$0\" \"\$@\"" "${lora[@]}" --output ranks \
        save_adapter_weights_only=true
    [ -z "$(ls -A ranks/checkpoints)" ] || fail "in ranks/checkpoints: $(ls -A ranks/checkpoints)"
    clean "two ranks"
fi
finish
