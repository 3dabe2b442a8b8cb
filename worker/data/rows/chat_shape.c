/* chat_shape.c — which shape a data set has, from its settings and its first row. The order is README.md's. */
#include <string.h>

#include "kernels/base/log.h"
#include "worker/data/rows/chat.h"
#include "worker/data/rows/rows.h"

#define AUTO     (1u << DATA_AUTO)
#define INSTRUCT (AUTO | 1u << DATA_INSTRUCT)
#define QA       (INSTRUCT | 1u << DATA_QA)

/* In order of detection: the first that the row has is what it is read as. The first `required` columns must be there;
 * `rare` ones are found but not proposed in messages. */
static const struct shape_row {
    enum shape_kind kind;
    const char *name;
    const char *columns[3];
    int required;
    unsigned kinds; /* 1 << enum data_kind: the components that may mean it */
    bool rare;
} shape_rows[] = {
    {SHAPE_CHAT, "messages", {"messages"}, 1, AUTO | 1u << DATA_CHAT, false},
    {SHAPE_CHAT, "conversations", {"conversations"}, 1, AUTO | 1u << DATA_CHAT, false},
    {SHAPE_CHAT, "conversation", {"conversation"}, 1, AUTO | 1u << DATA_CHAT, true},
    {SHAPE_ALPACA, "alpaca", {"instruction", "output", "input"}, 2, AUTO | 1u << DATA_ALPACA, false},
    {SHAPE_ALPACA, "instruction/response", {"instruction", "response", "input"}, 2, AUTO | 1u << DATA_ALPACA, false},
    {SHAPE_ALPACA, "instruction/completion", {"instruction", "completion", "input"}, 2, AUTO | 1u << DATA_ALPACA, true},
    {SHAPE_ALPACA, "instruction/answer", {"instruction", "answer", "input"}, 2, AUTO | 1u << DATA_ALPACA, true},
    {SHAPE_PAIR, "prompt/completion", {"prompt", "completion"}, 2, INSTRUCT, false},
    {SHAPE_PAIR, "prompt/response", {"prompt", "response"}, 2, INSTRUCT, false},
    {SHAPE_PAIR, "question/answer", {"question", "answer"}, 2, QA, false},
    {SHAPE_PAIR, "question/answers", {"question", "answers"}, 2, QA, true},
    {SHAPE_PAIR, "question/response", {"question", "response"}, 2, QA, true},
    {SHAPE_PAIR, "query/response", {"query", "response"}, 2, QA, false},
    {SHAPE_PAIR, "query/answer", {"query", "answer"}, 2, QA, true},
    {SHAPE_PAIR, "problem/solution", {"problem", "solution"}, 2, QA, false},
    {SHAPE_PAIR, "problem/answer", {"problem", "answer"}, 2, QA, true},
    {SHAPE_PAIR, "input/output", {"input", "output"}, 2, QA, false},
    {SHAPE_PAIR, "input/response", {"input", "response"}, 2, INSTRUCT, true},
    {SHAPE_PAIR, "prompt/answer", {"prompt", "answer"}, 2, INSTRUCT, true},
    {SHAPE_PAIR, "prompt/output", {"prompt", "output"}, 2, INSTRUCT, true},
    {SHAPE_PAIR, "question/output", {"question", "output"}, 2, QA, true},
    {SHAPE_PAIR, "question/solution", {"question", "solution"}, 2, QA, true},
    {SHAPE_PAIR, "user/assistant", {"user", "assistant"}, 2, INSTRUCT, true},
    {SHAPE_PAIR, "human/assistant", {"human", "assistant"}, 2, INSTRUCT, true},
    {SHAPE_TEXT, "text", {"text"}, 1, AUTO | 1u << DATA_COMPLETION, false},
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

/* Files that were put together from several have the others' columns as nulls. */
static bool present(const struct config_dataset *set, const struct shape_row *s, const json_t *row, bool nulls)
{
    for (int i = 0; i < s->required; i++) {
        const json_t *v = row_column(row, mapped(set, s, i));
        if (!v || (json_is_null(v) && !nulls)) return false;
    }
    return true;
}

static void list_columns(const json_t *row, struct buf *out)
{
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach((json_t *)row, key, value)
    {
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
        if (shape_rows[i].rare || !allowed(set, &shape_rows[i])) continue;
        buf_text(&wants, wants.len ? "; or " : "");
        for (int k = 0; k < shape_rows[i].required; k++) buf_printf(&wants, "%s%s", k ? " and " : "", mapped(set, &shape_rows[i], k));
    }
    status st = wants.len ? status_fail(ST_DATA,
                                        "no known shape: the row has the columns %s; expected %s; name yours with "
                                        "dataset.column_map={input: …, output: …}, dataset.column or "
                                        "dataset.conversation_column",
                                        has.data, wants.data)
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
    if (json_is_boolean(json_object_get(row, "label")) && (json_object_get(row, "prompt") || json_object_get(row, "messages")))
        FAIL(ST_DATA,
             "KTO rows (%s with a true/false label) need preference training, which is not built; for "
             "supervised tuning keep the rows with label true and drop that column",
             json_object_get(row, "prompt") ? "prompt" : "messages");
    return ST_OK;
}

/* What would be read of it is read anyway, or is a copy: `text` beside a structured shape is its rendering. */
static bool covered(const struct shape_row *by, const struct shape_row *s)
{
    if (s->kind == SHAPE_TEXT) return true;
    for (int i = 0; i < s->required; i++)
        if (!has_column(by, s->columns[i])) return false;
    return true;
}

static void say_others(const struct config_dataset *set, const json_t *row, const struct shape_row *chosen, bool nulls)
{
    struct buf others = {0};
    for (const struct shape_row *s = chosen + 1; s < shape_rows + N_SHAPES; s++)
        if (!s->rare && allowed(set, s) && present(set, s, row, nulls) && !covered(chosen, s))
            buf_printf(&others, "%s%s", others.len ? ", " : "", s->name);
    if (others.len)
        log_note("data: the rows also fit %s; read as %s, which comes first in the list of shapes (choose another with "
                 "dataset._component_, column_map, column or conversation_column)",
                 others.data, chosen->name);
    buf_release(&others);
}

static const struct shape_row *first_of(const struct config_dataset *set, const json_t *row, bool nulls)
{
    for (int i = 0; i < N_SHAPES; i++)
        if (allowed(set, &shape_rows[i]) && present(set, &shape_rows[i], row, nulls)) return &shape_rows[i];
    return NULL;
}

static status choose(const struct config_dataset *set, const json_t *row, const struct shape_row **out)
{
    bool nulls = false;
    *out = first_of(set, row, nulls);
    if (!*out) *out = first_of(set, row, nulls = true); /* the reader says what is wrong with it */
    if (!*out) return fail_unknown(set, row);
    say_others(set, row, *out, nulls);
    return ST_OK;
}

const char *shape_of(const json_t *row)
{
    static const struct config_dataset any = {.kind = DATA_AUTO};
    if (!json_is_object(row)) return NULL;
    if (json_object_get(row, "chosen") && json_object_get(row, "rejected")) return "preference rows (chosen, rejected)";
    const struct shape_row *s = first_of(&any, row, false);
    return s ? s->name : NULL;
}

static bool is_sharegpt(const struct config_dataset *set, const char *column, const json_t *row)
{
    if (set->conversation_style != CONVERSATION_AUTO) return set->conversation_style == CONVERSATION_SHAREGPT;
    const json_t *first = json_array_get(row_column(row, column), 0);
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
    if (!json_is_object(first_row)) FAIL(ST_DATA, "a row is an object {\"column\": value, …}, found %s", json_says(first_row));
    bool named = set->kind != DATA_AUTO || set->n_column_map || set->column || set->conversation_column;
    if (!named) TRY(refuse_preference(first_row));
    const struct shape_row *s = NULL;
    TRY(choose(set, first_row, &s));
    *out = (struct shape){.kind = s->kind,
                          .name = s->name,
                          .required = s->required,
                          .masking = masking_of(set),
                          .system = set->new_system_prompt,
                          .mapped = set->n_column_map > 0,
                          .strict = set->conversation_style != CONVERSATION_AUTO};
    for (int i = 0; i < 3; i++) out->columns[i] = mapped(set, s, i);
    out->sharegpt = is_sharegpt(set, out->columns[0], first_row);
    return ST_OK;
}
