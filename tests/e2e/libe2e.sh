# libe2e.sh — sourced after lib.sh: whole runs of a tiny model.
model=$source/tests/truth/golden/llama3/model
rows=$scratch/rows.jsonl

# 96 completion rows of varying length, from nothing but a counter.
awk 'BEGIN { split("the harbour keeps its boats while seven lamps burn over cold water and nobody counts them twice", w, " ")
    for (i = 0; i < 96; i++) { printf "{\"text\": \"Row %d:", i
        for (k = 0; k < 4 + (i * 7) % 13; k++) printf " %s", w[1 + (i * 5 + k * (1 + i % 4)) % 17]
        print ".\"}" } }' >"$rows"

common=(device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 --data "$rows" --model "$model" -q)

# train RANKS OUTPUT RECIPE key=value …: total batch 8 whatever the ranks. Extra options go before key=value.
train()
{
    local n=$1 out=$2 recipe=$3
    shift 3
    ranks "$n" "$trimpot" run "$recipe" "${common[@]}" --output "$out" gradient_accumulation_steps=$((8 / n)) "$@" >"$out.log" 2>&1
}

# curve OUTPUT: loss and gradient norm of every step, as text.
curve() { sed -E 's/.*"step":([0-9]+),.*"loss":([^,]+),.*"grad_norm":([^,]+),.*/\1 \2 \3/' "$1/metrics.jsonl"; }

# same WHAT A B: equal curves and equal exported bytes.
same()
{
    cmp -s <(curve "$2") <(curve "$3") || { fail "$1: losses differ"; diff <(curve "$2") <(curve "$3") | head -4; }
    cmp -s "$2/export/model.safetensors" "$3/export/model.safetensors" || fail "$1: exported weights differ"
}

# near WHAT A B BOUND: losses of every step, relative.
near()
{
    python3 - "$@" <<'END' || fail "$1: losses are further apart than $4"
import json, sys
read = lambda out: [json.loads(line)["loss"] for line in open(out + "/metrics.jsonl")]
a, b = read(sys.argv[2]), read(sys.argv[3])
worst = max(abs(x - y) / abs(x) for x, y in zip(a, b)) if len(a) == len(b) and a else float("nan")
print(f"{sys.argv[1]}: losses {worst:.1e} apart, {sys.argv[4]} allowed")
sys.exit(not worst <= float(sys.argv[4]))
END
}

# deeper FAMILY LAYERS: prints the directory of a golden model with so many layers, whose weights must be drawn (model.init=random).
deeper()
{
    local to=$scratch/$1-$2
    [ -d "$to" ] || cp -r "$source/tests/truth/golden/$1/model" "$to"
    rm -f "$to"/*.safetensors
    sed -i -E "s/(\"num_hidden_layers\":) *[0-9]+/\1 $2/" "$to/config.json"
    say "$to"
}

# The labels of all waits for events, one a line.
wait_labels()
{
    grep -rhoE 'event_(wait|sync)\([^;]*"[^"]+"' "$source"/{worker,collectives,checkpoints} --include=*.c | sed -E 's/.*"([^"]+)"/\1/' | sort -u
}

full=(full_finetune)
lora=(lora_finetune model.lora_dropout=0.1 'model.lora_attn_modules=[q_proj,k_proj,v_proj,output_proj]' model.apply_lora_to_mlp=true)
qlora=("${lora[@]}" model.quantize_base=true)
