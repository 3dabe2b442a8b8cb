/* render_chat.c — a conversation by its chat template: one text, tokenised as one text, and where each turn lies in it.
 *
 * Which bytes are trained on:
 *   {% generation %} blocks, where the template has them;
 *   else, for a trained assistant turn, what follows the generation prompt of the messages before it, up to its end mark
 *   (the first special token behind its own bytes), found by rendering prefixes:
 *
 *     full     |system|user|header|answer<end>\n|user|header|answer<end>\n|
 *     turn 2   |system|user|header|answer<end>\n|                            all messages up to the turn
 *     prompt 2 |system|user|header|                                          those before it, add_generation_prompt
 *                                 ^ begin      ^ end of its own bytes, then its end mark
 *
 *   `turn` and `full` must agree up to the end of the turn's own bytes; where they do not (some drop earlier thinking)
 *   the turn is trained in its own rendering: a document of its own. Without a generation prompt that fits, a turn begins
 *   with its own first byte. Other trained messages: their own bytes. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"
#include "worker/data/render_parts.h"

/* Where a message lies in a text. */
struct turn {
    enum { TURN_NONE, TURN_HERE, TURN_APART } where; /* nowhere of interest, in the full text, in a document of its own */
    size_t begin, own_end;                           /* what it says */
    size_t limit;                                    /* its end mark lies before this; */
    size_t rest;                                     /* without one it is trained up to here */
};

static bool is_own(template_origin o, int message)
{
    enum template_field f = origin_field(o);
    return (f == MESSAGE_CONTENT || f == MESSAGE_REASONING || f == MESSAGE_CALLS) && origin_message(o) == (size_t)message;
}

/* The first and one past the last byte that a message wrote; false: it wrote none. */
static bool own_bytes(const struct template_text *t, int message, size_t *first, size_t *end)
{
    size_t i = 0, k = t->text.len;
    while (i < k && !is_own(t->origin[i], message)) i++;
    while (k > i && !is_own(t->origin[k - 1], message)) k--;
    *first = i;
    *end = k;
    return i < k;
}

static bool wrote(const struct template_text *t, int message, enum template_field field)
{
    for (size_t i = 0; i < t->text.len; i++)
        if (origin_field(t->origin[i]) == field && origin_message(t->origin[i]) == (size_t)message) return true;
    return false;
}

/* ---- rendering the template ------------------------------------------------------------------------------------ */

struct job {
    const struct rendering *r;
    const struct chat *c;
    const struct chat_template *t;
    struct render_work *w;
    struct rendered *out;
    struct turn *turns; /* [messages] */
};

/* Many templates want a text of every message, also of one that only calls. */
static status name_wordless(const struct job *j, int messages, status st)
{
    for (int i = 0; st == ST_DATA && i < messages; i++) {
        const struct message *m = &j->c->messages[i];
        if (!json_is_string(json_object_get(json_array_get(j->c->json, (size_t)i), "content")) && m->at >= 0) {
            char *told = mem_strdup(status_message());
            st = status_fail(st, "%s; %s[%d] has no content, which this template may want: give it \"content\": \"\"", told, m->column,
                             m->at);
            free(told);
            break;
        }
    }
    return st;
}

static status render(const struct job *j, int messages, bool generation_prompt, struct template_text *out)
{
    struct template_vars vars = {.messages = j->c->json,
                                 .tools = j->c->tools,
                                 .extra = j->r->format->variables,
                                 .n_messages = (size_t)messages,
                                 .add_generation_prompt = generation_prompt,
                                 .now = j->r->format->now};
    return name_wordless(j, messages, template_render(j->t->compiled, &vars, out));
}

/* ---- nothing is dropped in silence ----------------------------------------------------------------------------- */

static bool says_something(const json_t *v)
{
    if (json_is_array(v) || json_is_object(v)) return json_array_size(v) || json_object_size(v);
    const char *text = json_string_value(v);
    return text && text[strspn(text, " \t\r\n")];
}

static status check_field(const struct job *j, const struct template_text *t, int i, const char *key, enum template_field field)
{
    const struct message *m = &j->c->messages[i];
    if (!says_something(json_object_get(json_array_get(j->c->json, (size_t)i), key)) || wrote(t, i, field)) return ST_OK;
    char *place = m->at < 0 ? mem_strdup(m->column ? m->column : role_name(m->role)) : mem_printf("%s[%d]", m->column, m->at);
    status st = status_fail(ST_DATA,
                            "%s: its %s is nowhere in what the %s renders, so it would not be learned from; take it "
                            "out, write it into a message that is rendered, or set chat_template to one that renders it",
                            place, key, j->t->name);
    free(place);
    return st;
}

/* The first `n` messages leave their bytes in the text. Reasoning only has to where the turn is trained: `only`, or with
 * -1 those that are trained here; templates forget earlier reasoning on purpose. */
static status check_rendered(const struct job *j, const struct template_text *t, int n, int only)
{
    static const char *const reasoning[] = {"reasoning_content", "thinking", "reasoning"};
    static const struct {
        const char *key;
        enum template_field field;
    } always[] = {{"content", MESSAGE_CONTENT}, {"tool_calls", MESSAGE_CALLS}, {"tools", MESSAGE_OTHER}, {"functions", MESSAGE_OTHER}};
    for (int i = 0; i < n; i++) {
        bool learned = only >= 0 ? i == only : j->turns[i].where == TURN_HERE && j->c->messages[i].trained;
        for (size_t k = 0; k < sizeof always / sizeof *always; k++) TRY(check_field(j, t, i, always[k].key, always[k].field));
        for (size_t k = 0; learned && k < sizeof reasoning / sizeof *reasoning; k++)
            TRY(check_field(j, t, i, reasoning[k], MESSAGE_REASONING));
    }
    if (!j->c->tools || !json_array_size(j->c->tools)) return ST_OK;
    for (size_t i = 0; i < t->text.len; i++)
        if (origin_field(t->origin[i]) == TEMPLATE_TOOLS) return ST_OK;
    FAIL(ST_DATA,
         "tools: the %s does not render tool descriptions; write them into the system message, or set chat_template "
         "to one that renders them",
         j->t->name);
}

/* ---- one text to one document ---------------------------------------------------------------------------------- */

static bool is_end_mark(const struct rendering *r, int32_t id) { return tokenizer_is_special(r->tok, id) || id == tokenizer_eos(r->tok); }

static status encode(const struct job *j, const struct template_text *t, struct ids *ids)
{
    struct render_work *w = j->w;
    bool specials = j->r->specials;
    w->from.n = w->to.n = 0;
    buf_clear(&w->quoted);
    buf_add(&w->quoted, t->text.data, t->text.len);
    for (size_t i = 0; i < t->text.len; i++) {
        enum template_field f = origin_field(t->origin[i]);
        w->quoted.data[i] = !specials && f != TEMPLATE_ITSELF && f != MESSAGE_ROLE;
    }
    return tokenizer_encode_rendered(j->r->tok, t->text.data ? t->text.data : "", t->text.len, (const unsigned char *)w->quoted.data, ids,
                                     &w->from, &w->to);
}

static void train(struct rendered *out, size_t i) { out->target.v[i] = out->ids.v[i]; }

/* Marks a turn's ids, and its end mark if one stands before `limit`. Returns the ids its own words are. */
static struct rendered_document mark_turn(const struct job *j, const struct turn *turn, bool trained)
{
    struct rendered *out = j->out;
    const int32_t *from = j->w->from.v, *to = j->w->to.v;
    size_t at = rendered_open(out), n = out->ids.n - at, i = 0, own, k;
    while (i < n && (size_t)to[i] <= turn->begin) i++;
    for (own = i; own < n && (size_t)from[own] < turn->own_end; own++)
        if (trained) train(out, at + own);
    for (k = own; k < n && (size_t)to[k] <= turn->limit && !is_end_mark(j->r, out->ids.v[at + k]); k++) {}
    bool marked = k < n && (size_t)to[k] <= turn->limit;
    for (size_t m = own; trained && m < n && (marked ? m <= k : (size_t)to[m] <= turn->rest); m++) train(out, at + m);
    return (struct rendered_document){.body = (int64_t)i, .body_end = (int64_t)own};
}

static size_t common(const struct template_text *a, const struct template_text *b)
{
    size_t n = a->text.len < b->text.len ? a->text.len : b->text.len, i = 0;
    while (i < n && a->text.data[i] == b->text.data[i]) i++;
    return i;
}

/* Where assistant turn `i` lies in `t`, the rendering of the messages up to it. */
static void find_turn(const struct job *j, int i, const struct template_text *t, struct turn *turn)
{
    struct template_text *prompt = &j->w->prompt;
    bool asks = template_mentions(j->t->compiled, "add_generation_prompt");
    size_t first, end;
    bool own = own_bytes(t, i, &first, &end);
    bool fits =
        asks && i > 0 && !render(j, i, true, prompt) && common(prompt, t) == prompt->text.len && (!own || prompt->text.len <= first);
    turn->begin = fits ? prompt->text.len : first;
    turn->own_end = own ? end : turn->begin;
    turn->limit = turn->rest = t->text.len;
}

/* ---- the two ways to find what is trained ---------------------------------------------------------------------- */

static int last_assistant(const struct chat *c)
{
    int i = c->n - 1;
    while (i >= 0 && c->messages[i].role != ROLE_ASSISTANT) i--;
    return i;
}

/* Which assistant wrote a byte; -1: none. */
static int speaker(const struct job *j, template_origin o)
{
    if (origin_field(o) == TEMPLATE_ITSELF || origin_field(o) == TEMPLATE_TOOLS) return -1;
    return j->c->messages[origin_message(o)].role == ROLE_ASSISTANT ? (int)origin_message(o) : -1;
}

/* The first part of a {% generation %} block that one assistant's words fill, and who that is (-1: nobody's words). Blocks
 * that touch are one span: where another's words begin, another part does. */
static struct template_span part_of(const struct job *j, const struct template_text *t, struct template_span s, int *who)
{
    *who = -1;
    for (size_t i = s.begin; i < s.end; i++) {
        int now = speaker(j, t->origin[i]);
        if (now >= 0 && *who >= 0 && now != *who) s.end = i;
        if (*who < 0) *who = now;
    }
    return s;
}

/* Tokenises a text as the document under construction, nothing of it trained yet. */
static status begin_document(const struct job *j, const struct template_text *t, int n, int only)
{
    TRY(check_rendered(j, t, n, only));
    TRY(encode(j, t, &j->out->ids));
    rendered_extend(j->out, false);
    return ST_OK;
}

static void end_document(const struct job *j, struct rendered_document words)
{
    int64_t n = (int64_t)(j->out->ids.n - rendered_open(j->out));
    rendered_close(j->out, words.body_end ? words.body : n, words.body_end ? words.body_end : n);
}

static status by_generation(const struct job *j)
{
    const struct template_text *t = &j->w->full;
    struct rendered_document words = {0};
    int last = last_assistant(j->c);
    for (int i = 0; i < j->c->n; i++) j->turns[i].where = TURN_HERE;
    TRY(begin_document(j, t, j->c->n, -1));
    for (size_t k = 0; k < t->n_generation; k++) {
        for (struct template_span s, rest = t->generation[k]; rest.begin < rest.end; rest.begin = s.end) {
            int who;
            s = part_of(j, t, rest, &who);
            struct turn turn = {.begin = s.begin, .own_end = s.end, .limit = s.end, .rest = s.end};
            struct rendered_document d = mark_turn(j, &turn, who < 0 || j->c->messages[who].trained);
            if (who == last || who < 0) words = d;
        }
    }
    end_document(j, words);
    return ST_OK;
}

/* A turn whose rendering changes once later messages follow. */
static status turn_apart(const struct job *j, int i)
{
    TRY(begin_document(j, &j->w->turn, i + 1, i));
    end_document(j, mark_turn(j, &j->turns[i], true));
    return ST_OK;
}

/* Assistant turn `i`: in the full text if that agrees with the turn's own rendering, else apart. A template that cannot
 * render so few messages is taken at its full word. */
static status place_turn(const struct job *j, int i)
{
    struct template_text *full = &j->w->full, *t = full;
    struct turn *turn = &j->turns[i];
    if (i < j->c->n - 1 && !render(j, i + 1, false, &j->w->turn)) t = &j->w->turn;
    find_turn(j, i, t, turn);
    size_t shared = common(t, full);
    turn->where = shared >= turn->own_end ? TURN_HERE : TURN_APART;
    if (turn->where == TURN_APART) return j->c->messages[i].trained ? turn_apart(j, i) : ST_OK;
    if (turn->limit <= shared) return ST_OK;
    turn->limit = turn->rest = shared; /* which may reach into the next header: `rest` goes back to a line's end */
    while (turn->rest > turn->own_end && full->text.data[turn->rest - 1] != '\n') turn->rest--;
    return ST_OK;
}

/* The document of the full text: every turn that lies in it, and messages that are trained without being assistants'. */
static status full_document(const struct job *j, int last)
{
    struct rendered_document words = {0};
    TRY(begin_document(j, &j->w->full, j->c->n, -1));
    for (int i = 0; i < j->c->n; i++) {
        if (j->turns[i].where != TURN_HERE) continue;
        struct rendered_document d = mark_turn(j, &j->turns[i], j->c->messages[i].trained);
        if (i == last) words = d;
    }
    end_document(j, words);
    return ST_OK;
}

static status by_prefixes(const struct job *j)
{
    const struct chat *c = j->c;
    int last = last_assistant(c);
    bool here = false, apart = false;
    for (int i = 0; i < c->n; i++) {
        struct turn *turn = &j->turns[i];
        bool trained = c->messages[i].trained;
        *turn = (struct turn){0};
        if (c->messages[i].role == ROLE_ASSISTANT && (trained || i == last)) {
            TRY(place_turn(j, i));
        } else if (trained && own_bytes(&j->w->full, i, &turn->begin, &turn->own_end)) {
            turn->where = TURN_HERE;
            turn->limit = turn->rest = turn->own_end;
        }
        here |= trained && turn->where == TURN_HERE;
        apart |= trained && turn->where == TURN_APART;
    }
    return here || !apart ? full_document(j, last) : ST_OK;
}

/* ---- outside --------------------------------------------------------------------------------------------------- */

static status open_job(struct job *j, const struct rendering *r, const struct chat *c, struct render_work *w)
{
    *j = (struct job){.r = r, .c = c, .w = w};
    TRY(chat_format_template(r->format, json_array_size(c->tools) > 0, &j->t));
    j->turns = mem_alloc((size_t)(c->n + 1) * sizeof *j->turns);
    return ST_OK;
}

status template_chat(const struct rendering *r, const struct chat *c, struct render_work *w, struct rendered *out)
{
    struct job j;
    TRY(open_job(&j, r, c, w));
    j.out = out;
    status st = render(&j, c->n, false, &w->full);
    if (!st) st = (template_marks_generation(j.t->compiled) ? by_generation : by_prefixes)(&j);
    free(j.turns);
    return st;
}

status template_prompt(const struct rendering *r, const struct chat *c, struct render_work *w, struct ids *out)
{
    struct job j;
    int last = last_assistant(c);
    TRY(open_job(&j, r, c, w));
    status st = render(&j, last < 0 ? c->n : last, true, &w->full);
    if (!st) st = encode(&j, &w->full, out);
    free(j.turns);
    return st;
}
