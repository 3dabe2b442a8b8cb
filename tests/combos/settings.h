/* settings.h — the command line that a combination is. */
#ifndef TRIMPOT_COMBOS_SETTINGS_H
#define TRIMPOT_COMBOS_SETTINGS_H

#include "configs/config.h"
#include "tests/combos/draw.h"

enum { MOST_SETTINGS = 64, STEPS = 6, SAVED_AT = 3 };

struct settings {
    char *text[MOST_SETTINGS];
    int n;
    const char *recipe;
    bool stored; /* is_stored */
    bool tight;  /* memory_budget: what is just too little, or just enough (run.h) */
};

struct place {
    const char *model, *stored, *data, *output;
};

static inline void settings_free(struct settings *s)
{
    for (int i = 0; i < s->n; i++) free(s->text[i]);
    *s = (struct settings){0};
}

/* torchao's wrapper, around torchao's or torch's class of the same name. */
static inline void add_wrapped(struct settings *s, const char *wrapper, const char *name)
{
    s->text[s->n++] = mem_printf("%.*s", (int)strcspn(wrapper, " "), wrapper);
    s->text[s->n++] = mem_printf("optimizer.optimizer_class=%s.optim.%s", strstr(name, "8bit") ? "torchao" : "torch", name);
}

/* `class`: what stands for %s, in the name of an optimizer's class. */
static inline void settings_add(struct settings *s, const char *keys, const char *class)
{
    char *copy = mem_strdup(keys), *rest = copy;
    for (char *word; (word = strsep(&rest, " "));) {
        char *hole = strstr(word, "%s");
        if (!*word || *word == '+' || *word == '@' || !strcmp(word, "base=nf4")) continue;
        if (!strncmp(word, "recipe=", 7)) {
            s->recipe = strstr(word, "full") ? "full_finetune" : "lora_finetune";
            continue;
        }
        if (s->n + 2 > MOST_SETTINGS) fprintf(stderr, "settings.h: too many keys\n"), exit(1);
        if (hole && *class == '@') {
            add_wrapped(s, class + 1, hole + 2);
            continue;
        }
        s->text[s->n++] = hole ? mem_printf("%.*s%s%s", (int)(hole - word), word, class, hole + 2) : mem_strdup(word);
    }
    free(copy);
}

static inline bool is_tight(const struct combo *c) { return !strcmp(value_of(c, F_BUDGET)->name, "tight"); }

/* Of the model in NF4 files (stored.h). */
static inline bool is_stored(const struct combo *c) { return strstr(value_of(c, F_METHOD)->keys, "base=nf4"); }

/* Of so many ranks, which share the micro-batches of the combination. +Word is put into the optimizer's class. */
static inline void settings_of(const struct combo *c, int ranks, struct settings *s)
{
    const char *states = value_of(c, F_STATES)->keys;
    char steps[160], class[64] = "";
    *s = (struct settings){.tight = is_tight(c), .stored = is_stored(c)};
    snprintf(steps, sizeof steps,
             "device=cpu seed=7 batch_size=1 optimizer.lr=2e-3 epochs=1 max_steps_per_epoch=%d save_every_n_steps=%d "
             "gradient_accumulation_steps=%d",
             STEPS, SAVED_AT, micro_batches(c) / ranks);
    if (*states == '+') snprintf(class, sizeof class, "%.*s", (int)strcspn(states + 1, " "), states + 1);
    if (*states == '@') snprintf(class, sizeof class, "%.*s", (int)strcspn(states, " "), states);
    settings_add(s, steps, "");
    for (int i = 0; i < FACETS; i++)
        if (value_of(c, i)->keys) settings_add(s, value_of(c, i)->keys, class);
}

/* "key=value", in place of what there is of that key. */
static inline void settings_set(struct settings *s, const char *setting)
{
    for (int i = 0; i < s->n; i++)
        if (!strncmp(s->text[i], setting, strcspn(setting, "=") + 1)) {
            free(s->text[i]);
            s->text[i] = mem_strdup(setting);
        }
}

static inline void settings_accumulate(struct settings *s, int steps)
{
    char *key = mem_printf("gradient_accumulation_steps=%d", steps);
    settings_set(s, key);
    free(key);
}

/* As one would type it. */
static inline void settings_spell(const struct settings *s, struct buf *out)
{
    buf_printf(out, "%s", s->recipe);
    for (int i = 0; i < s->n; i++) buf_printf(out, " %s", s->text[i]);
    if (s->stored) buf_text(out, "  # of NF4 files");
}

static inline status settings_load(const struct settings *s, const struct place *at, struct config **out)
{
    struct config_args args = {.recipe = s->recipe,
                               .model = s->stored ? at->stored : at->model,
                               .data = at->data,
                               .output = at->output,
                               .overrides = (const char *const *)s->text,
                               .n_overrides = s->n,
                               .shipped_dir = TRIMPOT_SOURCE_DIR "/configs"};
    return config_load(&args, true, out);
}

#endif
