/* vocab.json + merges.txt (GPT-2, Qwen2) and tiktoken's .model (Llama 3): byte-level files that carry no pipeline of
 * their own; pattern and specials come from the family. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/data/tokenizer/tokenizer_impl.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD_FORMS(digits)                                                                                             \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                                              \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

const char TOK_PATTERN_GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static const char *const LLAMA3_SPECIALS[] = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    NULL,
};
static const char *const QWEN2_SPECIALS[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
static const char *const GPT2_SPECIALS[] = {"<|endoftext|>", NULL};

static const struct tok_family FAMILIES[] = {
    {"llama3", NULL, WORD_FORMS("\\p{N}{1,3}"), .bos_added = true, .specials = LLAMA3_SPECIALS, .total_specials = 256,
     .bos = "<|begin_of_text|>", .eos = "<|end_of_text|>", .pad = "<|finetune_right_pad_id|>"},
    {"qwen", "Qwen", WORD_FORMS("\\p{N}"), .nfc = true, .specials = QWEN2_SPECIALS, .eos = "<|im_end|>",
     .pad = "<|endoftext|>"},
    {"gpt2", "GPT2", TOK_PATTERN_GPT2, .specials = GPT2_SPECIALS, .bos = "<|endoftext|>", .eos = "<|endoftext|>"},
    {"gemma", "Gemma", .bos_added = true, .bos = "<bos>", .eos = "<eos>", .pad = "<pad>"},
    {"", NULL, .bos_added = true, .bos = "<s>", .eos = "</s>"}, /* Llama 2, Mistral, and whatever says nothing */
};

enum { N_FAMILIES = sizeof FAMILIES / sizeof *FAMILIES };

static bool starts(const char *text, const char *prefix)
{
    return text && prefix && strncmp(text, prefix, strlen(prefix)) == 0;
}

const struct tok_family *tok_family_find(const char *name, const char *class_name)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (starts(name, FAMILIES[i].name) || (!name && starts(class_name, FAMILIES[i].class_name)))
            return &FAMILIES[i];
    return NULL;
}

const struct tok_family *tok_family_guess(const struct tokenizer *t)
{
    int i = 0;
    while (i < N_FAMILIES - 1 && tokenizer_id(t, FAMILIES[i].eos) < 0) i++;
    return &FAMILIES[i];
}

/* Each at its own id in the vocabulary, or at the next free one. */
status tok_family_specials(struct tokenizer *t, const struct tok_family *family)
{
    int32_t next = t->vocab.ids;
    int n = 0, reserved = 0;
    char name[48];
    for (; family->specials && family->specials[n]; n++) {
        const char *text = family->specials[n];
        int32_t own = tok_vocab_id(&t->vocab, text, strlen(text));
        reserved += strncmp(text, "<|reserved", 10) == 0;
        TRY(tok_added_add(t, (struct tok_added){.id = own >= 0 ? own : next++, .special = true}, text, strlen(text)));
    }
    for (; n < family->total_specials; n++) {
        snprintf(name, sizeof name, "<|reserved_special_token_%d|>", reserved++);
        TRY(tok_added_add(t, (struct tok_added){.id = next++, .special = true}, name, strlen(name)));
    }
    return ST_OK;
}

static status byte_level_pipeline(struct tokenizer *t, const struct tok_family *family)
{
    if (family->nfc) tok_steps_add(&t->normalizer, step_unicode)->options = UNICODE_NFC;
    struct tok_step *s = tok_steps_add(&t->pre_tokenizer, step_split);
    s->options = SPLIT_ISOLATED;
    TRY(tok_regex_open(&s->regex, family->pattern, strlen(family->pattern), REGEX_ONIGURUMA));
    tok_steps_add(&t->pre_tokenizer, step_bytes);
    tok_steps_add(&t->decoder, decode_bytes);
    t->kind = "byte-level BPE";
    t->segment = tok_bpe_segment;
    return ST_OK;
}

/* The next line without its end; false when none is left. */
static bool next_line(const char **at, const char *end, const char **line, size_t *n)
{
    if (*at >= end) return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *n = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    if (*n && (*line)[*n - 1] == '\r') --*n;
    return true;
}

status tok_read_gpt2(struct tokenizer *t, const char *vocab, size_t vocab_n, const char *merges, size_t merges_n,
                     bool prefix_space, const struct tok_family *family)
{
    struct buf pair = {0};
    status st = ST_OK;
    if (!family || !family->pattern) family = tok_family_find("gpt2", NULL);
    if (!text_is_utf8(vocab, vocab_n, NULL)) FAIL(ST_CORRUPT, "is not UTF-8");
    TRY(tok_read_vocab(&t->vocab, vocab, (struct tok_part){vocab, vocab_n}));
    const char *at = merges, *line;
    size_t n, rank = 0;
    for (int64_t number = 1; next_line(&at, merges + merges_n, &line, &n); number++) {
        const char *space = memchr(line, ' ', n);
        if (n == 0 || (number == 1 && *line == '#')) continue;
        size_t left = space ? (size_t)(space - line) : 0;
        if (!left || left + 1 == n || memchr(space + 1, ' ', n - left - 1))
            st = status_fail(ST_CORRUPT, "'%.*s' is not two pieces with a space between", n < 40 ? (int)n : 40, line);
        buf_clear(&pair);
        buf_add(&pair, line, left);
        if (!st) buf_add(&pair, space + 1, n - left - 1);
        if (!st) st = tok_add_merge(t, rank++, pair.data, left, n - left - 1);
        if (st) {
            status_prefix(st, "merges line %" PRId64, number);
            break;
        }
    }
    buf_release(&pair);
    TRY(st);
    t->by_pair = true;
    if (prefix_space) tok_steps_add(&t->pre_tokenizer, step_prefix_space);
    return byte_level_pipeline(t, family);
}

/* Decodes base64 to at most `cap` bytes; -1: malformed or longer. */
static int64_t base64(const char *s, size_t n, char *to, size_t cap)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = 0;
    if (n == 0 || n % 4) return -1;
    size_t pad = (s[n - 1] == '=') + (s[n - 2] == '=');
    uint32_t bits = 0;
    for (size_t i = 0; i < n - pad; i++) {
        const char *d = s[i] ? strchr(digits, s[i]) : NULL;
        if (!d) return -1;
        bits = bits << 6 | (uint32_t)(d - digits);
        if (i % 4 == 0) continue;
        if (len == cap) return -1;
        to[len++] = (char)(bits >> (6 - 2 * (i % 4)));
    }
    return (int64_t)len;
}

static status tiktoken_line(struct tokenizer *t, const char *line, size_t n, struct buf *piece)
{
    char bytes[1024];
    const char *space = memchr(line, ' ', n);
    int64_t len = space ? base64(line, (size_t)(space - line), bytes, sizeof bytes) : -1;
    size_t digits = space ? n - (size_t)(space - line) - 1 : 0;
    int64_t rank = 0;
    if (len <= 0 || digits == 0 || digits > 9)
        FAIL(ST_CORRUPT, "'%.*s' is not base64, space, rank", n < 40 ? (int)n : 40, line);
    for (size_t i = 0; i < digits; i++) {
        if (space[1 + i] < '0' || space[1 + i] > '9')
            FAIL(ST_CORRUPT, "rank '%.*s' is not a number", (int)digits, space + 1);
        rank = rank * 10 + (space[1 + i] - '0');
    }
    buf_clear(piece);
    tok_bytes_to_alphabet(piece, bytes, (size_t)len);
    return tok_vocab_add(&t->vocab, rank, piece->data, piece->len);
}

status tok_read_tiktoken(struct tokenizer *t, const char *data, size_t n, const struct tok_family *family)
{
    struct buf piece = {0};
    status st = ST_OK;
    const char *at = data, *line;
    size_t len;
    if (!family || !family->pattern) family = tok_family_find("llama3", NULL);
    for (int64_t number = 1; next_line(&at, data + n, &line, &len); number++) {
        if (len == 0) continue;
        st = tiktoken_line(t, line, len, &piece);
        if (st) {
            status_prefix(st, "line %" PRId64, number);
            goto done;
        }
    }
    for (int b = 0; b < 256; b++) {
        buf_clear(&piece);
        tok_bytes_to_alphabet(&piece, (char[]){(char)b}, 1);
        if (tok_vocab_id(&t->vocab, piece.data, piece.len) < 0)
            FAIL_DONE(ST_CORRUPT, "byte 0x%02x has no token: not a tiktoken vocabulary, or cut short", b);
    }
    t->rank = mem_alloc((size_t)t->vocab.ids * sizeof *t->rank);
    for (int32_t i = 0; i < t->vocab.ids; i++) t->rank[i] = (uint32_t)i;
    t->ignore_merges = true; /* a whole piece is one token, whether merges lead there or not */
    TRY_DONE(byte_level_pipeline(t, family));
    t->kind = "tiktoken BPE";
done:
    buf_release(&piece);
    return st;
}
