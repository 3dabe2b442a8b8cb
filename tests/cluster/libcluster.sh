# libcluster.sh — sourced after lib.sh: several hosts and a Slurm of their own, on one machine, for one test.
#
#   cluster_enter "$@"                 first: runs the script again, as root of namespaces that end with it (or skips)
#   cluster_hosts N                    hosts tpn1 … tpnN, 10.77.0.11 …
#   on HOST command…                   there; a program, so that `on tpn2 … &` leaves the command's own pid in $!
#   hosts_mpirun N PER_HOST command…   mpirun on tpn1 over the first N hosts; a program too
#   "${hosts_mpirun_line[@]}" …        the same mpirun without its --host
#   host_cut HOST, host_heal HOST      its cable pulled, plugged in again
#   slurm_up [KEY=VALUE …]             Slurm on all hosts; lines of slurm.conf that replace or join those below; slurm_down
#   job_state JOB, job_code JOB        RUNNING, COMPLETED …; its exit code
#   job_wait JOB 'STATES' SECONDS      until it is in one of them; false at once if it ended in another
#
# The script itself stands on the login node tpctl (10.77.0.1), where slurmctld runs too. $scratch is on all hosts, as are
# all files but /dev/shm, and pids mean the same everywhere; a host has its network, its name, its boot id and its /dev/shm.
cluster_cpus=${cluster_cpus:-2}  # of each host, as Slurm sees it; set it before slurm_up

cluster_enter()
{
    local program child rc=0 why tools=(ip nsenter unshare setpriv mpirun munged munge slurmctld slurmd srun sbatch scontrol)
    if [ "${TRIMPOT_CLUSTER:-}" = inside ]; then
        unset TRIMPOT_CLUSTER
        cluster_login
        return
    fi
    PATH=$PATH:/usr/sbin:/sbin
    need "${tools[@]}"
    local apart=(unshare --net --uts --mount --pid --fork --kill-child --mount-proc)
    # shellcheck disable=SC2016
    local probe='mount -t tmpfs tmpfs "$1" && ip link add tpbr0 type bridge && ip link add tpv0 type veth peer name tpv1 &&
        unshare --net --uts --mount mount -t tmpfs tmpfs "$1"'
    why=$("${apart[@]}" sh -c "$probe" sh "$scratch" 2>&1) ||
        skip "no namespaces here (they need root; in a container CAP_SYS_ADMIN and CAP_NET_ADMIN): ${why##*$'\n'}"

    # When this shell dies, however it dies, so does unshare, and with unshare pid 1 of the namespace and all that is in it.
    program=$(readlink -f "$0")
    # shellcheck disable=SC2016
    TRIMPOT_CLUSTER=inside TMPDIR=$scratch setpriv --pdeathsig KILL "${apart[@]}" \
        sh -c 'mount -t tmpfs tmpfs "$TMPDIR" && exec "$0" "$@"' "$program" "$@" &
    child=$!
    trap 'kill -KILL $child; exit 143' TERM INT HUP
    wait "$child" || rc=$?
    exit "$rc"
}

# The login node: a bridge with an address, and programs that go to a host.
cluster_login()
{
    cluster=$TMPDIR/cluster
    mkdir -p "$cluster/bin"
    hostname tpctl
    ip link set lo up
    ip link add tpbr0 type bridge
    ip addr add 10.77.0.1/24 dev tpbr0
    ip link set tpbr0 up
    cat >"$cluster/bin/on" <<END
#!/bin/sh
pid=\$(cat "$cluster/\$1.pid") || exit
shift
exec nsenter --target="\$pid" --net --uts --mount --wdns="\$PWD" -- "\$@"
END
    cat >"$cluster/bin/hosts_mpirun" <<'END'
#!/bin/sh
list=tpn1:$2
for i in $(seq 2 "$1"); do list=$list,tpn$i:$2; done
shift 2
exec on tpn1 mpirun --host "$list" "$@"
END
    # mpirun's ssh: [options] HOST 'command line'.
    cat >"$cluster/bin/rsh" <<'END'
#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do shift; done
host=$1
shift
exec on "$host" sh -c "$*"
END
    chmod +x "$cluster"/bin/*
    PATH=$cluster/bin:$PATH
    export OMPI_MCA_plm_rsh_agent=$cluster/bin/rsh
    hosts_mpirun_line=(on tpn1 mpirun)
}

cluster_hosts()
{
    local host i
    hosts=()
    for i in $(seq "$1"); do
        host=tpn$i
        hosts+=("$host")
        cat /proc/sys/kernel/random/uuid >"$cluster/$host.boot_id"
        # What holds a host is a process that sleeps in it. (Files bound to its namespaces would do, but Linux 6.18 now and
        # then refuses to bind a mount namespace.)
        unshare --net --uts --mount sh -ec "
            hostname $host
            mount -t tmpfs -o mode=1777 tmpfs /dev/shm
            mount --bind $cluster/$host.boot_id /proc/sys/kernel/random/boot_id
            sleep infinity </dev/null >/dev/null 2>&1 & echo \$!" >"$cluster/$host.pid"
        ip link add "tpv$i" type veth peer name eth0 netns "$(cat "$cluster/$host.pid")"
        ip link set "tpv$i" master tpbr0 up
        on "$host" sh -ec "ip link set lo up; ip addr add 10.77.0.1$i/24 dev eth0; ip link set eth0 up"
    done
}

host_cut() { ip link set "tpv${1#tpn}" down; }
host_heal() { ip link set "tpv${1#tpn}" up; }

# slurm_conf [KEY=VALUE …]: a line given replaces the one with the same key (for partitions: the same name).
slurm_conf()
{
    local line key
    while read -r line; do
        case $line in PartitionName=*) key=${line%% *} ;; *) key=${line%%=*}= ;; esac
        printf '%s\n' "$@" | grep -q "^$key" || printf '%s\n' "$line"
    done <<END
ClusterName=tp
SlurmctldHost=tpctl(10.77.0.1)
SlurmctldPort=6817
SlurmdPort=6818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.sock,cred_expire=10
CredType=cred/munge
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.%n.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.%n.log
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool.%n
TmpFS=$cluster/tmp.%n
ReturnToService=2
KillWait=5
SlurmdTimeout=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 MaxTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=60 State=UP
END
    [ $# = 0 ] || printf '%s\n' "$@"
    for line in "${hosts[@]}"; do
        printf 'NodeName=%s NodeAddr=10.77.0.1%s CPUs=%s State=UNKNOWN\n' "$line" "${line#tpn}" "$cluster_cpus"
    done
}

slurm_up()
{
    local host
    mkdir -p "$cluster/state"
    # proctrack/linuxproc needs no cgroups; left to itself slurmd looks for what this machine has, and dies where it is unusual.
    echo CgroupPlugin=cgroup/v1 >"$cluster/cgroup.conf"
    # Slurm's other fence is a tree that does not wait in steps of fewer nodes than TreeWidth: the barrier at the end of
    # MPI_Init then holds nobody back, and once in fifty starts a message finds a rank still within MPI_Init, which dies of it.
    echo PMIxCollFence=ring >"$cluster/mpi.conf"
    export SLURM_CONF=$cluster/slurm.conf
    slurm_conf "$@" >"$SLURM_CONF"
    head -c 1024 /dev/urandom >"$cluster/munge.key"
    chmod 400 "$cluster/munge.key"
    munged --force --key-file="$cluster/munge.key" --socket="$cluster/munge.sock" --pid-file="$cluster/munged.pid" \
        --log-file="$cluster/munged.log" --seed-file="$cluster/munged.seed" </dev/null >"$cluster/munged.out" 2>&1 ||
        die "munged: $(tail -1 "$cluster/munged.out")"
    # Not jobs of this shell: a test may `wait` for its own.
    slurm_pids=("$(slurmctld -c -D </dev/null >"$cluster/slurmctld.out" 2>&1 & echo $!)")
    for host in "${hosts[@]}"; do
        mkdir -p "$cluster/tmp.$host" "$cluster/spool.$host"
        slurm_pids+=("$(on "$host" slurmd -D -N "$host" </dev/null >"$cluster/slurmd.$host.out" 2>&1 & echo $!)")
    done
    for _ in $(seq 600); do
        [ "$(sinfo -h -N -p low -o %T 2>/dev/null | grep -cx idle)" = ${#hosts[@]} ] && return
        sleep 0.05
    done
    tail -n 3 "$cluster"/slurm*.{log,out} || true
    die "Slurm is not up after 30 s"
}

slurm_down()
{
    slurm_pids+=("$(cat "$cluster/munged.pid")")
    kill "${slurm_pids[@]}"
    for _ in $(seq 100); do
        kill -0 "${slurm_pids[@]}" 2>/dev/null || break
        sleep 0.05
    done
    unset SLURM_CONF
}

job_field() { scontrol -o show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }
job_state() { job_field "$1" JobState; }
job_code() { job_field "$1" ExitCode | cut -d: -f1; }

job_wait()
{
    local state deadline=$((SECONDS + $3))
    while state=$(job_state "$1"); do
        [[ " $2 " == *" $state "* ]] && return
        case $state in
        PENDING | CONFIGURING | RUNNING | COMPLETING | SUSPENDED | REQUEUED | PREEMPTED) ;;
        *) break ;;
        esac
        [ "$SECONDS" -lt "$deadline" ] || break
        sleep 0.1
    done
    say "job $1 is $state, not $2"
    return 1
}
