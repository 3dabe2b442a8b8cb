#include "worker/data/tokenizer/components.h"

#include <jansson.h>
#include <string.h>

#include "worker/data/tokenizer/byte_files.h"
#include "worker/data/tokenizer/decode.h"
#include "worker/data/tokenizer/normalise.h"
#include "worker/data/tokenizer/pretokenise.h"

/* Components by their type names: a type is a row of a table; a type without a row is refused by name. */

enum { MAX_NESTING = 64 };

/* ---- fields ---- */

static status field_choice(const json_t *o, const char *key, const char *const *names, int n, int missing, int *choice)
{
    const json_t *v = json_object_get(o, key);
    *choice = missing;
    if (!v || json_is_null(v)) return ST_OK;
    if (!json_is_string(v)) FAIL(ST_CORRUPT, "'%s' is not a string", key);
    for (*choice = 0; *choice < n; ++*choice)
        if (strcmp(names[*choice], json_string_value(v)) == 0) return ST_OK;
    FAIL(ST_NOT_BUILT, "'%s': '%s' is not one of %s … %s", key, json_string_value(v), names[0], names[n - 1]);
}

/* "pattern": {"String": s} or {"Regex": s}; an empty String never matches. */
static status own_pattern(struct tok_step *s, const json_t *o)
{
    const json_t *p = json_object_get(o, "pattern"), *literal = json_object_get(p, "String");
    const json_t *text = literal ? literal : json_object_get(p, "Regex");
    if (json_is_string(p)) literal = text = p;
    if (!json_is_string(text)) FAIL(ST_CORRUPT, "'pattern' has neither a String nor a Regex");
    if (literal && json_string_length(text) == 0) return ST_OK;
    return tok_regex_open(&s->regex, json_string_value(text), json_string_length(text), literal ? REGEX_LITERAL : REGEX_ONIGURUMA);
}

static status own_regex(struct tok_step *s, const char *pattern, enum tok_regex_syntax syntax)
{
    return tok_regex_open(&s->regex, pattern, strlen(pattern), syntax);
}

static const char *const BEHAVIOURS[] = {
    [SPLIT_REMOVED] = "Removed",
    [SPLIT_ISOLATED] = "Isolated",
    [SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
    [SPLIT_MERGED_NEXT] = "MergedWithNext",
    [SPLIT_CONTIGUOUS] = "Contiguous",
};
enum { N_BEHAVIOURS = sizeof BEHAVIOURS / sizeof *BEHAVIOURS };

/* ---- components ---- */

typedef status load_component(const json_t *o, struct tok_steps *steps);

struct component {
    const char *type;
    load_component *load;
    tok_step_run *run; /* load == NULL: a step without members but options */
    int options;
};

static status load_prepend(const json_t *o, struct tok_steps *steps)
{
    const char *text;
    size_t n;
    TRY(tok_json_text(o, "prepend", &text, &n));
    tok_step_text(tok_steps_add(steps, step_prepend), text, n);
    return ST_OK;
}

static status load_replace(const json_t *o, struct tok_steps *steps)
{
    const char *text;
    size_t n;
    TRY(tok_json_text(o, "content", &text, &n));
    struct tok_step *s = tok_steps_add(steps, step_replace);
    tok_step_text(s, text, n);
    return own_pattern(s, o);
}

static status load_strip(const json_t *o, struct tok_steps *steps)
{
    struct tok_step *s = tok_steps_add(steps, step_strip);
    s->left = tok_json_flag(o, "strip_left", true);
    s->right = tok_json_flag(o, "strip_right", true);
    return ST_OK;
}

static status load_split(const json_t *o, struct tok_steps *steps)
{
    struct tok_step *s = tok_steps_add(steps, step_split);
    s->flag = tok_json_flag(o, "invert", false);
    TRY(field_choice(o, "behavior", BEHAVIOURS, N_BEHAVIOURS, SPLIT_ISOLATED, &s->options));
    return own_pattern(s, o);
}

static status load_byte_level(const json_t *o, struct tok_steps *steps)
{
    if (tok_json_flag(o, "add_prefix_space", true)) tok_steps_add(steps, step_prefix_space);
    if (tok_json_flag(o, "use_regex", true)) {
        struct tok_step *s = tok_steps_add(steps, step_split);
        s->options = SPLIT_ISOLATED;
        TRY(own_regex(s, TOK_PATTERN_GPT2, REGEX_ONIGURUMA));
    }
    tok_steps_add(steps, step_bytes);
    return ST_OK;
}

static status metaspace_members(const json_t *o, struct tok_step *s)
{
    static const char *const schemes[] = {[PREPEND_NEVER] = "never", [PREPEND_FIRST] = "first", [PREPEND_ALWAYS] = "always"};
    const char *text = SPACE_MARK;
    size_t n = strlen(text);
    if (json_object_get(o, "replacement")) TRY(tok_json_text(o, "replacement", &text, &n));
    if (n == 0) FAIL(ST_CORRUPT, "'replacement' is empty");
    tok_step_text(s, text, n);
    TRY(field_choice(o, "prepend_scheme", schemes, 3, PREPEND_ALWAYS, &s->options));
    if (!tok_json_flag(o, "add_prefix_space", true)) s->options = PREPEND_NEVER;
    return ST_OK;
}

static status load_metaspace(const json_t *o, struct tok_steps *steps)
{
    struct tok_step *s = tok_steps_add(steps, step_metaspace);
    TRY(metaspace_members(o, s));
    if (!tok_json_flag(o, "split", true)) return ST_OK;
    int mark = steps->n - 1;
    s = tok_steps_add(steps, step_split);
    s->options = SPLIT_MERGED_NEXT;
    return tok_regex_open(&s->regex, steps->v[mark].text, steps->v[mark].text_n, REGEX_LITERAL);
}

static status load_digits(const json_t *o, struct tok_steps *steps)
{
    struct tok_step *s = tok_steps_add(steps, step_split);
    s->options = tok_json_flag(o, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    return own_regex(s, "\\p{N}", REGEX_OURS);
}

static status load_punctuation(const json_t *o, struct tok_steps *steps)
{
    struct tok_step *s = tok_steps_add(steps, step_split);
    TRY(field_choice(o, "behavior", BEHAVIOURS, N_BEHAVIOURS, SPLIT_ISOLATED, &s->options));
    return own_regex(s, "[!-/:-@\\[-`{-~\\p{P}]", REGEX_OURS);
}

static status load_whitespace_split(const json_t *o, struct tok_steps *steps)
{
    (void)o;
    struct tok_step *s = tok_steps_add(steps, step_split);
    s->options = SPLIT_REMOVED;
    return own_regex(s, "[" SET_SPACE "]", REGEX_OURS);
}

static status load_whitespace(const json_t *o, struct tok_steps *steps)
{
    (void)o;
    struct tok_step *s = tok_steps_add(steps, step_split);
    s->options = SPLIT_REMOVED;
    s->flag = true;
    return own_regex(s, "[" SET_RUST_WORD "]+|[^" SET_RUST_WORD SET_SPACE "]+", REGEX_OURS);
}

static status decoder_metaspace(const json_t *o, struct tok_steps *steps)
{
    struct tok_step *s = tok_steps_add(steps, decode_metaspace);
    TRY(metaspace_members(o, s));
    s->flag = s->options != PREPEND_NEVER;
    return ST_OK;
}

static status decoder_strip(const json_t *o, struct tok_steps *steps)
{
    const char *text;
    size_t n;
    TRY(tok_json_text(o, "content", &text, &n));
    if (n == 0) FAIL(ST_CORRUPT, "'content' is empty");
    struct tok_step *s = tok_steps_add(steps, decode_strip);
    tok_step_text(s, text, n);
    json_int_t left = json_integer_value(json_object_get(o, "start")), right = json_integer_value(json_object_get(o, "stop"));
    if (left < 0 || right < 0 || left > INT32_MAX || right > INT32_MAX) FAIL(ST_CORRUPT, "'start' or 'stop' is not a count");
    s->left = (int)left;
    s->right = (int)right;
    return ST_OK;
}

static const struct component NORMALIZERS[] = {
    {"NFC", NULL, step_unicode, UNICODE_NFC},
    {"NFD", NULL, step_unicode, UNICODE_NFD},
    {"NFKC", NULL, step_unicode, UNICODE_NFKC},
    {"NFKD", NULL, step_unicode, UNICODE_NFKD},
    {"Lowercase", NULL, step_lowercase},
    {"Prepend", load_prepend},
    {"Replace", load_replace},
    {"Strip", load_strip},
    {0},
};

static const struct component PRE_TOKENIZERS[] = {
    {"Split", load_split},
    {"ByteLevel", load_byte_level},
    {"Metaspace", load_metaspace},
    {"Digits", load_digits},
    {"Punctuation", load_punctuation},
    {"Whitespace", load_whitespace},
    {"WhitespaceSplit", load_whitespace_split},
    {0},
};

static const struct component DECODERS[] = {
    {"ByteLevel", NULL, decode_bytes},
    {"Metaspace", decoder_metaspace},
    {"Replace", load_replace},
    {"ByteFallback", NULL, decode_fallback},
    {"Fuse", NULL, decode_fuse},
    {"Strip", decoder_strip},
    {0},
};

static status unknown_type(const char *type, const struct component *table)
{
    struct buf known = {0};
    for (const struct component *c = table; c->type; c++) buf_printf(&known, "%s, ", c->type);
    status st = status_fail(ST_NOT_BUILT, "type '%s' is not built in (known: %sSequence)", type, known.data);
    buf_release(&known);
    return st;
}

/* members: the key under which a Sequence has its parts. */
static status load_steps(const json_t *o, const struct component *table, const char *members, int depth, struct tok_steps *steps)
{
    const char *type;
    size_t n;
    if (!o || json_is_null(o)) return ST_OK;
    if (depth > MAX_NESTING) FAIL(ST_CORRUPT, "Sequence nested more than %d deep", MAX_NESTING);
    TRY(tok_json_text(o, "type", &type, &n));
    if (strcmp(type, "Sequence") == 0) {
        size_t i;
        json_t *part;
        if (!json_is_array(json_object_get(o, members))) FAIL(ST_CORRUPT, "Sequence without a list '%s'", members);
        json_array_foreach(json_object_get(o, members), i, part) TRY(load_steps(part, table, members, depth + 1, steps));
        return ST_OK;
    }
    const struct component *c = table;
    while (c->type && strcmp(c->type, type) != 0) c++;
    if (!c->type) return unknown_type(type, table);
    if (!c->load) {
        tok_steps_add(steps, c->run)->options = c->options;
        return ST_OK;
    }
    status st = c->load(o, steps);
    return st ? status_prefix(st, "%s", type) : ST_OK;
}

/* ---- post-processors: ids before and behind a document ---- */

static status template_ids(const json_t *special_tokens, const json_t *part, struct ids *to)
{
    const char *name;
    size_t n, i;
    json_t *id;
    TRY(tok_json_text(part, "id", &name, &n));
    const json_t *ids = json_object_get(json_object_get(special_tokens, name), "ids");
    if (!json_is_array(ids)) FAIL(ST_CORRUPT, "TemplateProcessing: '%s' is not in its special_tokens", name);
    json_array_foreach(ids, i, id)
    {
        json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;
        if (v < 0 || v >= TOK_MAX_IDS) FAIL(ST_CORRUPT, "TemplateProcessing: '%s' has a bad id", name);
        ids_push(to, (int32_t)v);
    }
    return ST_OK;
}

static status load_template(const json_t *o, struct tokenizer *t)
{
    size_t i;
    int texts = 0;
    json_t *part;
    struct ids inner = t->prefix; /* a later template goes around an earlier one */
    struct ids before = {0};
    status st = ST_OK;
    json_array_foreach(json_object_get(o, "single"), i, part)
    {
        const json_t *special = json_object_get(part, "SpecialToken");
        if (special)
            TRY_DONE(template_ids(json_object_get(o, "special_tokens"), special, texts ? &t->suffix : &before));
        else
            texts += json_object_get(part, "Sequence") != NULL;
    }
    if (texts != 1) FAIL_DONE(ST_CORRUPT, "TemplateProcessing: 'single' has %d places for the text; need 1", texts);
    for (i = 0; i < inner.n; i++) ids_push(&before, inner.v[i]);
    t->prefix = before;
    before = inner;
    t->has_template = true;
done:
    free(before.v);
    return st;
}

static status load_post(const json_t *o, struct tokenizer *t, int depth)
{
    const char *type;
    size_t n, i;
    json_t *part;
    if (!o || json_is_null(o)) return ST_OK;
    if (depth > MAX_NESTING) FAIL(ST_CORRUPT, "Sequence nested more than %d deep", MAX_NESTING);
    TRY(tok_json_text(o, "type", &type, &n));
    if (strcmp(type, "ByteLevel") == 0) return ST_OK; /* moves offsets, not ids */
    if (strcmp(type, "TemplateProcessing") == 0) return load_template(o, t);
    if (strcmp(type, "Sequence") != 0)
        FAIL(ST_NOT_BUILT, "type '%s' is not built in (known: TemplateProcessing, ByteLevel, Sequence)", type);
    json_array_foreach(json_object_get(o, "processors"), i, part) TRY(load_post(part, t, depth + 1));
    return ST_OK;
}

static status prefixed(status st, const char *part) { return st ? status_prefix(st, "%s", part) : ST_OK; }

status tok_load_pipeline(struct tokenizer *t, const json_t *root)
{
    const struct {
        const char *key, *members;
        const struct component *table;
        struct tok_steps *steps;
    } lists[] = {
        {"normalizer", "normalizers", NORMALIZERS, &t->normalizer},
        {"pre_tokenizer", "pretokenizers", PRE_TOKENIZERS, &t->pre_tokenizer},
        {"decoder", "decoders", DECODERS, &t->decoder},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const json_t *o = json_object_get(root, lists[i].key);
        TRY(prefixed(load_steps(o, lists[i].table, lists[i].members, 0, lists[i].steps), lists[i].key));
    }
    return prefixed(load_post(json_object_get(root, "post_processor"), t, 0), "post_processor");
}
