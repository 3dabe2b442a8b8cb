#!/usr/bin/env bash
# format.sh BUILD_DIR: every source looks as .clang-format says; where a table is set by hand, `clang-format off` says so.
. "$(dirname "$0")/../lib.sh"
need clang-format git
clang-format --version | grep -q 'version 14\.' || skip "other versions of clang-format say other things"
git -C "$source" rev-parse >/dev/null 2>&1 || skip "no git: which files are sources is not known"
mapfile -t files < <(cd "$source" && git ls-files '*.c' '*.h' '*.cu' '*.cc')
[ ${#files[@]} -gt 100 ] || die "only ${#files[@]} sources found"
cd "$source"
printf '%s\0' "${files[@]}" | xargs -0 -P 2 -n 40 clang-format --dry-run -Werror --style=file >"$scratch/said" 2>&1 ||
    fail "$(grep -c 'error:' "$scratch/said") places; run: git ls-files '*.c' '*.h' '*.cu' '*.cc' | xargs clang-format -i --style=file
$(grep 'error:' "$scratch/said" | head -5)"
finish
