#!/usr/bin/env bash
# states8.sh BUILD_DIR: 8-bit optimizer states: the same bits on 1, 2 and 4 ranks, with memory techniques, and across a resume at
# another number of ranks; checkpoints of another format are refused; the plan is what can be counted by hand; losses follow f32 AdamW.
. "$(dirname "$0")/../lib.sh"
built trimpot trimpot_mpi.so
need mpirun python3
. "$source/tests/e2e/libe2e.sh"

# Tensors of the tiny model have few elements: its adapters none in codes, but for this.
eight=(optimizer=bitsandbytes.optim.AdamW8bit optimizer.min_8bit_size=300)
steps=(epochs=2 max_steps_per_epoch=6)
variants=("full fp32" "full bf16" "full bf16 master_weights=fp32 clip_grad_norm=0.5" "lora fp32" "lora bf16")
for variant in "${variants[@]}"; do
    read -r kind dtype more <<<"$variant"
    declare -n how=$kind
    read -r -a what <<<"dtype=$dtype $more"
    say "$variant"
    for n in 1 2 4; do
        train $n "$scratch/$n" "${how[@]}" "${what[@]}" "${eight[@]}" "${steps[@]}" || { fail "$variant on $n ranks"; tail -3 "$scratch/$n.log"; }
        [ $n = 1 ] || same "$variant, $n ranks" "$scratch/1" "$scratch/$n"
    done
    OMP_NUM_THREADS=2 train 1 "$scratch/threads" "${how[@]}" "${what[@]}" "${eight[@]}" "${steps[@]}" || fail "$variant with 2 threads"
    same "$variant, 2 threads" "$scratch/1" "$scratch/threads"
    train 4 "$scratch/half" "${how[@]}" "${what[@]}" "${eight[@]}" "${steps[@]}" save_every_n_steps=6 || fail "$variant save"
    rm -rf "$scratch/half/checkpoints/step-0000012" "$scratch/half/export"
    for n in 1 2; do
        cp -r "$scratch/half" "$scratch/again"
        train $n "$scratch/again" "${how[@]}" "${what[@]}" "${eight[@]}" "${steps[@]}" save_every_n_steps=6 resume_from_checkpoint=true ||
            { fail "$variant resume on $n"; tail -3 "$scratch/again.log"; }
        same "$variant, saved at 4 ranks, resumed at $n" "$scratch/1" "$scratch/again"
        rm -rf "$scratch/again"
    done
    rm -rf "$scratch"/{1,2,4,threads,half}
done

# A step in the backward pass, tensor by tensor, is that of all at once.
for kind in full lora; do
    declare -n how=$kind
    for n in 1 2; do
        for way in plain in_bwd; do
            ranks $n "$trimpot" run "${how[@]}" "${common[@]}" --output "$scratch/$way" dtype=bf16 "${eight[@]}" batch_size=$((4 / n)) \
                gradient_accumulation_steps=1 epochs=1 max_steps_per_epoch=6 optimizer_in_bwd=$([ $way = plain ] && echo false || echo true) \
                enable_activation_checkpointing=$([ $way = plain ] && echo false || echo true) >"$scratch/$way.log" 2>&1 ||
                { fail "$kind, $n ranks, $way"; tail -3 "$scratch/$way.log"; }
        done
        same "$kind, $n ranks: optimizer_in_bwd, checkpointed" "$scratch/plain" "$scratch/in_bwd"
        rm -rf "$scratch"/{plain,in_bwd}
    done
done

# ---- another format is refused ---------------------------------------------------------------------------------------------------
saved=("${full[@]}" dtype=fp32 epochs=1 max_steps_per_epoch=2 save_every_n_steps=1)
train 1 "$scratch/wide" "${saved[@]}" || fail "save, f32 states"
train 1 "$scratch/eight" "${saved[@]}" "${eight[@]}" || fail "save, 8-bit states"
rm -rf "$scratch"/{wide,eight}/checkpoints/step-0000002 "$scratch"/{wide,eight}/export
# refused FOLDER TEXT key=value …
refused()
{
    local folder=$1 text=$2 rc=0
    shift 2
    train 1 "$scratch/$folder" "${saved[@]}" "$@" resume_from_checkpoint=true || rc=$?
    [ $rc -gt 0 ] || fail "$folder: resumed with $*"
    grep -qF -- "$text" "$scratch/$folder.log" || { fail "$folder: no '$text' with $*"; tail -3 "$scratch/$folder.log"; }
    [ -d "$scratch/$folder/checkpoints/step-0000001" ] || fail "$folder: the checkpoint is gone"
}
refused wide "has optimizer states in f32, this run's are 8-bit (of 300 elements or more): go on with the optimizer" "${eight[@]}"
refused eight "has optimizer states in 8-bit (of 300 elements or more), this run's are f32"
refused eight "this run's are 8-bit (of 4096 elements or more)" optimizer=bitsandbytes.optim.AdamW8bit
refused eight "this run's are 8-bit (of 300 elements or more, not of embedding and head)" "${eight[@]}" optimizer.quantize_embeddings=false
train 1 "$scratch/eight" "${saved[@]}" optimizer=torchao.optim.AdamW8bit optimizer.min_8bit_size=300 resume_from_checkpoint=true ||
    { fail "the same states by torchao's name"; tail -3 "$scratch/eight.log"; }

# ---- the plan ----------------------------------------------------------------------------------------------------------------------
for more in optimizer.min_8bit_size=4096 optimizer.min_8bit_size=1 optimizer.quantize_embeddings=false; do
    "$trimpot" plan "${full[@]}" "${common[@]}" dtype=bf16 "${eight[@]}" $more --json >"$scratch/plan" || fail "plan $more"
    python3 - "$scratch/plan" "$model/model.safetensors" $more <<'END' || fail "plan, $more"
import json, struct, sys
rows = {r["name"]: r["bytes"] for r in json.load(open(sys.argv[1]))["rows"] if r["category"] == "optimizer"}
key, value = sys.argv[3].split(".")[1].split("=")
least = int(value) if key == "min_8bit_size" else 300
f = open(sys.argv[2], "rb")
header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
codes = wide = 0
for name, t in header.items():
    if name == "__metadata__":
        continue
    n = 1
    for d in t["shape"]:
        n *= d
    if n >= least and not (key == "quantize_embeddings" and name in ("model.embed_tokens.weight", "lm_head.weight")):
        codes += -(-n // 256) * 256
    else:
        wide += n
arena = lambda n: -(-n // 64) * 64
want = {"codes, u8": codes, "absmax of 256 codes, f32": codes // 64, "f32": wide * 4}
want = {f"{m} moments, {k}": arena(n) for k, n in want.items() if n for m in ("first", "second")}
print(sys.argv[3], rows)
sys.exit(rows != want and f"{rows} is not {want}")
END
done

rm -rf "$scratch"/{wide,eight}

# ---- the curve: within 1 % of f32 AdamW ------------------------------------------------------------------------------------------------
for kind in full lora; do
    declare -n how=$kind
    long=("${how[@]}" dtype=fp32 epochs=4 max_steps_per_epoch=12)
    train 1 "$scratch/wide" "${long[@]}" || fail "$kind, f32 states"
    train 1 "$scratch/eight" "${long[@]}" "${eight[@]}" || fail "$kind, 8-bit states"
    cmp -s "$scratch"/{wide,eight}/metrics.jsonl && fail "$kind: nothing was in 8 bits"
    near "$kind: 8-bit beside f32 states" "$scratch/wide" "$scratch/eight" 1e-2
    rm -rf "$scratch"/{wide,eight}
done
finish
