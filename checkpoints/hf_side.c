/* What an export carries over from its base, and what it says differently: the dtype, the ids that end an answer, the
 * tokenizer and the template that were used. Everything else stays as it was, byte for byte. */
#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"
#include "checkpoints/jedit.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { SIDE_BYTES = 64 << 20 };

enum { VOCABULARIES = 4 }; /* the first of these, before what says how to use them */
static const char *const tokenizer_files[] = {
    "tokenizer.json",        "tokenizer.model",         "vocab.json",        "merges.txt",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", NULL,
};
static const char *const template_files[] = {"chat_template.jinja", "chat_template.json", NULL};
static const char *const template_dir = "additional_chat_templates";

/* ---- files as they are ------------------------------------------------------------------------------------------ */

static status copy_one(const char *from_dir, const char *to_dir, const char *name)
{
    char *from = mem_printf("%s/%s", from_dir, name), *to = mem_printf("%s/%s", to_dir, name);
    status st = file_exists(from) ? file_copy(from, to) : ST_OK;
    free(from);
    free(to);
    return st;
}

static status copy_all(const char *from_dir, const char *to_dir, const char *const *names)
{
    for (; *names; names++) TRY(copy_one(from_dir, to_dir, *names));
    return ST_OK;
}

static status copy_templates(const char *from_dir, const char *to_dir)
{
    char *from = mem_printf("%s/%s", from_dir, template_dir), *to = mem_printf("%s/%s", to_dir, template_dir);
    status st = copy_all(from_dir, to_dir, template_files);
    DIR *d = st ? NULL : opendir(from);
    if (d) st = file_mkdirs(to);
    for (struct dirent *e; d && !st && (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (dot && strcmp(dot, ".jinja") == 0) st = copy_one(from, to, e->d_name);
    }
    if (d) closedir(d);
    free(from);
    free(to);
    return st;
}

/* ---- files with a value changed --------------------------------------------------------------------------------- */

/* A JSON file as text, to be edited, and as a document, to be read. */
struct side {
    char *path;
    struct buf text;
    json_t *root;
};

static status side_open(struct side *s, const char *dir, const char *name)
{
    char *text = NULL;
    size_t n = 0;
    *s = (struct side){.path = mem_printf("%s/%s", dir, name)};
    if (!file_exists(s->path)) return ST_OK;
    status st = file_read(s->path, SIDE_BYTES, &text, &n);
    if (!st) st = jdoc_parse_any_number(s->path, text, n, &s->root);
    if (!st) buf_add(&s->text, text, n);
    free(text);
    return st;
}

static status side_save(const struct side *s, const char *dir, const char *name)
{
    char *path = mem_printf("%s/%s", dir, name);
    status st = file_replace(path, s->text.data, s->text.len);
    free(path);
    return st;
}

static void side_close(struct side *s)
{
    json_decref(s->root);
    buf_release(&s->text);
    free(s->path);
}

/* Both spellings, where both are present: 4.x reads torch_dtype, 5.x prefers dtype. */
static status write_config(const char *from_dir, const char *to_dir, const struct hf_export *e)
{
    const char *dt = e->dtype;
    struct side s;
    char *value = dt ? mem_printf("\"%s\"", dt) : NULL;
    status st;
    TRY_DONE(side_open(&s, from_dir, "config.json"));
    if (!s.root) goto done;
    if (dt) {
        bool old = jedit_replace(&s.text, "torch_dtype", value), fresh = jedit_replace(&s.text, "dtype", value);
        if (!old && !fresh) jedit_set(&s.text, "torch_dtype", value);
    }
    if (e->unquantised) jedit_remove(&s.text, "quantization_config");
    if (e->untied) jedit_set(&s.text, "tie_word_embeddings", "false"); /* older transformers would tie what was trained apart */
    st = side_save(&s, to_dir, "config.json");
done:
    side_close(&s);
    free(value);
    return st;
}

/* ---- where an answer ends --------------------------------------------------------------------------------------- */

static void add_id(json_t *list, json_int_t id)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (json_integer_value(v) == id) return;
    json_array_append_new(list, json_integer(id));
}

/* eos_token_id, a number or a list, as a list. */
static json_t *ends_of(const json_t *root)
{
    json_t *list = json_array(), *v = json_object_get(root, "eos_token_id");
    if (json_is_integer(v)) add_id(list, json_integer_value(v));
    for (size_t i = 0; i < json_array_size(v); i++)
        if (json_is_integer(json_array_get(v, i))) add_id(list, json_integer_value(json_array_get(v, i)));
    return list;
}

/* Without the file, other programs generate by config.json: what they take from there is said here. */
static void begin_generation(struct side *s, const json_t *config)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    s->root = json_object();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *v = json_object_get(config, keys[i]);
        if (v && !json_is_null(v)) json_object_set(s->root, keys[i], v);
    }
    char *text = json_dumps(s->root, JSON_INDENT(2));
    buf_text(&s->text, text ? text : "{}");
    buf_text(&s->text, "\n");
    free(text);
}

static void put_ends(struct side *s, const int32_t *ids, int n)
{
    json_t *list = ends_of(s->root);
    size_t before = json_array_size(list);
    for (int i = 0; i < n; i++) add_id(list, ids[i]);
    char *text = json_array_size(list) > before ? json_dumps(list, JSON_ENCODE_ANY) : NULL;
    if (text) {
        jedit_set(&s->text, "eos_token_id", text);
        jedit_replace(&s->text, "_from_model_config", "false"); /* true: transformers may take config.json's again */
    }
    free(text);
    json_decref(list);
}

/* A file that does not parse stops no export: other programs cannot read it either. */
static status write_generation(const char *from_dir, const char *to_dir, const struct hf_export *e)
{
    struct side s, config = {0};
    status st = side_open(&s, from_dir, "generation_config.json");
    if (st == ST_CORRUPT) {
        log_warn("%s; the export gets a new one", status_message());
        buf_clear(&s.text);
    } else
        TRY_DONE(st);
    if (!s.root && (st || e->n_end)) {
        TRY_DONE(side_open(&config, from_dir, "config.json"));
        begin_generation(&s, config.root);
    }
    put_ends(&s, e->end_ids, e->n_end);
    st = s.root ? side_save(&s, to_dir, "generation_config.json") : ST_OK;
done:
    side_close(&s);
    side_close(&config);
    return st;
}

status hf_generation_ends(const char *dir, int32_t **ids, int *n)
{
    struct side s;
    *ids = NULL;
    *n = 0;
    status st = side_open(&s, dir, "generation_config.json");
    json_t *list = st ? NULL : ends_of(s.root);
    if (json_array_size(list)) *ids = mem_alloc(json_array_size(list) * sizeof **ids);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (id >= 0 && id <= INT32_MAX) (*ids)[(*n)++] = (int32_t)id;
    }
    json_decref(list);
    side_close(&s);
    return st;
}

/* ---- how a conversation is written ------------------------------------------------------------------------------ */

/* Transformers takes chat_template.jinja before the templates of tokenizer_config.json, and then forgets those with a
 * name of their own: they become files as well. A name that is no file name stays where it is. */
static status name_template(const char *to_dir, const char *name, const char *text)
{
    if (!*name || strlen(name) > NAME_MAX - 16 || strchr(name, '/') || *name == '.') return ST_OK;
    char *dir = mem_printf("%s/%s", to_dir, template_dir), *path = mem_printf("%s/%s.jinja", dir, name);
    status st = file_exists(path) ? ST_OK : file_mkdirs(dir);
    if (!st && !file_exists(path)) st = file_replace(path, text, strlen(text));
    free(dir);
    free(path);
    return st;
}

/* [{"name": …, "template": …}, …]: the one called default is the one without a name. */
static status merge_named(const char *to_dir, const json_t *list, const char *text, json_t **out)
{
    bool found = false;
    status st = ST_OK;
    *out = json_deep_copy(list);
    for (size_t i = 0; i < json_array_size(*out) && !st; i++) {
        json_t *entry = json_array_get(*out, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *own = json_string_value(json_object_get(entry, "template"));
        bool plain = name && strcmp(name, "default") == 0;
        if (plain)
            json_object_set_new(entry, "template", json_string(text));
        else if (name && own)
            st = name_template(to_dir, name, own);
        found = found || plain;
    }
    if (!found) json_array_append_new(*out, json_pack("{s:s, s:s}", "name", "default", "template", text));
    return st;
}

/* No file of the export says another template than the one trained on. `add`: also where the file has none. */
static status put_template(const char *to_dir, const char *name, const char *text, bool add)
{
    struct side s;
    json_t *value = NULL;
    char *dumped = NULL;
    status st;
    TRY_DONE(side_open(&s, to_dir, name));
    const json_t *was = json_object_get(s.root, "chat_template");
    if (!s.root || (!was && !add)) goto done;
    if (json_is_array(was))
        TRY_DONE(merge_named(to_dir, was, text, &value));
    else
        value = json_string(text);
    if (json_equal(value, was)) goto done;
    dumped = json_dumps(value, JSON_ENCODE_ANY);
    if (!dumped) FAIL_DONE(ST_DATA, "%s: the chat template is not UTF-8", s.path);
    jedit_set(&s.text, "chat_template", dumped);
    st = side_save(&s, to_dir, name);
done:
    json_decref(value);
    free(dumped);
    side_close(&s);
    return st;
}

/* Older programs read tokenizer_config.json alone: a template that the base has in no file is written there as well. */
static status write_template(const char *from_dir, const char *to_dir, const char *text)
{
    char *path = mem_printf("%s/chat_template.jinja", to_dir), *own = mem_printf("%s/chat_template.jinja", from_dir);
    char *other = mem_printf("%s/%s/default.jinja", to_dir, template_dir);
    status st;
    TRY_DONE(put_template(to_dir, "tokenizer_config.json", text, !file_exists(own)));
    TRY_DONE(put_template(to_dir, "chat_template.json", text, false));
    TRY_DONE(file_remove_tree(other)); /* it would go before the file without a name */
    TRY_DONE(file_replace(path, text, strlen(text)));
done:
    free(path);
    free(own);
    free(other);
    return st;
}

/* No template gives the text that was trained on: the export advertises none. */
static status drop_templates(const char *to_dir)
{
    struct side s;
    char *dir = mem_printf("%s/%s", to_dir, template_dir);
    status st = file_remove_tree(dir);
    free(dir);
    for (const char *const *name = template_files; *name && !st; name++) {
        char *path = mem_printf("%s/%s", to_dir, *name);
        st = file_remove_tree(path);
        free(path);
    }
    TRY(st);
    st = side_open(&s, to_dir, "tokenizer_config.json");
    if (!st && s.root && jedit_replace(&s.text, "chat_template", "null")) st = side_save(&s, to_dir, "tokenizer_config.json");
    side_close(&s);
    return st;
}

/* ---- the tokenizer that was used -------------------------------------------------------------------------------- */

static bool lies_in(const char *path, const char *dir)
{
    char *in = realpath(path, NULL), *out = realpath(dir, NULL);
    size_t n = out ? strlen(out) : 0;
    bool inside = in && out && !strncmp(in, out, n) && (!in[n] || in[n] == '/' || out[n - 1] == '/');
    free(in);
    free(out);
    return inside;
}

/* What a vocabulary file is called in a model directory, by its first bytes: JSON, or protobuf's first field. NULL: a
 * tiktoken file, which other programs do not look for there. */
static status name_of(const char *file, bool merges, const char **name)
{
    struct file_map m;
    TRY(file_map_open(&m, file));
    size_t at = 0, n = strlen(file), k = strlen("vocab.json");
    while (at < m.bytes && m.data[at] && strchr(" \t\r\n", m.data[at])) at++;
    merges = merges || (n >= k && !strcmp(file + n - k, "vocab.json"));
    if (at < m.bytes && m.data[at] == '{')
        *name = merges ? "vocab.json" : "tokenizer.json";
    else
        *name = m.bytes && m.data[0] == '\n' ? "tokenizer.model" : NULL;
    file_map_close(&m);
    return ST_OK;
}

static status copy_vocabulary(const char *file, const char *name, const char *dir, const char *to_dir, const char *merges_file)
{
    char *to = mem_printf("%s/%s", to_dir, name), *merges = mem_printf("%s/merges.txt", to_dir);
    status st = file_copy(file, to);
    if (!st && !strcmp(name, "vocab.json")) st = merges_file ? file_copy(merges_file, merges) : copy_one(dir, to_dir, "merges.txt");
    free(to);
    free(merges);
    return st;
}

/* One file was used, out of a folder that may hold others: of those, only what says how to use it. */
static status copy_tokenizer_file(const char *from_dir, const char *to_dir, const struct hf_export *e)
{
    const char *name, *slash = strrchr(e->tokenizer, '/');
    TRY(name_of(e->tokenizer, e->merges_file != NULL, &name));
    if (!name) return copy_all(from_dir, to_dir, tokenizer_files); /* the base's own say the same ids */
    char *dir = slash ? mem_printf("%.*s/", (int)(slash - e->tokenizer), e->tokenizer) : mem_strdup(".");
    status st = copy_vocabulary(e->tokenizer, name, dir, to_dir, e->merges_file);
    if (!st) st = copy_all(dir, to_dir, tokenizer_files + VOCABULARIES);
    if (!st) st = copy_templates(dir, to_dir);
    free(dir);
    return st;
}

/* From the base, unless another directory or file was used: then nothing of the base's tokenizer is carried, for a part
 * of it could contradict. */
static status copy_tokenizer(const char *from_dir, const char *to_dir, const struct hf_export *e)
{
    TRY(copy_templates(from_dir, to_dir));
    if (!e->tokenizer || lies_in(e->tokenizer, from_dir))
        TRY(copy_all(from_dir, to_dir, tokenizer_files));
    else if (!file_is_dir(e->tokenizer))
        TRY(copy_tokenizer_file(from_dir, to_dir, e));
    else {
        TRY(copy_all(e->tokenizer, to_dir, tokenizer_files));
        TRY(copy_templates(e->tokenizer, to_dir));
    }
    if (!e->chat_template) return ST_OK;
    return *e->chat_template ? write_template(from_dir, to_dir, e->chat_template) : drop_templates(to_dir);
}

/* ---- directories ------------------------------------------------------------------------------------------------ */

status hf_copy_side_files(const char *from_dir, const char *to_dir, const struct hf_export *e)
{
    TRY(file_mkdirs(to_dir));
    TRY(write_config(from_dir, to_dir, e));
    TRY(write_generation(from_dir, to_dir, e));
    return copy_tokenizer(from_dir, to_dir, e);
}

status hf_copy_adapter_files(const char *from_dir, const char *to_dir, const struct hf_export *e)
{
    TRY(file_mkdirs(to_dir));
    if (e->n_end) TRY(write_generation(from_dir, to_dir, e));
    return copy_tokenizer(from_dir, to_dir, e);
}
