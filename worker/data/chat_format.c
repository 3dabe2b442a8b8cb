#include "worker/data/chat_format.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/file.h"
#include "kernels/base/text.h"

enum { FILE_LIMIT = 64 << 20 };

static const char *const slot_names[CHAT_TEMPLATES] = {[CHAT_DEFAULT] = "default", [CHAT_TOOL_USE] = "tool_use"};

/* ---- collecting texts ------------------------------------------------------------------------------------------ */

static void put(struct chat_format *f, int slot, char *name, char *text)
{
    struct chat_template *t = &f->templates[slot];
    free(t->name);
    free(t->text);
    *t = (struct chat_template){.name = name, .text = text, .n = strlen(text)};
}

static void put_named(struct chat_format *f, const char *path, const char *name, const char *text)
{
    for (int slot = 0; name && text && slot < CHAT_TEMPLATES; slot++)
        if (!strcmp(name, slot_names[slot]))
            put(f, slot, mem_printf("%s: chat_template%s%s", path, slot ? " " : "", slot ? name : ""), mem_strdup(text));
}

/* A text, a list of {"name", "template"}, or {name: template}. */
static status take_value(struct chat_format *f, const char *path, const json_t *v)
{
    size_t i;
    const char *name;
    json_t *entry;
    if (!v || json_is_null(v)) return ST_OK;
    if (json_is_string(v)) put_named(f, path, slot_names[CHAT_DEFAULT], json_string_value(v));
    json_array_foreach(v, i, entry)
        put_named(f, path, json_string_value(json_object_get(entry, "name")), json_string_value(json_object_get(entry, "template")));
    if (json_is_object(v)) json_object_foreach((json_t *)v, name, entry) put_named(f, path, name, json_string_value(entry));
    if (!json_is_string(v) && !json_is_array(v) && !json_is_object(v))
        FAIL(ST_CORRUPT, "%s: chat_template: expected a text or a list of named ones; repair it, or set chat_template", path);
    return ST_OK;
}

static status read_json(const char *path, json_t **root)
{
    json_error_t e;
    char *text = NULL;
    size_t n;
    *root = NULL;
    if (!file_exists(path)) return ST_OK;
    TRY(file_read(path, FILE_LIMIT, &text, &n));
    /* As reals: many a model_max_length is 1e30 written out, and no number is used here. */
    *root = json_loadb(text, n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &e);
    free(text);
    if (!*root) FAIL(ST_CORRUPT, "%s:%d:%d: not valid JSON: %s; copy the model's own file again", path, e.line, e.column, e.text);
    return ST_OK;
}

static status take_jinja(struct chat_format *f, int slot, char *path)
{
    char *text = NULL;
    status st = file_exists(path) ? file_read(path, FILE_LIMIT, &text, NULL) : ST_OK;
    if (text)
        put(f, slot, path, text);
    else
        free(path);
    return st;
}

static status take_json(struct chat_format *f, const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    json_t *root = NULL;
    status st = read_json(path, &root);
    if (!st) st = take_value(f, path, json_object_get(root, "chat_template"));
    json_decref(root);
    free(path);
    return st;
}

static bool has_template(const struct chat_format *f)
{
    for (int i = 0; i < CHAT_TEMPLATES; i++)
        if (f->templates[i].text) return true;
    return false;
}

static status take_directory(struct chat_format *f, const char *dir)
{
    for (int slot = 0; slot < CHAT_TEMPLATES; slot++)
        TRY(take_jinja(f, slot, mem_printf("%s/additional_chat_templates/%s.jinja", dir, slot_names[slot])));
    TRY(take_jinja(f, CHAT_DEFAULT, mem_printf("%s/chat_template.jinja", dir)));
    if (!has_template(f)) TRY(take_json(f, dir, "tokenizer_config.json"));
    if (!has_template(f)) TRY(take_json(f, dir, "chat_template.json"));
    return ST_OK;
}

/* ---- variables ------------------------------------------------------------------------------------------------- */

static const char *token_text(const json_t *v) { return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v); }

/* Special tokens by name; the first file that says one wins, null included. */
static void take_tokens(struct chat_format *f, const json_t *root, json_t *said)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)root, key, v)
    {
        size_t n = strlen(key);
        bool token = n > 6 && !strcmp(key + n - 6, "_token");
        if (!token || json_object_get(said, key) || (!json_is_null(v) && !token_text(v))) continue;
        json_object_set_new(said, key, json_true());
        if (token_text(v)) json_object_set_new(f->variables, key, json_string(token_text(v)));
    }
}

/* A configured value is a YAML scalar: true, false, null and whole numbers are what they look like. */
static json_t *scalar(const char *text)
{
    static const struct {
        const char *word;
        int kind;
    } words[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"null", -1}, {"None", -1}, {"~", -1}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(text, words[i].word)) return words[i].kind < 0 ? json_null() : json_boolean(words[i].kind);
    char *end;
    long long v = strtoll(text, &end, 10);
    return *text && !*end && !isspace((unsigned char)*text) ? json_integer(v) : json_string(text);
}

static status take_variables(struct chat_format *f, const struct config *c, const char *const *dirs, int n_dirs)
{
    static const char *const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    json_t *said = json_object();
    status st = ST_OK;
    f->variables = json_object();
    for (int i = 0; i < 2 * n_dirs && !st; i++) {
        char *path = mem_printf("%s/%s", dirs[i / 2], files[i % 2]);
        json_t *root = NULL;
        st = read_json(path, &root);
        if (json_is_object(root)) take_tokens(f, root, said);
        json_decref(root);
        free(path);
    }
    const struct {
        const char *key;
        int32_t id;
    } usual[] = {{"bos_token", tokenizer_bos(f->tok)}, {"eos_token", tokenizer_eos(f->tok)}};
    for (int i = 0; i < 2; i++) {
        const char *piece = usual[i].id >= 0 ? tokenizer_piece(f->tok, usual[i].id) : NULL;
        if (piece && !json_object_get(said, usual[i].key)) json_object_set_new(f->variables, usual[i].key, json_string(piece));
    }
    for (int i = 0; i < c->n_template_variables; i++)
        json_object_set_new(f->variables, c->template_variables[i].key, scalar(c->template_variables[i].value));
    json_decref(said);
    return st;
}

/* ---- choosing -------------------------------------------------------------------------------------------------- */

static status take_configured(struct chat_format *f, const char *wanted)
{
    char *text = chat_named(wanted, f->tok);
    if (text) {
        put(f, CHAT_DEFAULT, mem_printf("chat_template=%s", wanted), text);
        return ST_OK;
    }
    if (file_exists(wanted) && !file_is_dir(wanted)) return take_jinja(f, CHAT_DEFAULT, mem_strdup(wanted));
    char *known = chat_named_list();
    status st = status_fail(ST_CONFIG_RUNTIME,
                            "chat_template: '%s' is no file and no built-in name; use model, a Jinja file, "
                            "or one of %s",
                            wanted, known);
    free(known);
    return st;
}

static void take_built_in(struct chat_format *f)
{
    const char *name = chat_named_for(f->family);
    put(f, CHAT_DEFAULT, mem_printf("built-in %s", name), chat_named(name, f->tok));
    f->built_in = true;
}

static void compile(struct chat_template *t)
{
    t->broken = template_compile(t->name, t->text, t->n, &t->compiled);
    if (t->broken) t->complaint = mem_strdup(status_message());
}

static char *folder_of(const char *path)
{
    if (file_is_dir(path)) return mem_strdup(path);
    const char *slash = strrchr(path, '/');
    return slash ? mem_printf("%.*s", (int)(slash - path), path) : mem_strdup(".");
}

static status choose(struct chat_format *f, const struct config *c, const char *const *dirs, int n_dirs)
{
    const char *wanted = c->chat_template;
    if (wanted && strcmp(wanted, "model")) return take_configured(f, wanted);
    for (int i = 0; i < n_dirs && !has_template(f); i++) TRY(take_directory(f, dirs[i]));
    if (has_template(f) || f->torchtune) return ST_OK;
    if (wanted)
        FAIL(ST_CONFIG_RUNTIME,
             "chat_template: model: %s has no chat template (chat_template.jinja, or chat_template in "
             "tokenizer_config.json); name a file or a built-in one such as chatml",
             dirs[0]);
    take_built_in(f);
    return ST_OK;
}

status chat_format_open(const struct config *c, const struct tokenizer *tok, const char *tokenizer_path, const char *family, int64_t now,
                        struct chat_format *f)
{
    char *home = folder_of(tokenizer_path);
    const char *adapter = c->checkpointer.adapter_checkpoint, *dirs[] = {home, c->checkpointer.checkpoint_dir};
    int n_dirs = dirs[1] && strcmp(dirs[0], dirs[1]) ? 2 : 1;
    *f = (struct chat_format){.tok = tok, .family = family, .now = now, .torchtune = !c->chat_template && c->torchtune_templates};
    status st = take_variables(f, c, dirs, n_dirs);
    if (!st && adapter && !c->chat_template) st = take_directory(f, adapter);
    if (!st) st = choose(f, c, dirs, n_dirs);
    for (int i = 0; i < CHAT_TEMPLATES && !st; i++)
        if (f->templates[i].text) compile(&f->templates[i]);
    free(home);
    if (st) chat_format_close(f);
    return st;
}

void chat_format_close(struct chat_format *f)
{
    for (int i = 0; i < CHAT_TEMPLATES; i++) {
        struct chat_template *t = &f->templates[i];
        template_free(t->compiled);
        free(t->name);
        free(t->text);
        free(t->complaint);
    }
    json_decref(f->variables);
    *f = (struct chat_format){0};
}

status chat_format_template(const struct chat_format *f, bool tools, const struct chat_template **t)
{
    *t = &f->templates[tools && f->templates[CHAT_TOOL_USE].text ? CHAT_TOOL_USE : CHAT_DEFAULT];
    if (!(*t)->text)
        FAIL(ST_CONFIG_RUNTIME, "the model directory's chat templates have none called \"default\"; set chat_template to a file "
                                "or a built-in name");
    if ((*t)->broken) FAIL((*t)->broken, "%s; set chat_template to a file or a built-in name", (*t)->complaint);
    return ST_OK;
}
