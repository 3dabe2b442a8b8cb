#include "worker/data/tokenizer/open.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "worker/data/tokenizer/byte_files.h"
#include "worker/data/tokenizer/classes.h"
#include "worker/data/tokenizer/config.h"
#include "worker/data/tokenizer/json_file.h"
#include "worker/data/tokenizer/segment.h"
#include "worker/data/tokenizer/spm_file.h"

enum { FILE_LIMIT = 256 << 20 };

#define REMEDY "write a tokenizer.json with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"

/* ---- from texts ---- */

enum kind { KIND_JSON, KIND_BYTES, KIND_TIKTOKEN, KIND_SPM };

/* Who decides what a bare file leaves unsaid: torchtune's component, else the class, else model_type. */
struct unsaid {
    enum kind kind;
    const struct family_tokens *family; /* NULL: unknown */
    const struct tok_class *class;      /* how to read the file; NULL: it does not say */
    const struct tok_class *names;      /* who is bos, eos, pad if nothing else says it; NULL: unknown */
    const char *model_type;
};

static enum kind kind_named(const char *name)
{
    static const char *const names[] = {"tokenizer.json", "vocab.json", "tiktoken", "sentencepiece"};
    int i = 0;
    while (i < KIND_SPM && strcmp(names[i], name) != 0) i++;
    return i;
}

static status class_not_built(const char *name, enum kind kind)
{
    struct buf known = {0};
    bool spm = kind != KIND_BYTES;
    tok_class_names(&known, spm);
    status st =
        status_fail(ST_NOT_BUILT, "tokenizer_class '%s' is not built in for this kind of file (known: %s); " REMEDY, name, known.data);
    buf_release(&known);
    return st;
}

static status find_unsaid(const struct tok_source *s, const struct tok_config *c, struct unsaid *u)
{
    const char *class_name;
    u->kind = kind_named(s->kind);
    u->model_type = tok_config_model_type(c);
    if (!u->model_type) u->model_type = s->model_type;
    /* tiktoken files of other families are refused by name */
    u->family = tok_family_find(s->family ? s->family : u->kind == KIND_TIKTOKEN ? "llama3" : u->model_type);
    if (u->kind == KIND_JSON && u->family == &family_tokens_plain) u->family = NULL; /* its pieces say more */
    const struct tok_class *class = tok_config_class(c, &class_name);
    if (s->family || !class_name) return ST_OK;
    if (u->kind == KIND_JSON) {
        u->names = class;
        return ST_OK;
    }
    bool reads = class && (u->kind == KIND_BYTES ? class->pattern || class->spm == SPM_AS_BACKEND : class->spm);
    if (!reads) return class_not_built(class_name, u->kind);
    if (u->kind == KIND_TIKTOKEN || (u->kind == KIND_BYTES && !class->pattern)) return ST_OK; /* it says no more */
    u->class = u->names = class;
    return ST_OK;
}

static struct tok_byte_rules byte_rules(const struct unsaid *u, const struct tok_config *c)
{
    const struct family_tokens *family = u->family;
    bool prefix = tok_config_flag(c, "add_prefix_space") > 0;
    if (u->class) return (struct tok_byte_rules){u->class->pattern, u->class->nfc, prefix ? u->class->prefix : PREFIX_NONE};
    if (!family || !family->split) family = tok_family_find(u->kind == KIND_TIKTOKEN ? "llama3" : "gpt2");
    return (struct tok_byte_rules){tok_split_pattern(family->split), family->nfc, prefix ? PREFIX_TEXT : PREFIX_NONE};
}

static struct tok_spm_rules spm_rules(const struct unsaid *u, const struct tok_config *c)
{
    if (!u->class) return (struct tok_spm_rules){.as = SPM_AS_ITSELF};
    enum tok_spm_as as = u->class->spm;
    int legacy = tok_config_flag(c, "legacy"), prefix = tok_config_flag(c, "add_prefix_space");
    if (u->model_type && tok_reads_as_backend(u->model_type)) as = SPM_AS_BACKEND;
    /* legacy unsaid: true for the backend, false for the classes */
    if (as == SPM_AS_BACKEND) return (struct tok_spm_rules){as, legacy ? PREPEND_ALWAYS : PREPEND_FIRST};
    if (as == SPM_AS_CODE_LLAMA) legacy = 0;
    return (struct tok_spm_rules){as, prefix == 0 ? PREPEND_NEVER : legacy > 0 ? PREPEND_ALWAYS : PREPEND_FIRST};
}

static status read_tiktoken(struct tokenizer *t, const struct tok_source *s, const struct tok_config *c, const struct unsaid *u)
{
    TRY(tok_read_tiktoken(t, s->data, s->n, byte_rules(u, c)));
    const char *whose = s->family ? NULL : tok_foreign_tiktoken(t->model.vocab.ids, u->model_type);
    if (whose) FAIL(ST_NOT_BUILT, "is the tiktoken vocabulary of %s, whose split pattern is not built in (known: Llama 3); " REMEDY, whose);
    return ST_OK;
}

static status read_kind(struct tokenizer *t, const struct tok_source *s, const struct tok_config *c, const struct unsaid *u)
{
    switch (u->kind) {
    case KIND_JSON:
        return tok_read_json(t, s->data, s->n);
    case KIND_TIKTOKEN:
        return read_tiktoken(t, s, c, u);
    case KIND_SPM:
        return tok_read_spm(t, (const unsigned char *)s->data, s->n, spm_rules(u, c));
    case KIND_BYTES:
        break;
    }
    if (!s->merges) FAIL(ST_USAGE, "a vocab.json needs its merges.txt; give merges_file");
    return tok_read_gpt2(t, s->data, s->n, s->merges, s->merges_n, byte_rules(u, c));
}

static int32_t named_id(const struct tokenizer *t, const char *text) { return text ? tokenizer_id(t, text) : -1; }

/* bos, eos, pad: what the configuration names, else the class, else what the file says, else what the family uses. */
static void choose_specials(struct tokenizer *t, const struct tok_config *c, const struct unsaid *u)
{
    const struct tok_class none = {0}, *class = u->names ? u->names : &none;
    int32_t *const place[] = {&t->bos, &t->eos, &t->pad};
    const char *const key[] = {"bos_token", "eos_token", "pad_token"};
    const char *const of_class[] = {class->bos, class->eos, class->pad};
    const char *const usual[] = {u->family->bos, u->family->eos, u->family->pad};
    if (t->bos < 0 && t->has_template && t->prefix.n) t->bos = t->prefix.v[0];
    for (int i = 0; i < 3; i++) {
        const char *text = tok_config_text(c, key[i]);
        int32_t id = named_id(t, text ? text : of_class[i]);
        if (tok_config_null(c, key[i]))
            *place[i] = -1;
        else if (id >= 0)
            *place[i] = id;
        else if (*place[i] < 0 && !u->names)
            *place[i] = named_id(t, usual[i]);
    }
}

static bool holds(const struct ids *ids, int32_t id)
{
    size_t i = 0;
    while (i < ids->n && ids->v[i] != id) i++;
    return i < ids->n;
}

/* A flag that is not followed is told where it would have changed something. */
static void tell_flag(const struct tokenizer *t, const char *key, int flag, const struct ids *around, int32_t id)
{
    if (flag >= 0 && id >= 0 && holds(around, id) != (flag > 0))
        log_note("%s: tokenizer_config.json's %s is not followed: the post_processor of tokenizer.json decides, as in transformers 5",
                 t->path, key);
}

/* A tokenizer.json says it by its post-processor: transformers ignores add_bos_token and add_eos_token beside one. */
static void choose_document(struct tokenizer *t, const struct tok_config *c, const struct unsaid *u)
{
    int add_bos = tok_config_flag(c, "add_bos_token"), add_eos = tok_config_flag(c, "add_eos_token");
    if (u->kind == KIND_JSON) {
        tell_flag(t, "add_bos_token", add_bos, &t->prefix, t->bos);
        tell_flag(t, "add_eos_token", add_eos, &t->suffix, t->eos);
        return;
    }
    if (add_bos < 0) add_bos = u->class ? u->class->bos_added : u->kind != KIND_BYTES && u->family->bos_added;
    if (add_bos && t->bos >= 0) ids_push(&t->prefix, t->bos);
    if (add_eos > 0 && t->eos >= 0) ids_push(&t->suffix, t->eos);
}

static status check_ids(const struct tokenizer *t, const struct ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        if (!tokenizer_piece(t, ids->v[i])) FAIL(ST_CORRUPT, "post_processor: id %d is not in the vocabulary", (int)ids->v[i]);
    return ST_OK;
}

static status build(struct tokenizer *t, const struct tok_source *s, const struct tok_config *c)
{
    struct unsaid u = {0};
    TRY(find_unsaid(s, c, &u));
    TRY(read_kind(t, s, c, &u));
    int32_t of_file = t->added.n;
    tok_bpe_words(&t->model);
    if (s->specials) TRY(tok_read_added(t, s->specials, strlen(s->specials)));
    TRY(tok_config_added(c, t, u.kind == KIND_JSON, u.class));
    bool bare = u.kind != KIND_JSON && !u.class && t->added.n == of_file;
    if (bare && u.family && (u.kind == KIND_SPM) == !u.family->split) TRY(tok_family_specials(t, u.family));
    TRY(tok_added_finish(&t->added, &t->normalizer));
    if (!u.family) u.family = tok_family_guess(t);
    t->size = t->model.vocab.ids;
    for (int32_t i = 0; i < t->added.n; i++)
        if (t->added.v[i].id >= t->size) t->size = t->added.v[i].id + 1;
    choose_specials(t, c, &u);
    choose_document(t, c, &u);
    TRY(check_ids(t, &t->prefix));
    TRY(check_ids(t, &t->suffix));
    const char *base = strrchr(t->path, '/');
    t->describe = mem_printf("%s: %s, %d ids", base ? base + 1 : t->path, t->kind, (int)t->size);
    return ST_OK;
}

status tokenizer_from_memory(const struct tok_source *s, struct tokenizer **out)
{
    struct tokenizer *t = mem_alloc(sizeof *t);
    struct tok_config c = {0};
    tok_model_init(&t->model);
    t->bos = t->eos = t->pad = -1;
    t->path = mem_strdup(s->path);
    status st = tok_config_open(&c, s->config, s->special_map, s->added, s->model_config);
    if (!st) st = build(t, s, &c);
    tok_config_close(&c);
    if (st) {
        status_prefix(st, "%s", s->path);
        tokenizer_close(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

/* ---- from files ---- */

/* A source and the texts it points to. */
struct files {
    struct tok_source s;
    char *path, *data, *merges, *config, *special_map, *added, *model_config, *specials;
};

static char *beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return slash ? mem_printf("%.*s/%s", (int)(slash - path), path, name) : mem_strdup(name);
}

/* A file that need not exist. */
static status read_optional(const char *path, const char *name, char **text)
{
    char *file = beside(path, name);
    status st = file_exists(file) ? file_read(file, FILE_LIMIT, text, NULL) : ST_OK;
    free(file);
    return st;
}

static bool in_directory(const char *path, const char *name, char **file)
{
    *file = mem_printf("%s/%s", path, name);
    if (file_exists(*file)) return true;
    free(*file);
    *file = NULL;
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static status refuse_foreign(const char *path)
{
    for (const struct tok_foreign *f = TOK_FOREIGN; f->file; f++)
        if (ends_with(path, f->file)) FAIL(ST_NOT_BUILT, "%s: %s is not built in; " REMEDY, path, f->format);
    return ST_OK;
}

/* In a directory: the first of the names that exists. */
static status find_file(const char *path, char **file)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    if (!file_is_dir(path)) {
        TRY(refuse_foreign(path));
        *file = mem_strdup(path);
        return ST_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (in_directory(path, names[i], file)) return ST_OK;
    for (const struct tok_foreign *f = TOK_FOREIGN; f->file; f++) {
        char *foreign;
        if (!in_directory(path, f->file, &foreign)) continue;
        status st = refuse_foreign(foreign);
        free(foreign);
        return st;
    }
    FAIL(ST_IO, "%s: has no tokenizer.json, tokenizer.model or vocab.json; copy the model's tokenizer files there", path);
}

/* JSON by its brace, protobuf by its first field (number 1, bytes), tiktoken by being neither. */
static const char *kind_of(const struct files *f, const struct tokenizer_hint *hint)
{
    if (f->data[strspn(f->data, " \t\r\n")] == '{')
        return hint->merges_file || ends_with(f->path, "vocab.json") ? "vocab.json" : "tokenizer.json";
    return f->s.n && f->data[0] == '\n' ? "sentencepiece" : "tiktoken";
}

static status read_merges(struct files *f, const struct tokenizer_hint *hint)
{
    char *path = hint->merges_file ? mem_strdup(hint->merges_file) : beside(f->path, "merges.txt");
    status st = file_read(path, FILE_LIMIT, &f->merges, &f->s.merges_n);
    free(path);
    return st;
}

static status read_all(struct files *f, const char *path, const struct tokenizer_hint *hint)
{
    TRY(find_file(path, &f->path));
    TRY(file_read(f->path, FILE_LIMIT, &f->data, &f->s.n));
    f->s.kind = kind_of(f, hint);
    if (strcmp(f->s.kind, "vocab.json") == 0) TRY(read_merges(f, hint));
    TRY(read_optional(f->path, "tokenizer_config.json", &f->config));
    TRY(read_optional(f->path, "special_tokens_map.json", &f->special_map));
    TRY(read_optional(f->path, "added_tokens.json", &f->added));
    TRY(read_optional(f->path, "config.json", &f->model_config));
    if (hint->special_tokens_path) TRY(file_read(hint->special_tokens_path, FILE_LIMIT, &f->specials, NULL));
    return ST_OK;
}

status tokenizer_open(const char *path, const struct tokenizer_hint *hint, struct tokenizer **out)
{
    const struct tokenizer_hint none = {0};
    struct files f = {0};
    if (!hint) hint = &none;
    status st = read_all(&f, path, hint);
    f.s.path = f.path;
    f.s.data = f.data;
    f.s.merges = f.merges;
    f.s.config = f.config;
    f.s.special_map = f.special_map;
    f.s.added = f.added;
    f.s.model_config = f.model_config;
    f.s.specials = f.specials;
    f.s.family = hint->family;
    f.s.model_type = hint->model_type;
    if (!st) st = tokenizer_from_memory(&f.s, out);
    char *const texts[] = {f.path, f.data, f.merges, f.config, f.special_map, f.added, f.model_config, f.specials};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) free(texts[i]);
    /* the JSON tree was several times the file; the plan does not count it, so neither may the process */
    malloc_trim(0);
    return st;
}
