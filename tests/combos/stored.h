/* stored.h — the model whose linears bitsandbytes has quantised: golden/nf4's, with more layers and with an output head of its own, which
 * adapters and modules_to_save ask for. */
#ifndef TRIMPOT_COMBOS_STORED_H
#define TRIMPOT_COMBOS_STORED_H

#include <stdlib.h>
#include <string.h>

#include "checkpoints/hf.h"
#include "kernels/base/text.h"

#define STORED_GOLDEN TRIMPOT_SOURCE_DIR "/tests/truth/golden/"
#define STORED_LAYER  "model.layers."
#define STORED_EMBED  "model.embed_tokens.weight"

enum { STORED_LAYERS = 5, STORED_GIVEN = 2, STORED_MOST = 512 };

struct stored_tensors {
    struct st_declare declared[STORED_MOST];
    const void *data[STORED_MOST];
    int n;
};

static inline void stored_add(struct stored_tensors *t, const struct st_entry *e, char *name)
{
    struct st_declare d = {.name = name, .dt = e->dt, .rank = e->rank};
    if (t->n == STORED_MOST) fprintf(stderr, "stored.h: too many tensors\n"), exit(1);
    for (int i = 0; i < e->rank; i++) d.dim[i] = e->dim[i];
    t->data[t->n] = e->data;
    t->declared[t->n++] = d;
}

/* Layers after the given ones are those again. */
static inline void stored_list(const struct st_set *given, struct stored_tensors *t)
{
    size_t prefix = strlen(STORED_LAYER);
    for (int i = 0; i < given->n; i++) {
        const struct st_entry *e = &given->entries[i];
        if (!strcmp(e->name, STORED_EMBED)) stored_add(t, e, mem_strdup("lm_head.weight"));
        if (strncmp(e->name, STORED_LAYER, prefix)) {
            stored_add(t, e, mem_strdup(e->name));
            continue;
        }
        for (int layer = atoi(e->name + prefix); layer < STORED_LAYERS; layer += STORED_GIVEN)
            stored_add(t, e, mem_printf(STORED_LAYER "%d%s", layer, strchr(e->name + prefix, '.')));
    }
}

static inline status stored_weights(const char *dir)
{
    struct st_set given;
    struct st_writer *w = NULL;
    struct stored_tensors t = {.n = 0};
    TRY(st_open(STORED_GOLDEN "nf4/double/model", "model", &given));
    stored_list(&given, &t);
    status st = st_writer_open(dir, "model", t.declared, t.n, 0, &w);
    for (int i; !st && (i = st_writer_next(w)) >= 0;) st = st_writer_put(w, t.data[i]);
    if (w) {
        status closed = st_writer_close(w, !st);
        st = st ? st : closed;
    }
    for (int i = 0; i < t.n; i++) free((char *)t.declared[i].name);
    st_close(&given);
    return st;
}

static inline void stored_edit(char *text, const char *is, const char *becomes)
{
    char *at = strstr(text, is);
    if (!at) fprintf(stderr, "stored.h: config.json has no %s\n", is), exit(1);
    memcpy(at, becomes, strlen(becomes));
}

static inline status stored_config(const char *dir)
{
    char *path = mem_printf("%s/config.json", dir), *text = NULL;
    size_t n;
    status st = file_read(STORED_GOLDEN "nf4/double/model/config.json", 1 << 20, &text, &n);
    if (!st) {
        stored_edit(text, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 5");
        stored_edit(text, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\":false");
        st = file_replace(path, text, n);
    }
    free(text);
    free(path);
    return st;
}

static inline status stored_write(const char *dir)
{
    static const char *const FILES[] = {"tokenizer.json", "tokenizer_config.json"};
    TRY(file_mkdirs(dir));
    TRY(stored_config(dir));
    for (int i = 0; i < 2; i++) {
        char *from = mem_printf(STORED_GOLDEN "llama3/model/%s", FILES[i]), *to = mem_printf("%s/%s", dir, FILES[i]);
        status st = file_copy(from, to);
        free(from);
        free(to);
        if (st) return st;
    }
    return stored_weights(dir);
}

#endif
