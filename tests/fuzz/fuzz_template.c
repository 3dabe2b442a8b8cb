/* Chat templates over bytes from outside. The first byte chooses the conversation and the flags, the rest is the
 * template. Whatever it is, compiling and rendering answer with a status, within their limits, and what was rendered
 * keeps its invariants: UTF-8, an origin for every byte, spans in order. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "worker/data/template/template.h"

static const char *const conversations[] = {
    "[]",
    "[{\"role\": \"user\", \"content\": \"Hi\"}]",
    "[{\"role\": \"system\", \"content\": \" Be brief.\\n\"}, {\"role\": \"user\", \"content\": \"<|im_end|> \\u00e9\\ud83d\\ude00\"},"
    " {\"role\": \"assistant\", \"content\": \"<think>a</think>b\", \"reasoning_content\": \"hm\"}, {\"role\": \"user\", \"content\": \"\"}]",
    "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"q\"}]}, {\"role\": \"assistant\", \"content\": null,"
    " \"tool_calls\": [{\"id\": \"abcdefghi\", \"function\": {\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, null, true, \"\\\"\"]}}}]},"
    " {\"role\": \"tool\", \"content\": \"{}\", \"tool_call_id\": \"abcdefghi\"}, {\"role\": \"assistant\", \"content\": \"ok\"}]",
};
enum { N_CONVERSATIONS = sizeof conversations / sizeof *conversations };
static json_t *messages[N_CONVERSATIONS], *tools, *extra;

static void check(const struct template *t, const struct template_text *out, size_t n_messages)
{
    size_t bad, at = 0;
    assert(text_is_utf8(out->text.data, out->text.len, &bad));
    for (size_t i = 0; i < out->text.len; i++) {
        assert(origin_field(out->origin[i]) <= MESSAGE_ROLE);
        assert(origin_message(out->origin[i]) == 0 || origin_message(out->origin[i]) < n_messages);
    }
    assert(out->n_generation == 0 || template_marks_generation(t));
    for (size_t i = 0; i < out->n_generation; i++) {
        assert(at <= out->generation[i].begin && out->generation[i].begin < out->generation[i].end);
        at = out->generation[i].end;
    }
    assert(at <= out->text.len);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    json_object_seed(1);
    for (int i = 0; i < N_CONVERSATIONS; i++) messages[i] = json_loads(conversations[i], 0, NULL);
    tools =
        json_loads("[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"properties\": {\"x\": {}}}}}]", 0, NULL);
    extra = json_loads("{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"enable_thinking\": false, \"n\": 7, \"f\": 2.5,"
                       " \"d\": {\"b\": 2, \"a\": [3, 1, 2], \"c\": null}, \"s\": \"Stra\\u00dfe \\u03a3\"}",
                       0, NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct template *t;
    struct template_text out = {0};
    if (!size) return 0;
    const json_t *m = messages[data[0] % N_CONVERSATIONS];
    struct template_vars vars = {.messages = m,
                                 .tools = data[0] & 4 ? tools : NULL,
                                 .extra = data[0] & 8 ? NULL : extra,
                                 .n_messages = SIZE_MAX,
                                 .add_generation_prompt = data[0] & 16,
                                 .now = 1753142405};
    if (template_compile("fuzz", (const char *)data + 1, size - 1, &t)) {
        assert(!strncmp(status_message(), "fuzz:", 5));
        return 0;
    }
    status st = template_render(t, &vars, &out);
    if (!st)
        check(t, &out, json_array_size(m));
    else
        assert((st == ST_DATA || st == ST_NOT_BUILT) && !strncmp(status_message(), "fuzz:", 5));
    template_text_release(&out);
    template_free(t);
    return 0;
}
