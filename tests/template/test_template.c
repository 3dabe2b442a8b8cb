/* The template engine: small templates against Jinja's own answers, who wrote which byte, what is refused, limits. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/data/template/template.h"

/* A rendering of `text` as a template; variables as JSON. */
struct given {
    const char *messages, *tools, *extra;
    size_t n_messages;
    bool add_generation_prompt;
};

static status render(const char *text, const struct given *g, struct template_text *out)
{
    struct template *t = NULL;
    status st = template_compile("name.jinja", text, strlen(text), &t);
    if (st) return st;
    json_t *messages = json_loads(g->messages ? g->messages : "[]", 0, NULL);
    json_t *tools = g->tools ? json_loads(g->tools, 0, NULL) : NULL;
    json_t *extra = g->extra ? json_loads(g->extra, 0, NULL) : NULL;
    assert_non_null(messages);
    struct template_vars vars = {.messages = messages,
                                 .tools = tools,
                                 .extra = extra,
                                 .n_messages = g->n_messages ? g->n_messages : SIZE_MAX,
                                 .add_generation_prompt = g->add_generation_prompt,
                                 .now = 1753142405};
    st = template_render(t, &vars, out);
    json_decref(messages);
    json_decref(tools);
    json_decref(extra);
    template_free(t);
    return st;
}

/* ---- against Jinja ----------------------------------------------------------------------------------------------- */

static json_t *load_cases(void)
{
    json_error_t e;
    json_t *all = json_load_file(TRIMPOT_SOURCE_DIR "/tests/template/golden/cases.json", 0, &e);
    if (!all) fail_msg("cases.json:%d: %s", e.line, e.text);
    return all;
}

/* One case of cases.json: [template, text], or [template, null, stage, message]. */
static bool case_holds(const json_t *one, const struct template_vars *vars, struct template_text *out)
{
    const json_t *text = json_array_get(one, 0), *want = json_array_get(one, 1);
    bool at_compile = json_array_size(one) > 2 && !strcmp(json_string_value(json_array_get(one, 2)), "compile");
    struct template *t = NULL;
    status st = template_compile("case", json_string_value(text), json_string_length(text), &t);
    bool compiled = !st;
    if (compiled) st = template_render(t, vars, out);
    template_free(t);
    if (!json_is_string(want)) {
        if (st && !strncmp(status_message(), "case:", 5) && !(at_compile && compiled)) return true;
        print_error("%s\n   Jinja refuses: %s\n   here: %s\n", json_string_value(text), json_string_value(json_array_get(one, 3)),
                    st ? status_message() : "rendered");
        return false;
    }
    size_t n = json_string_length(want);
    if (!st && out->text.len == n && (!n || !memcmp(out->text.data, json_string_value(want), n))) return true;
    print_error("%s\n   Jinja: %s\n   here: %s\n", json_string_value(text), json_string_value(want),
                st ? status_message() : out->text.data);
    return false;
}

static void like_jinja(void **state)
{
    (void)state;
    json_t *all = load_cases(), *cases = json_object_get(all, "cases");
    struct template_text out = {0};
    struct template_vars vars = {.messages = json_object_get(all, "messages"),
                                 .tools = json_object_get(all, "tools"),
                                 .extra = json_object_get(all, "vars"),
                                 .n_messages = SIZE_MAX,
                                 .add_generation_prompt = true,
                                 .now = json_integer_value(json_object_get(all, "now"))};
    size_t bad = 0;
    setenv("TZ", "UTC", 1);
    assert_true(json_array_size(cases) > 1000);
    for (size_t i = 0; i < json_array_size(cases); i++) bad += !case_holds(json_array_get(cases, i), &vars, &out);
    if (bad) fail_msg("%zu of %zu cases differ from Jinja", bad, json_array_size(cases));
    template_text_release(&out);
    json_decref(all);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
        status code;
    } cases[] = {
        {"a\n{% include 'x' %}", "name.jinja:2: the tag 'include'", ST_NOT_BUILT},
        {"{% extends 'x' %}", "name.jinja:1: the tag 'extends'", ST_NOT_BUILT},
        {"\n\n{% import 'x' as y %}", "name.jinja:3: the tag 'import'", ST_NOT_BUILT},
        {"{% from 'x' import y %}", "the tag 'from'", ST_NOT_BUILT},
        {"{% block x %}{% endblock %}", "the tag 'block'", ST_NOT_BUILT},
        {"{% autoescape true %}{% endautoescape %}", "the tag 'autoescape'", ST_NOT_BUILT},
        {"{{ x | urlize }}", "name.jinja:1: the filter 'urlize'", ST_NOT_BUILT},
        {"{% if a %}{{ x | pprint }}{% endif %}", "the filter 'pprint'", ST_NOT_BUILT},
        {"{{ 'a'.encode('utf-8') }}", "name.jinja:1: the method .encode()", ST_NOT_BUILT},
        {"{{ 'a'.expandtabs() }}", "name.jinja:1: the attribute 'expandtabs' of a str", ST_NOT_BUILT},
        {"{{ lipsum() }}", "name.jinja:1: the global 'lipsum'", ST_NOT_BUILT},
        {"{{ self }}", "name.jinja:1: the global 'self'", ST_NOT_BUILT},
        {"{{ namespace(_a=1) }}", "name.jinja:1: a namespace has no attributes that begin with '_'", ST_DATA},
        {"{% set ns = namespace() %}{% set ns._a = 1 %}", "name.jinja:1: a namespace has no attributes", ST_DATA},
        {"{{ 99999999999999999999 }}", "an integer beyond 64 bits", ST_NOT_BUILT},
        {"{{ '\\N{DIGIT ONE}' }}", "\\N{", ST_NOT_BUILT},
        {"{{ x | frobnicate }}", "name.jinja:1: no filter is named 'frobnicate'", ST_CORRUPT},
        {"{{ x is frobnicated }}", "name.jinja:1: no test is named 'frobnicated'", ST_CORRUPT},
        {"{% frobnicate %}", "name.jinja:1: unknown tag 'frobnicate'", ST_CORRUPT},
        {"{{ a\n\n}\n}", "name.jinja:3: unexpected '}'", ST_CORRUPT},
        {"\n{% if x %}", "name.jinja:2: the template ends within a block that endif would close", ST_CORRUPT},
        {"{{ '\\ud800' }}", "no character", ST_CORRUPT},
        {"\xFF", "not UTF-8", ST_CORRUPT},
        {"{% break %}", "name.jinja:1: 'break' outside of a loop", ST_CORRUPT},
        {"\n{{ raise_exception('No ' + 'way') }}", "name.jinja:2: the chat template refuses this conversation: No way", ST_DATA},
        {"{{ messages[0].role }}", "name.jinja:1: 'list object' has no element 0", ST_DATA},
        {"\n{{ foo.bar }}", "name.jinja:2: 'foo' is undefined", ST_DATA},
        {"{{ {}.a.b }}", "'dict object' has no attribute 'a'", ST_DATA},
        {"{{ [].append(1) }}", "the sandbox of chat templates forbids 'append' of a list", ST_DATA},
        {"{{ ''.__class__.x }}", "the sandbox of chat templates forbids '__class__' of a str", ST_DATA},
        {"{{ 9223372036854775807 + 1 }}", "an integer beyond 64 bits", ST_DATA},
        {"{{ {1: range}|tojson }}", "is not JSON", ST_DATA},
        {"{{ (x if false).y }}", "name.jinja:1: the 'if' of an expression was false", ST_DATA},
    };
    struct template_text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        status st = render(cases[i].text, &(struct given){0}, &out);
        if (st != cases[i].code || !strstr(status_message(), cases[i].message))
            fail_msg("%s: code %d, %s", cases[i].text, st, st ? status_message() : "rendered");
    }
    template_text_release(&out);
}

/* ---- who wrote it ------------------------------------------------------------------------------------------------ */

/* One letter a byte: . template, c content, r reasoning, t tool calls, o other keys, T tools; capitals of the first four
 * letters' kind: the second message. */
static void letters(const struct template_text *t, char *out)
{
    static const char first[] = ".crtoTw", second[] = "?CRKO?W";
    for (size_t i = 0; i < t->text.len; i++) {
        size_t message = origin_message(t->origin[i]);
        out[i] = message > 1 ? '!' : (message ? second : first)[origin_field(t->origin[i])];
    }
    out[t->text.len] = 0;
}

static void provenance(void **state)
{
    (void)state;
    static const struct given given = {
        .messages =
            "[{\"role\": \"user\", \"content\": \"ab é\", \"reasoning\": \" x \", \"tool_calls\": [{\"n\": 1.5, \"s\": \"q\\\"\"}]},"
            " {\"role\": \"bot\", \"content\": \"Yes, no\", \"thinking\": \"hm\", \"function_call\": {\"k\": []}, \"name\": \"N\"}]",
        .tools = "[{\"f\": \"g\"}]",
        .extra = "{\"bos\": \"<s>\"}",
    };
    static const struct {
        const char *expression, *text, *origins;
    } cases[] = {
        {"bos ~ messages[0].content ~ '!'", "<s>ab é!", "...ccccc."},
        {"messages[0].content + messages[1].content", "ab éYes, no", "cccccCCCCCCC"},
        {"messages[0].role ~ messages[1].name ~ messages[1].role", "userNbot", "wwwwOWWW"},
        {"messages[0].reasoning|trim ~ messages[1].thinking", "xhm", "rRR"},
        {"('<' + messages[0].content + '>')[1:-1]", "ab é", "ccccc"},
        {"('<' + messages[0].content + '>')[::-1]", ">é ba<", ".ccccc."},
        {"('-' + messages[1].content + '-').strip('-')", "Yes, no", "CCCCCCC"},
        {"messages[1].content.split(', ')|join('; ')", "Yes; no", "CCC..CC"},
        {"messages[1].content.split(', ')[-1]", "no", "CC"},
        {"messages[0].content.replace('b', messages[1].thinking)", "ahm é", "cRRccc"},
        {"messages[0].content|replace(' ', '')|upper", "ABÉ", "cccc"},
        {"messages[1].content.title()|lower", "yes, no", "CCCCCCC"},
        {"messages[0].content|title", "Ab É", "ccccc"},
        {"messages[1].content|tojson", "\"Yes, no\"", "CCCCCCCCC"},
        {"messages[0].tool_calls|tojson", "[{\"n\": 1.5, \"s\": \"q\\\"\"}]", "tttttttttttttttttttttttt"},
        {"messages[1].function_call|tojson", "{\"k\": []}", "KKKKKKKKK"},
        {"tools|tojson", "[{\"f\": \"g\"}]", "TTTTTTTTTTTT"},
        {"{'a': messages[0].content}|tojson", "{\"a\": \"ab é\"}", "......ccccccc."},
        {"{'a': messages[0].content}|tojson(ensure_ascii=true)", "{\"a\": \"ab \\u00e9\"}", "......ccccccccccc."},
        {"messages[0].tool_calls[0].n", "1.5", "ttt"},
        {"messages[0].tool_calls[0].n|string + 'x'", "1.5x", "ttt."},
        {"messages[0].tool_calls", "[{'n': 1.5, 's': 'q\"'}]", "ttttttttttttttttttttttt"},
        {"'%s=%s' % (bos, messages[1].thinking)", "<s>=hm", "....RR"},
        {"'{}={:>4}'.format(bos, messages[1].thinking)", "<s>=  hm", "....RRRR"},
        {"messages[1].content|indent(2, true)", "  Yes, no", "..CCCCCCC"},
        {"messages|map(attribute='role')|join('+')", "user+bot", "wwww.WWW"},
        {"(messages[1].items()|map('last')|list)[-2]", "N", "O"},
        {"messages[1].thinking * 2", "hmhm", "RRRR"},
        {"messages[0].content|length", "4", "."},
        {"messages[1].content|list|first ~ messages[1].content|last", "Yo", "CC"},
        {"messages[1].content|e", "Yes, no", "CCCCCCC"},
        {"messages[1].content.partition(',')|join", "Yes, no", "CCCCCCC"},
        {"messages[1].content.center(9, '*')", "*Yes, no*", ".CCCCCCC."},
        {"messages[1].content|truncate(5, true, '.', 0)", "Yes,.", "CCCC."},
        {"messages[1].content|wordcount ~ messages[0].content.find('b')", "21", ".."},
        {"(messages[1]|dictsort)[0][0]", "content", "OOOOOOO"},
        {"messages[1].get('content')|default('x')", "Yes, no", "CCCCCCC"},
        {"messages[0].zz|default('x')", "x", "."},
    };
    struct template_text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256], got[256];
        snprintf(text, sizeof text, "{{ %s }}", cases[i].expression);
        if (render(text, &given, &out)) fail_msg("%s: %s", cases[i].expression, status_message());
        letters(&out, got);
        if (strcmp(out.text.data, cases[i].text) || strcmp(got, cases[i].origins))
            fail_msg("%s\n   want %s\n        %s\n   got  %s\n        %s", cases[i].expression, cases[i].text, cases[i].origins,
                     out.text.data, got);
    }
    template_text_release(&out);
}

/* Through statements that carry text on: macros, blocks, filters, calls. */
static void provenance_of_statements(void **state)
{
    (void)state;
    static const struct given given = {.messages = "[{\"role\": \"user\", \"content\": \" ab \"}]"};
    static const struct {
        const char *text, *origins;
    } cases[] = {
        {"{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(messages[0].content)|upper }}", ".cccc."},
        {"{% set a %}<{{ messages[0].content }}>{% endset %}{{ a }}{{ a }}", ".cccc..cccc."},
        {"{% set a | trim %}  {{ messages[0].content }}  {% endset %}{{ a }}", "cc"},
        {"{% filter replace('a', 'xx') %}{{ messages[0].content }}{% endfilter %}", "c..cc"},
        {"{% macro m() %}{{ caller()|trim }}{% endmacro %}{% call m() %}-{{ messages[0].content }}{% endcall %}", ".ccc"},
        {"{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content + '|' %}{% endfor %}{{ ns.t }}", "cccc."},
        {"{% for c in messages[0].content %}{{ c }},{% endfor %}", "c.c.c.c."},
        {"{% for m in messages recursive %}{{ m.role if m.role else m }}{{ loop([{'role': m.content}]) if loop.depth < 2 }}{% endfor %}",
         "wwwwcccc"},
        {"{% for k, v in messages[0].items() %}{{ k }}{{ v }}{% endfor %}", "oooowwwwooooooocccc"},
    };
    struct template_text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char got[256];
        if (render(cases[i].text, &given, &out)) fail_msg("%s: %s", cases[i].text, status_message());
        letters(&out, got);
        if (strcmp(got, cases[i].origins))
            fail_msg("%s\n   %s\n   want %s\n   got  %s", cases[i].text, out.text.data, cases[i].origins, got);
    }
    template_text_release(&out);
}

/* ---- {% generation %} -------------------------------------------------------------------------------------------- */

static void generation(void **state)
{
    (void)state;
    static const struct given given = {.messages = "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", "
                                                   "\"content\": \"Yo\"}, {\"role\": \"assistant\", \"content\": \"é!\"}]"};
    static const struct {
        const char *text, *marked; /* the spans' texts, each closed by | */
    } cases[] = {
        {"{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>\n"
         "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
         "Yo</s>\n|é!</s>\n|"},
        {"a{% generation %}b{% endgeneration %}c{% generation %}{% endgeneration %}d", "b|"},
        {"{% generation %}all{% endgeneration %}", "all|"},
        {"{% macro m(t) %}[{% generation %}{{ t }}{% endgeneration %}]{% endmacro %}{{ m('x') }}{{ m('y')|upper }}", "x|Y|"},
        {"{% set a %}1{% generation %}23{% endgeneration %}4{% endset %}-{{ a }}-{{ a[:3] }}", "23|23|"},
        {"{% generation %}a{% set q = 'zz' %}{{ q }}{% endgeneration %}{{ q }}b", "azz|"},
        {"{% filter trim %}  {% generation %} x {% endgeneration %} {% endfilter %}.", "x|"},
        {"none", ""},
    };
    struct template_text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf got = {0};
        buf_text(&got, "");
        if (render(cases[i].text, &given, &out)) fail_msg("%s: %s", cases[i].text, status_message());
        for (size_t k = 0; k < out.n_generation; k++) {
            assert_true(out.generation[k].begin < out.generation[k].end && out.generation[k].end <= out.text.len);
            buf_add(&got, out.text.data + out.generation[k].begin, out.generation[k].end - out.generation[k].begin);
            buf_text(&got, "|");
        }
        assert_string_equal(got.data, cases[i].marked);
        for (size_t k = 0; k < out.text.len; k++) assert_true(origin_message(out.origin[k]) < 3);
        buf_release(&got);
    }
    template_text_release(&out);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

/* `open` × n, `middle`, `close` × n */
static char *nested(const char *open, const char *middle, const char *close, int n)
{
    struct buf b = {0};
    for (int i = 0; i < n; i++) buf_text(&b, open);
    buf_text(&b, middle);
    for (int i = 0; i < n; i++) buf_text(&b, close);
    return b.data;
}

static void deep_text(void **state)
{
    (void)state;
    static const char *const shapes[][3] = {
        {"{{ (", "1", ") }}"},    {"[", "1", "]"},       {"{'a': ", "1", "}"},      {"not ", "1", ""},  {"- ", "1", ""},
        {"(", "1", ")"},          {"1 + ", "1", ""},     {"1 if ", "1", " else 2"}, {"x(", "1", ")"},   {"x[", "1", "]"},
        {"x|default(", "1", ")"}, {"", "x", ".a"},       {"", "x", "|upper"},       {"", "x", "()"},    {"1 ~ ", "1", ""},
        {"1 < ", "2", ""},        {"1 is eq ", "1", ""}, {"", "1", " and 1"},       {"1 ** ", "1", ""}, {"", "x", "[0]"},
    };
    struct template_text out = {0};
    for (size_t i = 1; i < sizeof shapes / sizeof *shapes; i++) {
        char *inner = nested(shapes[i][0], shapes[i][1], shapes[i][2], 20000), *text = mem_printf("{{ %s }}", inner);
        status st = render(text, &(struct given){.extra = "{\"x\": \"y\"}"}, &out); /* only concatenation may be long */
        if (st == ST_OK ? strcmp(shapes[i][0], "1 ~ ") : st != ST_CORRUPT && st != ST_DATA)
            fail_msg("shape %zu: %s", i, st ? status_message() : "rendered");
        free(inner);
        free(text);
    }
    static const char *const blocks[][2] = {
        {"{% if 1 %}", "{% endif %}"},
        {"{% for a in [1] %}", "{% endfor %}"},
        {"{% macro m() %}", "{% endmacro %}"},
        {"{% set a %}", "{% endset %}"},
        {"{% with %}", "{% endwith %}"},
        {"{% filter upper %}", "{% endfilter %}"},
        {"{% generation %}", "{% endgeneration %}"},
        {"{% call m() %}", "{% endcall %}"},
    };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        char *text = nested(blocks[i][0], "x", blocks[i][1], 20000);
        assert_int_equal(render(text, &(struct given){0}, &out), ST_CORRUPT);
        assert_non_null(strstr(status_message(), "nested too deeply"));
        free(text);
        text = nested(blocks[i][0], "x", blocks[i][1], 30); /* what a person writes is far from the limit */
        if (render(text, &(struct given){.extra = "{\"m\": 1}"}, &out) && !strstr(text, "call"))
            fail_msg("%s: %s", blocks[i][0], status_message());
        free(text);
    }
    char *large = nested("xxxxxxxxxxxxxxxx", "", "", (1 << 20) / 16 + 1);
    assert_int_equal(render(large, &(struct given){0}, &out), ST_CORRUPT);
    free(large);
    template_text_release(&out);
}

static void endless(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply"},
        {"{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested too deeply"},
        {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "name.jinja:1: "},
        {"{% set s = 'x' * 30000000 %}{% for a in range(99) %}{{ 'y' in s }}{% endfor %}", "without end"},
        {"{% for a in range(100000) %}{% for b in range(100000) %}{{ 'xxxxxxxx' }}{% endfor %}{% endfor %}", "name.jinja:1: "},
        {"{{ 'x' * 1000000000 }}", "more than"},
        {"{{ 'x' * 9223372036854775807 }}", "more than"},
        {"{{ [1] * 1000000000 }}", "name.jinja:1: "},
        {"{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}", "name.jinja:1: "},
        {"{% set ns = namespace(a=[1]) %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}{% endfor %}", "name.jinja:1: "},
        {"{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}", "nested too deeply"},
        {"{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a|tojson }}",
         "nested too deeply"},
        {"{% set ns = namespace(a=[], b=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% set ns.b = [ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
         "nested too deeply"},
        {"{% set ns = namespace(a=[], b=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% set ns.b = [ns.b] %}{% endfor %}{{ ns.a < ns.b }}",
         "nested too deeply"},
        {"{{ [[21.1, 3] * 62103] * 62 }}", "without end"},
        {"{{ ([[21.1, 3] * 62103] * 62)|tojson }}", "without end"},
        {"{{ range(100001) }}", "more than 100000"},
        {"{{ 'a'.center(1000000000) }}", "more than"},
        {"{{ '%99999999d' % 1 }}", "a width or precision"},
        {"{{ '{:99999999}'.format(1) }}", "a width or precision"},
        {"{{ 'a'|indent(999999999) ~ 'a\nb'|indent(999999999) }}", "more than"},
        {"{{ ('a' * 60000000).replace('a' * 30000000, 'b' * 40000000) }}", "name.jinja:1: "},
        {"{{ [1]|tojson(indent=99999) }}", "an indent"},
        {"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "nested too deeply"},
    };
    struct template_text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        status st = render(cases[i].text, &(struct given){0}, &out);
        if (st != ST_DATA || !strstr(status_message(), cases[i].message))
            fail_msg("%s: code %d, %s", cases[i].text, st, st ? status_message() : "rendered");
    }
    template_text_release(&out);
}

/* ---- the rest of the contract ------------------------------------------------------------------------------------ */

static void questions(void **state)
{
    (void)state;
    static const char text[] = "enable {% if enable_thinking is defined and m['tool_calls'] %}{{ m.reasoning ~ \"x\" }}{% endif %}"
                               "{# commented #}{% raw %}{{ raw }}{% endraw %}";
    struct template *t;
    assert_int_equal(template_compile("t", text, sizeof text - 1, &t), ST_OK);
    static const char *const said[] = {"enable_thinking", "m", "tool_calls", "reasoning", "x"};
    static const char *const unsaid[] = {"enable", "commented", "raw", "defined", "if", "tool", ""};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) assert_true(template_mentions(t, said[i]));
    for (size_t i = 0; i < sizeof unsaid / sizeof *unsaid; i++) assert_false(template_mentions(t, unsaid[i]));
    assert_false(template_marks_generation(t));
    template_free(t);
    assert_int_equal(template_compile("t", "{% generation %}{% endgeneration %}", 35, &t), ST_OK);
    assert_true(template_marks_generation(t));
    template_free(t);
    template_free(NULL);
}

static void variables(void **state)
{
    (void)state;
    struct template_text out = {0};
    struct given g = {.messages = "[{\"content\": \"a\"}, {\"content\": \"b\"}, {\"content\": \"c\"}]",
                      .n_messages = 2,
                      .add_generation_prompt = true,
                      .extra = "{\"tools_in_user_message\": false, \"x\": [1, null]}"};
    static const char text[] = "{% for m in messages %}{{ m.content }}{% endfor %}|{{ add_generation_prompt }}|{{ tools }}|"
                               "{{ documents }}|{{ tools_in_user_message }}|{{ x }}|{{ bos_token }}";
    assert_int_equal(render(text, &g, &out), ST_OK);
    assert_string_equal(out.text.data, "ab|True|None|None|False|[1, None]|");
    g = (struct given){.tools = "[]"};
    assert_int_equal(render("{{ messages }}{{ tools }}{{ add_generation_prompt }}", &g, &out), ST_OK);
    assert_string_equal(out.text.data, "[][]False");
    g = (struct given){.messages = "[{}, 5]"};
    assert_int_equal(render("{{ messages }}", &g, &out), ST_DATA);
    assert_string_equal(status_message(), "name.jinja:1: message 1 is not an object");
    assert_int_equal(render("", &g, &out), ST_OK);
    assert_int_equal(out.text.len, 0);
    assert_string_equal(out.text.data, "");
    assert_int_equal(out.n_generation, 0);
    template_text_release(&out);
}

/* As transformers: null is absent, and reasoning has two names; whose it is stays known. */
static void messages_as_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *message, *keys, *reasoning, *thinking;
    } cases[] = {
        {"{\"role\": \"a\", \"content\": null, \"tool_calls\": null}", "role", "", ""},
        {"{\"role\": \"a\", \"reasoning\": \"r\"}", "thinking role reasoning reasoning_content", "r", "r"},
        {"{\"role\": \"a\", \"thinking\": \"t\"}", "thinking role reasoning_content", "t", "t"},
        {"{\"reasoning_content\": \"c\", \"role\": \"a\", \"thinking\": \"t\"}", "thinking reasoning_content role", "c", "t"},
        {"{\"role\": \"a\", \"reasoning_content\": null, \"reasoning\": \"r\"}", "thinking role reasoning reasoning_content", "r", "r"},
        {"{\"role\": \"a\", \"reasoning_content\": \"\", \"reasoning\": \"r\"}", "thinking role reasoning_content reasoning", "", ""},
    };
    struct template_text out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *messages = mem_printf("[%s]", cases[i].message);
        char *want = mem_printf("%s|%s|%s", cases[i].keys, cases[i].reasoning, cases[i].thinking);
        static const char text[] = "{{ messages[0]|join(' ') }}|{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}";
        assert_int_equal(render(text, &(struct given){.messages = messages}, &out), ST_OK);
        assert_string_equal(out.text.data, want);
        size_t from = strlen(cases[i].keys) + 1;
        for (size_t k = 0; k < strlen(cases[i].reasoning); k++) assert_int_equal(origin_field(out.origin[from + k]), MESSAGE_REASONING);
        free(messages);
        free(want);
    }
    template_text_release(&out);
}

static void *render_often(void *p)
{
    static const char want[] = "<user>Hello World</user>\n<bot>[1, 2]</bot>\n";
    json_t *messages =
        json_loads("[{\"role\": \"user\", \"content\": \"hello world\"}, {\"role\": \"bot\", \"content\": [1, 2]}]", 0, NULL);
    struct template_vars vars = {.messages = messages, .n_messages = SIZE_MAX};
    struct template_text out = {0};
    size_t good = 0;
    for (int i = 0; i < 300; i++) good += !template_render(p, &vars, &out) && !strcmp(out.text.data, want);
    template_text_release(&out);
    json_decref(messages);
    return good == 300 ? p : NULL;
}

static void threads(void **state)
{
    (void)state;
    static const char text[] = "{% macro tag(n, x) %}<{{ n }}>{{ x|title if x is string else x|tojson }}</{{ n }}>{% endmacro %}"
                               "{% for m in messages %}{{ tag(m.role, m.content) }}\n{% endfor %}\n";
    struct template *t;
    pthread_t thread[4];
    assert_int_equal(template_compile("t", text, sizeof text - 1, &t), ST_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *good;
        pthread_join(thread[i], &good);
        assert_non_null(good);
    }
    template_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_jinja),
        cmocka_unit_test(refused),
        cmocka_unit_test(provenance),
        cmocka_unit_test(provenance_of_statements),
        cmocka_unit_test(generation),
        cmocka_unit_test(deep_text),
        cmocka_unit_test(endless),
        cmocka_unit_test(questions),
        cmocka_unit_test(variables),
        cmocka_unit_test(threads),
        cmocka_unit_test(messages_as_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
