#!/bin/bash
# The verbs that need no model: from any directory, with the right words and exit codes; help within 50 ms.
. "$(dirname "$0")/../lib.sh"
built trimpot
cd "$scratch"

"$trimpot" ls >ls.txt
[ "$(wc -l <ls.txt)" -ge 20 ] || fail "ls lists $(wc -l <ls.txt) recipes"
for name in llama2/7B llama3/8B llama3_1/8B llama3_2/1B llama3_2/3B qwen2/0.5B qwen2/1.5B qwen2/7B qwen2_5/0.5B qwen2_5/7B; do
    for kind in full lora_single_device lora qlora; do
        grep -q "^${name}_$kind " ls.txt || fail "ls has no ${name}_$kind"
    done
done
equal 'ls by prefix' "$("$trimpot" ls llama3_2/ | grep -cv '^llama3_2/')" 0

while read -r name _; do
    "$trimpot" cat "$name" >one.yaml || fail "cat $name"
    "$trimpot" validate "$name" --model "$scratch/model" --data rows.jsonl >/dev/null || fail "validate $name"
    "$trimpot" validate one.yaml --model "$scratch/model" --data rows.jsonl >/dev/null || fail "validate a copy of $name"
done < <(grep -v '^slurm/' ls.txt)

# The batch scripts: beside the recipes, copied under their own names, no configurations; bash and shellcheck read them.
for name in slurm/mpirun.sbatch slurm/srun.sbatch; do
    grep -q "^$name .*EDIT" ls.txt || fail "ls has no $name, or not what it is"
    "$trimpot" cat "$name" >one.sbatch || fail "cat $name"
    cmp one.sbatch "$source/configs/$name" || fail "cat $name prints something else"
    equal "$name: lines to edit" "$(grep -c '# EDIT [123]$' one.sbatch)" 3
    bash -n one.sbatch || fail "$name: bash cannot read it"
    ! command -v shellcheck >/dev/null || shellcheck --severity=warning one.sbatch || fail "$name: shellcheck"
    expect 2 "a batch script, no configuration; \`trimpot cp $name FILE\`, edit it, then: sbatch FILE" \
        "$trimpot" run lora_finetune --config "$name"
    mkdir -p "scripts dir"
    expect 0 "edit it, then: sbatch 'scripts dir/${name#slurm/}'" "$trimpot" cp "$name" "scripts dir/"
    cmp one.sbatch "scripts dir/${name#slurm/}" || fail "cp $name"
done
equal 'what the scripts do after the run' "$(sed -n '/^# ---- back/,$p' "scripts dir/srun.sbatch")" \
    "$(sed -n '/^# ---- back/,$p' "scripts dir/mpirun.sbatch")"
expect 2 "did you mean slurm/srun.sbatch?" "$trimpot" cp slurm/srun.sbatsh mine.sbatch

"$trimpot" -q cp llama3_2/1B_lora mine.yaml 2>/dev/null || "$trimpot" cp llama3_2/1B_lora mine.yaml 2>/dev/null
"$trimpot" cat llama3_2/1B_lora | cmp - mine.yaml || fail "cp and cat differ"
mkdir folder
"$trimpot" cp qwen2/0.5B_lora folder 2>/dev/null
[ -s folder/0.5B_lora.yaml ] || fail "cp into a folder"
expect 2 "exists; choose another name, or --force" "$trimpot" cp qwen2/0.5B_lora mine.yaml
expect 0 "copied to mine.yaml" "$trimpot" cp --force qwen2/0.5B_lora mine.yaml
expect 2 "did you mean llama3_2/1B_lora?" "$trimpot" cat llama3_2/1B_lore
expect 2 "no recipe's name begins so" "$trimpot" ls nobody
expect 2 "argument 3 ('batchsize=3'): unknown key batchsize; did you mean batch_size?" "$trimpot" validate mine.yaml batchsize=3
expect 2 "did you mean validate?" "$trimpot" valdate mine.yaml
expect 2 "no such file" "$trimpot" validate none.yaml
expect 14 "cannot" "$trimpot" cp llama3_2/1B_lora /nonexistent/x.yaml
expect 0 "trimpot " "$trimpot" version
expect 0 '"comm":"self"' "$trimpot" version --json
expect 14 "standard output" bash -c '"$0" ls >/dev/full' "$trimpot"

# Wrong launches say so before anything else happens.
expect 2 "PMI_RANK='0'" env PMI_RANK=0 "$trimpot" version
expect 0 "trimpot " env PMI_RANK=0 "$trimpot" version --dist self
expect 2 "2 independent copies" env SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 "$trimpot" run lora_finetune
expect 0 "inside an allocation of 4 tasks" env SLURM_JOB_ID=1 SLURM_NTASKS=4 "$trimpot" version
expect 2 "OMPI_COMM_WORLD_SIZE='x'" env OMPI_COMM_WORLD_SIZE=x "$trimpot" version
expect 2 "neither self nor mpi" "$trimpot" version --dist both

# A binary that was moved still finds the recipes beside it.
mkdir -p moved/bin
cp "$trimpot" moved/bin/
equal 'ls of a moved binary' "$(moved/bin/trimpot ls | wc -l)" "$(wc -l <ls.txt)"

# run --json: the objects of metrics.jsonl, and nothing else, on stdout
gold=$source/tests/truth/golden/llama3
"$trimpot" run lora_finetune --model "$gold/model" --data "$gold/rows.jsonl" --output told device=cpu seed=1 max_steps_per_epoch=2 --json \
    >told.jsonl 2>/dev/null || fail "run --json"
cmp -s told.jsonl told/metrics.jsonl && [ "$(wc -l <told.jsonl)" = 2 ] || fail "run --json does not print metrics.jsonl"

verbs=$("$trimpot" --help | sed -n '/^verbs:/,/^$/p' | awk 'NR > 1 && NF {print $1}')
for verb in $verbs; do
    "$trimpot" "$verb" --help >help.txt || fail "$verb --help"
    grep -q 'trimpot '"$verb" help.txt || fail "$verb --help has no example"
    best=1000000 # µs, of five: the machine is shared
    for _ in 1 2 3 4 5; do
        start=$(date +%s%N)
        "$trimpot" "$verb" --help >/dev/null
        took=$((($(date +%s%N) - start) / 1000))
        [ "$took" -ge "$best" ] || best=$took
    done
    # Told, and no failure: how busy the machine is must not decide a test.
    [ "$best" -lt 50000 ] || say "SLOW: $verb --help takes $best µs, the bar is 50000"
done

if command -v mpirun >/dev/null && [ -e "$build/trimpot_mpi.so" ]; then
    equal 'lines of version on 3 ranks' "$(ranks 3 "$trimpot" version --json 2>/dev/null)" \
        "$("$trimpot" version --json | sed 's/"ranks":1,"comm":"self"/"ranks":3,"comm":"mpi"/')"
    expect 2 "no such verb" ranks 3 "$trimpot" rum
    equal 'times a shared error is printed' "$(grep -c 'no such verb' "$scratch/expect.out")" 1
    expect 2 "no recipe's name begins so" ranks 2 "$trimpot" ls nobody
fi
finish
