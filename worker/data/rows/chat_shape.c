/* chat_shape.c — which shape a data set has, from its settings and its first row. */
#include <string.h>

#include "worker/data/rows/chat.h"
#include "worker/data/rows/rows.h"

#define ANY (1u << DATA_AUTO)

/* In order of detection. The first `required` columns must be there. */
static const struct shape_row {
    enum shape_kind kind;
    const char *name;
    const char *columns[3];
    int required;
    unsigned kinds; /* 1 << enum data_kind: the components that may mean it */
} shape_rows[] = {
    {SHAPE_CHAT, "messages", {"messages"}, 1, ANY | 1u << DATA_CHAT},
    {SHAPE_CHAT, "conversations", {"conversations"}, 1, ANY | 1u << DATA_CHAT},
    {SHAPE_ALPACA, "alpaca", {"instruction", "output", "input"}, 2, ANY | 1u << DATA_ALPACA},
    {SHAPE_PAIR, "prompt/completion", {"prompt", "completion"}, 2, ANY | 1u << DATA_INSTRUCT},
    {SHAPE_PAIR, "question/answer", {"question", "answer"}, 2, ANY | 1u << DATA_INSTRUCT | 1u << DATA_QA},
    {SHAPE_PAIR, "input/output", {"input", "output"}, 2, ANY | 1u << DATA_INSTRUCT | 1u << DATA_QA},
    {SHAPE_TEXT, "text", {"text"}, 1, ANY | 1u << DATA_COMPLETION},
};
enum { N_SHAPES = sizeof shape_rows / sizeof *shape_rows };

static const char *mapped(const struct config_dataset *set, const struct shape_row *s, int i)
{
    const char *column = s->columns[i];
    for (int k = 0; column && k < set->n_column_map; k++)
        if (!strcmp(set->column_map[k].key, column)) return set->column_map[k].value;
    if (s->kind == SHAPE_CHAT && set->conversation_column) return set->conversation_column;
    if (s->kind == SHAPE_TEXT && set->column) return set->column;
    return column;
}

static bool has_column(const struct shape_row *s, const char *key)
{
    for (int i = 0; i < 3; i++)
        if (s->columns[i] && !strcmp(s->columns[i], key)) return true;
    return false;
}

/* Whether the settings alone allow this shape. */
static bool allowed(const struct config_dataset *set, const struct shape_row *s)
{
    if (!(s->kinds & 1u << set->kind)) return false;
    for (int k = 0; k < set->n_column_map; k++)
        if (!has_column(s, set->column_map[k].key)) return false;
    if (set->kind == DATA_AUTO && set->column && s->kind != SHAPE_TEXT) return false;
    if (set->conversation_column && s != &shape_rows[0] && (set->kind == DATA_AUTO || s->kind == SHAPE_CHAT)) return false;
    return true;
}

static bool present(const struct config_dataset *set, const struct shape_row *s, const json_t *row)
{
    for (int i = 0; i < s->required; i++)
        if (!json_object_get(row, mapped(set, s, i))) return false;
    return true;
}

static void list_columns(const json_t *row, struct buf *out)
{
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach((json_t *)row, key, value) {
        if (n++ == 12) break;
        buf_printf(out, "%s%.40s", n > 1 ? ", " : "", key);
    }
    if (json_object_size(row) > 12) buf_text(out, ", …");
    if (!json_object_size(row)) buf_text(out, "none");
}

static status fail_unknown(const struct config_dataset *set, const json_t *row)
{
    struct buf has = {0}, wants = {0};
    list_columns(row, &has);
    for (int i = 0; i < N_SHAPES; i++) {
        if (!allowed(set, &shape_rows[i])) continue;
        buf_text(&wants, wants.len ? "; or " : "");
        for (int k = 0; k < shape_rows[i].required; k++)
            buf_printf(&wants, "%s%s", k ? " and " : "", mapped(set, &shape_rows[i], k));
    }
    status st = wants.len
                    ? status_fail(ST_DATA, "no known shape: the row has the columns %s; expected %s; name yours with "
                                  "dataset.column_map={input: …, output: …}, dataset.column or "
                                  "dataset.conversation_column", has.data, wants.data)
                    : status_fail(ST_CONFIG_RUNTIME, "dataset.column_map, column and conversation_column fit no one "
                                  "shape together; column_map keys are instruction/output/input, input/output, "
                                  "question/answer, prompt/completion, messages, conversations or text");
    buf_release(&has);
    buf_release(&wants);
    return st;
}

/* Shapes that exist and are trained by other methods. Asked about only when nothing names the shape. */
static status refuse_preference(const json_t *row)
{
    if (json_object_get(row, "chosen") && json_object_get(row, "rejected"))
        FAIL(ST_DATA, "preference rows (chosen, rejected) need preference training, which is not built; for "
             "supervised tuning take one side with dataset.column_map={messages: chosen}");
    if (json_is_boolean(json_object_get(row, "label")) &&
        (json_object_get(row, "prompt") || json_object_get(row, "messages")))
        FAIL(ST_DATA, "KTO rows (%s with a true/false label) need preference training, which is not built; for "
             "supervised tuning keep the rows with label true and drop that column",
             json_object_get(row, "prompt") ? "prompt" : "messages");
    return ST_OK;
}

/* Alpaca rows contain input/output; `text` beside a structured shape is its rendered copy. */
static bool yields(const struct shape_row *a, const struct shape_row *to)
{
    return (a->kind == SHAPE_TEXT && to->kind != SHAPE_TEXT) ||
           (to->kind == SHAPE_ALPACA && a->kind == SHAPE_PAIR && !strcmp(a->columns[0], "input"));
}

static status choose(const struct config_dataset *set, const json_t *row, const struct shape_row **out)
{
    const struct shape_row *found[N_SHAPES];
    int n = 0;
    for (int i = 0; i < N_SHAPES; i++)
        if (allowed(set, &shape_rows[i]) && present(set, &shape_rows[i], row)) found[n++] = &shape_rows[i];
    if (n == 0) return fail_unknown(set, row);
    struct buf names = {0};
    int left = 0;
    for (int i = 0; i < n; i++) {
        bool yielded = false;
        for (int k = 0; k < n; k++) yielded |= yields(found[i], found[k]);
        if (yielded) continue;
        *out = found[i];
        buf_printf(&names, "%s%s", left++ ? ", " : "", found[i]->name);
    }
    status st = ST_OK;
    if (left > 1)
        st = status_fail(ST_DATA, "the row fits several shapes: %s; choose one with dataset._component_, column_map, "
                         "column or conversation_column", names.data);
    else if (set->kind == DATA_INSTRUCT && !set->n_column_map && !strcmp((*out)->columns[0], "input") &&
             json_object_get(row, "instruction"))
        st = status_fail(ST_DATA, "the row fits several shapes: input/output, and alpaca by its instruction, which "
                         "input/output would ignore; choose dataset._component_=torchtune.datasets.alpaca_dataset, or "
                         "dataset.column_map={input: …, output: …}");
    buf_release(&names);
    return st;
}

static bool is_sharegpt(const struct config_dataset *set, const char *column, const json_t *row)
{
    if (set->conversation_style != CONVERSATION_AUTO) return set->conversation_style == CONVERSATION_SHAREGPT;
    const json_t *first = json_array_get(json_object_get(row, column), 0);
    if (json_object_get(first, "role")) return false;
    return json_object_get(first, "from") || !strcmp(column, "conversations");
}

static enum masking masking_of(const struct config_dataset *set)
{
    if (set->train_on_input >= 0) return set->train_on_input ? MASK_TRAIN_ON_ALL : MASK_TRAIN_ON_ASSISTANT;
    if (set->masking != MASK_DEFAULT) return set->masking;
    return set->kind == DATA_ALPACA ? MASK_TRAIN_ON_ALL : MASK_TRAIN_ON_ASSISTANT;
}

status shape_detect(const struct config_dataset *set, const json_t *first_row, struct shape *out)
{
    if (!json_is_object(first_row))
        FAIL(ST_DATA, "a row is an object {\"column\": value, …}, found %s", json_says(first_row));
    bool named = set->kind != DATA_AUTO || set->n_column_map || set->column || set->conversation_column;
    if (!named) TRY(refuse_preference(first_row));
    const struct shape_row *s = NULL;
    TRY(choose(set, first_row, &s));
    *out = (struct shape){.kind = s->kind, .name = s->name, .masking = masking_of(set), .system = set->new_system_prompt};
    for (int i = 0; i < 3; i++) out->columns[i] = mapped(set, s, i);
    if (s->kind == SHAPE_CHAT) out->sharegpt = is_sharegpt(set, out->columns[0], first_row);
    return ST_OK;
}
