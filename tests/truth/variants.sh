#!/usr/bin/env bash
# variants.sh BUILD_DIR: the tiny models held in other ways (RoPE scalings, a head of its own, other names, stale indices):
# eval computes what transformers computes of the same directory (variants.py), and what is exported is that model again.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
here=$source/tests/truth

loss() { # DIR ROWS: of an evaluation; its messages in $scratch/said
    "$trimpot" eval --model "$1" --data "$2" dtype=fp32 device=cpu --json 2>"$scratch/said" </dev/null |
        sed 's/.*"loss":\([-+.0-9e]*\),.*/\1/'
}

while IFS=$'\t' read -r name warning; do
    at=$scratch/$name
    python3 "$here/variants.py" make "$name" "$at"
    got=$(loss "$at/model" "$at/rows.jsonl") || { fail "$name: eval"; cat "$scratch/said"; continue; }
    python3 "$here/variants.py" check "$name" "$got" || fail "$name: loss"
    grep -qF -- "$warning" "$scratch/said" || fail "$name: does not say '$warning'"
    [ -n "$warning" ] || ! grep -q 'warning:\|index' "$scratch/said" || { fail "$name: an unasked warning"; cat "$scratch/said"; }
done < <(python3 "$here/variants.py" list)

# A head of its own is trained, saved and exported as one; config.json then says so, for readers that would tie it.
at=$scratch/head-differs
train=("$trimpot" run full_finetune --model "$at/model" --data "$at/rows.jsonl" dtype=fp32 device=cpu seed=1 batch_size=8)
expect 0 'both are kept' "${train[@]}" --output "$scratch/out" optimizer.lr=1e-12
grep -q '"tie_word_embeddings": false' "$scratch/out/export/config.json" || fail "the export's config.json still ties"
equal "the export's loss" "$(loss "$at/model" "$at/rows.jsonl" | cut -c1-8)" "$(loss "$scratch/out/export" "$at/rows.jsonl" | cut -c1-8)"
! grep -q warning: "$scratch/said" || fail "the export is complained about"
expect 0 'lora' "$trimpot" run lora_finetune --model "$at/model" --data "$at/rows.jsonl" device=cpu seed=1 dtype=fp32 \
    model.apply_lora_to_output=true --output "$scratch/lora"
python3 - "$scratch/out/export" "$at/model" <<'P' || fail "tensors of the export"
import sys
sys.path.insert(0, "tests/truth")
from variants import EMBED, HEAD, read
export, kept = (read(d + "/model.safetensors") for d in sys.argv[1:3])
assert set(export) == set(kept), set(export) ^ set(kept)
assert export[HEAD][1] == export[EMBED][1] and export[HEAD] != export[EMBED]
P

# Copies that are equal stay one tensor, as configured.
at=$scratch/head-equal
expect 0 'export' "$trimpot" run full_finetune --model "$at/model" --data "$at/rows.jsonl" dtype=fp32 device=cpu seed=1 \
    --output "$scratch/tied"
! grep -q lm_head "$scratch/tied/export/model.safetensors" || fail "a tied export holds lm_head"
grep -q '"tie_word_embeddings": true' "$scratch/tied/export/config.json" || fail "a tied export is not tied"

# What training does not apply is said there, and only there.
at=$scratch/dropouts
expect 0 'attention_dropout 0.1, resid_pdrop 0.1: not applied' "$trimpot" plan full_finetune --model "$at/model" \
    --data "$at/rows.jsonl" device=cpu
finish
