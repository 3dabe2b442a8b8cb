#include "worker/data/rows/keys.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "worker/data/rows/rows.h"

#define IN_ROW   (IN_CHAT | IN_PAIR | IN_TEXT)
#define IN_TURNS (IN_CHAT | IN_PAIR)
#define MEDIA    "only text can be trained on; remove it"

/* The one place that knows. README.md shows it to people. */
static const struct key keys[] = {
    {"system", IN_TURNS, USE_SYSTEM, NULL},
    {"system_prompt", IN_TURNS, USE_SYSTEM, NULL},
    {"history", IN_PAIR, USE_HISTORY, NULL},
    {"context", IN_PAIR, USE_CONTEXT, NULL},
    {"tools", IN_TURNS, USE_TOOLS, NULL},
    {"functions", IN_TURNS, USE_FUNCTIONS, NULL},
    {"reasoning_content", IN_PAIR | IN_MESSAGE, USE_REASONING, NULL},
    {"thinking", IN_PAIR | IN_MESSAGE, USE_REASONING, NULL},
    {"reasoning", IN_MESSAGE, USE_REASONING, NULL},
    {"tool_calls", IN_MESSAGE, USE_CALLS, NULL},
    {"function_call", IN_MESSAGE, USE_CALL, NULL},
    {"tools", IN_MESSAGE, USE_EXTRA, NULL},
    {"functions", IN_MESSAGE, USE_EXTRA, NULL},
    {"name", IN_MESSAGE, USE_PASSED, NULL},
    {"tool_call_id", IN_MESSAGE, USE_PASSED, NULL},

    {"weight", IN_ROW | IN_MESSAGE, USE_WEIGHT, NULL},
    {"loss_weight", IN_ROW | IN_MESSAGE, USE_WEIGHT, NULL},
    {"loss_mask", IN_ROW | IN_MESSAGE, USE_WEIGHT, NULL},
    {"train", IN_ROW | IN_MESSAGE, USE_TRAIN, NULL},
    {"trainable", IN_ROW | IN_MESSAGE, USE_TRAIN, NULL},
    {"training", IN_ROW | IN_MESSAGE, USE_TRAIN, NULL},
    {"loss", IN_ROW | IN_MESSAGE, USE_TRAIN, NULL},
    {"masked", IN_ROW | IN_MESSAGE, USE_MASKED, NULL},

    {"images", IN_ROW | IN_MESSAGE, USE_REFUSED, MEDIA},
    {"image", IN_ROW | IN_MESSAGE, USE_REFUSED, MEDIA},
    {"audios", IN_ROW | IN_MESSAGE, USE_REFUSED, MEDIA},
    {"audio", IN_ROW | IN_MESSAGE, USE_REFUSED, MEDIA},
    {"videos", IN_ROW | IN_MESSAGE, USE_REFUSED, MEDIA},
    {"video", IN_ROW | IN_MESSAGE, USE_REFUSED, MEDIA},
    {"system", IN_TEXT, USE_REFUSED, "a text row is learned as it stands; write it into the text, or remove it"},
    {"system_prompt", IN_TEXT, USE_REFUSED, "a text row is learned as it stands; write it into the text, or remove it"},
    {"history", IN_CHAT, USE_REFUSED, "put the earlier turns in front of the row's messages"},
    {"instruction", IN_PAIR, USE_CONTENT,
     "this shape has no place for it; join the columns, or choose others with "
     "dataset._component_=torchtune.datasets.alpaca_dataset or "
     "dataset.column_map={input: …, output: …}"},
    {"documents", IN_TURNS, USE_REFUSED, "documents are not rendered; write them into the prompt, or remove them"},
    {"chat_template_kwargs", IN_TURNS, USE_REFUSED,
     "they are one for all rows here: set chat_template_kwargs "
     "in the configuration and remove the column"},
    {"train_detail", IN_MESSAGE, USE_REFUSED, "a turn is trained on as a whole or not at all; use train: true or false"},
    {"refusal", IN_MESSAGE, USE_REFUSED, "write what the assistant shall say into the content"},
};

const struct key *key_find(const char *name, enum key_place place)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].places & (unsigned)place && !strcasecmp(keys[i].name, name)) return &keys[i];
    return NULL;
}

json_t *row_column(const json_t *row, const char *name)
{
    json_t *exact = json_object_get(row, name), *value;
    const char *key;
    if (exact) return exact;
    json_object_foreach((json_t *)row, key, value) if (!strcasecmp(key, name)) return value;
    return NULL;
}

bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", s[i])) return false;
    return true;
}

bool is_said(const json_t *v)
{
    if (json_is_string(v)) {
        const char *s = json_string_value(v);
        return !is_blank(s, json_string_length(v)) && strcmp(s, "[]") && strcmp(s, "{}");
    }
    if (json_is_number(v)) return json_number_value(v) != 0;
    return json_array_size(v) || json_object_size(v) || json_is_true(v);
}

status refuse_said(const struct key *key, const char *name, const json_t *value, const char *place)
{
    if (is_said(value)) FAIL(ST_DATA, "%s%s: found %s: %s", place, name, json_says(value), key->remedy);
    return ST_OK;
}

/* ---- keys that nothing uses ------------------------------------------------------------------------------------- */

static void names_add(struct key_names *set, const char *name)
{
    int at = 0;
    while (at < set->n && strcmp(set->v[at], name) < 0) at++;
    if (at < set->n && !strcmp(set->v[at], name)) return;
    if (at == UNUSED_MOST) {
        set->more = true;
        return;
    }
    if (!set->v) set->v = mem_alloc(UNUSED_MOST * sizeof *set->v);
    if (set->n == UNUSED_MOST) {
        set->more = true;
        free(set->v[--set->n]);
    }
    memmove(set->v + at + 1, set->v + at, (size_t)(set->n - at) * sizeof *set->v);
    set->v[at] = mem_strdup(name);
    set->n++;
}

void unused_add(struct key_names *set, const char *name, const json_t *value)
{
    if (!json_is_null(value)) names_add(set, name);
}

static void names_merge(struct key_names *into, const struct key_names *from)
{
    for (int i = 0; i < from->n; i++) names_add(into, from->v[i]);
    into->more |= from->more;
}

void unused_merge(struct unused *into, const struct unused *from)
{
    names_merge(&into->columns, &from->columns);
    names_merge(&into->in_messages, &from->in_messages);
}

static void names_release(struct key_names *set)
{
    for (int i = 0; i < set->n; i++) free(set->v[i]);
    free(set->v);
    *set = (struct key_names){0};
}

void unused_release(struct unused *u)
{
    names_release(&u->columns);
    names_release(&u->in_messages);
}

static void names_list(struct buf *b, const struct key_names *set)
{
    enum { SHOWN = 60 };
    for (int i = 0; i < set->n; i++) {
        size_t n = strlen(set->v[i]);
        buf_text(b, i ? ", " : "");
        buf_tame(b, set->v[i], n < SHOWN ? n : SHOWN);
    }
    if (set->more) buf_text(b, ", …");
}

void unused_report(const char *file, const struct unused *u)
{
    struct buf b = {0};
    if (!u->columns.n && !u->in_messages.n) return;
    buf_text(&b, u->columns.n ? "columns not used: " : "not used ");
    names_list(&b, &u->columns);
    if (u->in_messages.n) buf_text(&b, u->columns.n ? "; in messages: " : "in messages: ");
    names_list(&b, &u->in_messages);
    log_note("data: %s: %s", file, b.data);
    buf_release(&b);
}

/* ---- flags ------------------------------------------------------------------------------------------------------ */

/* 1, 0, or -1: neither. */
static int truth(const json_t *v, bool words)
{
    static const struct {
        const char *word;
        int truth;
    } table[] = {{"1", 1}, {"0", 0}, {"true", 1}, {"false", 0}, {"1.0", 1}, {"0.0", 0}};
    if (json_is_boolean(v)) return json_is_true(v);
    if (json_is_number(v)) return json_number_value(v) == 1 ? 1 : json_number_value(v) == 0 ? 0 : -1;
    for (size_t i = 0; words && json_is_string(v) && i < sizeof table / sizeof *table; i++)
        if (!strcasecmp(json_string_value(v), table[i].word)) return table[i].truth;
    return -1;
}

status flags_read(struct flags *f, const struct key *key, const char *name, const json_t *value, const char *place)
{
    bool in_row = !*place, empty_cell = in_row && json_is_string(value) && !is_said(value);
    if (json_is_null(value) || empty_cell) return ST_OK;
    int t = truth(value, in_row);
    if (t < 0 && key->use == USE_WEIGHT)
        FAIL(ST_DATA, "%s%s: found %s: losses are not scaled by a weight; use 0 (not trained on) or 1, or remove it", place, name,
             json_says(value));
    if (t < 0)
        FAIL(ST_DATA,
             "%s%s: found %s: expected true or false (or 1 or 0): whether it is trained on; rename the column "
             "if it means something else",
             place, name, json_says(value));
    bool off = key->use == USE_MASKED ? t : !t;
    if (off)
        f->off = key->name;
    else if (key->use == USE_TRAIN)
        f->on = key->name;
    if (f->off && f->on) FAIL(ST_DATA, "%s%s contradicts %s: one says trained on, the other not; remove one", place, f->on, f->off);
    return ST_OK;
}
