#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "launcher/cli_option.h"

enum { OPTION_WIDTH = 30 };

static void add_option(struct buf *b, const struct cli_option *o)
{
    char *left = mem_printf("  %s%c%s--%s%s%s", o->letter ? "-" : "", o->letter ? o->letter : ' ', o->letter ? ", " : "   ", o->name,
                            o->value ? " " : "", o->value ? o->value : "");
    buf_printf(b, "%-*s %s\n", OPTION_WIDTH, left, o->help);
    free(left);
}

static void add_options(struct buf *b, unsigned bits)
{
    for (int i = 0; i < cli_n_options; i++)
        if (cli_options[i].bit & bits) add_option(b, &cli_options[i]);
}

static void describe_verb(struct buf *b, const struct verb *v)
{
    buf_printf(b, "usage: trimpot %s %s%s[options]\n%s\n\n%s\noptions:\n", v->name, v->arguments, *v->arguments ? " " : "", v->line,
               v->help);
    add_options(b, v->options);
    add_options(b, CLI_COMMON);
    if (!v->keys) return;
    char *keys = v->keys();
    if (keys) buf_printf(b, "\nkeys (key=value, ~key):\n%s", keys);
    free(keys);
}

static void describe_all(struct buf *b, const struct verb *const *verbs, int n_verbs)
{
    buf_text(b, "trimpot " TRIMPOT_VERSION ": fine-tune language models, one process or thousands\n\n"
                "usage: trimpot VERB [arguments] [options]\n\n"
                "  trimpot run lora_finetune --model DIR --data rows.jsonl --output out\n"
                "  mpirun -n 8 trimpot run full_finetune --config llama3_2/1B_full --model DIR --data rows.jsonl\n\nverbs:\n");
    for (int i = 0; i < n_verbs; i++) buf_printf(b, "  %-10s %s\n", verbs[i]->name, verbs[i]->line);
    buf_text(b, "\noptions of every verb:\n");
    add_options(b, CLI_COMMON);
    buf_text(b, "\n`trimpot VERB --help` has examples, and for run all configuration keys.\n");
}

char *cli_help(const struct verb *verb, const struct verb *const *verbs, int n_verbs)
{
    struct buf b = {0};
    if (verb)
        describe_verb(&b, verb);
    else
        describe_all(&b, verbs, n_verbs);
    return b.data;
}
