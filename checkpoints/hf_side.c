/* What an export carries over from its base unchanged: configuration, tokenizer, chat templates. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"
#include "kernels/base/text.h"

static const char *const verbatim[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
};
static const char *const templates = "additional_chat_templates";

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') p++;
    return p;
}

static const char *skip_string(const char *p) /* p at the opening quote; returns behind the closing one */
{
    for (p++; *p != '"'; p++)
        if (*p == '\\') p++;
    return p + 1;
}

/* Where the value of a top-level key begins in JSON text that is known to parse; NULL if absent. */
static const char *find_value(const char *text, const char *key)
{
    size_t n = strlen(key);
    int depth = 0;
    for (const char *p = text; *p;) {
        if (*p == '"') {
            const char *end = skip_string(p), *colon = skip_space(end);
            if (depth == 1 && *colon == ':' && (size_t)(end - p) == n + 2 && memcmp(p + 1, key, n) == 0)
                return skip_space(colon + 1);
            p = end;
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']') depth--;
        p++;
    }
    return NULL;
}

/* Replaces the value of a top-level key in the text, not the document, so that every other byte stays the user's. */
static bool set_value(struct buf *text, const char *key, const char *dt)
{
    const char *v = find_value(text->data, key);
    if (!v) return false;
    const char *rest = *v == '"' ? skip_string(v) : v + strcspn(v, ",} \t\r\n");
    struct buf out = {0};
    buf_add(&out, text->data, (size_t)(v - text->data));
    buf_printf(&out, "\"%s\"%s", dt, rest);
    buf_release(text);
    *text = out;
    return true;
}

static void add_first(struct buf *text, const char *key, const char *dt)
{
    const char *inside = strchr(text->data, '{') + 1;
    struct buf out = {0};
    buf_add(&out, text->data, (size_t)(inside - text->data));
    buf_printf(&out, "\n  \"%s\": \"%s\"%s%s", key, dt, *skip_space(inside) == '}' ? "" : ",", inside);
    buf_release(text);
    *text = out;
}

/* Both spellings, where both are present: 4.x reads torch_dtype, 5.x prefers dtype. */
static void set_dtype(struct buf *text, const char *dt)
{
    bool old = set_value(text, "torch_dtype", dt), fresh = set_value(text, "dtype", dt);
    if (!old && !fresh) add_first(text, "torch_dtype", dt);
}

static status copy_config(const char *from, const char *to, const char *dt)
{
    if (!dt) return file_copy(from, to);
    char *text = NULL;
    size_t n;
    struct buf out = {0};
    json_t *root = NULL;
    status st;
    TRY_DONE(file_read(from, 16 << 20, &text, &n));
    TRY_DONE(jdoc_parse(from, text, n, &root, NULL));
    buf_add(&out, text, n);
    set_dtype(&out, dt);
    TRY_DONE(file_replace(to, out.data, out.len));
done:
    json_decref(root);
    free(text);
    buf_release(&out);
    return st;
}

static status copy_one(const char *from_dir, const char *to_dir, const char *name)
{
    char *from = mem_printf("%s/%s", from_dir, name), *to = mem_printf("%s/%s", to_dir, name);
    status st = file_exists(from) ? file_copy(from, to) : ST_OK;
    free(from);
    free(to);
    return st;
}

static status copy_templates(const char *from_dir, const char *to_dir)
{
    char *from = mem_printf("%s/%s", from_dir, templates), *to = mem_printf("%s/%s", to_dir, templates);
    status st = ST_OK;
    DIR *d = opendir(from);
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

status hf_copy_side_files(const char *from_dir, const char *to_dir, const char *dt)
{
    char *from = mem_printf("%s/config.json", from_dir), *to = mem_printf("%s/config.json", to_dir);
    status st = file_mkdirs(to_dir);
    if (!st && file_exists(from)) st = copy_config(from, to, dt);
    for (size_t i = 0; i < sizeof verbatim / sizeof *verbatim && !st; i++) st = copy_one(from_dir, to_dir, verbatim[i]);
    if (!st) st = copy_templates(from_dir, to_dir);
    free(from);
    free(to);
    return st;
}
