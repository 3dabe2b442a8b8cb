#!/usr/bin/env bash
# errors.sh BUILD_DIR: every row of cases.txt is a bad input given to the real program. Checked of each: the exit code,
# exactly one error message, its fragments in their order, no crash, no file that was there before lost or changed.
# Rows whose code ends in * run on two ranks as well, with 2: on two ranks only: no rank may hang, and the message still
# comes once.
#   SHOW=1    print every message     ONLY='text'    only rows that contain the text
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
golden=$source/tests/truth/golden/llama3
two=$([ -e "$build/trimpot_mpi.so" ] && command -v mpirun >/dev/null && echo 2 || true)
[ -n "$two" ] || say "SKIP the rows on two ranks: no mpirun or no trimpot_mpi.so"
export OMP_NUM_THREADS=1

# ---- what a row finds in its folder: m (model), a (adapter of it), rows.jsonl, out (an earlier output) ---------------------

template=$scratch/template
mkdir -p "$template/out/export"
cp -r "$golden/model" "$template/m"
cp -r "$golden/adapter" "$template/a"
cp "$golden/rows.jsonl" "$template/"
printf '%s\n' '{"step":1}' >"$template/out/metrics.jsonl"
cp "$template/m/config.json" "$template/out/export/"

# A finished run with two checkpoints, for rows that resume it: `earlier`.
(cd "$template" && "$trimpot" run lora_finetune --model m --data rows.jsonl --output "$scratch/done" -q device=cpu seed=1 \
    max_steps_per_epoch=2 save_every_n_steps=1 >"$scratch/done.log" 2>&1) || { cat "$scratch/done.log"; die "the earlier run"; }

# ---- words of the third column ----------------------------------------------------------------------------------------------

rows() { printf "$@" >rows.jsonl; }
sub() { grep -qF -- "$2" "$1" || die "$1 has no $2"; python3 - "$@" <<'P'
import sys
name, old, new = sys.argv[1:4]
data = open(name, encoding="utf-8").read()
open(name, "w", encoding="utf-8").write(data.replace(old, new, 1))
P
}
# poke FILE OFFSET 'printf bytes'
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
# header 'statements over h, the header of m/model.safetensors'; t = model.embed_tokens.weight's entry, b = the data
header() { python3 - "$1" "${2:-m/model.safetensors}" <<'P'
import json, struct, sys
name = sys.argv[2]
raw = open(name, "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
h, b = json.loads(raw[8:8 + n]), raw[8 + n:]
t = h.get("model.embed_tokens.weight")
exec(sys.argv[1])
text = (h if isinstance(h, str) else json.dumps(h)).encode()
open(name, "wb").write(struct.pack("<Q", len(text)) + text + b)
P
}
earlier() { rm -rf out && cp -r "$scratch/done" out; }
# shards 'statements over index': the model in two files with an index
shards() { python3 - "$1" <<'P'
import json, struct, sys
raw = open("m/model.safetensors", "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
h, data = json.loads(raw[8:8 + n]), raw[8 + n:]
h.pop("__metadata__", None)
names, index = sorted(h), {"metadata": {"total_size": len(data)}, "weight_map": {}}
for k, part in enumerate((names[:9], names[9:])):
    file, out, blob = "model-%05d-of-00002.safetensors" % (k + 1), {}, b""
    for name in part:
        a, z = h[name]["data_offsets"]
        out[name] = dict(h[name], data_offsets=[len(blob), len(blob) + z - a])
        blob += data[a:z]
        index["weight_map"][name] = file
    text = json.dumps(out).encode()
    open("m/" + file, "wb").write(struct.pack("<Q", len(text)) + text + blob)
import os
os.remove("m/model.safetensors")
exec(sys.argv[1])
json.dump(index, open("m/model.safetensors.index.json", "w"))
P
}

# ---- words of the fourth column ---------------------------------------------------------------------------------------------

n=1
t() { if [ "$n" = 1 ]; then timeout 60 "$trimpot" "$@" </dev/null; else launch "$@"; fi; }
# A rank that is still there after a minute hangs: 124. mpirun 4.1 itself can hang when its ranks are long gone (seen
# once in some hundred failing starts on a loaded machine): that start is made again, once, and says so.
retried=0
exec 4>&1 # where the test speaks; a row's own output goes to files
launch()
{
    local launcher left waited=0
    mpirun -n "$n" "$trimpot" "$@" </dev/null &
    launcher=$!
    while kill -0 "$launcher" 2>/dev/null && [ $waited -lt 600 ]; do sleep 0.1; waited=$((waited + 1)); done
    [ $waited = 600 ] || { wait "$launcher"; return; }
    left=$(pgrep -P "$launcher" trimpot || true)
    kill -9 "$launcher" $left 2>/dev/null
    [ -z "$left" ] && [ $retried = 0 ] || return 124
    retried=1
    echo "mpirun hung without ranks; started again: $*" >&4
    : >../stderr
    launch "$@"
}
full() { t run full_finetune --model m --data rows.jsonl --output out device=cpu seed=1 "$@"; }
lora() { t run lora_finetune --model m --data rows.jsonl --output out device=cpu seed=1 "$@"; }
# yaml 'text': a file c.yaml on top of model, data and output
yaml() { printf "$1" >c.yaml; shift; t run lora_finetune --config c.yaml --model m --data rows.jsonl --output out "$@"; }

# ---- one row ----------------------------------------------------------------------------------------------------------------

sums() { find . -type f -exec md5sum {} + | sort; }

# says FILE 'a … b … c': the fragments in this order; else $missing is the first that is not there
says()
{
    local text rest=$2 fragment
    text=$(<"$1")
    while [ -n "$rest" ]; do
        fragment=${rest%% … *}
        case $text in *"$fragment"*) text=${text#*"$fragment"} ;; *) missing=$fragment; return 1 ;; esac
        [ "$fragment" = "$rest" ] && break
        rest=${rest#* … }
    done
}

# check RANKS LINE CODE TEXT PREPARE COMMAND
check()
{
    local at=$scratch/$2-$1 where="cases.txt:$2 on $1 rank(s): $6" code=$3 rc=0 errors lost missing
    mkdir "$at" && cp -r "$template" "$at/case" && cd "$at/case"
    eval "$5"
    sums >../before
    (n=$1; eval "$6") >../stdout 2>>../stderr || rc=$?
    tr -d '\000' <../stderr >../said # bash drops NUL with a warning
    [ -z "${SHOW:-}" ] || { say "--- $2 ($rc): $6"; grep -aE -A9 'error:|warning:' ../said | grep -vE '^$|^--' || true; }
    [ "$rc" = "$code" ] || { fail "$where: exit $rc, expected $code"; tail -3 ../said; }
    errors=$(grep -acE '^(\[rank [0-9]+\] )?error: ' ../said || true)
    [ "$errors" = $((code != 0)) ] || { fail "$where: $errors error messages"; grep -a error: ../said || true; }
    says ../said "$4" || { fail "$where: no '$missing' there, or not in this order:"; grep -aE 'error:|warning:' ../said || true; }
    ! grep -aE 'Sanitizer|runtime error:|Segmentation|Assertion' ../said || fail "$where: a crash"
    [ "$code" = 0 ] || { lost=$(sums | comm -13 - ../before); [ -z "$lost" ] || fail "$where: lost or changed: $lost"; }
    cd "$source" && rm -rf "$at"
}

line=0 done_rows=0
bare() { local code=${1%\*}; printf '%s' "${code#2:}"; }
trim() { local s=$1; s=${s#"${s%%[![:space:]]*}"}; printf '%s' "${s%"${s##*[![:space:]]}"}"; }
while IFS='|' read -r code text prepare command <&3; do
    line=$((line + 1))
    code=$(trim "$code") text=$(trim "$text") prepare=$(trim "$prepare") command=$(trim "$command")
    case $code in '' | \#*) continue ;; esac
    case "$text$prepare$command" in *"${ONLY:-}"*) ;; *) continue ;; esac
    [ -n "$command" ] || die "line $line of cases.txt has no four columns"
    # On two ranks most of the time is mpirun's: a few of these go on beside the rows that follow.
    case $code in *\* | 2:*)
        while [ "$(jobs -rp | wc -l)" -ge 4 ]; do wait -n || true; done
        [ -z "$two" ] || check 2 $line "$(bare "$code")" "$text" "$prepare" "$command" >"$scratch/$line.log" 2>&1 & ;;
    esac
    case $code in 2:*) ;; *) check 1 $line "$(bare "$code")" "$text" "$prepare" "$command" ;; esac
    done_rows=$((done_rows + 1))
done 3<"$source/tests/errors/cases.txt"
wait
cat "$scratch"/*.log
failures=$((failures + $(cat "$scratch"/*.log | grep -c '^FAIL' || true)))
say "$done_rows bad inputs"
[ -n "${ONLY:-}" ] || [ "$done_rows" -ge 90 ] || fail "only $done_rows rows"
finish
