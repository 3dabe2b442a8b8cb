#!/usr/bin/env bash
# lock.sh BUILD_DIR: one output folder on several hosts, one run. A holder that lives is refused within a second; one that was
# killed is watched and taken over after the stated time, whatever its clock says; one whose host was gone for a while, or
# whose job was requeued, is taken over and, when it comes back, writes nothing more; a folder that is not the same on all
# hosts is refused. Whatever happened: the same bits in the end.
. "$(dirname "$0")/../lib.sh"
. "$source/tests/cluster/libcluster.sh"
built trimpot trimpot_mpi.so
need cc
cluster_enter "$@"
. "$source/tests/e2e/libe2e.sh"
cluster_hosts 3
for tool in clock lasting; do
    cc -O1 -shared -fPIC -o "$scratch/$tool.so" "$source/tests/cluster/preload/$tool.c" || die "$tool.c does not compile"
done
if grep -q __asan_init "$trimpot"; then skip "a preloaded library and the sanitizers do not go together"; fi

job=("${lora[@]}" dtype=fp32 epochs=30 save_every_n_steps=5 checkpointer.keep_last_n_checkpoints=2)
line() { command=("$trimpot" run "${job[0]}" "${common[@]}" --output "$2" gradient_accumulation_steps=$((8 / $1)) "${job[@]:1}" "${@:3}"); }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
steps_in() { cat "$1/metrics.jsonl" 2>/dev/null | wc -l || true; }
holder_of() { sed -E 's/.*"pid":([0-9]+).*/\1/' "$1/run.lock"; }
files() { (cd "$1" && find . '(' -name '*.tmp' -o -name '*.trash' ')' -prune -o -type f ! -name run.lock -exec md5sum {} + | sort -k 2); }
ended() { rc=0; wait "$1" || rc=$?; }

# until_true WHAT SECONDS command…
until_true()
{
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { fail "waited for nothing: $what"; return; }
        sleep 0.05
    done
}
has_steps() { [ "$(steps_in "$1")" -ge "$2" ]; }
says() { grep -qs "$2" "$1"; }

# A run that makes a few steps and two checkpoints and then lasts, however fast the machine, until it is let go.
steps=12
lasts() { touch "$scratch/$1.lasts"; lasting=(LASTING_LINES=$steps LASTING_UNTIL="$scratch/$1.lasts" LD_PRELOAD="$scratch/lasting.so"); }
let_go() { rm "$scratch/$1.lasts"; }

# hold NAME HOST [VARIABLE=VALUE …]: a bare run there that lasts; its pid is in pid[NAME].
declare -A pid next
hold()
{
    local name=$1 host=$2
    shift 2
    line 1 "$scratch/$name"
    lasts "$name"
    on "$host" env "${lasting[@]}" "$@" "${command[@]}" >"$scratch/$name.old.log" 2>&1 </dev/null &
    pid[$name]=$!
    until_true "$name on $host" 60 has_steps "$scratch/$name" $steps
}

# successor NAME HOST [VARIABLE=VALUE …]: continues it there, in the background; its pid is in next[NAME], and in
# $scratch/NAME.took when it took over.
successor()
{
    local name=$1 host=$2
    shift 2
    line 1 "$scratch/$name" resume_from_checkpoint=true
    on "$host" env "$@" "${command[@]}" >"$scratch/$name.log" 2>&1 </dev/null &
    next[$name]=$!
    { until says "$scratch/$name.log" "output_dir: taken over" || ! kill -0 "${next[$name]}"; do sleep 0.1; done; now_ms >"$scratch/$name.took"; } 2>/dev/null &
}

# refused WHAT NAME MOST_MS command…: by the lock of $scratch/NAME; said so many ms after the start, on top of what the launcher
# takes to start and end.
refused()
{
    local what=$1 out=$scratch/$2 most=$3 began ms code=0 refused_pid
    shift 3
    line 1 "$out" resume_from_checkpoint=true
    : >"$out.refused"
    began=$(now_ms)
    "$@" "$trimpot" version >/dev/null </dev/null || fail "$*: version"
    most=$((most + $(now_ms) - began))
    began=$(now_ms)
    "$@" "${command[@]}" >"$out.refused" 2>&1 </dev/null &
    refused_pid=$!
    until says "$out.refused" 'error: ' || ! kill -0 "$refused_pid" 2>/dev/null; do sleep 0.01; done
    ms=$(($(now_ms) - began))
    wait "$refused_pid" || code=$?
    equal "$what: exit code" "$code" 2
    grep -q "error: output_dir: $out/run.lock is held by pid $(holder_of "$out") on tpn1.*, since .*choose another output_dir" "$out.refused" ||
        fail "$what: $(cat "$out.refused")"
    equal "$what: errors" "$(grep -c 'error: ' "$out.refused")" 1
    [ $ms -le "$most" ] || fail "$what: said after $ms ms"
    say "$what: refused after $ms ms"
}

line 1 "$scratch/whole"
"${command[@]}" >"$scratch/whole.log" 2>&1 </dev/null || die "the undisturbed run failed: $(tail -3 "$scratch/whole.log")"

# ---- what takes long begins first -----------------------------------------------------------------------------------------------
# Killed on another host.
hold killed tpn1
refused "beside a run on another host" killed 5000 on tpn2
kill -KILL "${pid[killed]}"
ended "${pid[killed]}"
killed_ms=$(now_ms)
refused "beside one that was killed just now" killed 5000 on tpn2

# A clock that is wrong, on a file system that believes it: an hour ahead, an hour behind.
for way in ahead behind; do
    offset=3600
    [ $way = ahead ] || offset=-3600
    hold $way tpn1 LD_PRELOAD="$scratch/lasting.so $scratch/clock.so" CLOCK_OFFSET_S=$offset
    refused "its clock an hour $way, alive" $way 8000 on tpn2
    kill -0 "${pid[$way]}" || fail "its clock an hour $way: it did not survive that"
    kill -KILL "${pid[$way]}"
    ended "${pid[$way]}"
    successor $way tpn2
    declare ${way}_ms="$(now_ms)"
done

# Its host gone for a while: stopped, as a suspended machine or one whose file system hangs. The folder's clock says so
# already, to shorten the wait.
gone_for_a_while()
{
    hold "$1" tpn1
    kill -STOP "${pid[$1]}"
    touch -d '100 seconds ago' "$scratch/$1/run.lock"
    successor "$1" tpn3
}
gone_for_a_while back-late

# A folder that is not the same on all hosts.
mkdir "$scratch/apart"
on tpn2 mount -t tmpfs tmpfs "$scratch/apart"
line 2 "$scratch/apart"
hosts_mpirun 3 1 "${command[@]/accumulation_steps=4/accumulation_steps=1}" virtual_ranks=3 batch_size=1 >"$scratch/apart.log" 2>&1 </dev/null &
apart=$!

while [ $(($(now_ms) - killed_ms)) -lt 11000 ]; do sleep 0.2; done
successor killed tpn2

# ---- two hosts hold it, and a third comes -------------------------------------------------------------------------------------
line 2 "$scratch/both"
lasts both
hosts_mpirun 2 1 env "${lasting[@]}" "${command[@]}" >"$scratch/both.log" 2>&1 </dev/null &
both=$!
until_true "two hosts" 60 has_steps "$scratch/both" $steps
refused "bare, beside two hosts" both 5000 on tpn3
refused "mpirun on two hosts, beside two hosts" both 5000 hosts_mpirun 2 1
kill -0 "$both" || fail "two hosts: ended too early to show anything"
let_go both
ended "$both"
equal "two hosts: exit code" "$rc" 0
same "two hosts, refused beside them" "$scratch/whole" "$scratch/both"

# ---- a requeue ------------------------------------------------------------------------------------------------------------------
# The predecessor was killed with its node; or its node is only cut off, and comes back.
for name in requeued requeued-back; do
    hold $name tpn1 SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_CLUSTER_NAME=tp
    [ $name = requeued-back ] || refused "a second step of the same job" $name 5000 on tpn2 env SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_CLUSTER_NAME=tp
    signal=KILL
    [ $name = requeued ] || signal=STOP
    kill -$signal "${pid[$name]}"
    successor $name tpn2 SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_CLUSTER_NAME=tp SLURM_RESTART_COUNT=1
    until_true "$name: taken over" 3 says "$scratch/$name.log" "warning: output_dir: taken over: .* on tpn1 (job 77 of tp, start 1).*before it was requeued"
done
ended "${pid[requeued]}"

# came_back NAME TEXT: the old holder wakes up, says why it ends, and writes nothing.
came_back()
{
    let_go "$1"
    kill -CONT "${pid[$1]}"
    ended "${pid[$1]}"
    equal "$1: exit code of the old one" "$rc" 2
    grep -q "error: .*output_dir: $scratch/$1 is no longer this run's: $2" "$scratch/$1.old.log" || fail "$1: $(tail -3 "$scratch/$1.old.log")"
}
finished()
{
    ended "${next[$1]}"
    equal "$1: exit code" "$rc" 0
    [ ! -e "$scratch/$1/run.lock" ] || fail "$1: a lock is left"
    same "$1" "$scratch/whole" "$scratch/$1"
}

has_grown() { has_steps "$scratch/$1" $((before + 3)); }
before=$(steps_in "$scratch/requeued-back")
until_true "requeued-back: steps" 30 has_grown requeued-back
came_back requeued-back "it was taken over by pid ${next[requeued-back]} on tpn2"
finished requeued-back
finished requeued

gone_for_a_while back-soon

# ---- what was waited for ----------------------------------------------------------------------------------------------------------
until_true "back-soon: taken over" 30 says "$scratch/back-soon.log" "warning: output_dir: taken over: .* on tpn1.*it has stopped beating"
before=$(steps_in "$scratch/back-soon")
until_true "back-soon: steps" 30 has_grown back-soon
came_back back-soon "it was taken over by pid ${next[back-soon]} on tpn3"
finished back-soon
finished back-late
after=$(files "$scratch/back-late")
came_back back-late "its lock is gone after a silence"
equal "back-late: files" "$(files "$scratch/back-late")" "$after"
[ ! -e "$scratch/back-late/run.lock" ] || fail "back-late: the old one has put its lock back"

ended "$apart"
equal "apart: exit code" "$rc" 2
equal "apart: errors" "$(grep -c 'error: ' "$scratch/apart.log")" 1
grep -q "error: output_dir: $scratch/apart is not one folder for all hosts: rank 1 on tpn2 .* rank 0 on tpn1 wrote (1 of 3 ranks did not); put output_dir on" \
    "$scratch/apart.log" || fail "apart: $(cat "$scratch/apart.log")"
equal "apart: what is left" "$(ls -A "$scratch/apart"; on tpn2 ls -A "$scratch/apart")" ""

# took NAME SINCE_MS LEAST MOST: until it was taken over, in seconds.
took()
{
    until_true "$1: taken over" 80 test -s "$scratch/$1.took"
    local s=$((($(cat "$scratch/$1.took") - $2) / 1000))
    say "$1: taken over after $s s"
    [ $s -ge "$3" ] && [ $s -le "$4" ] || fail "$1: taken over after $s s, stated are $3 to $4"
}
finished behind
# shellcheck disable=SC2154
took behind "$behind_ms" 10 20
grep -q "warning: .*waiting until it beats or 10 s have passed" "$scratch/behind.log" || fail "behind: $(cat "$scratch/behind.log")"
until_true "killed: waits" 10 says "$scratch/killed.log" "warning: .*on tpn1.*waiting until it beats or [0-9]* s have passed"
took killed "$killed_ms" 58 70
# shellcheck disable=SC2154
took ahead "$ahead_ms" 59 70
finished killed
finished ahead
finish
