#!/bin/bash
# trimpot doctor on four hosts, by every way to start: one table, and the right one. Its reports are printed.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/cluster/libcluster.sh"
built trimpot trimpot_mpi.so
need cc timeout
cluster_enter "$@"
cluster_hosts 4
slurm_up
cd "$scratch"
mkdir out

# report NAME CODES command…: the report is printed, and kept in NAME.out; CODES: "2", "21|143"
report()
{
    local name=$1 codes=$2 rc=0
    shift 2
    timeout 60 "$@" >"$name.out" 2>"$name.err" </dev/null || rc=$?
    [[ $rc =~ ^($codes)$ ]] || fail "$name: exit $rc, expected $codes: $(tail -3 "$name.err")"
    say "---- $name"
    cat "$name.out"
}
has() { grep -qE -- "$2" "$1.out" || fail "$1: no line like '$2'"; }
hasnt() { if grep -qE -- "$2" "$1.out"; then fail "$1: a line like '$2'"; fi; }

# The table has these ranks of each host, in order, with these local ranks.
table()
{
    local name=$1 want
    want=$(printf '%s\n' "${@:2}")
    equal "$name: the table" "$(sed -n '/^rank  host/,/^$/p' "$name.out" | awk 'NR > 1 && NF {print $1, $2, $3}')" "$want"
}
four=('0 tpn1 0' '1 tpn2 0' '2 tpn3 0' '3 tpn4 0')
doctor=("$trimpot" doctor --output "$scratch/out")

report bare 0 on tpn1 "${doctor[@]}"
has bare '^launcher +bare$'
has bare '1 rank on 1 host \(tpn1\)'

report mpirun 0 hosts_mpirun 4 2 "${doctor[@]}"
has mpirun ': 8 ranks on 4 hosts$'
has mpirun '^launcher +mpirun \(OMPI_COMM_WORLD_SIZE=8\)$'
has mpirun 'the same folder on all ranks'
table mpirun '0-1 tpn1 0-1' '2-3 tpn2 0-1' '4-5 tpn3 0-1' '6-7 tpn4 0-1'

report srun 0 srun --mpi=pmix -N4 -n4 "${doctor[@]}"
has srun '^launcher +srun --mpi=pmix \(SLURM_STEP_NUM_TASKS=4\)$'
has srun '^MPI .*PMIx namespace slurm\.pmix\.'
has srun '^Slurm +job [0-9]+, step 0, partition low, 4 tasks'
table srun "${four[@]}"

# Not all hosts alike: one has another limit.
report unlike 0 srun --mpi=pmix -N4 -n4 bash -c '[ "$(hostname)" != tpn3 ] || ulimit -n 200; exec "$@"' bash "${doctor[@]}"
has unlike '^rank .*open files'
has unlike '^2 +tpn3 .* 200'
has unlike '^warning: rank 2 on tpn3: at most 200 open files'

# An output folder that is each host's own.
report apart 2 hosts_mpirun 4 1 "$trimpot" doctor --output /dev/shm/run --timeout 12
has apart '^fault: ranks 1-3 on tpn2, tpn3, tpn4: --output /dev/shm/run is not the folder that rank 0 sees on tpn1'

report copies 2 srun --mpi=none -N4 -n4 "${doctor[@]}"
equal 'copies: reports' "$(grep -c '^trimpot .*: 1 rank on 1 host' copies.out)" 1
has copies '^fault: .*SLURM_STEP_NUM_TASKS'
has copies '^  fix line [0-9]+ of slurm/srun.sbatch .*: srun --mpi=pmix .*trimpot run'
equal 'copies: all speak' "$(grep -o 'rank [1-3] on tpn[2-4]: ' copies.err | sort -u | wc -l)" 3

# In a batch job: alone, by mpirun, by srun.
cat >job.sh <<END
#!/bin/bash
#SBATCH -N4 --ntasks-per-node=2 -o job.out
cd "$scratch"
$(declare -p doctor)
"\${doctor[@]}" >alone.out; echo \$? >alone.rc
mpirun "\${doctor[@]}" >batch-mpirun.out; echo \$? >batch-mpirun.rc
srun --mpi=pmix "\${doctor[@]}" >batch-srun.out; echo \$? >batch-srun.rc
END
job=$(sbatch --parsable job.sh)
job_wait "$job" COMPLETED 60 || { cat job.out; fail "the batch job"; }
for name in alone batch-mpirun batch-srun; do
    say "---- $name"
    cat "$name.out"
    equal "$name: exit code" "$(cat "$name.rc")" 0
    has "$name" "^Slurm +job $job, .*partition low"
done
eight=('0-1 tpn1 0-1' '2-3 tpn2 0-1' '4-5 tpn3 0-1' '6-7 tpn4 0-1')
has alone '^warning: .*SLURM_NTASKS'
has alone '^  fix line [0-9]+ of slurm/srun.sbatch'
has alone '^      or line [0-9]+ of slurm/mpirun.sbatch .*: mpirun .*trimpot run'
table batch-mpirun "${eight[@]}"
table batch-srun "${eight[@]}"
hasnt batch-srun '^fault'

# A stopped rank, which no launcher notices: said by the rank that waits for it, within the deadline; -K1 ends the rest, by
# TERM or KILL, and srun's code is the largest.
cc -shared -fPIC -o ill.so "$source/tests/launcher/preload/ill.c" -ldl || die "ill.c"
SECONDS=0
report stopped '21|137|143' srun --mpi=pmix -K1 -N4 -n4 env LD_PRELOAD="$scratch/ill.so" ILL=init-stop ILL_RANK=2 "${doctor[@]}" --timeout 5
has stopped '^fault: no end within 5 s .* while waiting for MPI_Init; process [0-9]+ of the same program is stopped'
[ "$SECONDS" -le 18 ] || fail "a stopped rank took $SECONDS s"
finish
