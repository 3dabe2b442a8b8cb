#!/usr/bin/env bash
# one_place.sh: a memory technique is read from the configuration in one file. Outside configs/ (its row and its rules) and the tests, no
# other code has its key; messages and comments may name it. And no line of a block or of the step's loop has a technique's name.
. "$(dirname "$0")/../lib.sh"
need perl

# FILE: keys that are read there. After |: files in which the word is another's, and whose.
cat >"$scratch/places" <<'END'
worker/memory/act_store.c: enable_activation_checkpointing ac_mode ac_option recompute mlp_tile_tokens
worker/memory/act_store.c: enable_activation_offloading activation_offloading_use_streams
worker/memory/grad_sink.c: gradient_accumulation_steps optimizer_in_bwd virtual_ranks
worker/memory/param_store.c: quantize_base dequantize_ahead
worker/memory/plan.c: memory_budget
worker/optim/optim.c: state_dtype master_weights stochastic_rounding is_paged paged_resident on_host min_8bit_size quantize_embeddings
worker/optim/windows.c: paged_window min_paged_size
worker/optim/host.c: host_window
worker/adapter.c: attn_modules plus_ratio use_dora use_rslora rank_pattern alpha_pattern modules_to_save | checkpoints/hf.h checkpoints/peft.c checkpoints/peft_rules.c worker/export.c: adapter_config.json has fields of these names
worker/merge.c: save_adapter_weights_only merge_base
END

# code ROOT: all code under it but tests and configs, comments and strings blanked, as FILE:LINE:TEXT.
code()
{
    (cd "$1" && find launcher worker checkpoints collectives kernels -name '*.[ch]' -print0 | sort -z | xargs -0 perl -e '
        undef $/;
        for my $file (@ARGV) {
            open my $in, "<", $file or die "$file: $!";
            my $text = <$in>, my $line = 0;
            $text =~ s{("(?:[^"\\\n]|\\.)*")|/\*.*?\*/|//[^\n]*}{defined $1 ? "\"\"" : $& =~ tr/\n//cdr}gse;
            print "$file:", ++$line, ":$_\n" for split /\n/, $text;
        }')
}

# strays CODE: lines that read a key elsewhere than in its place, and names of techniques where none may be.
strays()
{
    local line file keys others key found
    while IFS= read -r line; do
        file=${line%%:*} keys=${line#*: } others=
        [[ $keys != *'|'* ]] || { others=${keys#*| } keys=${keys%|*}; }
        for key in $keys; do
            while IFS= read -r found; do
                [[ ${found%%:*} = "$file" || " ${others%%:*} " = *" ${found%%:*} "* ]] || echo "$key is $file's, but $found"
            done < <(grep -w "$key" "$1")
        done
    done <"$scratch/places"
    grep -E '^worker/(model/block[a-z_]*\.[ch]|train\.c|train_step\.[ch]):' "$1" |
        grep -iE 'lora|dora|nf4|quanti[sz]|offload|paged|in_bwd|8.?bit' | sed 's/^/a technique by name: /' || true
}

code "$source" >"$scratch/code"
[ "$(wc -l <"$scratch/code")" -gt 10000 ] || fail "there is no code to look at"
found=$(strays "$scratch/code")
[ -z "$found" ] || fail "more than one place:"$'\n'"$found"

# Keys exist: each is a member of the configuration.
for key in $(sed -E 's/^[^:]*: //; s/\|.*//' "$scratch/places"); do
    grep -qw "$key" "$source/configs/config.h" || fail "$key is no member of struct config"
done

# The check itself must see what it is there for.
printf '%s\n' 'worker/train.c:900: if (c->optimizer_in_bwd) return ST_OK;' 'worker/model/block.c:900: if (m->plan.nf4) x();' >"$scratch/planted"
equal 'planted and found' "$(strays "$scratch/planted" | cut -d' ' -f1,2 | sort -u | tr '\n' ';')" 'a technique;optimizer_in_bwd is;'
finish
