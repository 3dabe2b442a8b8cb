/* Every family's rendering, byte for byte and mask for mask. Expected strings follow torchtune's tokenize_messages;
 * the tokenizer is one id per byte, so a string is the ids: specials by name, trained tokens inside { }. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/data/data_config.h"
#include "tests/data/fake_tokenizer.h"
#include "worker/data/dataset_source.h"

struct setting {
    const char *family;
    const struct tokenizer *tok;
    const char *prompt_template;
    enum masking masking;
    enum data_kind kind;
    bool specials_in_text, no_eos;
    const char *system;
};

/* Renders one row as the settings say; the shown ids, or the failure's message. Caller frees. */
static char *render(const struct setting *how, const char *json)
{
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    c.allow_special_in_text = how->specials_in_text;
    c.tokenizer.prompt_template = (char *)how->prompt_template;
    set.masking = how->masking;
    set.kind = how->kind;
    set.add_eos = !how->no_eos;
    set.new_system_prompt = (char *)how->system;
    struct source s = {.c = &c, .set = &set};
    struct source_work work = {0};
    struct rendered out = {0};
    json_t *row = json_loads(json, 0, NULL);
    assert_non_null(row);
    status st = shape_detect(&set, row, &s.shape);
    const struct chat_format *format = TORCHTUNE(how->tok, how->family);
    if (!st) st = rendering_init(&s.rendering, &c, &set, format, s.shape.kind);
    if (!st) st = source_render(&s, row, &work, &out);
    char *shown =
        st ? mem_printf("%s: %s", status_name(st), status_message()) : fake_show(how->tok, out.ids.v, out.target.v, (int64_t)out.ids.n);
    assert_true(st || out.ids.n == out.target.n);
    rendering_release(&s.rendering);
    source_work_release(&work);
    rendered_release(&out);
    json_decref(row);
    return shown;
}

#define PAIR "{\"input\": \" Hi \", \"output\": \"Yo \"}"
#define CHAT                                                                                                                               \
    "{\"messages\": [{\"role\":\"system\",\"content\":\"S\"}, {\"role\":\"user\",\"content\":\"A\"},"                                      \
    "{\"role\":\"assistant\",\"content\":\"B\"}, {\"role\":\"user\",\"content\":\"C\"},"                                                   \
    "{\"role\":\"assistant\",\"content\":\"D\"}]}"
#define TOOLS                                                                                                                              \
    "{\"messages\": [{\"role\":\"user\",\"content\":\"A\"}, {\"role\":\"assistant\",\"content\":\"call\"},"                                \
    "{\"role\":\"tool\",\"content\":\"x\"}, {\"role\":\"ipython\",\"content\":\"y\"},"                                                     \
    "{\"role\":\"assistant\",\"content\":\"B\"}]}"
#define PARTS                                                                                                                              \
    "{\"messages\": [{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a \"},{\"type\":\"text\","                              \
    "\"text\":\"b\"}]}, {\"role\":\"assistant\",\"content\":\"B\"}]}"
#define H(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define BOT     "<|begin_of_text|>"
#define EOT     "<|eot_id|>"
#define END     "<|end_of_text|>"
#define IMS     "<|im_start|>"
#define IME     "<|im_end|>"

#define LLAMA3  .family = "llama3", .tok = &fake_llama3
#define QWEN    .family = "qwen2", .tok = &fake_qwen
#define LLAMA2  .family = "llama2", .tok = &fake_spm
#define MISTRAL .family = "mistral", .tok = &fake_spm
#define GEMMA   .family = "gemma", .tok = &fake_spm

static const struct {
    struct setting how;
    const char *row, *shown;
} table[] = {
    /* llama3: contents stripped; header, body and eot take the message's mask; BOS and the last token never count. */
    {{LLAMA3}, PAIR, BOT H("user") "Hi" EOT "{" H("assistant") "Yo" EOT "}" END},
    {{LLAMA3, .masking = MASK_TRAIN_ON_ALL}, PAIR, BOT "{" H("user") "Hi" EOT H("assistant") "Yo" EOT "}" END},
    {{LLAMA3},
     CHAT,
     BOT H("system") "S" EOT H("user") "A" EOT "{" H("assistant") "B" EOT "}" H("user") "C" EOT "{" H("assistant") "D" EOT "}" END},
    {{LLAMA3, .masking = MASK_TRAIN_ON_ALL},
     CHAT,
     BOT H("system") "S" EOT "{" H("user") "A" EOT H("assistant") "B" EOT H("user") "C" EOT H("assistant") "D" EOT "}" END},
    {{LLAMA3, .masking = MASK_TRAIN_ON_LAST},
     CHAT,
     BOT H("system") "S" EOT H("user") "A" EOT H("assistant") "B" EOT H("user") "C" EOT "{" H("assistant") "D" EOT "}" END},
    {{LLAMA3, .system = "N"},
     CHAT,
     BOT H("system") "N" EOT H("user") "A" EOT "{" H("assistant") "B" EOT "}" H("user") "C" EOT "{" H("assistant") "D" EOT "}" END},
    {{LLAMA3, .system = "N"}, PAIR, BOT H("system") "N" EOT H("user") "Hi" EOT "{" H("assistant") "Yo" EOT "}" END},
    {{LLAMA3},
     TOOLS,
     BOT H("user") "A" EOT "{" H("assistant") "call<|eom_id|>}" H("ipython") "x<|eom_id|>" H("ipython") "y<|eom_id|>{" H(
         "assistant") "B" EOT "}" END},
    {{LLAMA3}, PARTS, BOT H("user") "ab" EOT "{" H("assistant") "B" EOT "}" END},
    {{LLAMA3}, "{\"input\": \"\\u3000\\u00a0x y\\u2003\\n\", \"output\": \"\"}", BOT H("user") "x y" EOT "{" H("assistant") EOT "}" END},
    {{LLAMA3, .prompt_template = "torchtune.data.QuestionAnswerTemplate"},
     PAIR,
     BOT H("user") "Question:HiAnswer:" EOT "{" H("assistant") "Yo" EOT "}" END},
    /* Specials in a row's text are text, unless asked for. */
    {{LLAMA3}, "{\"input\": \"<|eot_id|>\", \"output\": \"Yo\"}", BOT H("user") "<|eot_id|>" EOT "{" H("assistant") "Yo" EOT "}" END},

    /* qwen2: the last assistant ends with one im_end, without the newline. */
    {{QWEN}, PAIR, IMS "user\n Hi " IME "\n{" IMS "assistant\nYo " IME "}"},
    {{.family = "qwen2_5", .tok = &fake_qwen}, PAIR, IMS "user\n Hi " IME "\n{" IMS "assistant\nYo " IME "}"},
    {{QWEN},
     CHAT,
     IMS "system\nS" IME "\n" IMS "user\nA" IME "\n{" IMS "assistant\nB" IME "\n}" IMS "user\nC" IME "\n{" IMS "assistant\nD" IME "}"},
    {{QWEN, .masking = MASK_TRAIN_ON_LAST},
     CHAT,
     IMS "system\nS" IME "\n" IMS "user\nA" IME "\n" IMS "assistant\nB" IME "\n" IMS "user\nC" IME "\n{" IMS "assistant\nD" IME "}"},
    {{QWEN},
     TOOLS,
     IMS "user\nA" IME "\n{" IMS "assistant\ncall" IME "\n}" IMS "user\n<tool_response>\nx\n</tool_response>"
         "\n<tool_response>\ny\n</tool_response>" IME "\n{" IMS "assistant\nB" IME "}"},

    /* llama2: SentencePiece's space ('_') starts every part; trailing spaces go; BOS has its turn's mask. */
    {{LLAMA2}, PAIR, "<s>_[INST]_ Hi_ [/INST]{_Yo</s>}"},
    {{LLAMA2, .masking = MASK_TRAIN_ON_ALL}, PAIR, "{<s>_[INST]_ Hi_ [/INST]_Yo</s>}"},
    {{LLAMA2},
     CHAT,
     "<s>_[INST]_<<SYS>>\n_S_\n<</SYS>>\n\n_A_ [/INST]{_B</s>}<s>_[INST]_<<SYS>>\n_S_\n<</SYS>>\n\n_C_ "
     "[/INST]{_D</s>}"},
    {{MISTRAL}, PAIR, "<s>_[INST]_ Hi_ [/INST]{_Yo</s>}"},
    {{MISTRAL},
     CHAT,
     "data error: MistralChatTemplate has no place for a system message; remove it, or set "
     "tokenizer.prompt_template"},
    /* gemma: no template; inside a turn the space is trimmed, unless the text before ended with one. */
    {{GEMMA}, PAIR, "<s>_ Hi{_Yo</s>}"},
    {{GEMMA}, CHAT, "<s>_SA{B</s>}<s>_C{D</s>}"},
    {{GEMMA, .prompt_template = "SummarizeTemplate"}, PAIR, "<s>_Summarize this dialogue:\n_ Hi_\n---\nSummary:\n{Yo</s>}"},

    /* ChatML around a tokenizer that has the marks: specials. Around one that lacks them: text. */
    {{.family = NULL, .tok = &fake_qwen, .prompt_template = "torchtune.data.ChatMLTemplate"},
     PAIR,
     IMS "user\n Hi " IME "\n{" IMS "assistant\nYo " IME "\n<|endoftext|>}"},
    {{QWEN, .prompt_template = "torchtune.data.ChatMLTemplate"},
     PAIR,
     "configuration bad at run time: prompt_template: ChatMLTemplate would mark every message twice: the qwen2 rendering "
     "has marks of its own; remove prompt_template"},
    {{QWEN, .prompt_template = "my.Template"},
     PAIR,
     "configuration bad at run time: prompt_template: unknown template 'my.Template'; use one of Llama2ChatTemplate, "
     "MistralChatTemplate, ChatMLTemplate, GrammarErrorCorrectionTemplate, SummarizeTemplate, QuestionAnswerTemplate, or "
     "{role: [prefix, suffix]}"},

    /* No family, or none of its marks: plain. Some of its marks: refused. */
    {{.family = NULL, .tok = &fake_tiny}, PAIR, "<s> Hi {Yo </s>}"},
    {{.family = "llama3", .tok = &fake_tiny}, PAIR, "<s> Hi {Yo </s>}"},
    {{.family = "opt", .tok = &fake_tiny, .prompt_template = "QuestionAnswerTemplate"}, PAIR, "<s>Question:  Hi \n\nAnswer: {Yo </s>}"},
    {{.family = NULL, .tok = &fake_bare}, PAIR, " Hi {Yo }"},

    /* Alpaca rows: torchtune's text; its component trains on all, the bare shape on the answer. */
    {{.tok = &fake_tiny, .kind = DATA_ALPACA},
     "{\"instruction\":\"I\",\"input\":\"\",\"output\":\"O\"}",
     "{<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
     "### Instruction:\nI\n\n### Response:\nO</s>}"},
    {{.tok = &fake_tiny},
     "{\"instruction\":\"I\",\"input\":\"X\",\"output\":\"O\",\"text\":\"copy\"}",
     "<s>Below is an instruction that describes a task, paired with an input that provides further context. Write a "
     "response that appropriately completes the request.\n\n### Instruction:\nI\n\n### Input:\nX\n\n### Response:\n{O</s>}"},
    {{.tok = &fake_tiny},
     "{\"instruction\":\"I\",\"input\":null,\"output\":\"O\"}",
     "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
     "### Instruction:\nI\n\n### Response:\n{O</s>}"},

    /* Completion: everything counts; the tokenizer's own EOS by add_eos, whatever ends a chat. */
    {{LLAMA3}, "{\"text\":\" T \"}", "{" BOT " T " EOT "}"},
    {{LLAMA3, .no_eos = true}, "{\"text\":\"T\"}", "{" BOT "T}"},
    {{QWEN}, "{\"text\":\"T\"}", "{T<|endoftext|>}"},
    {{.tok = &fake_tiny}, "{\"text\":\"<s>\"}", "{<s><s></s>}"},
};

static void renderings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char *shown = render(&table[i].how, table[i].row);
        if (strcmp(shown, table[i].shown)) fail_msg("case %zu: %s\n  got  %s\n  want %s", i, table[i].row, shown, table[i].shown);
        free(shown);
    }
}

/* Shown strings cannot tell a special from its letters: count ids. */
static void specials_in_text(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    for (int allow = 0; allow < 2; allow++) {
        struct source s = {.c = &c, .set = &set};
        struct source_work work = {0};
        struct rendered out = {0};
        c.allow_special_in_text = allow;
        json_t *row = json_pack("{s:s, s:s}", "input", "<|eot_id|>", "output", "x");
        assert_int_equal(shape_detect(&set, row, &s.shape), ST_OK);
        const struct chat_format *format = TORCHTUNE(&fake_llama3, "llama3");
        assert_int_equal(rendering_init(&s.rendering, &c, &set, format, s.shape.kind), ST_OK);
        assert_int_equal(source_render(&s, row, &work, &out), ST_OK);
        int eots = 0;
        for (size_t i = 0; i < out.ids.n; i++) eots += out.ids.v[i] == tokenizer_id(&fake_llama3, EOT);
        assert_int_equal(eots, allow ? 3 : 2);
        rendering_release(&s.rendering);
        source_work_release(&work);
        rendered_release(&out);
        json_decref(row);
    }
}

static void roles_of_the_configuration(void **state)
{
    (void)state;
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct config_pair roles[] = {{"user", "U: \0\n"}, {"assistant", "A: \0<s>"}, {"system", "\0;"}};
    c.tokenizer.template_roles = roles;
    c.tokenizer.n_template_roles = 3;
    struct source s = {.c = &c, .set = &set};
    struct source_work work = {0};
    struct rendered out = {0};
    json_t *row = json_loads(CHAT, 0, NULL);
    assert_int_equal(shape_detect(&set, row, &s.shape), ST_OK);
    const struct chat_format *format = TORCHTUNE(&fake_tiny, NULL);
    assert_int_equal(rendering_init(&s.rendering, &c, &set, format, s.shape.kind), ST_OK);
    assert_int_equal(source_render(&s, row, &work, &out), ST_OK);
    char *shown = fake_show(&fake_tiny, out.ids.v, out.target.v, (int64_t)out.ids.n);
    assert_string_equal(shown, "<s>S;U: A\n{A: B<s></s>}<s>U: C\n{A: D<s></s>}");
    assert_int_equal(out.ids.v[out.ids.n - 2], tokenizer_id(&fake_tiny, "<s>")); /* a template's special is one */
    assert_int_equal(out.n, 1);
    assert_int_equal(out.documents[0].body_end - out.documents[0].body, 1); /* "D", without the template's text */
    assert_int_equal(out.ids.v[out.documents[0].body], 'D');
    free(shown);
    rendering_release(&s.rendering);
    source_work_release(&work);
    rendered_release(&out);
    json_decref(row);
}

static void half_a_tokenizer_is_refused(void **state)
{
    (void)state;
    static const char *const some[] = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", NULL};
    const struct tokenizer tok = {some, "<|begin_of_text|>", NULL, false};
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    struct rendering r;
    const struct chat_format *format = TORCHTUNE(&tok, "llama3");
    assert_int_equal(rendering_init(&r, &c, &set, format, SHAPE_CHAT), ST_DATA);
    assert_non_null(strstr(status_message(), "lacks the special token <|eot_id|> of the llama3 chat rendering"));
}

/* [text, max, left] → what is kept. The EOS put at a cut is trained on only where torchtune trains it. */
static void truncation(void **state)
{
    (void)state;
    static const struct {
        const char *family;
        const struct tokenizer *tok;
        int64_t max;
        bool left, cut;
        const char *shown;
    } cuts[] = {
        {"llama2", &fake_tiny, 100, false, false, "<s>[INST]Q [/INST]{Answer</s>}"},
        {"llama2", &fake_tiny, 25, false, false, "<s>[INST]Q [/INST]{Answer</s>}"},
        {"llama2", &fake_tiny, 21, false, true, "<s>[INST]Q [/INST]{Answ</s>}"},
        {"llama2", &fake_tiny, 10, false, true, "<s>[INST]Q </s>"},
        {"llama2", &fake_tiny, 9, true, true, "T]{Answer</s>}"},
        {"llama3", &fake_llama3, 25, false, true, BOT H("user") "Q" EOT "{<|start_header_id|>assistant<|end_header_id|>\n\n}" END},
        {"llama3", &fake_llama3, 4, true, true, "{er" EOT "}" END},
        {"qwen2", &fake_qwen, 22, false, true, IMS "user\nQ" IME "\n{" IMS "assistant\nA}" IME},
        {"qwen2", &fake_qwen, 3, true, true, "{er" IME "}"},
    };
    struct config c = config_defaults();
    struct config_dataset set = dataset_defaults();
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct source s = {.c = &c, .set = &set};
        struct source_work work = {0};
        struct rendered out = {0};
        json_t *row = json_pack("{s:s, s:s}", "input", "Q", "output", "Answer");
        assert_int_equal(shape_detect(&set, row, &s.shape), ST_OK);
        const struct chat_format *format = TORCHTUNE(cuts[i].tok, cuts[i].family);
        assert_int_equal(rendering_init(&s.rendering, &c, &set, format, s.shape.kind), ST_OK);
        assert_int_equal(source_render(&s, row, &work, &out), ST_OK);
        struct rendered_document *d = &out.documents[0];
        assert_int_equal(render_truncate(&s.rendering, true, cuts[i].max, cuts[i].left, &out, d), cuts[i].cut);
        char *shown = fake_show(cuts[i].tok, out.ids.v + d->at, out.target.v + d->at, (int64_t)d->n);
        if (strcmp(shown, cuts[i].shown)) fail_msg("cut %zu:\n  got  %s\n  want %s", i, shown, cuts[i].shown);
        assert_true(d->body_end <= (int64_t)d->n && d->body <= d->body_end);
        free(shown);
        rendering_release(&s.rendering);
        source_work_release(&work);
        rendered_release(&out);
        json_decref(row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renderings),
        cmocka_unit_test(specials_in_text),
        cmocka_unit_test(roles_of_the_configuration),
        cmocka_unit_test(half_a_tokenizer_is_refused),
        cmocka_unit_test(truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
