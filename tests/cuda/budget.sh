#!/usr/bin/env bash
# budget.sh BUILD_DIR [--update]: registers, shared memory and local memory of every kernel of trimpot_cuda.so, for each architecture
# that it holds code for, against budget.txt beside this file. More than the budget, a kernel without one, and one that is gone are
# failures; so is any local memory (spills, arrays that found no registers) unless cold.txt names the kernel and says why it may.
# --update writes budget.txt from what was built.
#
# A line of budget.txt: ARCHITECTURE FILE KERNEL REGISTERS SHARED LOCAL, bytes static and per block; of cold.txt: PATTERN REASON.
. "$(dirname "$0")/../lib.sh"
built trimpot_cuda.so
need c++filt python3
here=$source/tests/cuda
toolkit=$(sed -nE 's|^TRIMPOT_NVCC:[A-Z]*=(.*)/nvcc$|\1|p' "$build/CMakeCache.txt")
dump=$(PATH=$PATH:$toolkit:/usr/local/cuda/bin:$build/cuda-tools/bin command -v cuobjdump) ||
    skip "cuobjdump is not installed (launcher/packages.sh cuobjdump $build/cuda-tools)"

version=$("$toolkit/nvcc" --version 2>/dev/null | sed -nE 's/.*release ([0-9.]+),.*/\1/p')
case $version in 13.0*) ;; *) skip "the budget is nvcc 13.0's; this build is by '$version'" ;; esac

"$dump" --dump-resource-usage "$build/trimpot_cuda.so" >"$scratch/usage" 2>"$scratch/errors" || die "$(cat "$scratch/errors")"
python3 - "$scratch/usage" "$here/budget.txt" "$here/cold.txt" "${2:-}" <<'END' || fail "the budget"
import fnmatch, os, re, subprocess, sys

usage, budget_file, cold_file, mode = sys.argv[1:5]

def found():
    """{(arch, file, kernel): (registers, shared, local)}"""
    out, arch, file, name = [], "", "", ""
    for line in open(usage):
        if m := re.match(r"arch = (\S+)", line):
            arch, file = m[1], ""
        elif m := re.match(r"identifier = (\S+)", line):
            file = os.path.basename(m[1])
        elif m := re.match(r"\s*Function (\S+):", line):
            name = m[1]
        elif m := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            out.append((arch, file, name, int(m[1]), int(m[3]), int(m[2]) + int(m[4])))
    names = subprocess.run(["c++filt"], input="\n".join(o[2] for o in out), capture_output=True, text=True, check=True).stdout.split("\n")
    return {(o[0], o[1], short(n)): o[3:] for o, n in zip(out, names)}

def short(name):
    """Without return type, arguments and the name of the unnamed namespace: what a person would call it, in one word."""
    name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N_\w+::|_INTERNAL_\w+::", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0 and i:
            name = name[:i]
            break
    name = re.sub(r"\((?:int|unsigned int|bool|long)\)", "", name).replace("unsigned short", "bf16").replace("__nv_bfloat16", "bf16")
    return re.sub(r"\s", "", name.removeprefix("void "))

def table(path, fields):
    if not os.path.exists(path):
        return []
    return [line.split(None, fields - 1) for line in open(path) if line.strip() and not line.startswith("#")]

got = found()
if mode == "--update":
    with open(budget_file, "w") as f:
        f.write("# Written by tests/cuda/budget.sh BUILD_DIR --update.\n")
        for key in sorted(got):
            f.write(" ".join([*key, *map(str, got[key])]) + "\n")
budget = {tuple(r[:3]): tuple(map(int, r[3:])) for r in table(budget_file, 6)}
cold = [r[0] for r in table(cold_file, 2)]
bad = 0
for key in sorted(got):
    have, may = got[key], budget.get(key)
    told = " ".join(key)
    if may is None:
        bad += 1
        print(f"{told}: is not in the budget")
    for what, a, b in zip(("registers", "bytes of shared memory", "bytes of local memory"), have, may or have):
        if a > b:
            bad += 1
            print(f"{told}: {a} {what}, the budget is {b}")
    if have[2] and not any(fnmatch.fnmatchcase(key[2], pattern) for pattern in cold):
        bad += 1
        print(f"{told}: {have[2]} bytes of local memory: it spills, and cold.txt does not say why it may")
for key in sorted(set(budget) - set(got)):
    bad += 1
    print(f"{' '.join(key)}: is in the budget, but there is no such kernel")
archs = {k[0] for k in got}
print(f"{len(got)} kernels for {' '.join(sorted(archs))}; most registers {max(v[0] for v in got.values())}, "
      f"{sum(1 for v in got.values() if v[2])} with local memory")
if not {"sm_80", "sm_90a"} <= archs:
    bad += 1
    print("there is no code for sm_80 and sm_90a both")
if bad:
    print(f"{bad} differences; after a change that is meant: tests/cuda/budget.sh BUILD_DIR --update")
sys.exit(bad > 0)
END
finish
