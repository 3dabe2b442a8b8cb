#!/usr/bin/env bash
# memory_chapter.sh BUILD_DIR [--update]: the tables of the README's memory chapter are what `trimpot plan --compare` and `--fit` say. With
# --update they are written between the markers; without it the test fails where they would be others.
. "$(dirname "$0")/../lib.sh"
built trimpot
need python3
[ -e "$build/trimpot_cuda.so" ] || [ -e "$build/trimpot_emu.so" ] || skip "sizes of a GPU's workspaces are estimates in this build"
. "$source/tests/launcher/lib_models.sh"

python3 - "$trimpot" "$models" "$source/README.md" "$scratch/README.md" <<'END' || die "no tables"
import json, re, subprocess, sys

trimpot, models, readme, out = sys.argv[1:]
NAMES = {"llama3-8b": "Llama-3-8B", "llama3.2-1b": "Llama-3.2-1B"}
KINDS = {"full": ["full_finetune"], "LoRA": ["lora_finetune", "model.lora_rank=16"],
         "QLoRA": ["lora_finetune", "model.lora_rank=16", "model.quantize_base=true"]}
GPU, LENGTH, ROWS = "h100", 4096, 2

def plan(kind, model, *words, gpu=GPU, length=LENGTH, rows=ROWS, check=True):
    line = [trimpot, "plan", *KINDS[kind], "-q", "--gpu", gpu, "--model", f"{models}/{model}", f"tokenizer.max_seq_len={length}",
            f"batch_size={rows}", *words]
    r = subprocess.run(line, capture_output=True, text=True)
    if check and r.returncode:
        sys.exit(f"{' '.join(line)}: {r.stderr}")
    return r

def rows_of(kind, model):
    return {r["technique"]: r for r in map(json.loads, plan(kind, model, "--compare", "--json").stdout.splitlines())}

def size(n):
    return f"{n / 1e9:.1f} GB" if abs(n) >= 5e7 else f"{n / 1e6:.0f} MB"

def cell(row):
    if row is None:
        return "–"
    if "refused" in row:
        return "refused"
    saved = row["off"]["device_bytes"] - row["on"]["device_bytes"]
    off, on = row["off"]["token_s"], row["on"]["token_s"]
    time = "" if None in (off, on) else f", {100 * (on / off - 1):+.1f} %".replace("-", "−").replace("−0.0", "+0.0")
    if abs(saved) < 1e6 and time in ("", ", +0.0 %"):
        return "nothing"
    by = sorted(row["saved"].items(), key=lambda kv: -abs(kv[1]))
    by = [f"{name} {'−' if n > 0 else '+'}{size(abs(n))}" for name, n in by[:2] if abs(n) >= 5e7]
    return ("−" if saved >= 0 else "+") + size(abs(saved)) + time + (f" ({', '.join(by)})" if by else "")

def keys(row):
    on, off = ({k.split("=", 1)[0]: k for k in row[side].split()} for side in ("on_keys", "off_keys"))
    named = [v for k, v in on.items() if off.get(k) != v and v.split("=")[1] not in ("null", "false", "auto", "none")]
    named = named or [v for k, v in on.items() if off.get(k) != v]
    words = [v.replace("{rows}", "N").replace("{ranks}", "RANKS").replace("=", ": ", 1) for v in named]
    return ", ".join(f"`{w}`" for w in words)

text = []
compared = {m: {k: rows_of(k, m) for k in KINDS} for m in NAMES}
names = []
for by_kind in compared.values():
    for rows in by_kind.values():
        names += [n for n in rows if n not in names]
order = list(compared["llama3-8b"]["full"])
for n in compared["llama3-8b"]["LoRA"]:
    if n not in order:
        order.insert(order.index("recompute products"), n)
any_row = lambda n: next(r[n] for by in compared.values() for r in by.values() if n in r)
text.append("| technique | keys | what it is | when | combines with | same bits |\n|---|---|---|---|---|---|")
for n in order:
    r = any_row(n)
    text.append(f"| {n} | {keys(r)} | {r['what']} | {r['when']} | {r['with']} | {'yes' if r['same_bits'] else 'no'} |")
for model, name in NAMES.items():
    text.append(f"\n**{name}**, {ROWS} rows of {LENGTH} tokens on an H100: what each changes on the device, and in time, by the speed model:\n")
    text.append("| technique | full fine-tuning | LoRA, rank 16 | QLoRA, rank 16 |\n|---|---|---|---|")
    for n in order:
        text.append("| " + " | ".join([n] + [cell(compared[model][k].get(n)) for k in KINDS]) + " |")

text.append("\nThe cheapest settings that fit, as `trimpot plan --fit` finds them (one row at a time; host memory is taken as plenty):\n")
text.append("| model | GPU | trained | row, tokens | settings | on the device | tokens/s |\n|---|---|---|--:|---|--:|--:|")
for model, gpu, kind, length in [("llama3-8b", "4090", "LoRA", 2048), ("llama3-8b", "4090", "LoRA", 16384), ("llama3-8b", "4090", "LoRA", 81920),
                                 ("llama3-8b", "4090", "full", 2048),
                                 ("llama3-8b", "h100", "LoRA", 8192), ("llama3-8b", "h100", "LoRA", 65536),
                                 ("llama3-8b", "h100", "full", 4096), ("llama3.2-1b", "4090", "LoRA", 8192),
                                 ("llama3.2-1b", "4090", "full", 4096), ("llama3.2-1b", "h100", "full", 16384)]:
    r = plan(kind, model, "--fit", gpu=gpu, length=length, rows=1, check=False)
    if r.returncode:
        said, device, speed = "nothing fits", "", ""
    else:
        lines = r.stdout.splitlines()
        device, speed = re.match(r"# (\S+ \S+) on the device.*; (\d+) tokens", lines[1]).groups()
        said, group = [], ""
        for l in lines[2:]:
            if l.endswith(":"):
                group = l[:-1] + "."
                continue
            said.append("`" + (group + l.strip() if l.startswith(" ") else l).replace("optimizer._component_", "optimizer") + "`")
        said = ", ".join(said) or "as it is"
    text.append(f"| {NAMES[model]} | {gpu} | {kind} | {length} | {said} | {device} | {speed} |")

begin, end = "<!-- memory chapter: written by tests/launcher/memory_chapter.sh --update -->\n", "<!-- end of the memory chapter -->\n"
page = open(readme).read()
if begin not in page or end not in page:
    sys.exit("README.md has no markers for the memory chapter")
head, rest = page.split(begin)
open(out, "w").write(head + begin + "\n".join(text) + "\n" + end + rest.split(end)[1])
END
if [ "${2:-}" = --update ]; then
    cp "$scratch/README.md" "$source/README.md"
else
    diff "$source/README.md" "$scratch/README.md" >"$scratch/diff" ||
        { head -20 "$scratch/diff"; fail "the README's memory chapter is stale: tests/launcher/memory_chapter.sh $build --update"; }
fi
finish
