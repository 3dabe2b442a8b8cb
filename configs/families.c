/* families.c — the families, one row each. families.h says what the members mean and who reads them. */
/* clang-format off */
#include "configs/families.h"

#include <string.h>

#include "configs/schema.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- chat templates ------------------------------------------------------------------------------------------------ */

#define EACH "{%- for message in messages %}"
#define CONTENT "message['content']"
#define ROLE "message['role']"

const struct family_template family_templates[] = {
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
    {"phi4", "<|im_end|>", false,
     EACH "{{- '<|im_start|>' + " ROLE " + '<|im_sep|>' + " CONTENT " + end }}{%- endfor %}"
     "{%- if add_generation_prompt %}{{- '<|im_start|>assistant<|im_sep|>' }}{%- endif %}"},
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
const int family_templates_n = COUNT(family_templates);

/* ---- tokens: what torchtune's tokenizers add to a bare vocabulary, in the order of their ids --------------------------- */

static const char *const LLAMA3_SPECIALS[] = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", NULL};
#define QWEN2_SPECIALS "<|endoftext|>", "<|im_start|>", "<|im_end|>"
#define QWEN25_SPECIALS \
    QWEN2_SPECIALS, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", \
        "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", \
        "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"
static const char *const QWEN2_LIST[] = {QWEN2_SPECIALS, NULL}, *const QWEN25_LIST[] = {QWEN25_SPECIALS, NULL};
static const char *const QWEN3_LIST[] = {QWEN25_SPECIALS, "<tool_response>", "</tool_response>", "<think>", "</think>", NULL};
static const char *const PHI4_LIST[] = {
    "<|dummy_0|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|dummy_1|>", "<|dummy_2|>", "<|dummy_3|>",
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|dummy_4|>", "<|dummy_5|>", "<|dummy_6|>", "<|dummy_7|>", "<|dummy_8|>", "<|dummy_9|>",
    "<|dummy_10|>", "<|dummy_11|>", "<|dummy_12|>", "<|endofprompt|>", NULL};
static const char *const PHI3_LIST[] = {
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
    "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>", NULL};

static const struct family_tokens LLAMA3_TOKENS = {SPLIT_LLAMA3, .bos_added = true, .specials = LLAMA3_SPECIALS, .total_specials = 256,
                                                   .filler = "<|reserved_special_token_",
                                                   .bos = "<|begin_of_text|>", .eos = "<|end_of_text|>",
                                                   .pad = "<|finetune_right_pad_id|>"};
#define QWEN_TOKENS(list) {SPLIT_QWEN2, .nfc = true, .specials = list, .eos = "<|im_end|>", .pad = "<|endoftext|>"}
static const struct family_tokens QWEN2_TOKENS = QWEN_TOKENS(QWEN2_LIST), QWEN25_TOKENS = QWEN_TOKENS(QWEN25_LIST),
                                  QWEN3_TOKENS = QWEN_TOKENS(QWEN3_LIST);
static const struct family_tokens GEMMA_TOKENS = {.bos_added = true, .bos = "<bos>", .eos = "<eos>", .pad = "<pad>"};
const struct family_tokens family_tokens_plain = {.bos_added = true, .bos = "<s>", .eos = "</s>"};
static const struct family_tokens PHI3_TOKENS = {.bos_added = true, .specials = PHI3_LIST, .bos = "<s>", .eos = "<|endoftext|>",
                                                 .pad = "<|endoftext|>"};
/* The split is its tokenizer.json's; torchtune's own for it is coarser (it takes numbers whole). */
static const struct family_tokens PHI4_TOKENS = {SPLIT_LLAMA3, .specials = PHI4_LIST, .total_specials = 96, .filler = "<|dummy_",
                                                 .bos = "<|endoftext|>", .eos = "<|im_end|>", .pad = "<|dummy_85|>"};

/* ---- torchtune's renderings -------------------------------------------------------------------------------------------- */

static const struct family_style LLAMA3_STYLE = {
    .name = "llama3", .bos = "<|begin_of_text|>", .eos = "<|end_of_text|>", .start = "<|start_header_id|>",
    .middle = "<|end_header_id|>", .end = "<|eot_id|>", .end_more = "<|eom_id|>", .after_role = "", .after_header = "\n\n",
    .after_end = "", .strip = true};
static const struct family_style QWEN_STYLE = {
    .name = "qwen2", .bos = "", .eos = "<|im_end|>", .start = "<|im_start|>", .end = "<|im_end|>", .after_role = "\n",
    .after_header = "", .after_end = "\n", .tool_open = "<tool_response>\n", .tool_close = "\n</tool_response>", .open_last = true};
static const struct family_style LLAMA2_STYLE = {
    .name = "llama2", .prompt_template = "Llama2ChatTemplate", .rstrip = true, .cut_trained = true};
static const struct family_style MISTRAL_STYLE = {
    .name = "mistral", .prompt_template = "MistralChatTemplate", .rstrip = true, .cut_trained = true};
static const struct family_style GEMMA_STYLE = {.name = "gemma", .rstrip = true, .cut_trained = true};
static const struct family_style PHI3_STYLE = {
    .name = "phi3", .eos = "<|endoftext|>", .role_open = "<|", .role_close = "|>", .end = "<|end|>", .after_header = "\n",
    .after_end = "\n", .rstrip = true};
/* torchtune forgets the end mark of the assistant's turns when it trains (its tokenizer has it on request): a model learns from
 * that never to stop. Here it stands, as in Phi-4's own template. */
static const struct family_style PHI4_STYLE = {
    .name = "phi4", .bos = "", .text_bos = "<|endoftext|>", .eos = "<|im_end|>", .start = "<|im_start|>", .middle = "<|im_sep|>",
    .end = "<|im_end|>", .after_role = "", .after_header = "", .after_end = "", .rstrip = true, .open_last = true};

static const struct family_speech
    LLAMA3 = {"<|start_header_id|>", false, &LLAMA3_TOKENS, &LLAMA3_STYLE, "llama3"},
    QWEN2 = {"<|im_start|>", false, &QWEN2_TOKENS, &QWEN_STYLE, "chatml", .not_by = "<|im_sep|>"},
    QWEN25 = {"<|im_start|>", false, &QWEN25_TOKENS, &QWEN_STYLE, "chatml", .not_by = "<|im_sep|>"},
    QWEN3 = {"<|im_start|>", false, &QWEN3_TOKENS, &QWEN_STYLE, "chatml", .not_by = "<|im_sep|>"},
    LLAMA2 = {NULL, true, &family_tokens_plain, &LLAMA2_STYLE, "llama2"},
    MISTRAL = {"[INST]", false, &family_tokens_plain, &MISTRAL_STYLE, "mistral"},
    GEMMA = {"<start_of_turn>", false, &GEMMA_TOKENS, &GEMMA_STYLE, "gemma"},
    PHI3 = {"<|placeholder1|>", false, &PHI3_TOKENS, &PHI3_STYLE, "phi3"},
    PHI4 = {"<|im_sep|>", false, &PHI4_TOKENS, &PHI4_STYLE, "phi4"};

/* ---- families ---------------------------------------------------------------------------------------------------------- */

#define TOKENIZER "path max_seq_len prompt_template truncation_type special_tokens_path"
#define BYTES     TOKENIZER " merges_file"
#define TEXT_ONLY "this program trains text decoders"
#define GEMMA_ACT "gelu_pytorch_tanh"

const struct family families[] = {
    {.model_type = "llama", .name = "Llama 2, 3, 3.1, 3.2 and models of their kind", .hidden_act = "silu",
     .absent = {.eps = 1e-6, .theta = 1e4, .max_positions = 2048},
     .module = {{"llama2", "7b 13b 70b", "llama2_tokenizer", TOKENIZER, "LLAMA2", &LLAMA2},
                {"llama3", "8b 70b", "llama3_tokenizer", TOKENIZER, "LLAMA3", &LLAMA3},
                {"llama3_1", "8b 70b 405b", NULL, NULL, "LLAMA3", &LLAMA3},
                {"llama3_2", "1b 3b", NULL, NULL, "LLAMA3_2 LLAMA3", &LLAMA3},
                {"llama3_3", "70b", NULL, NULL, "LLAMA3", &LLAMA3},
                {"smol", "135m 360m 1_7b", "smol_tokenizer", BYTES,
                 .refused = "torchtune's smol module is not built yet; leave _component_ out"}}},
    {.model_type = "qwen2", .name = "Qwen2, Qwen2.5", .hidden_act = "silu", .qkv_bias = true, .slides = SLIDES_ABOVE,
     .absent = {.eps = 1e-6, .theta = 1e4, .max_positions = 32768, .kv_heads = 32, .window = 4096, .window_from = 28},
     .module = {{"qwen2", "0_5b 1_5b 7b", "qwen2_tokenizer", BYTES, "QWEN2", &QWEN2},
                {"qwen2_5",
                 "0_5b 1_5b_base 1_5b_instruct 3b 7b_base 7b_instruct 14b_base 14b_instruct 32b_base 32b_instruct 72b_base "
                 "72b_instruct",
                 "qwen2_5_tokenizer", BYTES, "QWEN2", &QWEN25}}},
    {.model_type = "qwen3", .name = "Qwen3", .hidden_act = "silu", .qk_norm = true, .slides = SLIDES_ABOVE,
     .absent = {.eps = 1e-6, .theta = 1e4, .max_positions = 32768, .kv_heads = 32, .head_dim = 128, .window = 4096, .window_from = 28},
     .module = {{"qwen3",
                 "0_6b_base 0_6b_instruct 1_7b_base 1_7b_instruct 4b_base 4b_instruct 8b_base 8b_instruct 14b_base 14b_instruct "
                 "32b",
                 "qwen3_tokenizer", BYTES, "QWEN3 QWEN2", &QWEN3}}},
    {.model_type = "mistral", .name = "Mistral", .hidden_act = "silu", .backend_tokenizer = true, .slides = SLIDES_ALL,
     .absent = {.eps = 1e-6, .theta = 1e4, .max_positions = 131072, .kv_heads = 8, .window = 4096},
     .module = {{"mistral", "7b", "mistral_tokenizer", TOKENIZER, "MISTRAL", &MISTRAL}}},
    {.model_type = "gemma", .name = "Gemma", .hidden_act = GEMMA_ACT, .legacy_act = "gelu", .unit_offset = true, .embed_scaled = true,
     .absent = {.eps = 1e-6, .theta = 1e4, .max_positions = 8192, .kv_heads = 16, .head_dim = 256, .tied = true},
     .module = {{"gemma", "2b 7b", "gemma_tokenizer", TOKENIZER, "GEMMA", &GEMMA}}},
    {.model_type = "gemma2", .name = "Gemma 2", .hidden_act = GEMMA_ACT, .unit_offset = true, .embed_scaled = true, .post_norms = true,
     .soft_caps = true, .slides = SLIDES_MOST,
     .absent = {.eps = 1e-6, .theta = 1e4, .max_positions = 8192, .kv_heads = 4, .head_dim = 256, .window = 4096, .pattern = 2,
                .attn_scalar = 256, .attn_cap = 50, .head_cap = 30, .tied = true},
     .module = {{"gemma2", "2b 9b 27b", "gemma_tokenizer", TOKENIZER, "GEMMA2", &GEMMA}}},
    {.model_type = "gemma3_text", .name = "Gemma 3 (text)", .hidden_act = GEMMA_ACT, .unit_offset = true, .embed_scaled = true,
     .post_norms = true, .qk_norm = true, .soft_caps = true, .slides = SLIDES_MOST,
     .absent = {.eps = 1e-6, .theta = 1e6, .local_theta = 1e4, .max_positions = 131072, .kv_heads = 4, .head_dim = 256, .window = 4096,
                .pattern = 6, .attn_scalar = 256, .tied = true}},
    {.model_type = "phi3", .name = "Phi-3, Phi-3.5", .hidden_act = "silu", .fused_qkv = true, .fused_gate_up = true,
     .backend_tokenizer = true, .slides = SLIDES_ALL,
     .absent = {.eps = 1e-5, .theta = 1e4, .max_positions = 4096, .original_positions = 4096},
     .module = {{"phi3", "mini", "phi3_mini_tokenizer", TOKENIZER, "PHI3_MINI", &PHI3},
                {"phi4", "14b", "phi4_tokenizer", BYTES " vocab_path merges_path", "PHI4", &PHI4}}},

    {.model_type = "gemma3", .name = "Gemma 3 with vision",
     .refused = "it has a part that sees images; save its text part alone, as gemma3_text: "
                "transformers.Gemma3ForCausalLM.from_pretrained(DIR).save_pretrained(TEXT_DIR)"},
    {.refused = TEXT_ONLY, .module = {{"llama3_2_vision", "11b 90b", "llama3_2_vision_tokenizer", TOKENIZER, .refused = TEXT_ONLY},
                                      {"clip", "vit", .refused = TEXT_ONLY},
                                      {"t5", "v1_1_xxl", "t5_tokenizer", TOKENIZER, .refused = "this program trains decoders"},
                                      {"llama4", "scout_17b_16e maverick_17b_128e", "llama4_tokenizer", TOKENIZER,
                                       .refused = "mixtures of experts are not supported"}}},
};
const int families_n = COUNT(families);

const struct choice checkpointer_choices[CHECKPOINTERS] = {
    {"LLAMA2"}, {"LLAMA3"}, {"LLAMA3_2"}, {"QWEN2"}, {"QWEN3"}, {"MISTRAL"}, {"GEMMA"}, {"GEMMA2"}, {"PHI3_MINI"}, {"PHI4"},
    {"LLAMA3_VISION", 0, TEXT_ONLY}, {"LLAMA4", 0, TEXT_ONLY}, {"REWARD", 0, TEXT_ONLY}, {"CLIP_TEXT", 0, TEXT_ONLY},
    {"T5_ENCODER", 0, TEXT_ONLY},
};

/* ---- look-up ----------------------------------------------------------------------------------------------------------- */

const struct family *family_of_type(const char *model_type)
{
    for (int i = 0; model_type && i < families_n; i++)
        if (families[i].model_type && !strcmp(families[i].model_type, model_type)) return &families[i];
    return NULL;
}

const struct family_module *family_module_next(const struct family_module *m)
{
    int i = 0;
    while (m && (m < families[i].module || m >= families[i].module + COUNT(families[i].module))) i++;
    if (m && m + 1 < families[i].module + COUNT(families[i].module) && m[1].name) return m + 1;
    for (i += m != NULL; i < families_n; i++)
        if (families[i].module[0].name) return families[i].module;
    return NULL;
}

const struct family_module *family_module(const char *name)
{
    const struct family_module *m = NULL;
    while (name && (m = family_module_next(m)))
        if (!strcmp(m->name, name)) return m;
    return NULL;
}

bool family_module_loads(const struct family_module *m, const char *checkpointer)
{
    size_t n = strlen(checkpointer);
    for (const char *at = m->checkpointer; at && (at = strstr(at, checkpointer)); at += n)
        if ((at == m->checkpointer || at[-1] == ' ') && (!at[n] || at[n] == ' ')) return true;
    return false;
}

bool family_has_module(const struct family *f, const char *name)
{
    for (const struct family_module *m = f->module; m < f->module + COUNT(f->module) && m->name; m++)
        if (!strcmp(m->name, name)) return true;
    return false;
}

bool family_loads(const struct family *f, const char *checkpointer)
{
    bool any = false;
    for (const struct family_module *m = f->module; m < f->module + COUNT(f->module) && m->name; m++) {
        if (family_module_loads(m, checkpointer)) return true;
        any = any || m->checkpointer;
    }
    return !any;
}

const struct family_module *family_module_like(const char *name)
{
    const struct family_module *m = NULL, *best = NULL;
    while (name && (m = family_module_next(m))) {
        size_t n = strlen(m->name);
        if (!strncmp(m->name, name, n) && (!best || n > strlen(best->name))) best = m;
    }
    return best;
}
