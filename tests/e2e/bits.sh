#!/usr/bin/env bash
# bits.sh BUILD_DIR: the same bits on 1, 2, 4 and 8 ranks, with 1 and 2 threads, and across a resume at other ranks.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun
. "$source/tests/e2e/libe2e.sh"

steps=(epochs=2 max_steps_per_epoch=10)
for kind in full lora; do
    declare -n how=$kind
    for dtype in fp32 bf16; do
        say "$kind $dtype"
        for n in 1 2 4 8; do
            train $n "$scratch/$n" "${how[@]}" dtype=$dtype "${steps[@]}" || { fail "$kind $dtype on $n ranks"; tail -3 "$scratch/$n.log"; }
            [ $n = 1 ] || same "$kind $dtype, $n ranks" "$scratch/1" "$scratch/$n"
        done
        equal "steps" "$(wc -l <"$scratch/1/metrics.jsonl")" 20
        OMP_NUM_THREADS=2 train 1 "$scratch/threads" "${how[@]}" dtype=$dtype "${steps[@]}" || fail "$kind $dtype with 2 threads"
        same "$kind $dtype, 2 threads" "$scratch/1" "$scratch/threads"

        # Saved at step 10 by 4 ranks, continued by 1 and by 2.
        train 4 "$scratch/half" "${how[@]}" dtype=$dtype epochs=2 max_steps_per_epoch=10 save_every_n_steps=10 || fail "$kind $dtype save"
        rm -rf "$scratch/half/checkpoints/step-0000020" "$scratch/half/export"
        for n in 1 2; do
            cp -r "$scratch/half" "$scratch/again"
            train $n "$scratch/again" "${how[@]}" dtype=$dtype epochs=2 max_steps_per_epoch=10 save_every_n_steps=10 \
                resume_from_checkpoint=true || { fail "$kind $dtype resume on $n"; tail -3 "$scratch/again.log"; }
            same "$kind $dtype, saved at 4 ranks, resumed at $n" "$scratch/1" "$scratch/again"
            rm -rf "$scratch/again"
        done
        rm -rf "$scratch"/{1,2,4,8,threads,half}
    done
done
finish
