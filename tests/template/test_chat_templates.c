/* Whole chat templates against transformers' apply_chat_template: every template of a golden file with every conversation
 * of conversations.json, text, errors, {% generation %} spans and ids equal. golden/own.json is committed;
 * TRIMPOT_TEMPLATE_GOLDEN names another one of the same shape (shared_templates.sh makes it). */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernels/base/file.h"
#include "kernels/base/text.h"
#include "worker/data/template/template.h"
#include "worker/data/tokenizer/tokenizer.h"

#define HERE TRIMPOT_SOURCE_DIR "/tests/template/"

struct counts {
    int templates, refused, cases, raised, ids, differences;
};

/* One golden file under comparison; everything that differs is counted, the first of each template are shown. */
struct comparison {
    json_t *golden, *talks;
    const json_t *variables; /* of the template at hand */
    const char *name;
    const struct template *t;
    struct template_text out;
    struct counts n;
    int shown;
};

static json_t *load(const char *path)
{
    json_error_t e;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &e);
    if (!root) fail_msg("%s: line %d: %s", path, e.line, e.text);
    return root;
}

static bool differs(struct comparison *c, size_t talk, bool prompt, const char *what)
{
    c->n.differences++;
    if (c->shown++ >= 4) return false;
    const char *named = json_string_value(json_object_get(json_array_get(c->talks, talk), "name"));
    printf("DIFFERENCE %s, '%s'%s: %s\n", c->name, named, prompt ? ", add_generation_prompt" : "", what);
    return true;
}

static void show_around(const char *who, const char *s, size_t n, size_t at)
{
    size_t from = at > 40 ? at - 40 : 0, to = at + 60 < n ? at + 60 : n;
    json_t *part = json_stringn_nocheck(s + from, to - from);
    char *text = json_dumps(part, JSON_ENCODE_ANY);
    printf("    %s at byte %zu of %zu: %s\n", who, at, n, text ? text : "(cut inside a character)");
    free(text);
    json_decref(part);
}

static status render(struct comparison *c, size_t talk, bool prompt)
{
    const json_t *conversation = json_array_get(c->talks, talk);
    json_t *extra = json_copy((json_t *)c->variables);
    json_object_update(extra, json_object_get(conversation, "extra"));
    struct template_vars vars = {.messages = json_object_get(conversation, "messages"),
                                 .tools = json_object_get(conversation, "tools"),
                                 .extra = extra,
                                 .n_messages = SIZE_MAX,
                                 .add_generation_prompt = prompt,
                                 .now = json_integer_value(json_object_get(c->golden, "now"))};
    status st = template_render(c->t, &vars, &c->out);
    json_decref(extra);
    return st;
}

/* The golden's text of a case: whole, or where that of the case before it ends, and the rest. */
static void expected(const json_t *want, struct buf *text)
{
    if (json_is_array(want)) {
        assert_int_equal(text->len, json_integer_value(json_array_get(want, 0)));
        want = json_array_get(want, 1);
    } else {
        buf_clear(text);
    }
    buf_add(text, json_string_value(want), json_string_length(want));
}

static void compare_text(struct comparison *c, size_t talk, bool prompt, const struct buf *want)
{
    const struct buf *got = &c->out.text;
    if (got->len == want->len && memcmp(got->data ? got->data : "", want->data, want->len) == 0) return;
    if (!differs(c, talk, prompt, "other text")) return;
    size_t at = 0;
    while (at < got->len && at < want->len && got->data[at] == want->data[at]) at++;
    show_around("want", want->data, want->len, at);
    show_around("got ", got->data, got->len, at);
}

static void compare_case(struct comparison *c, const json_t *cases, size_t i, struct buf *text)
{
    const json_t *one = json_array_get(cases, i), *want = json_array_get(one, 2);
    size_t talk = (size_t)json_integer_value(json_array_get(one, 0));
    bool prompt = json_is_true(json_array_get(one, 1));
    status st = render(c, talk, prompt);
    c->n.cases++;
    c->n.raised += json_is_null(want);
    if (json_is_null(want)) {
        if (!st)
            differs(c, talk, prompt, "renders, where transformers raises");
        else if (st != ST_DATA)
            differs(c, talk, prompt, status_message());
        return;
    }
    expected(want, text);
    if (st)
        differs(c, talk, prompt, status_message());
    else
        compare_text(c, talk, prompt, text);
}

static void compare_generation(struct comparison *c, const json_t *one)
{
    size_t talk = (size_t)json_integer_value(json_array_get(one, 0)), i;
    bool prompt = json_is_true(json_array_get(one, 1));
    const json_t *spans = json_array_get(one, 2), *span;
    if (render(c, talk, prompt)) return; /* told by compare_case */
    if (!template_marks_generation(c->t)) differs(c, talk, prompt, "template_marks_generation is false");
    bool same = c->out.n_generation == json_array_size(spans);
    json_array_foreach(spans, i, span)
    {
        same = same && (json_int_t)c->out.generation[i].begin == json_integer_value(json_array_get(span, 0)) &&
               (json_int_t)c->out.generation[i].end == json_integer_value(json_array_get(span, 1));
    }
    if (same || !differs(c, talk, prompt, "other generation spans")) return;
    char *text = json_dumps(spans, 0);
    printf("    want %s\n    got ", text);
    for (i = 0; i < c->out.n_generation; i++) printf(" [%zu, %zu]", c->out.generation[i].begin, c->out.generation[i].end);
    printf("\n");
    free(text);
}

/* The bytes that are no mark of the template: contents, thoughts, calls, tools. A role may be half of one. */
static unsigned char *quotations(const struct template_text *t)
{
    unsigned char *quoted = mem_alloc(t->text.len + 1);
    for (size_t i = 0; i < t->text.len; i++) {
        enum template_field field = origin_field(t->origin[i]);
        quoted[i] = field != TEMPLATE_ITSELF && field != MESSAGE_OTHER;
    }
    return quoted;
}

static void compare_ids(struct comparison *c, const struct tokenizer *tok, const json_t *one)
{
    size_t talk = (size_t)json_integer_value(json_array_get(one, 0));
    if (render(c, talk, true)) return;
    struct ids ids = {0}, from = {0}, to = {0};
    unsigned char *quoted = quotations(&c->out);
    const char *text = c->out.text.data ? c->out.text.data : "";
    status st = tokenizer_encode_rendered(tok, text, c->out.text.len, quoted, &ids, &from, &to);
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < ids.n; i++) value = (value ^ (uint32_t)ids.v[i]) * 0x100000001b3u;
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)value);
    c->n.ids++;
    if (st)
        differs(c, talk, true, status_message());
    else if ((json_int_t)ids.n != json_integer_value(json_array_get(one, 1)) ||
             strcmp(hash, json_string_value(json_array_get(one, 2))) != 0)
        differs(c, talk, true, tokenizer_describe(tok));
    free(quoted), free(ids.v), free(from.v), free(to.v);
}

static void compare_tokenizers(struct comparison *c, const json_t *ids)
{
    const char *path;
    json_t *cases, *one;
    json_object_foreach((json_t *)ids, path, cases)
    {
        char *where = *path == '/' ? mem_strdup(path) : mem_printf(TRIMPOT_SOURCE_DIR "/%s", path);
        struct tokenizer *tok = NULL;
        if (tokenizer_open(where, &(struct tokenizer_hint){0}, &tok)) fail_msg("%s", status_message());
        size_t i;
        json_array_foreach(cases, i, one) compare_ids(c, tok, one);
        tokenizer_close(tok);
        free(where);
    }
}

/* Its own text in the golden, or the file beside this one. */
static status compile(const json_t *head, struct template **t)
{
    const char *name = json_string_value(json_object_get(head, "name"));
    const json_t *text = json_object_get(head, "template");
    if (text) return template_compile(name, json_string_value(text), json_string_length(text), t);
    char *path = mem_printf(HERE "templates/%s", name), *source;
    size_t n;
    if (file_read(path, 1 << 20, &source, &n)) fail_msg("%s", status_message());
    status st = template_compile(name, source, n, t);
    free(path), free(source);
    return st;
}

static void compare_template(struct comparison *c, const json_t *head)
{
    struct template *t = NULL;
    c->name = json_string_value(json_object_get(head, "name"));
    c->variables = json_object_get(head, "variables");
    c->shown = 0;
    c->n.templates++;
    if (compile(head, &t)) {
        c->n.refused++;
        printf("REFUSED %s\n", status_message());
        return;
    }
    c->t = t;
    struct buf text = {0};
    size_t i;
    json_t *one;
    const json_t *cases = json_object_get(head, "cases");
    for (i = 0; i < json_array_size(cases); i++) compare_case(c, cases, i, &text);
    json_array_foreach(json_object_get(head, "generation"), i, one) compare_generation(c, one);
    compare_tokenizers(c, json_object_get(head, "ids"));
    buf_release(&text);
    template_free(t);
}

static struct counts compare(const char *path)
{
    struct comparison c = {.golden = load(path), .talks = load(HERE "conversations.json")};
    const json_t *names = json_object_get(c.golden, "conversations");
    size_t i;
    json_t *one;
    if (json_array_size(names) != json_array_size(c.talks)) fail_msg("%s: of other conversations: make it anew", path);
    json_array_foreach(json_object_get(c.golden, "templates"), i, one) compare_template(&c, one);
    printf("%s: %d templates, %zu conversations: %d cases, %d of them raise, ids of %d; %d differences, %d templates refused\n",
           strrchr(path, '/') ? strrchr(path, '/') + 1 : path, c.n.templates, json_array_size(c.talks), c.n.cases, c.n.raised, c.n.ids,
           c.n.differences, c.n.refused);
    template_text_release(&c.out);
    json_decref(c.golden);
    json_decref(c.talks);
    return c.n;
}

static void own_templates_render_as_in_transformers(void **state)
{
    (void)state;
    struct counts n = compare(HERE "golden/own.json");
    assert_true(n.templates >= 14 && n.cases > 500 && n.raised > 20 && n.ids > 500);
    assert_int_equal(n.refused, 0);
    assert_int_equal(n.differences, 0);
}

static void named_templates_render_as_in_transformers(void **state)
{
    (void)state;
    const char *path = getenv("TRIMPOT_TEMPLATE_GOLDEN");
    if (!path) {
        printf("SKIPPED: TRIMPOT_TEMPLATE_GOLDEN names no golden file of other templates (shared_templates.sh makes one)\n");
        skip();
    }
    struct counts n = compare(path);
    assert_true(n.templates > 0 && n.cases > 0);
    assert_int_equal(n.differences, 0);
}

int main(void)
{
    setenv("TZ", "UTC0", 1); /* the golden's clock */
    tzset();
    if (getenv("TRIMPOT_TEMPLATE_GOLDEN")) cmocka_set_test_filter("named_*");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_templates_render_as_in_transformers),
        cmocka_unit_test(named_templates_render_as_in_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
