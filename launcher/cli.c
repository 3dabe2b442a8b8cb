#include "launcher/cli.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collectives/comm_self.h"
#include "collectives/watch.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "kernels/base/text.h"
#include "launcher/cli_option.h"
#include "launcher/signals.h"
#include "launcher/startup.h"

#define MEMBER(kind, name) kind, offsetof(struct cli, name)

/* In the order of `--help`. Names are written with '-'; '_' is accepted for it. */
const struct cli_option cli_options[] = {
    {"config", 0, CLI_CONFIG, MEMBER(OPTION_TEXT, config), "NAME_OR_FILE", "a shipped recipe (`trimpot ls`) or a YAML file"},
    {"model", 0, CLI_MODEL, MEMBER(OPTION_TEXT, model), "DIR", "model directory (checkpointer.checkpoint_dir)"},
    {"data", 0, CLI_DATA, MEMBER(OPTION_TEXT, data), "FILE", "JSON or JSONL rows (dataset.data_files)"},
    {"output", 0, CLI_OUTPUT, MEMBER(OPTION_TEXT, output), "DIR", "where everything is written (output_dir)"},
    {"adapter", 0, CLI_ADAPTER, MEMBER(OPTION_TEXT, adapter), "DIR", "PEFT adapter directory"},
    {"checkpoint", 0, CLI_CHECKPOINT, MEMBER(OPTION_TEXT, checkpoint), "DIR", "a checkpoint, or the output directory of a run"},
    {"tokenizer", 0, CLI_TOKENIZER, MEMBER(OPTION_TEXT, tokenizer), "DIR_OR_FILE", "model directory, tokenizer.json or .model file"},
    {"prompt", 0, CLI_PROMPT, MEMBER(OPTION_TEXT, prompt), "TEXT", "what to continue or answer"},
    {"max-new-tokens", 0, CLI_MAX_NEW_TOKENS, MEMBER(OPTION_INT, max_new_tokens), "N", "stop after so many tokens", 1, 1 << 24},
    {"max-seq-len", 0, CLI_MAX_SEQ_LEN, MEMBER(OPTION_INT, max_seq_len), "N", "longest sequence in tokens", 1, 1 << 24},
    {"temperature", 0, CLI_TEMPERATURE, MEMBER(OPTION_REAL, temperature), "T", "0 = always the likeliest token", 0, 100},
    {"top-k", 0, CLI_TOP_K, MEMBER(OPTION_INT, top_k), "K", "draw among the K likeliest tokens", 1, 1 << 24},
    {"top-p", 0, CLI_TOP_P, MEMBER(OPTION_REAL, top_p), "P", "draw among the likeliest that hold probability P", 0, 1},
    {"seed", 0, CLI_SEED, MEMBER(OPTION_INT, seed), "N", "the same seed draws the same tokens", 0, 9007199254740992.0},
    {"no-special", 0, CLI_NO_SPECIAL, MEMBER(OPTION_FLAG, no_special), NULL, "add no BOS or EOS"},
    {"json", 0, CLI_JSON, MEMBER(OPTION_FLAG, json), NULL, "machine-readable output"},
    {"dry-run", 0, CLI_DRY_RUN, MEMBER(OPTION_FLAG, dry_run), NULL, "check everything, print the plan, train nothing"},
    {"print-config", 0, CLI_PRINT_CONFIG, MEMBER(OPTION_FLAG, print_config), NULL, "print the effective configuration, stop"},
    {"device", 0, CLI_DEVICE, MEMBER(OPTION_TEXT, device), "cpu|cuda", "where to compute (device)"},
    {"gpu", 0, CLI_GPU, MEMBER(OPTION_TEXT, gpu), "NAME", "plan and predict for this GPU, which need not be here"},
    {"compare", 0, CLI_COMPARE, MEMBER(OPTION_FLAG, compare), NULL, "what each memory technique would save and cost in this run"},
    {"fit", 0, CLI_FIT, MEMBER(OPTION_FLAG, fit), NULL, "the cheapest settings that fit, as lines of a configuration"},
    {"timeout", 0, CLI_TIMEOUT, MEMBER(OPTION_INT, timeout), "SECONDS", "give up after so long (20)", 1, 3600},
    {"force", 0, CLI_FORCE, MEMBER(OPTION_FLAG, force), NULL, "replace an existing file"},
    {"dist", 0, CLI_COMMON, MEMBER(OPTION_TEXT, dist), "self|mpi", "override how the launcher was detected"},
    {"quiet", 'q', CLI_COMMON, MEMBER(OPTION_FLAG, quiet), NULL, "results, warnings and errors only"},
    {"verbose", 'v', CLI_COMMON, MEMBER(OPTION_FLAG, verbose), NULL, "say more"},
    {"help", 'h', CLI_COMMON, MEMBER(OPTION_FLAG, help), NULL, "this text"},
};
const int cli_n_options = sizeof cli_options / sizeof *cli_options;

/* Options of other programs that people will type, and what to do instead. */
static const struct {
    const char *name, *remedy;
} foreign[] = {
    {"nproc-per-node", "start the ranks with a launcher: mpirun -n N trimpot run …"},
    {"nnodes", "start the ranks with a launcher: srun --mpi=pmix or mpirun"},
    {"rdzv-backend", "there is no rendezvous: start the ranks with mpirun or srun --mpi=pmix"},
    {"standalone", "there is no rendezvous: leave it out"},
    {"version", "trimpot version"},
};

/* A word of the command line, for messages. */
struct word {
    int at;
    const char *text;
};

static bool takes(const struct verb *verb, const struct cli_option *o) { return (verb->options | CLI_COMMON) & o->bit; }

static const struct cli_option *find_option(const struct verb *verb, const char *name)
{
    for (int i = 0; i < cli_n_options; i++)
        if (takes(verb, &cli_options[i]) && strcmp(cli_options[i].name, name) == 0) return &cli_options[i];
    return NULL;
}

static status unknown_option(const struct verb *verb, struct word w, const char *name)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (strcmp(foreign[i].name, name) == 0) FAIL(ST_USAGE, "argument %d ('%s'): %s", w.at, w.text, foreign[i].remedy);
    const char *names[64];
    int n = 0;
    for (int i = 0; i < cli_n_options && n < 64; i++)
        if (takes(verb, &cli_options[i])) names[n++] = cli_options[i].name;
    const char *near = text_nearest(name, names, n);
    bool letters = w.text[1] != '-';
    FAIL(ST_USAGE, "argument %d ('%s'): `trimpot %s` has no such option%s%s%s `trimpot %s --help` lists them%s%s", w.at, w.text, verb->name,
         near ? "; did you mean --" : "", near ? near : "", near ? "?" : ";", verb->name,
         letters ? "; a path of that name is written ./" : "", letters ? w.text : "");
}

static status store_number(struct cli *c, const struct cli_option *o, struct word w, const char *value)
{
    char *end;
    errno = 0;
    double real = strtod(value, &end);
    bool good = *value && !*end && !isspace((unsigned char)*value) && real >= o->least && real <= o->most;
    if (o->kind == OPTION_INT) good = good && real == floor(real) && !strpbrk(value, ".eExXpP");
    if (!good)
        FAIL(ST_USAGE, "argument %d ('%s'): --%s takes %s from %.17g to %.17g, not '%s'", w.at, w.text, o->name,
             o->kind == OPTION_INT ? "a whole number" : "a number", o->least, o->most, value);
    char *member = (char *)c + o->member;
    if (o->kind == OPTION_INT)
        *(int64_t *)(void *)member = (int64_t)real;
    else
        *(double *)(void *)member = real;
    return ST_OK;
}

static status store(struct cli *c, const struct cli_option *o, struct word w, const char *value)
{
    char *member = (char *)c + o->member;
    if (o->kind == OPTION_FLAG)
        *(bool *)(void *)member = true;
    else if (o->kind == OPTION_TEXT)
        *(const char **)(void *)member = value;
    else
        return store_number(c, o, w, value);
    return ST_OK;
}

struct parser {
    int argc, at; /* at: of the word under the eye; VERB is 1 */
    char **argv;
    uint64_t seen; /* options given, by row */
    struct cli *out;
};

static status parse_value(struct parser *p, const struct cli_option *o, struct word w, const char *attached)
{
    uint64_t bit = UINT64_C(1) << (o - cli_options);
    if (p->seen & bit && o->kind != OPTION_FLAG)
        FAIL(ST_USAGE, "argument %d ('%s'): --%s was given before; leave one out", w.at, w.text, o->name);
    p->seen |= bit;
    if (o->kind == OPTION_FLAG) {
        if (attached) FAIL(ST_USAGE, "argument %d ('%s'): --%s takes no value", w.at, w.text, o->name);
        return store(p->out, o, w, NULL);
    }
    if (attached) return store(p->out, o, w, attached);
    if (p->at + 1 >= p->argc || strncmp(p->argv[p->at + 1], "--", 2) == 0)
        FAIL(ST_USAGE, "argument %d ('%s'): needs a value: --%s %s (a value that begins with -- is written --%s=…)", w.at, w.text, o->name,
             o->value, o->name);
    return store(p->out, o, w, p->argv[++p->at]);
}

static status parse_long(struct parser *p, struct word w)
{
    char name[64] = "";
    size_t n = strcspn(w.text + 2, "=");
    for (size_t i = 0; i < n && i < sizeof name - 1; i++) name[i] = w.text[2 + i] == '_' ? '-' : w.text[2 + i];
    const struct cli_option *o = find_option(p->out->verb, name);
    if (!o || n >= sizeof name) return unknown_option(p->out->verb, w, name);
    return parse_value(p, o, w, w.text[2 + n] == '=' ? w.text + 3 + n : NULL);
}

static status parse_letters(struct parser *p, struct word w)
{
    for (const char *letter = w.text + 1; *letter; letter++) {
        const struct cli_option *o = cli_options;
        while (o < cli_options + cli_n_options && o->letter != *letter) o++;
        if (o == cli_options + cli_n_options) return unknown_option(p->out->verb, w, w.text + 1);
        TRY(parse_value(p, o, w, NULL));
    }
    return ST_OK;
}

/* key=value with a dotted name for a key (torchtune people also write +key=value: the configuration refuses it by name),
 * or ~key. */
static bool is_override(const char *word)
{
    if (*word == '~') return true;
    size_t n = strspn(word, "+abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-[]");
    return n > 0 && word[n] == '=' && *word != '.' && *word != '-';
}

/* A path may look like a key: as long as the verb waits for one, what exists is one. */
static bool is_argument(const struct cli *c, const char *word, bool only_positional)
{
    if (!c->verb->overrides || !is_override(word)) return true;
    return c->n_args < c->verb->max_args && (only_positional || (c->verb->paths && file_exists(word)));
}

static status parse_word(struct parser *p, struct word w, bool only_positional)
{
    struct cli *c = p->out;
    if (!only_positional && strncmp(w.text, "--", 2) == 0) return parse_long(p, w);
    if (!only_positional && w.text[0] == '-' && w.text[1]) return parse_letters(p, w);
    if (!is_argument(c, w.text, only_positional)) {
        c->override_at[c->n_overrides] = w.at;
        c->overrides[c->n_overrides++] = w.text;
        return ST_OK;
    }
    if (c->n_args == c->verb->max_args)
        FAIL(ST_USAGE, "argument %d ('%s'): one too many; usage: trimpot %s %s", w.at, w.text, c->verb->name, c->verb->arguments);
    c->args[c->n_args++] = w.text;
    return ST_OK;
}

static status missing_arguments(const struct cli *c)
{
    const struct verb *v = c->verb;
    const char *missing = c->n_args ? "an argument is missing" : "its arguments are missing";
    if (v->paths && c->n_overrides)
        FAIL(ST_USAGE, "trimpot %s: %s ('%s' is no path that exists, so it was taken for a key); usage: trimpot %s %s", v->name, missing,
             c->overrides[0], v->name, v->arguments);
    FAIL(ST_USAGE, "trimpot %s: %s; usage: trimpot %s %s", v->name, missing, v->name, v->arguments);
}

static status find_verb(const char *word, const struct verb *const *verbs, int n_verbs, const struct verb **out)
{
    const char *names[64];
    int n = 0;
    for (int i = 0; i < n_verbs && n < 64; i++) {
        names[n++] = verbs[i]->name;
        if (strcmp(verbs[i]->name, word) == 0) {
            *out = verbs[i];
            return ST_OK;
        }
    }
    const char *near = text_nearest(word, names, n);
    FAIL(ST_USAGE, "argument 1 ('%s'): no such verb%s%s%s `trimpot --help` lists them", word, near ? "; did you mean " : "",
         near ? near : "", near ? "?" : ";");
}

static void find_folders(struct cli *c)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    c->program_dir = mem_strdup(slash ? path : ".");
    c->shipped_dir = mem_strdup(TRIMPOT_SOURCE_DIR "/configs");
    if (!file_is_dir(c->shipped_dir)) {
        free(c->shipped_dir);
        c->shipped_dir = mem_printf("%s/../share/trimpot", c->program_dir);
    }
}

status cli_parse(int argc, char **argv, const struct verb *const *verbs, int n_verbs, struct cli *out)
{
    *out = (struct cli){.max_new_tokens = -1, .top_k = -1, .seed = -1, .max_seq_len = -1, .timeout = -1, .temperature = NAN, .top_p = NAN};
    size_t words = (size_t)(argc > 0 ? argc : 1);
    out->args = mem_alloc(words * sizeof *out->args);
    out->overrides = mem_alloc(words * sizeof *out->overrides);
    out->override_at = mem_alloc(words * sizeof *out->override_at);
    find_folders(out);

    struct parser p = {.argc = argc, .argv = argv, .out = out, .at = 1};
    if (argc < 2) FAIL(ST_USAGE, "no verb; `trimpot --help` lists them, `trimpot run --help` is a good start");
    const char *word = argv[1];
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        out->help = true;
        return argc > 2 ? find_verb(argv[2], verbs, n_verbs, &out->verb) : ST_OK;
    }
    TRY(find_verb(strcmp(word, "--version") == 0 ? "version" : word, verbs, n_verbs, &out->verb));
    bool only_positional = false;
    for (p.at = 2; p.at < argc; p.at++) {
        struct word w = {p.at, argv[p.at]};
        if (!only_positional && strcmp(w.text, "--") == 0)
            only_positional = true;
        else
            TRY(parse_word(&p, w, only_positional));
    }
    return !out->help && out->n_args < out->verb->min_args ? missing_arguments(out) : ST_OK;
}

void cli_release(struct cli *c)
{
    free(c->args);
    free(c->overrides);
    free(c->override_at);
    free(c->program_dir);
    free(c->shipped_dir);
    free(c->launch_message);
    *c = (struct cli){0};
}

/* Under a guard that the caller lifts once the ranks know each other. A verb that diagnoses launches has a guard of its own, and
 * goes on alone where there is no world. */
static status open_ranks(struct cli *c, struct comm *comm)
{
    bool diagnoses = c->verb && c->verb->diagnoses && !c->help;
    status st = launch_find(c->dist, &c->launch);
    if (!st && !diagnoses) st = launch_guard(&c->launch);
    if (!st) st = comm_open(&c->launch, c->program_dir, comm);
    if (!st || !(diagnoses || c->help)) return st;
    c->launch_failure = st;
    c->launch_message = mem_strdup(status_message());
    return comm_open(&(struct launch){.how = "alone"}, c->program_dir, comm);
}

static status run_verb(const struct cli *c, struct comm *comm, const struct verb *const *verbs, int n_verbs)
{
    if (c->help) {
        char *text = comm->rank == 0 ? cli_help(c->verb, verbs, n_verbs) : NULL;
        if (text) fputs(text, stdout);
        free(text);
        return ST_OK;
    }
    if (c->verb->every_rank) return c->verb->run(c, comm);
    struct comm alone; /* the other ranks wait for the outcome: no collective of the verb's own may wait for them */
    comm_self_open(&alone);
    return comm_agree(comm, comm->rank == 0 ? c->verb->run(c, &alone) : ST_OK);
}

/* Output that cannot be written (a full disk, a closed pipe) is a failure, not a success. */
static status flush_results(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) FAIL(ST_IO, "standard output: %s; the results are incomplete", file_error(errno));
    return ST_OK;
}

/* Not what only prints: `trimpot run --help | head` ends as any program does. */
static bool answers_signals(const struct cli *c) { return c->verb && c->verb->signals && !c->help && !c->print_config; }

int cli_main(int argc, char **argv, const struct verb *const *verbs, int n_verbs)
{
    struct cli c;
    struct comm comm;
    signals_prepare();
    status parsed = cli_parse(argc, argv, verbs, n_verbs, &c);
    if (!parsed && answers_signals(&c)) parsed = signals_install();
    char *complaint = parsed ? mem_strdup(status_message()) : NULL;
    enum log_level level = c.quiet ? LOG_QUIET : c.verbose ? LOG_DEBUG : LOG_INFO;
    log_init(0, 1, level);

    int code;
    if (!parsed && !c.help && c.verb->guard && c.verb->guard(&c, &code)) {
        cli_release(&c);
        return code;
    }
    status st = open_ranks(&c, &comm);
    if (st) {
        launch_guarded();
        if (!c.launch.echo) log_error("%s", complaint ? complaint : status_message());
        code = parsed ? parsed : st;
    } else {
        bool diagnoses = c.verb && c.verb->diagnoses;
        log_init(comm.rank, comm.size, level);
        if (c.launch.warning && c.verb && c.verb->every_rank && !diagnoses) log_warn("%s", c.launch.warning);
        st = comm_agree(&comm, parsed ? status_fail(parsed, "%s", complaint) : ST_OK);
        if (!st && !diagnoses) st = startup_check(&comm, argc, argv);
        if (!st) watch_open(&comm); /* of equal programs only: its records are theirs */
        launch_guarded();
        if (!st) st = run_verb(&c, &comm, verbs, n_verbs);
        if (!st) st = flush_results();
        signals_end();
        code = comm_end(&comm, st);
    }
    free(complaint);
    cli_release(&c);
    return code;
}
