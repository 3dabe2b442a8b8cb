#!/bin/bash
# trimpot doctor: bare, under mpirun, in hostile environments, and where something hangs or dies. It always reports.
. "$(dirname "$0")/../lib.sh"
need python3 timeout taskset cc
built trimpot
cd "$scratch"
unset OMP_NUM_THREADS TRIMPOT_ISA
sed 's/^/unset /' <(compgen -e | grep -E '^(SLURM|PMI|PMIX|OMPI_COMM)_') >clean.sh
. ./clean.sh
cores=$(nproc)
# Other findings of the machine that runs the test (a container's small /dev/shm) must not decide it: each case asks for its own.
doctor() { timeout 60 "$trimpot" doctor "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)["ranks"][0][sys.argv[1]])' "$1"; }
# "NAME: what: fix" of each
findings() { python3 -c 'import json, sys; [print(f["name"], f["what"], f["fix"].replace("\n", " "), sep=": ") for f in json.load(sys.stdin)["findings"]]'; }
# finds NAME CODE 'text' command…: it is a finding, with the text, the report is JSON and whole, and the exit code is this.
finds() {
    local name=$1 code=$2 text=$3 rc=0 found
    shift 3
    timeout 60 "$@" --json >json.out 2>json.err </dev/null || rc=$?
    found=$(findings <json.out 2>&1) || { fail "no JSON: $*: $(tail -3 json.err)"; return; }
    [ "$rc" = "$code" ] || fail "$name: exit $rc, expected $code: $*"
    grep "^$name: " <<<"$found" | grep -qF -- "$text" || fail "no $name with '$text', but '$found': $*"
}
# never NAME command…: no such finding
never() { timeout 60 "${@:2}" --json 2>/dev/null </dev/null | findings | grep "^$1: " && fail "$1 is found: ${*:2}"; true; }

# ---- bare ----------------------------------------------------------------------------------------------------------
mkdir out
expect 0 'bare' doctor --output out
for line in '1 rank on 1 host' 'not in a job' 'open files' 'out: exists' 'hard links work' "host's cores $cores"; do
    grep -qF "$line" expect.out || fail "bare: no '$line'"
done
grep -qF 'built without CUDA' expect.out && [ -e "$build/trimpot_cuda.so" ] && fail "bare: it is built with CUDA"
mkdir bin
cp "$trimpot" bin/trimpot
expect 0 'built without CUDA' bin/trimpot doctor --output out
expect 0 'new/deep: would be made in .' doctor --output new/deep
expect 0 'slash/: exists' doctor --output "$(mkdir slash; echo slash/)"
[ -z "$(ls -A out)" ] && [ ! -e new ] || fail "files are left behind: $(ls -A out)"
doctor --json --output out >one.json
equal 'cores in the JSON' "$(field cores <one.json)" "$cores"
equal 'host in the JSON' "$(field host <one.json)" "$(hostname)"
expect 14 'standard output' bash -c '"$0" doctor >/dev/full' "$trimpot"
expect 2 'takes a whole number' doctor --timeout 0
expect 0 'usage: trimpot doctor' "$trimpot" doctor --help

# ---- limits and masks ----------------------------------------------------------------------------------------------
finds nofile 0 'ulimit -n 4096' bash -c 'ulimit -n 64; "$0" doctor "$@"' "$trimpot"
finds stack 0 'ulimit -s 8192' bash -c 'ulimit -s 512; "$0" doctor "$@"' "$trimpot"
finds address-space 0 'ulimit -v unlimited' bash -c 'ulimit -v 64000000; "$0" doctor "$@"' "$trimpot"
finds file-size 0 'ulimit -f unlimited' bash -c 'ulimit -f 100000; "$0" doctor "$@"' "$trimpot"
finds crowded-cores 0 "export OMP_NUM_THREADS=$cores" env OMP_NUM_THREADS=$((cores * 2)) "$trimpot" doctor
if [ "$cores" -gt 1 ]; then
    finds idle-cores 0 'bound to 1 core while' taskset -c "$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')" "$trimpot" doctor
fi
never idle-cores "$trimpot" doctor
finds tmp 14 'TMPDIR' env TMPDIR=/nonexistent "$trimpot" doctor
finds isa 16 "TRIMPOT_ISA is 'sse9'" env TRIMPOT_ISA=sse9 "$trimpot" doctor

# ---- the output folder ---------------------------------------------------------------------------------------------
touch file
finds folder 14 'a file stands where' "$trimpot" doctor --output file
finds folder 14 'a file stands where' "$trimpot" doctor --output file/below
mkdir closed
chmod 555 closed
# root writes everywhere; without that power it is as everybody
as_anybody=(setpriv --bounding-set=-dac_override --inh-caps=-dac_override)
[ "$(id -u)" != 0 ] || ! "${as_anybody[@]}" true 2>/dev/null || "${as_anybody[@]}" test -w closed ||
    finds folder 14 'cannot be written: Permission denied' "${as_anybody[@]}" "$trimpot" doctor --output closed
[ "$(id -u)" = 0 ] || finds folder 14 'cannot be written: Permission denied' "$trimpot" doctor --output closed
# on=(…) OPTIONS 'prepare' command…: the folder `mounted` is a tmpfs of these options
mkdir mounted
# shellcheck disable=SC2016
on=(unshare --mount sh -c 'mount -t tmpfs -o "$0" tmpfs mounted; eval "$1"; shift; exec "$@"')
if "${on[@]}" size=1m : true 2>/dev/null; then
    finds folder 14 'mounted for writing' "${on[@]}" ro : "$trimpot" doctor --output mounted
    finds folder 14 'No space left' "${on[@]}" size=64k 'cat /dev/zero >mounted/file 2>/dev/null' "$trimpot" doctor --output mounted
    finds full 0 'less than 1 GB' "${on[@]}" size=1m : "$trimpot" doctor --output mounted
fi
[ "$(stat -f -c %T /dev/shm)" != tmpfs ] || finds in-memory 0 'lies in memory (tmpfs)' "$trimpot" doctor --output /dev/shm
echo '{"trimpot_run_lock":1,"host":"node7","boot":"b","pid_space":"p","cluster":"","job":"12","began":"2026-01-31T12:00:00Z",'\
'"nonce":"0123456789abcdef0123456789abcdef","pid":4711,"started":1,"restarts":0,"beat":5}' >out/run.lock
finds lock 0 'run.lock is held by pid 4711 on node7 (job 12, start 1), since 2026-01-31T12:00:00Z; that run lives' "$trimpot" doctor --output out
touch -d '1 hour ago' out/run.lock
finds lock 0 'the next one takes over' "$trimpot" doctor --output out
echo $'\033[31mno lock' >out/run.lock
finds lock 0 'held by unreadable' "$trimpot" doctor --output out
rm out/run.lock

# ---- hostile environments: said, and everything else is said too ---------------------------------------------------
hostile() { finds launch 2 "$1" env "${@:2}" "$trimpot" doctor; }
hostile 'PMI_RANK' PMI_RANK=0 PMI_SIZE=2
copies=(SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4)
hostile 'trimpot cp slurm/srun.sbatch FILE' "${copies[@]}" SLURM_PROCID=0
hostile 'srun --mpi=pmix' "${copies[@]}" SLURM_PROCID=0
hostile 'one of the 4 copies' "${copies[@]}" SLURM_PROCID=0
expect 2 'open files' env "${copies[@]}" SLURM_PROCID=0 "$trimpot" doctor
grep -q '^fault: .*SLURM_STEP_NUM_TASKS' expect.out && grep -q '^  fix ' expect.out || fail "no fault and fix in the report"
hostile 'OMPI_COMM_WORLD_SIZE' OMPI_COMM_WORLD_SIZE=many
hostile 'unset OMPI_COMM_WORLD_SIZE' OMPI_COMM_WORLD_SIZE=4
finds allocation 0 'trimpot cp slurm/mpirun.sbatch FILE' env SLURM_JOB_ID=7 SLURM_NTASKS=8 "$trimpot" doctor
finds cpus-per-task 0 'asked for 999 per task' env SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_CPUS_PER_TASK=999 "$trimpot" doctor
finds time 0 'five minutes' env SLURM_JOB_ID=7 SLURM_JOB_END_TIME=$(($(date +%s) + 60)) "$trimpot" doctor
# A copy that is not the first says its faults only, so that N reports do not mix.
expect 2 'rank 2 on' env "${copies[@]}" SLURM_PROCID=2 "$trimpot" doctor
grep -q 'open files' expect.out && fail "the third of four copies prints a report"
# A message from outside is no message to the terminal.
env SLURM_JOB_ID=$'7\033[31m' "$trimpot" doctor >tame.out
grep -q $'\033' tame.out && fail "control characters of the environment reach the terminal"
mkdir alone
cp "$trimpot" alone/
finds mpi 0 'runs one process only' alone/trimpot doctor
cd /
finds launch 18 'trimpot_mpi.so' env OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0 PMIX_RANK=0 PMIX_NAMESPACE=1 "$scratch/alone/trimpot" doctor --dist mpi
cd "$scratch"

# ---- mpirun --------------------------------------------------------------------------------------------------------
mpi=
[ ! -e "$build/trimpot_mpi.so" ] || ! command -v mpirun >/dev/null || mpi=yes
if [ "$mpi" ]; then
    for n in 1 2 4; do
        expect 0 "$n rank" mpirun -n "$n" "$trimpot" doctor --output out
        grep -q 'mpirun (OMPI_COMM_WORLD_SIZE='"$n" expect.out || fail "mpirun -n $n: no launcher"
    done
    grep -qE '^0-3 +'"$(hostname)"' +0-3 ' expect.out || fail "four equal ranks are not one line"
    grep -q 'the same folder on all ranks' expect.out || fail "one folder is not the same"
    [ -z "$(ls -A out)" ] || fail "files are left behind: $(ls -A out)"
    mpirun -n 3 "$trimpot" doctor --json >three.json 2>/dev/null
    equal 'ranks in the JSON' "$(python3 -c 'import json; print([r["local_rank"] for r in json.load(open("three.json"))["ranks"]])')" '[0, 1, 2]'
    mkdir other
    cp "$trimpot" "$build/trimpot_mpi.so" other/
    printf x >>other/trimpot
    finds binary 13 'than rank 0' mpirun -n 2 bash -c '[ "$OMPI_COMM_WORLD_RANK" = 0 ] || exec other/trimpot doctor "$@"; exec "$0" doctor "$@"' "$trimpot"
    # Not the same folder: ranks that stand in different ones, as hosts with disks of their own.
    finds not-shared 2 'is not the folder that rank 0 sees' mpirun -n 2 bash -c 'mkdir -p "d$OMPI_COMM_WORLD_RANK/out" && cd "d$OMPI_COMM_WORLD_RANK" &&
        exec "$0" doctor --output out --timeout 12 "$@"' "$trimpot"
    [ -z "$(find d0 d1 -type f)" ] || fail "files are left behind"
fi

# ---- what hangs, dies, or is late ----------------------------------------------------------------------------------
cc -shared -fPIC -o ill.so "$source/tests/launcher/preload/ill.c" -ldl || die "ill.c"
ill=(env LD_PRELOAD="$scratch/ill.so")
# A shell's seconds are whole: one more than the deadline and what is waited for after it.
in_time() { [ "$SECONDS" -le "$1" ] || fail "$2 took $SECONDS s"; }
mkdir dead
SECONDS=0
finds folder-silent 14 'does not answer' "${ill[@]}" ILL=folder "$trimpot" doctor --timeout 8 --output dead
in_time 6 'a dead file system'
if [ "$mpi" ]; then
    for what in init-hang:21:'no end within 3 s' init-exit:3:'ended with exit code 3' init-crash:1:'signal 11'; do
        IFS=: read -r kind code text <<<"$what"
        SECONDS=0
        expect "$code" "$text" "${ill[@]}" ILL="$kind" "$trimpot" doctor --dist mpi --timeout 3
        grep -q 'while waiting for MPI_Init' expect.out && grep -q 'open files' expect.out || fail "$kind: half a report"
        in_time 5 "$kind"
    done
    SECONDS=0
    expect 21 'is stopped on this host' mpirun -n 3 -x LD_PRELOAD="$scratch/ill.so" -x ILL=init-stop -x ILL_RANK=1 "$trimpot" doctor --timeout 5
    grep -q 'open files' expect.out || fail "a stopped rank: no report"
    in_time 13 'a stopped rank'
    SECONDS=0
    expect 21 'MPI_Finalize' mpirun -n 2 -x LD_PRELOAD="$scratch/ill.so" -x ILL=end-hang -x ILL_RANK=1 "$trimpot" doctor --timeout 7
    grep -q 'open files' expect.out || fail "a hanging end: no report"
    in_time 15 'a hanging end'
    finds clock 0 '100 s ahead of that of rank 0' mpirun -n 3 -x LD_PRELOAD="$scratch/ill.so" -x ILL=late -x ILL_RANK=2 "$trimpot" doctor
fi
finish
