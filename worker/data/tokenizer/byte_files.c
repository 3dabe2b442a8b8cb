#include "worker/data/tokenizer/byte_files.h"

#include <inttypes.h>
#include <string.h>

#include "worker/data/tokenizer/decode.h"
#include "worker/data/tokenizer/json_file.h"
#include "worker/data/tokenizer/normalise.h"
#include "worker/data/tokenizer/pretokenise.h"
#include "worker/data/tokenizer/segment.h"

static status byte_level_pipeline(struct tokenizer *t, struct tok_byte_rules rules)
{
    if (rules.nfc) tok_steps_add(&t->normalizer, step_unicode)->options = UNICODE_NFC;
    if (rules.prefix == PREFIX_TEXT) tok_steps_add(&t->pre_tokenizer, step_prefix_space);
    struct tok_step *s = tok_steps_add(&t->pre_tokenizer, step_split);
    s->options = SPLIT_ISOLATED;
    TRY(tok_regex_open(&s->regex, rules.pattern, strlen(rules.pattern), REGEX_ONIGURUMA));
    if (rules.prefix == PREFIX_EVERY) tok_steps_add(&t->pre_tokenizer, step_prefix_space);
    tok_steps_add(&t->pre_tokenizer, step_bytes);
    tok_steps_add(&t->decoder, decode_bytes);
    t->kind = "byte-level BPE";
    t->model.segment = tok_bpe_segment;
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
                     struct tok_byte_rules rules)
{
    struct buf pair = {0};
    status st = ST_OK;
    if (!text_is_utf8(vocab, vocab_n, NULL)) FAIL(ST_CORRUPT, "is not UTF-8");
    TRY(tok_read_vocab(&t->model.vocab, vocab, (struct tok_extent){vocab, vocab_n}));
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
        if (!st) st = tok_add_merge(&t->model, rank++, pair.data, left, n - left - 1);
        if (st) {
            status_prefix(st, "merges line %" PRId64, number);
            break;
        }
    }
    buf_release(&pair);
    TRY(st);
    t->model.by_pair = true;
    return byte_level_pipeline(t, rules);
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
    if (len <= 0 || digits == 0 || digits > 9) FAIL(ST_CORRUPT, "'%.*s' is not base64, space, rank", n < 40 ? (int)n : 40, line);
    for (size_t i = 0; i < digits; i++) {
        if (space[1 + i] < '0' || space[1 + i] > '9') FAIL(ST_CORRUPT, "rank '%.*s' is not a number", (int)digits, space + 1);
        rank = rank * 10 + (space[1 + i] - '0');
    }
    buf_clear(piece);
    tok_bytes_to_alphabet(piece, bytes, (size_t)len);
    return tok_vocab_add(&t->model.vocab, rank, piece->data, piece->len);
}

status tok_read_tiktoken(struct tokenizer *t, const char *data, size_t n, struct tok_byte_rules rules)
{
    struct buf piece = {0};
    status st = ST_OK;
    const char *at = data, *line;
    size_t len;
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
        if (tok_vocab_id(&t->model.vocab, piece.data, piece.len) < 0)
            FAIL_DONE(ST_CORRUPT, "byte 0x%02x has no token: not a tiktoken vocabulary, or cut short", b);
    }
    t->model.rank = mem_alloc((size_t)t->model.vocab.ids * sizeof *t->model.rank);
    for (int32_t i = 0; i < t->model.vocab.ids; i++) t->model.rank[i] = (uint32_t)i;
    t->model.ignore_merges = true; /* a whole piece is one token, whether merges lead there or not */
    TRY_DONE(byte_level_pipeline(t, rules));
    t->kind = "tiktoken BPE";
done:
    buf_release(&piece);
    return st;
}
