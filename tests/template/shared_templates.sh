#!/usr/bin/env bash
# shared_templates.sh BUILD_DIR: the chat templates of the shared data as transformers renders them today, in text, errors
# and ids. TRIMPOT_PEERS names a virtual environment with transformers and jinja2; without it this is skipped, as in
# continuous integration (test_chat_templates compares our own templates there). The golden stays in the scratch folder.
. "$(dirname "$0")/../lib.sh"
[ -n "${TRIMPOT_PEERS:-}" ] || skip "TRIMPOT_PEERS names no virtual environment with transformers and jinja2"
python=$TRIMPOT_PEERS/bin/python
[ -x "$python" ] || die "TRIMPOT_PEERS: $python does not exist"
need_shared
built test_chat_templates
here=$source/tests/template

HF_HUB_OFFLINE=1 "$python" "$here/make_golden.py" --shared "$(cd "$shared" && pwd)" --output "$scratch/shared.json" \
    2>"$scratch/log" || { tail -n 5 "$scratch/log"; die "make_golden.py"; }
TRIMPOT_TEMPLATE_GOLDEN=$scratch/shared.json "$build/test_chat_templates" \
    >"$scratch/out" 2>&1 || fail "templates differ"
grep -E '^(DIFFERENCE|REFUSED|    |shared.json: )' "$scratch/out" || { cat "$scratch/out"; fail "no comparison"; }
finish
