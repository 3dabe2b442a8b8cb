/* chat_named.c — built-in chat templates, for chat_template=NAME and for models that have none. Written for this program
 * after the families' published formats; what is trained on is written into the export, so they are complete Jinja. */
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/chat_format.h"

#define EACH "{%- for message in messages %}"
#define CONTENT "message['content']"
#define ROLE "message['role']"

static const struct named {
    const char *name;
    const char *end; /* the piece that ends a turn; a vocabulary without it ends turns with its EOS */
    bool bos;        /* begins with BOS by itself; else only if the tokenizer adds one */
    const char *text; /* sees `end` */
} named[] = {
    {"chatml", "<|im_end|>", false,
     EACH "{{- '<|im_start|>' + " ROLE " + '\\n' + " CONTENT " + end + '\\n' }}{%- endfor %}"
     "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"},
    {"llama3", "<|eot_id|>", true,
     EACH "{{- '<|start_header_id|>' + " ROLE " + '<|end_header_id|>\\n\\n' + " CONTENT "|trim + end }}{%- endfor %}"
     "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"},
    {"llama2", NULL, false,
     "{%- set ns = namespace(system='') %}" EACH "{%- if " ROLE " == 'system' %}"
     "{%- set ns.system = '<<SYS>>\\n' + " CONTENT " + '\\n<</SYS>>\\n\\n' %}"
     "{%- elif " ROLE " == 'user' %}"
     "{{- bos_token + '[INST] ' + ns.system + " CONTENT "|trim + ' [/INST]' }}{%- set ns.system = '' %}"
     "{%- elif " ROLE " == 'assistant' %}{{- ' ' + " CONTENT "|trim + ' ' + end }}"
     "{%- else %}{{- raise_exception('the llama2 format has system, user and assistant messages only') }}{%- endif %}"
     "{%- endfor %}"},
    {"mistral", NULL, true,
     "{%- set ns = namespace(system='') %}" EACH "{%- if " ROLE " == 'system' %}"
     "{%- set ns.system = " CONTENT " + '\\n\\n' %}"
     "{%- elif " ROLE " == 'user' %}{{- '[INST] ' + ns.system + " CONTENT " + ' [/INST]' }}{%- set ns.system = '' %}"
     "{%- elif " ROLE " == 'assistant' %}{{- ' ' + " CONTENT "|trim + end }}"
     "{%- else %}{{- raise_exception('the mistral format has system, user and assistant messages only') }}{%- endif %}"
     "{%- endfor %}"},
    {"gemma", "<end_of_turn>", true,
     EACH "{%- if " ROLE " == 'system' %}{{- raise_exception('the gemma format has no system message') }}{%- endif %}"
     "{{- '<start_of_turn>' + ('model' if " ROLE " == 'assistant' else " ROLE ") + '\\n' + " CONTENT "|trim + end + "
     "'\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"},
    {"phi3", "<|end|>", false,
     EACH "{{- '<|' + " ROLE " + '|>\\n' + " CONTENT " + end + '\\n' }}{%- endfor %}"
     "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"},
    {"zephyr", NULL, false,
     EACH "{{- '<|' + " ROLE " + '|>\\n' + " CONTENT " + end + '\\n' }}{%- endfor %}"
     "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"},
    {"vicuna", NULL, true,
     EACH "{%- if " ROLE " == 'system' %}{{- " CONTENT " + '\\n\\n' }}"
     "{%- elif " ROLE " == 'user' %}{{- 'USER: ' + " CONTENT "|trim + '\\n' }}"
     "{%- elif " ROLE " == 'assistant' %}{{- 'ASSISTANT: ' + " CONTENT "|trim + end + '\\n' }}"
     "{%- else %}{{- raise_exception('the vicuna format has system, user and assistant messages only') }}{%- endif %}"
     "{%- endfor %}{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{%- endif %}"},
    {"alpaca", NULL, true,
     EACH "{%- if " ROLE " == 'system' %}{{- " CONTENT " + '\\n\\n' }}"
     "{%- elif " ROLE " == 'user' %}{{- '### Instruction:\\n' + " CONTENT "|trim + '\\n\\n' }}"
     "{%- elif " ROLE " == 'assistant' %}{{- '### Response:\\n' + " CONTENT "|trim + end + '\\n\\n' }}"
     "{%- else %}{{- raise_exception('the alpaca format has system, user and assistant messages only') }}{%- endif %}"
     "{%- endfor %}{%- if add_generation_prompt %}{{- '### Response:\\n' }}{%- endif %}"},
};
enum { N_NAMED = sizeof named / sizeof *named };

char *chat_named(const char *name, const struct tokenizer *tok)
{
    const struct ids *prefix, *suffix;
    const struct named *t = named;
    while (t < named + N_NAMED && strcmp(t->name, name)) t++;
    if (t == named + N_NAMED) return NULL;
    tokenizer_around(tok, &prefix, &suffix);
    bool bos = (t->bos || prefix->n) && tokenizer_bos(tok) >= 0, has_end = t->end && tokenizer_id(tok, t->end) >= 0;
    const char *quote = has_end ? "'" : "", *end = has_end ? t->end : "eos_token";
    return mem_printf("{%%- set end = %s%s%s %%}%s%s", quote, end, quote, bos ? "{{- bos_token }}" : "", t->text);
}

const char *chat_named_for(const char *family)
{
    const struct named *t = named;
    while (family && t < named + N_NAMED && strcmp(t->name, family)) t++;
    return family && t < named + N_NAMED ? t->name : named[0].name;
}

char *chat_named_list(void)
{
    struct buf b = {0};
    for (int i = 0; i < N_NAMED; i++) buf_printf(&b, "%s%s", i ? ", " : "", named[i].name);
    return b.data;
}
