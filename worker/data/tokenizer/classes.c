#include "worker/data/tokenizer/classes.h"

#include <stdio.h>
#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD_FORMS(letters, digits)                                                                                                        \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?" letters "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN_LLAMA3 WORD_FORMS("\\p{L}+", "\\p{N}{1,3}")
#define PATTERN_QWEN2  WORD_FORMS("\\p{L}+", "\\p{N}")
#define PATTERN_QWEN35                                                                                                                     \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"                                                                           \
                 "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* ---- families ---- */

static const char *const GPT2_SPECIALS[] = {"<|endoftext|>", NULL};
static const struct family_tokens GPT2 = {SPLIT_GPT2, .specials = GPT2_SPECIALS, .bos = "<|endoftext|>", .eos = "<|endoftext|>"};

static bool starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

const char *tok_split_pattern(enum token_split split)
{
    static const char *const patterns[] = {[SPLIT_GPT2] = TOK_PATTERN_GPT2, [SPLIT_LLAMA3] = PATTERN_LLAMA3, [SPLIT_QWEN2] = PATTERN_QWEN2};
    return patterns[split];
}

const struct family_tokens *tok_family_find(const char *name)
{
    const struct family_module *m = family_module_like(name);
    if (!name) return NULL;
    if (starts(name, "gpt2")) return &GPT2;
    return m && m->speech ? m->speech->tokens : &family_tokens_plain;
}

static bool has(const struct tokenizer *t, const char *piece) { return !piece || tokenizer_id(t, piece) >= 0; }

const struct family_tokens *tok_family_guess(const struct tokenizer *t)
{
    const struct family_module *m = NULL;
    while ((m = family_module_next(m)))
        if (m->speech && !m->speech->plain && !(m->speech->not_by && has(t, m->speech->not_by)) && has(t, m->speech->tokens->bos) &&
            has(t, m->speech->tokens->eos))
            return m->speech->tokens;
    return has(t, GPT2.eos) ? &GPT2 : &family_tokens_plain;
}

status tok_family_specials(struct tokenizer *t, const struct family_tokens *family)
{
    int32_t next = t->model.vocab.ids;
    int n = 0, reserved = 0;
    char name[48];
    for (; family->specials && family->specials[n]; n++) {
        const char *text = family->specials[n];
        int32_t own = tok_vocab_id(&t->model.vocab, text, strlen(text));
        struct tok_added token = {.id = own >= 0 ? own : next++, .special = true};
        reserved += family->filler && starts(text, family->filler);
        TRY(tok_added_add(&t->added, token, text, strlen(text)));
    }
    for (; n < family->total_specials; n++) {
        snprintf(name, sizeof name, "%s%d|>", family->filler, reserved++);
        TRY(tok_added_add(&t->added, (struct tok_added){.id = next++, .special = true}, name, strlen(name)));
    }
    return ST_OK;
}

/* ---- classes ---- */

static const char *const CODE_LLAMA_MORE[] = {"▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>", "<FILL_ME>", NULL};

#define END         "<|endoftext|>"
#define LLAMA_NAMES .bos = "<s>", .eos = "</s>", .unk = "<unk>"

static const struct tok_class CLASSES[] = {
    {"GPT2Tokenizer", TOK_PATTERN_GPT2, .prefix = PREFIX_TEXT, .bos = END, .eos = END, .unk = END},
    {"GPTNeoXTokenizer", TOK_PATTERN_GPT2, .nfc = true, .prefix = PREFIX_TEXT, .bos = END, .eos = END, .unk = END, .pad = "<|padding|>"},
    {"Qwen2Tokenizer", PATTERN_QWEN2, .nfc = true, .prefix = PREFIX_EVERY, .eos = END, .unk = END, .pad = END},
    {"Qwen3_5Tokenizer", PATTERN_QWEN35, .nfc = true, .prefix = PREFIX_EVERY, .eos = END, .unk = END, .pad = END},
    {"LlamaTokenizer", .spm = SPM_AS_LLAMA, LLAMA_NAMES},
    {"CodeLlamaTokenizer", .spm = SPM_AS_CODE_LLAMA, .bos_added = true, LLAMA_NAMES, .more = CODE_LLAMA_MORE},
    {"GemmaTokenizer", .spm = SPM_AS_GEMMA, .bos = "<bos>", .eos = "<eos>", .unk = "<unk>", .pad = "<pad>", .mask = "<mask>"},
    {"PreTrainedTokenizer", .spm = SPM_AS_BACKEND},
    {"TokenizersBackend", .spm = SPM_AS_BACKEND},
};

enum { N_CLASSES = sizeof CLASSES / sizeof *CLASSES };

const struct tok_class *tok_class_find(const char *name)
{
    size_t n = strlen(name);
    if (n > 4 && strcmp(name + n - 4, "Fast") == 0) n -= 4;
    for (int i = 0; i < N_CLASSES; i++)
        if (strlen(CLASSES[i].name) == n && memcmp(CLASSES[i].name, name, n) == 0) return &CLASSES[i];
    return NULL;
}

void tok_class_names(struct buf *b, bool spm)
{
    const char *comma = "";
    for (int i = 0; i < N_CLASSES; i++) {
        if (spm ? !CLASSES[i].spm : !CLASSES[i].pattern) continue;
        buf_printf(b, "%s%s", comma, CLASSES[i].name);
        comma = ", ";
    }
}

bool tok_reads_as_backend(const char *model_type)
{
    static const char *const types[] = {"mixtral", "ministral", "pixtral",  "voxtral",  "phimoe",   "granite",
                                        "olmo2",   "olmo3",     "stablelm", "internlm", "nemotron", "persimmon"};
    for (int i = 0; i < families_n; i++)
        if (families[i].backend_tokenizer && starts(model_type, families[i].model_type)) return true;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (starts(model_type, types[i])) return true;
    return false;
}

/* ---- what is not read ---- */

const struct tok_foreign TOK_FOREIGN[] = {
    {"tekken.json", "Mistral's tekken format"},
    {"qwen.tiktoken", "the tiktoken file of the first Qwen"},
    {"spiece.model", "the SentencePiece file of T5, XLNet and ALBERT"},
    {"sentencepiece.bpe.model", "the SentencePiece file of XLM-RoBERTa and mBART"},
    {"vocab.txt", "the WordPiece vocabulary of BERT"},
    {0},
};

const char *tok_foreign_tiktoken(int32_t ranks, const char *model_type)
{
    /* the split pattern is not in the file, so a vocabulary is known by its size */
    static const struct {
        int32_t least, most;
        const char *whose;
    } known[] = {
        {151643, 151643, "Qwen"},
        {100256, 100261, "cl100k (GPT-4, Phi-4, DBRX)"},
        {199998, 200100, "Llama 4 or o200k (GPT-4o)"},
    };
    if (model_type && starts(model_type, "llama4")) return "Llama 4";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ranks >= known[i].least && ranks <= known[i].most) return known[i].whose;
    return NULL;
}
