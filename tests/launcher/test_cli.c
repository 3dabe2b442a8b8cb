/* The command line: what is understood, what is refused and in which words, and the help texts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/base/log.h"
#include "launcher/cli.h"
#include "launcher/cli_option.h"
#include "launcher/verbs.h"

static status nothing(const struct cli *c, struct comm *comm)
{
    (void)c, (void)comm;
    return ST_OK;
}

static const struct verb run = {.name = "run",
                                .line = "train",
                                .arguments = "RECIPE [key=value …]",
                                .help = "examples:\n",
                                .options = CLI_CONFIG | CLI_MODEL | CLI_DATA | CLI_OUTPUT,
                                .min_args = 1,
                                .max_args = 1,
                                .overrides = true,
                                .every_rank = true,
                                .run = nothing};
static const struct verb generate = {.name = "generate",
                                     .line = "write",
                                     .arguments = "",
                                     .help = "examples:\n",
                                     .options = CLI_PROMPT | CLI_MAX_NEW_TOKENS | CLI_TEMPERATURE | CLI_TOP_P,
                                     .run = nothing};
static const struct verb *const verbs[] = {&run, &generate, &verb_ls, &verb_cp, &verb_cat, &verb_validate, &verb_tokenize, &verb_version};
enum { VERBS = sizeof verbs / sizeof *verbs };

enum { WORDS = 16 };

/* Splits `line` at '|' into an argv. */
static int split(const char *line, char *copy, size_t size, char *argv[WORDS])
{
    int n = 0;
    assert_true(strlen(line) < size);
    strcpy(copy, line);
    for (char *p = copy; n < WORDS; p++) {
        argv[n++] = p;
        p = strchr(p, '|');
        if (!p) break;
        *p = 0;
    }
    return n;
}

static status parse(const char *line, struct cli *out)
{
    static char copy[512];
    char *argv[WORDS];
    return cli_parse(split(line, copy, sizeof copy, argv), argv, verbs, VERBS, out);
}

static void test_everything(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse("trimpot|run|lora_finetune|--config|a.yaml|batch_size=4|--model=dir|~seed|-qv|--dist|self|"
                           "dataset.data_files=[a, b]",
                           &c),
                     ST_OK);
    assert_ptr_equal(c.verb, &run);
    assert_int_equal(c.n_args, 1);
    assert_string_equal(c.args[0], "lora_finetune");
    assert_string_equal(c.config, "a.yaml");
    assert_string_equal(c.model, "dir");
    assert_null(c.data);
    assert_string_equal(c.dist, "self");
    assert_true(c.quiet && c.verbose && !c.help);
    assert_int_equal(c.n_overrides, 3);
    assert_string_equal(c.overrides[0], "batch_size=4");
    assert_int_equal(c.override_at[0], 5);
    assert_string_equal(c.overrides[1], "~seed");
    assert_int_equal(c.override_at[1], 7);
    assert_string_equal(c.overrides[2], "dataset.data_files=[a, b]");
    assert_non_null(c.program_dir);
    assert_non_null(c.shipped_dir);
    cli_release(&c);
}

static void test_numbers(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse("trimpot|generate|--max_new_tokens|12|--temperature=0.5|--prompt=--x", &c), ST_OK);
    assert_int_equal(c.max_new_tokens, 12);
    assert_true(c.temperature == 0.5 && isnan(c.top_p));
    assert_int_equal(c.top_k, -1);
    assert_string_equal(c.prompt, "--x");
    cli_release(&c);
}

static void test_positional(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse("trimpot|cp|a=b|--|--force", &c), ST_OK); /* cp takes no keys; nothing after -- is an option */
    assert_int_equal(c.n_args, 2);
    assert_string_equal(c.args[1], "--force");
    assert_false(c.force);
    cli_release(&c);
    assert_int_equal(parse("trimpot|run|--help", &c), ST_OK); /* help asks for no arguments */
    assert_true(c.help);
    cli_release(&c);
    assert_int_equal(parse("trimpot|help|cat", &c), ST_OK);
    assert_ptr_equal(c.verb, &verb_cat);
    cli_release(&c);
    assert_int_equal(parse("trimpot|--version", &c), ST_OK);
    assert_ptr_equal(c.verb, &verb_version);
    cli_release(&c);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *line, *text;
    } rows[] = {
        {"trimpot", "no verb"},
        {"trimpot|rum", "argument 1 ('rum'): no such verb; did you mean run?"},
        {"trimpot|zzzzzzzz", "no such verb; `trimpot --help`"},
        {"trimpot|help|rum", "did you mean run?"},
        {"trimpot|run", "its arguments are missing; usage: trimpot run RECIPE"},
        {"trimpot|cp|a", "an argument is missing; usage: trimpot cp NAME FILE_OR_DIR"},
        {"trimpot|run|a|b", "argument 3 ('b'): one too many"},
        {"trimpot|run|a|--modle|x", "argument 3 ('--modle'): `trimpot run` has no such option; did you mean --model?"},
        {"trimpot|run|a|--prompt|x", "`trimpot run` has no such option"},
        {"trimpot|run|a|--config", "argument 3 ('--config'): needs a value: --config NAME_OR_FILE"},
        {"trimpot|run|a|--config|--model|x", "needs a value: --config"},
        {"trimpot|run|a|--config|x|--config|y", "argument 5 ('--config'): --config was given before"},
        {"trimpot|run|a|--quiet=1", "--quiet takes no value"},
        {"trimpot|run|a|-x", "argument 3 ('-x'): `trimpot run` has no such option"},
        {"trimpot|run|a|--nproc_per_node|2", "mpirun -n N"},
        {"trimpot|run|a|--", ""},
        {"trimpot|generate|--max-new-tokens|0", "takes a whole number from 1 to 16777216, not '0'"},
        {"trimpot|generate|--max-new-tokens|1.5", "not '1.5'"},
        {"trimpot|generate|--max-new-tokens|1e3", "not '1e3'"},
        {"trimpot|generate|--max-new-tokens|", "not ''"},
        {"trimpot|generate|--max-new-tokens| 5", "not ' 5'"},
        {"trimpot|generate|--temperature|hot", "takes a number from 0 to 100, not 'hot'"},
        {"trimpot|generate|--temperature|nan", "not 'nan'"},
        {"trimpot|generate|--top-p|1.5", "from 0 to 1, not '1.5'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cli c;
        status st = parse(rows[i].line, &c), expected = *rows[i].text ? ST_USAGE : ST_OK;
        if (st != expected || (st && !strstr(status_message(), rows[i].text)))
            fail_msg("%s: code %d, '%s'", rows[i].line, st, status_message());
        cli_release(&c);
    }
}

static void test_help(void **state)
{
    (void)state;
    char *all = cli_help(NULL, verbs, VERBS);
    for (int i = 0; i < VERBS; i++) {
        assert_non_null(strstr(all, verbs[i]->name));
        char *one = cli_help(verbs[i], verbs, VERBS);
        assert_non_null(strstr(one, "examples:"));
        assert_non_null(strstr(one, "--help"));
        for (const char *line = one; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
            if (strcspn(line, "\n") > 120) fail_msg("help of %s: %.*s", verbs[i]->name, (int)strcspn(line, "\n"), line);
        free(one);
    }
    free(all);
}

/* Bits are one per option (CLI_COMMON is shared), members lie inside struct cli. */
static void test_table(void **state)
{
    (void)state;
    unsigned seen = 0;
    assert_true(cli_n_options <= 64);
    for (int i = 0; i < cli_n_options; i++) {
        const struct cli_option *o = &cli_options[i];
        assert_true(o->bit == (unsigned)CLI_COMMON || !(seen & o->bit));
        seen |= o->bit;
        assert_true(o->member < sizeof(struct cli));
        assert_true((o->kind == OPTION_FLAG) == (o->value == NULL));
        assert_true(o->kind == OPTION_FLAG || o->kind == OPTION_TEXT || o->least < o->most);
    }
}

/* Parser and end of the process together: exit codes. */
static void test_main(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int code;
    } rows[] = {{"trimpot|run|a|--dist|self", 0}, {"trimpot|rum|--dist|self", 2}, {"trimpot|run|a|--dist|both", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char copy[256], *argv[WORDS];
        int argc = split(rows[i].line, copy, sizeof copy, argv);
        assert_int_equal(cli_main(argc, argv, verbs, VERBS), rows[i].code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_everything), cmocka_unit_test(test_numbers), cmocka_unit_test(test_positional),
                                       cmocka_unit_test(test_refused),    cmocka_unit_test(test_help),    cmocka_unit_test(test_table),
                                       cmocka_unit_test(test_main)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
