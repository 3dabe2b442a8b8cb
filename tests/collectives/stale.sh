#!/bin/bash
# The environment of a launch that has ended, as a tmux or a job script keeps it; and launches that MPI_Init does not survive.
# One clear error each, soon; a live launch is never refused.
. "$(dirname "$0")/../lib.sh"
need mpirun timeout python3
built trimpot trimpot_mpi.so

# in_env FILE command…: in the environment that FILE holds, and no other.
in_env() { (readarray -d '' -t words <"$1" && shift && exec env -i "${words[@]}" "$@"); }
# one_error CODE 'text' command…: exit code, text, one line of ours, none of MPI's, within 2 s.
one_error()
{
    local begun=${EPOCHREALTIME/./}
    expect "$@"
    local ms=$(((${EPOCHREALTIME/./} - begun) / 1000))
    [ "$ms" -lt 2000 ] || fail "took $ms ms: ${*:3}"
    equal "lines of: ${*:3}" "$(wc -l <"$scratch/expect.out")" 1
}

# shellcheck disable=SC2016
mpirun -n 2 sh -c 'env -0 >"$0.$OMPI_COMM_WORLD_RANK"' "$scratch/env" </dev/null
mpirun -n 1 sh -c 'env -0 >"$0.alone"' "$scratch/env" </dev/null
for rank in 0 1; do
    one_error 2 'has ended and left its variables in this shell' in_env "$scratch/env.$rank" "$trimpot" version
    one_error 2 'PMIX_SERVER_URI41=' in_env "$scratch/env.$rank" "$trimpot" version --dist mpi
    expect 0 trimpot in_env "$scratch/env.$rank" "$trimpot" version --dist self
    # What the message says to type helps.
    # shellcheck disable=SC2016
    expect 0 trimpot in_env "$scratch/env.$rank" bash -c 'unset ${!OMPI_*} ${!PMIX_*} && exec "$0" version' "$trimpot"
done
expect 0 trimpot in_env "$scratch/env.alone" "$trimpot" version
one_error 2 'OMPI_COMM_WORLD_SIZE is not set' in_env "$scratch/env.1" env -u OMPI_COMM_WORLD_SIZE "$trimpot" version
one_error 2 'PMIX_NAMESPACE is not set' in_env "$scratch/env.1" env -u PMIX_NAMESPACE "$trimpot" version
one_error 2 'nothing listens there' in_env "$scratch/env.1" env -u OMPI_COMM_WORLD_SIZE -u OMPI_COMM_WORLD_RANK "$trimpot" version
one_error 2 'PMI_SIZE' in_env "$scratch/env.alone" env PMI_RANK=0 PMI_SIZE=3 "$trimpot" version

# Where something else has the port by now, MPI_Init is what fails: its pages, then one line.
port=$(in_env "$scratch/env.1" env | sed -n 's/^PMIX_SERVER_URI41=.*://p')
python3 -c "
import socket, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', $port))
s.listen()
print('up', flush=True)
while True: s.accept()[0].close()" >"$scratch/listener" &
listener=$!
until [ -s "$scratch/listener" ] || ! kill -0 $listener 2>/dev/null; do sleep 0.02; done
expect 1 'error: MPI_Init (started by mpirun as rank 1 on' in_env "$scratch/env.1" timeout 60 "$trimpot" version
kill $listener

# A rank that never comes, and a second MPI program of one rank.
expect 21 'has not ended within 1 s' env TRIMPOT_INIT_TIMEOUT=1 timeout 60 mpirun -n 1 "$trimpot" version : -n 1 sleep 30
equal 'lines of the wait' "$(grep -c '^error:' "$scratch/expect.out")" 1
expect 2 "TRIMPOT_INIT_TIMEOUT is '1m'" env TRIMPOT_INIT_TIMEOUT=1m timeout 60 mpirun -n 2 "$trimpot" version
expect 1 'second MPI program in the shell of one rank' timeout 60 mpirun -n 2 sh -c '"$0" version; "$0" version' "$trimpot"

# Live launches, in all the shells there are.
live() { expect 0 trimpot timeout 60 "$@"; equal "times printed: $*" "$(grep -c '^trimpot' "$scratch/expect.out")" "${times:-1}"; }
live mpirun -n 3 "$trimpot" version
live mpirun -n 2 sh -c 'sh -c "exec $0 version"' "$trimpot"
live mpirun -n 2 setsid "$trimpot" version
live env WORLD_SIZE=8 RANK=3 PMI_RANK=1 PMI_SIZE=2 SLURM_PROCID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 mpirun -n 2 "$trimpot" version
live env OMPI_COMM_WORLD_SIZE=7 PMIX_RANK=5 PMIX_SERVER_URI41='1.0;tcp4://127.0.0.1:9' mpirun -n 2 "$trimpot" version
times=2 live mpirun -n 1 sh -c '"$0" version; "$0" version' "$trimpot"
live env TRIMPOT_INIT_TIMEOUT=0 mpirun -n 2 "$trimpot" version
finish
