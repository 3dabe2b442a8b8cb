#!/bin/bash
# The fixed top level, and a README.md in every folder of it and in every part of worker/.
. "$(dirname "$0")/../lib.sh"

# What belongs to the project: by git where there is one, else all but build folders.
entries() {
    if git -C "$source" rev-parse >/dev/null 2>&1; then
        git -C "$source" ls-files -co --exclude-standard
    else
        (cd "$source" && find . -type f -not -path './build*' | sed 's|^\./||')
    fi
}

allowed=' launcher worker collectives kernels configs checkpoints tests CMakeLists.txt README.md CMakePresets.json CONTRIBUTING.md CHANGELOG.md '
for entry in $(entries | cut -d/ -f1 | sort -u); do
    case $entry in .*) continue ;; esac
    case $allowed in *" $entry "*) ;; *) fail "$entry does not belong to the top level" ;; esac
done
for folder in launcher worker collectives kernels configs checkpoints tests "$source"/worker/*/; do
    folder=${folder#"$source"/}
    folder=${folder%/}
    [ -s "$source/$folder/README.md" ] || fail "$folder/README.md is missing: what it owns, what it never does"
done
[ -s "$source/README.md" ] || fail "README.md is missing"
finish
