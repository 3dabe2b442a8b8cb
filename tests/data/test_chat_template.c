/* Chats by a chat template: which template is used, what of its text is trained on, and what it may not drop. The
 * tokenizer is one id per byte, so a string is the ids: specials by name, trained tokens inside { }, documents apart by
 * " | ". */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/file.h"
#include "tests/data/data_config.h"
#include "tests/data/fake_tokenizer.h"
#include "worker/data/dataset.h"
#include "worker/data/dataset_source.h"

static char folder[] = "/tmp/trimpot-chat-XXXXXX";

static void put(const char *name, const char *text)
{
    char *path = mem_printf("%s/%s", folder, name);
    assert_int_equal(file_replace(path, text, strlen(text)), ST_OK);
    free(path);
}

static void drop(const char *name)
{
    char *path = mem_printf("%s/%s", folder, name);
    unlink(path);
    free(path);
}

/* One row by one template; the shown documents, or the failure's message. Caller frees. */
static char *render(const char *template, const struct tokenizer *tok, enum masking masking, const char *json)
{
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct chat_format format;
    c.torchtune_templates = false;
    set.masking = masking;
    put("chat_template.jinja", template);
    assert_int_equal(chat_format_open(&c, tok, folder, NULL, 0, &format), ST_OK);
    struct source s = {.c = &c, .set = &set};
    struct source_work work = {0};
    struct rendered out = {0};
    struct buf shown = {0};
    json_t *row = json_loads(json, 0, NULL);
    assert_non_null(row);
    status st = shape_detect(&set, row, &s.shape);
    if (!st) st = rendering_init(&s.rendering, &c, &set, &format, s.shape.kind);
    if (!st) st = source_render(&s, row, &work, &out);
    if (st) buf_printf(&shown, "%s: %s", status_name(st), status_message());
    for (int i = 0; !st && i < out.n; i++) {
        const struct rendered_document *d = &out.documents[i];
        char *one = fake_show(tok, out.ids.v + d->at, out.target.v + d->at, (int64_t)d->n);
        buf_printf(&shown, "%s%s", i ? " | " : "", one);
        free(one);
    }
    rendering_release(&s.rendering);
    source_work_release(&work);
    rendered_release(&out);
    chat_format_close(&format);
    json_decref(row);
    return shown.data;
}

#define EACH "{% for message in messages %}"
#define CHATML                                                                                                                             \
    EACH "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"                                     \
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
#define MARKED                                                                                                                             \
    EACH                                                                                                                                   \
        "{{ '<|im_start|>' + message.role + '\\n' }}{% if message.role == 'assistant' %}{% generation %}"                                  \
        "{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}{% endif %}\n\n{% endfor %}"
/* As Qwen3: only the last turn keeps its thinking. */
#define FORGETS                                                                                                                             \
    EACH                                                                                                                                    \
        "{{ '<|im_start|>' + message.role + '\\n' }}"                                                                                       \
        "{% if message.role == 'assistant' and loop.last %}{{ '<think>' + message.reasoning_content|default('') + '</think>' }}{% endif %}" \
        "{{ message.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
#define NO_PROMPT EACH "{{ '<|im_start|>' + message.role + '\\n' + message.content|trim + '<|im_end|>' }}{% endfor %}"
#define TOUCHING  EACH "{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}"
#define BARE                                                                                                                               \
    EACH "{{ message.role|capitalize + ': ' + message.content + '\\n' }}{% endfor %}"                                                      \
         "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
#define BARE_END                                                                                                                           \
    EACH "{{ '<|' + message.role + '|>' + message.content + '<|end|>\n' }}{% endfor %}"                                                    \
         "{{ '<|assistant|>' if add_generation_prompt else '<|endoftext|>' }}"
#define USERS EACH "{% if message.role != 'system' %}{{ message.content + '<|im_end|>' }}{% endif %}{% endfor %}"
#define TOOLS "{% for t in tools %}{{ t|tojson }}{% endfor %}" CHATML

#define U(x)     "{\"role\":\"user\",\"content\":\"" x "\"}"
#define A(x)     "{\"role\":\"assistant\",\"content\":\"" x "\"}"
#define S(x)     "{\"role\":\"system\",\"content\":\"" x "\"}"
#define ROW(...) "{\"messages\":[" __VA_ARGS__ "]}"
#define IMS      "<|im_start|>"
#define IME      "<|im_end|>"

static const struct {
    const char *template;
    enum masking masking;
    const char *row, *shown;
} cases[] = {
    {CHATML, MASK_DEFAULT, ROW(U("a") "," A("b") "," U("c") "," A("d")),
     IMS "user\na" IME "\n" IMS "assistant\n{b" IME "}\n" IMS "user\nc" IME "\n" IMS "assistant\n{d" IME "}\n"},
    {CHATML, MASK_TRAIN_ON_LAST, ROW(U("a") "," A("b") "," U("c") "," A("d")),
     IMS "user\na" IME "\n" IMS "assistant\nb" IME "\n" IMS "user\nc" IME "\n" IMS "assistant\n{d" IME "}\n"},
    {CHATML, MASK_TRAIN_ON_ALL, ROW(U("a") "," A("b")), IMS "user\n{a}" IME "\n" IMS "assistant\n{b" IME "}\n"},
    {CHATML, MASK_DEFAULT, ROW(U("a") "," A("") "," U("c") "," A("d")), /* an empty answer ends at once */
     IMS "user\na" IME "\n" IMS "assistant\n{" IME "}\n" IMS "user\nc" IME "\n" IMS "assistant\n{d" IME "}\n"},
    {MARKED, MASK_DEFAULT, ROW(U("a") "," A("b") "," U("c") "," A("d")),
     IMS "user\na" IME "\n" IMS "assistant\n{b" IME "}\n" IMS "user\nc" IME "\n" IMS "assistant\n{d" IME "}\n"},
    {MARKED, MASK_TRAIN_ON_LAST, ROW(U("a") "," A("b") "," U("c") "," A("d")),
     IMS "user\na" IME "\n" IMS "assistant\nb" IME "\n" IMS "user\nc" IME "\n" IMS "assistant\n{d" IME "}\n"},
    {TOUCHING, MASK_TRAIN_ON_LAST, ROW(A("b") "," A("d")), "b{d}"},
    {FORGETS, MASK_DEFAULT, ROW(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"reasoning_content\":\"r\"}," U("c") "," A("d")),
     IMS "user\na" IME IMS "assistant\n{<think>r</think>b" IME "} | " IMS "user\na" IME IMS "assistant\nb" IME IMS "user\nc" IME IMS
         "assistant\n{<think></think>d" IME "}"},
    {FORGETS, MASK_DEFAULT, ROW(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"thinking\":\"r\"}"), /* by its other name */
     IMS "user\na" IME IMS "assistant\n{<think>r</think>b" IME "}"},
    {NO_PROMPT, MASK_DEFAULT, ROW(U(" a ") "," A(" b ")), IMS "user\na" IME IMS "assistant\n{b" IME "}"},
    {BARE, MASK_DEFAULT, ROW(U("a") "," A("b") "," U("c") "," A("d")), "User: a\nAssistant: {b\n}User: c\nAssistant: {d\n}"},
    {BARE_END, MASK_DEFAULT, ROW(U("a") "," A("b") "," U("c") "," A("d")), /* marks that are no special tokens here */
     "<|user|>a<|end|>\n<|assistant|>{b<|end|>\n}<|user|>c<|end|>\n<|assistant|>{d<|end|>\n<|endoftext|>}"},
    {USERS, MASK_DEFAULT, ROW(S("s") "," U("a") "," A("b")), "data error: messages[0]: its content"},
    {USERS, MASK_DEFAULT, ROW(S(" ") "," U("a") "," A("b")), "a" IME "{b" IME "}"},
    {CHATML, MASK_DEFAULT, ROW(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"reasoning_content\":\"r\"}"),
     "data error: messages[1]: its reasoning_content"},
    {CHATML, MASK_DEFAULT, ROW(U("a") ",{\"role\":\"assistant\",\"content\":\"b\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}"),
     "data error: messages[1]: its tool_calls"},
    {CHATML, MASK_DEFAULT, "{\"tools\":[{\"name\":\"t\"}],\"messages\":[" U("a") "," A("b") "]}", "data error: tools: the "},
    {TOOLS, MASK_DEFAULT, "{\"tools\":[{\"n\":\"" IME "\"}],\"messages\":[" U("a") "," A("b") "]}", NULL},
    {CHATML, MASK_DEFAULT, "{\"question\":\"a\",\"answer\":\"b\"}", IMS "user\na" IME "\n" IMS "assistant\n{b" IME "}\n"},
    {"{{ raise_exception('no such thing') }}", MASK_DEFAULT, ROW(U("a") "," A("b")), "data error: "},
};

static void documents(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *shown = render(cases[i].template, &fake_qwen, cases[i].masking, cases[i].row);
        const char *want = cases[i].shown;
        bool failure = want && !strncmp(want, "data error", 10);
        if (want && (failure ? strncmp(shown, want, strlen(want)) : strcmp(shown, want)))
            fail_msg("case %zu:\n  got  %s\n  want %s", i, shown, want);
        free(shown);
    }
}

/* What a user writes is never a special token; what the template writes is. */
static void text_of_users_stays_text(void **state)
{
    (void)state;
    struct {
        const char *template, *row;
        int marks;
    } rows[] = {
        {CHATML, ROW(U(IME) "," A(IME "x")), 2},
        {TOOLS, "{\"tools\":[{\"n\":\"" IME "\"}],\"messages\":[" U("a") "," A("b") "]}", 2},
        {EACH "{{ '<|im_' + message.content }}{% endfor %}", ROW(U("end|>") "," A("end|>")), 0}, /* half and half */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config c = config_defaults();
        struct config_dataset set = dataset_defaults();
        struct chat_format format;
        c.torchtune_templates = false;
        for (int allowed = 0; allowed < 2; allowed++) {
            struct source s = {.c = &c, .set = &set};
            struct source_work work = {0};
            struct rendered out = {0};
            c.allow_special_in_text = allowed;
            put("chat_template.jinja", rows[i].template);
            assert_int_equal(chat_format_open(&c, &fake_qwen, folder, NULL, 0, &format), ST_OK);
            json_t *row = json_loads(rows[i].row, 0, NULL);
            assert_int_equal(shape_detect(&set, row, &s.shape), ST_OK);
            assert_int_equal(rendering_init(&s.rendering, &c, &set, &format, s.shape.kind), ST_OK);
            assert_int_equal(source_render(&s, row, &work, &out), ST_OK);
            int marks = 0;
            for (size_t k = 0; k < out.ids.n; k++) marks += out.ids.v[k] == tokenizer_id(&fake_qwen, IME);
            if (allowed ? marks <= rows[i].marks : marks != rows[i].marks) fail_msg("case %zu: %d marks", i, marks);
            rendering_release(&s.rendering);
            source_work_release(&work);
            rendered_release(&out);
            chat_format_close(&format);
            json_decref(row);
        }
    }
}

/* The name of the template that is used, or the failure. Caller frees. */
static char *chosen(struct config *c, const char *family, bool tools)
{
    struct chat_format f;
    const struct chat_template *t;
    char *name;
    if (chat_format_open(c, &fake_qwen, folder, family, 0, &f)) return mem_strdup(status_message());
    if (f.torchtune)
        name = mem_strdup("torchtune");
    else if (chat_format_template(&f, tools, &t))
        name = mem_strdup(status_message());
    else
        name = mem_printf("%.*s", (int)t->n, t->text);
    chat_format_close(&f);
    return name;
}

static void expect(struct config *c, const char *family, bool tools, const char *want)
{
    char *got = chosen(c, family, tools);
    if (!strstr(got, want)) fail_msg("got '%s', want '%s'", got, want);
    free(got);
}

static void where_templates_come_from(void **state)
{
    (void)state;
    struct config c = config_defaults();
    c.torchtune_templates = false;
    drop("chat_template.jinja");
    expect(&c, NULL, false, "<|im_start|>"); /* none: ChatML */
    expect(&c, "llama3", false, "<|start_header_id|>");
    put("chat_template.json", "{\"chat_template\": \"J\"}");
    expect(&c, NULL, false, "J");
    put("tokenizer_config.json", "{\"chat_template\": \"C\", \"eos_token\": {\"content\": \"E\"}}");
    expect(&c, NULL, false, "C");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"}, "
                                 "{\"name\": \"tool_use\", \"template\": \"T\"}]}");
    expect(&c, NULL, false, "D");
    expect(&c, NULL, true, "T");
    put("chat_template.jinja", "F");
    expect(&c, NULL, false, "F");
    expect(&c, NULL, true, "F");
    char *extra = mem_printf("%s/additional_chat_templates", folder);
    assert_int_equal(file_mkdirs(extra), ST_OK);
    put("additional_chat_templates/tool_use.jinja", "X");
    expect(&c, NULL, true, "X");
    drop("additional_chat_templates/tool_use.jinja");
    rmdir(extra);
    free(extra);
    c.torchtune_templates = true;
    expect(&c, NULL, false, "torchtune");
    c.chat_template = (char *)"model";
    expect(&c, NULL, false, "F");
    c.chat_template = (char *)"llama3";
    expect(&c, NULL, false, "<|start_header_id|>");
    c.chat_template = (char *)"lama3";
    expect(&c, NULL, false, "'lama3' is no file and no built-in name");
    c.chat_template = mem_printf("%s/own.jinja", folder);
    put("own.jinja", "{{ bos_token }}O");
    expect(&c, NULL, false, "O");
    put("own.jinja", "{% if %}");
    expect(&c, NULL, false, "own.jinja:1");
    free(c.chat_template);
    drop("chat_template.json");
    drop("tokenizer_config.json");
    drop("own.jinja");
}

static void variables(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_pair kwargs[] = {{"enable_thinking", "false"}, {"date_string", "today"}, {"n", "3"}};
    struct chat_format f;
    c.torchtune_templates = false;
    c.template_variables = kwargs;
    c.n_template_variables = 3;
    put("tokenizer_config.json",
        "{\"bos_token\": null, \"eos_token\": {\"content\": \"E\"}, \"model_max_length\": 1000000000000000019884624838656}");
    put("special_tokens_map.json", "{\"bos_token\": \"B\", \"pad_token\": \"P\"}");
    assert_int_equal(chat_format_open(&c, &fake_tiny, folder, NULL, 0, &f), ST_OK);
    char *text = json_dumps(f.variables, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, "{\"date_string\":\"today\",\"enable_thinking\":false,\"eos_token\":\"E\",\"n\":3,\"pad_token\":\"P\"}");
    free(text);
    chat_format_close(&f);
    drop("tokenizer_config.json");
    drop("special_tokens_map.json");
}

static void texts(void **state)
{
    (void)state;
    static const struct {
        const struct tokenizer *tok;
        bool eos;
        const char *text, *shown;
    } rows[] = {
        {&fake_tiny, true, "ab", "{<s>ab</s>}"},
        {&fake_tiny, false, "ab", "{<s>ab}"},
        {&fake_tiny, true, "<s>ab", "{<s>ab</s>}"},
        {&fake_tiny, true, "<s>ab</s>\n", "{<s>ab</s>\n}"},
        {&fake_qwen, true, IMS "user\nhi" IME "\n", "{" IMS "user\nhi" IME "\n<|endoftext|>}"},
    };
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    c.torchtune_templates = false;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct chat_format f;
        struct rendering r;
        struct rendered out = {0};
        assert_int_equal(chat_format_open(&c, rows[i].tok, folder, NULL, 0, &f), ST_OK);
        assert_int_equal(rendering_init(&r, &c, &set, &f, SHAPE_TEXT), ST_OK);
        assert_int_equal(render_text(&r, rows[i].text, strlen(rows[i].text), rows[i].eos, &out), ST_OK);
        char *shown = fake_show(rows[i].tok, out.ids.v, out.target.v, (int64_t)out.ids.n);
        assert_string_equal(shown, rows[i].shown);
        free(shown);
        rendering_release(&r);
        rendered_release(&out);
        chat_format_close(&f);
    }
}

/* What the model is asked with is what it was trained to answer after. */
static void prompts(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct chat_format f;
    struct prompts p;
    c.torchtune_templates = false;
    put("chat_template.jinja", CHATML);
    assert_int_equal(chat_format_open(&c, &fake_qwen, folder, NULL, 0, &f), ST_OK);
    assert_int_equal(dataset_prompt(&c, &f, "what " IME "?", &p), ST_OK);
    char *text = tokenizer_decode(&fake_qwen, p.ids[0].v, p.ids[0].n, false, NULL);
    assert_string_equal(text, IMS "user\nwhat " IME "?" IME "\n" IMS "assistant\n");
    free(text);
    prompts_release(&p);

    char *path = mem_printf("%s/rows.jsonl", folder);
    struct config_dataset set = dataset_defaults();
    set.data_files = &path;
    set.n_data_files = 1;
    put("rows.jsonl", ROW(U("a") "," A("b") "," U("c") "," A("d")) "\n" ROW(U("a") "," A("b") "," U("c")) "\n");
    assert_int_equal(dataset_prompts(&c, &set, &f, &p), ST_OK);
    assert_int_equal(p.n, 2);
    text = tokenizer_decode(&fake_qwen, p.ids[0].v, p.ids[0].n, false, NULL);
    assert_string_equal(text, IMS "user\na" IME "\n" IMS "assistant\nb" IME "\n" IMS "user\nc" IME "\n" IMS "assistant\n");
    assert_string_equal(p.answers[0], "d");
    free(text);
    prompts_release(&p);
    put("rows.jsonl", "{\"text\": \"t\"}\n");
    assert_int_equal(dataset_prompts(&c, &set, &f, &p), ST_DATA);
    chat_format_close(&f);
    drop("rows.jsonl");
    free(path);
}

/* Where the model learns to stop: what the export tells other programs. */
static void end_marks(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct chat_format f;
    struct dataset *d;
    int32_t ids[4];
    char *path = mem_printf("%s/rows.jsonl", folder);
    c.torchtune_templates = false;
    set.data_files = &path;
    set.n_data_files = 1;
    put("chat_template.jinja", CHATML);
    put("rows.jsonl", ROW(U("a") "," A("b") "," U("c") "," A("d")) "\n");
    assert_int_equal(chat_format_open(&c, &fake_qwen, folder, NULL, 0, &f), ST_OK);
    assert_int_equal(dataset_open(&c, &set, 1, &f, &d), ST_OK);
    assert_int_equal(dataset_end_marks(d, &fake_qwen, ids, 4), 1);
    assert_int_equal(ids[0], tokenizer_id(&fake_qwen, IME));
    dataset_close(d);
    chat_format_close(&f);
    drop("rows.jsonl");
    free(path);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return file_remove_tree(folder) ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents),
        cmocka_unit_test(text_of_users_stays_text),
        cmocka_unit_test(where_templates_come_from),
        cmocka_unit_test(variables),
        cmocka_unit_test(texts),
        cmocka_unit_test(prompts),
        cmocka_unit_test(end_marks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
