#!/bin/bash
# Who may include whom: the arrows of the design; none points up or sideways, and nobody includes tests.
. "$(dirname "$0")/../lib.sh"

# FOLDER: the folders and files it may include beside itself. The longest matching FOLDER rules.
cat >"$scratch/arrows" <<'END'
launcher        worker checkpoints collectives configs kernels
worker          checkpoints collectives configs kernels
worker/data     configs kernels/base
worker/data/tokenizer configs/families.h kernels/base
worker/data/template kernels/base
worker/data/rows configs kernels/base
checkpoints     collectives/comm.h collectives/own.h kernels
collectives     kernels
configs         kernels/base
kernels
kernels/base
tests           launcher worker checkpoints collectives configs kernels
END

# violations ROOT: one line per forbidden or dangling include.
violations() {
    (cd "$1" && find launcher worker checkpoints collectives configs kernels tests -type f \
        \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' \) -print0 2>/dev/null |
        xargs -0r grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' /dev/null) |
        awk -v root="$1" '
            function under(path, folder) { return path == folder || index(path, folder "/") == 1 }
            FNR == NR { rules[++n] = $1; for (i = 2; i <= NF; i++) may[$1, i - 1] = $i; count[$1] = NF - 1; next }
            {
                split($0, part, ":"); file = part[1]; place = file ":" part[2]
                header = $0; sub(/^[^"]*"/, "", header); sub(/".*/, "", header)
                folder = ""
                for (i = 1; i <= n; i++)
                    if (under(file, rules[i]) && length(rules[i]) > length(folder)) folder = rules[i]
                good = under(header, folder)
                for (i = 1; i <= count[folder]; i++) good = good || under(header, may[folder, i])
                if (!good) print place ": " folder " may not include " header
                if ((getline line < (root "/" header)) < 0) print place ": " header " does not exist under the root"
                close(root "/" header)
            }' "$scratch/arrows" -
}

found=$(violations "$source")
[ -z "$found" ] || fail "includes against the arrows:"$'\n'"$found"

# Threads that compute are the team's: OpenMP's would spin beside them, on a machine that is shared (kernels/base/team.h).
omp=$(cd "$source" && grep -rnE '# *pragma omp (parallel|for|task|sections)' launcher worker collectives kernels configs checkpoints || true)
[ -z "$omp" ] || fail "OpenMP threads (they do not even run: the build has -fopenmp-simd only):"$'\n'"$omp"

# The check itself must see what it is there for.
mkdir -p "$scratch/tree/"{configs,kernels/base,worker/data,tests,checkpoints,collectives}
touch "$scratch/tree/"{configs/a.h,worker/a.h,kernels/a.h,tests/a.h,kernels/base/a.h,collectives/comm.h,collectives/tree.h}
printf '#include "kernels/base/a.h"\n#include "worker/a.h"\n' >"$scratch/tree/configs/up.c"
printf '#include "kernels/a.h"\n' >"$scratch/tree/kernels/base/up.c"
printf '# include "tests/a.h"\n' >"$scratch/tree/worker/tests.c"
printf '#include "a.h"\n' >"$scratch/tree/worker/unrooted.c"
printf '#include "collectives/comm.h"\n#include "collectives/tree.h"\n' >"$scratch/tree/checkpoints/side.c"
equal 'violations planted and found' "$(violations "$scratch/tree" | cut -d: -f1 | sort | tr '\n' ' ')" \
    'checkpoints/side.c configs/up.c kernels/base/up.c worker/tests.c worker/unrooted.c worker/unrooted.c '
finish
