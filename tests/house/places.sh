#!/bin/bash
# Nothing that is committed names a path or a host of the machine it was written on.
. "$(dirname "$0")/../lib.sh"
git -C "$source" rev-parse >/dev/null 2>&1 || skip "no git here"

# Written so that this file does not match itself.
patterns=('/wo[r]k/(main|shared|brief)' '/op[t]/peer' '/ro[o]t/' '/hom[e]/[a-z]' 'index-ur[l]')
host=$(hostname)
[ ${#host} -lt 8 ] || patterns+=("$(printf '%s' "$host" | sed 's/[.[\*^$]/\\&/g')")
for pattern in "${patterns[@]}"; do
    found=$(git -C "$source" grep -nIE -e "$pattern" -- . || true)
    [ -z "$found" ] || fail "names this machine ($pattern):"$'\n'"$found"
done
finish
