/* What is in table.h, drawn and checked; and, with arguments, trained: train.sh starts it so, on 1, 2 and 4 ranks.
 *
 *   test_combos                                        the table, its refusals, the README's matrix
 *   test_combos --leg run --device cpu --scratch DIR --model DIR --stored DIR --data FILE [--only N | --part I/N] [--loud]
 *   test_combos --store DIR                            writes the model for --stored
 *   test_combos --matrix [README.md]                   prints the matrix, or writes it into the README
 *   test_combos --keys N                               prints N combinations, each as "RANKS RECIPE key=value …": plain runs of trimpot
 *
 * TRIMPOT_COMBOS: how many combinations, 300; TRIMPOT_COMBOS_SEED: of their choice, 1. */
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "collectives/comm_self.h"
#include "tests/combos/matrix.h"
#include "tests/combos/run.h"
#include "tests/combos/stored.h"

static struct drawing drawing;

static int number_in(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static void draw_all(void)
{
    draw_combos(&drawing, (uint64_t)number_in("TRIMPOT_COMBOS_SEED", 1), number_in("TRIMPOT_COMBOS", 300));
    if (!*drawing.impossible) return;
    fprintf(stderr, "table.h: %s goes with no value of a third facet, and is not refused\n", drawing.impossible);
    exit(1);
}

/* ---- with arguments ------------------------------------------------------------------------------------------------------ */

struct asked {
    struct runner runner;
    bool emu;
    int only, part, parts;
};

static enum leg leg_named(const char *name)
{
    static const char *const NAMES[LEGS] = {"plain", "run", "resume"};
    for (int i = 0; i < LEGS; i++)
        if (!strcmp(NAMES[i], name)) return (enum leg)i;
    fprintf(stderr, "no leg %s\n", name);
    exit(2);
}

static void read_arguments(int argc, char **argv, struct asked *a)
{
    struct runner *r = &a->runner;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(word, "--loud")) {
            r->loud = true;
            continue;
        }
        i++;
        if (!strcmp(word, "--leg")) r->leg = leg_named(value);
        if (!strcmp(word, "--device")) a->emu = !strcmp(value, "emu");
        if (!strcmp(word, "--scratch")) r->scratch = value;
        if (!strcmp(word, "--model")) r->at.model = value;
        if (!strcmp(word, "--stored")) r->at.stored = value;
        if (!strcmp(word, "--data")) r->at.data = value;
        if (!strcmp(word, "--only")) a->only = atoi(value);
        if (!strcmp(word, "--part")) sscanf(value, "%d/%d", &a->part, &a->parts);
    }
}

static status open_world(struct comm *comm)
{
    struct launch launch;
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    TRY(launch_detect(NULL, (const char *(*)(const char *))getenv, &launch));
    TRY(comm_open(&launch, dirname(self), comm));
    log_init(comm->rank, comm->size, LOG_QUIET);
    return ST_OK;
}

static int run_asked(struct asked *a)
{
    struct runner *r = &a->runner;
    struct comm comm;
    status st = open_world(&comm);
    if (st) {
        fprintf(stderr, "%s\n", status_message());
        return st;
    }
    r->comm = &comm;
    r->d = &drawing;
    double before = clock_s();
    for (int i = 0, k = 0; i < drawing.n; i++) {
        const struct combo *c = &drawing.combo[i];
        bool wanted = a->only < 0 || a->only == i || (r->leg == LEG_PLAIN && plain_number(&drawing, &drawing.combo[a->only]) == i);
        if (wanted && is_ours(r, c, a->emu) && k++ % a->parts == a->part) run_one(r, c);
    }
    if (comm.rank == 0)
        printf("%d trained on %d rank(s) of %s, %.1f s\n", r->trained, comm.size, a->emu ? "emu" : "cpu", clock_s() - before);
    int failures = r->failures;
    comm_end(&comm, ST_OK);
    return failures ? 1 : 0;
}

/* Of a model whose weights may be drawn. */
static bool looked_at_from_outside(const struct combo *c)
{
    return c->v[F_DEVICE] == 0 && ranks_of(c) <= 2 && !is_tight(c) && !is_stored(c);
}

/* Of those on the CPU, spread over all. */
static int print_keys(int wanted)
{
    int n = 0;
    for (int i = 0; i < drawing.n; i++) n += looked_at_from_outside(&drawing.combo[i]);
    for (int i = 0, k = 0, told = 0; i < drawing.n && told < wanted; i++) {
        const struct combo *c = &drawing.combo[i];
        if (!looked_at_from_outside(c) || (int64_t)k++ * wanted / n < told) continue;
        struct settings s;
        struct buf keys = {0};
        settings_of(c, ranks_of(c), &s);
        settings_spell(&s, &keys);
        printf("%s %s\n", value_of(c, F_RANKS)->name, keys.data);
        settings_free(&s);
        buf_release(&keys);
        told++;
    }
    return 0;
}

static int print_summary(void)
{
    int emu = 0, ranks[5] = {0}, plain = 0;
    for (int i = 0; i < drawing.n; i++) {
        emu += on_emu(&drawing.combo[i]);
        ranks[ranks_of(&drawing.combo[i])]++;
        plain += plain_number(&drawing, &drawing.combo[i]) == i;
    }
    printf(
        "%d combinations, of which the first %d cover all %d pairs of %d keys; %d pairs are refused; %d on 1, %d on 2, %d on 4 ranks, %d "
        "emulated; compared with %d plain runs\n",
        drawing.n, drawing.covering, drawing.pairs, FACETS, drawing.refused_pairs, ranks[1], ranks[2], ranks[4], emu, plain);
    return 0;
}

/* ---- without ------------------------------------------------------------------------------------------------------------- */

static void test_every_pair_is_drawn(void **state)
{
    (void)state;
    int covered = 0;
    for (int a = 0; a < FACETS; a++)
        for (int b = a + 1; b < FACETS; b++)
            for (int i = 0; i < values_of(a); i++)
                for (int k = 0; k < values_of(b); k++) {
                    bool together = false;
                    for (int n = 0; n < drawing.n && !together; n++) together = drawing.combo[n].v[a] == i && drawing.combo[n].v[b] == k;
                    bool refused = drawing.refused[flat_of(a, i)][flat_of(b, k)];
                    if (together == refused)
                        fail_msg("%s=%s, %s=%s is %s", facets[a].name, facets[a].value[i].name, facets[b].name, facets[b].value[k].name,
                                 together ? "refused, and drawn" : "never drawn");
                    covered += together;
                }
    assert_int_equal(covered, drawing.pairs);
    print_summary();
}

/* A setting that some combinations have, and their plain runs have not. */
static bool is_drawn(const char *setting, size_t n)
{
    for (int f = 0; f < FACETS; f++)
        for (int i = 1; facets[f].effect == SAME_BITS && i < values_of(f); i++) {
            const char *keys = facets[f].value[i].keys;
            for (const char *at = keys ? keys : ""; *at; at += strcspn(at, " "), at += strspn(at, " "))
                if (strcspn(at, " ") - (*at == '@') == n && !strncmp(at + (*at == '@'), setting, n)) return true;
        }
    return false;
}

/* Whatever `plan --compare` calls a technique that never changes a bit is in the table. */
static void test_every_technique_is_drawn(void **state)
{
    (void)state;
    for (int i = 0; i < technique_count; i++) {
        bool drawn_somewhere = !techniques[i].same_bits;
        for (const char *at = techniques[i].on; *at; at += strcspn(at, " "), at += strspn(at, " "))
            drawn_somewhere = drawn_somewhere || is_drawn(at, strcspn(at, " "));
        if (!drawn_somewhere) fail_msg("table.h has no line for '%s': %s", techniques[i].name, techniques[i].on);
    }
}

/* ---- refusals --------------------------------------------------------------------------------------------------------- */

static struct place real = {.model = TRIMPOT_SOURCE_DIR "/tests/truth/golden/llama2/model",
                            .data = TRIMPOT_SOURCE_DIR "/configs/quickstart/train.jsonl",
                            .output = "/nowhere/to/write"};

static int store_model(void **state)
{
    static char dir[] = "/tmp/trimpot-stored.XXXXXX";
    (void)state;
    real.stored = mkdtemp(dir);
    return real.stored && !stored_write(dir) ? 0 : -1;
}

static int remove_model(void **state)
{
    (void)state;
    return file_remove_tree(real.stored) ? -1 : 0;
}

/* What a run saves of its configuration says the same when it is read again. */
static status reads_back(const struct config *cfg)
{
    bool another;
    char *text = config_text(cfg), *diff = config_diff(text, cfg, &another);
    status st = diff ? status_fail(ST_FAIL, "its config.resolved.yaml is read as another: %s", diff) : ST_OK;
    free(text);
    free(diff);
    return st;
}

/* What trimpot says to it: where the configuration passes, the plan may refuse. */
static status judge(const struct settings *s, bool planned)
{
    struct config *cfg = NULL;
    struct session x = {0};
    struct comm comm;
    status st = settings_load(s, &real, &cfg);
    if (!st) st = reads_back(cfg);
    backend_host = &backend_cpu;
    comm_self_open(&comm);
    if (!st && planned) {
        st = session_open(&x, cfg, &comm, SESSION_TRAIN, NULL, NULL);
        session_close(&x);
    }
    config_free(cfg);
    return st;
}

/* Nothing else of it refuses the value. */
static bool refuses_only_so(const struct combo *c, int facet, int value, const struct refusal *why)
{
    for (int f = 0; f < FACETS; f++) {
        const struct refusal *r = f == facet ? NULL : drawing.refused[flat_of(facet, value)][flat_of(f, c->v[f])];
        if (r && strcmp(r->reason, why->reason)) return false;
    }
    return true;
}

/* Of a combination that would work but for the second value. What refuses it may be a third, which the first one leaves no choice of. */
static void refused_pair(int a, int i, int b, int k, const struct refusal *why)
{
    struct combo given = free_combo(), c;
    struct settings s;
    given.v[a] = i;
    for (int tries = 0; tries < TRIES; tries++)
        if (complete_from(&drawing, &given, &c) && refuses_only_so(&c, b, k, why)) break;
    c.v[b] = k;
    settings_of(&c, ranks_of(&c), &s);
    status st = judge(&s, true);
    if (!st || !strstr(status_message(), why->reason)) {
        struct buf keys = {0};
        settings_spell(&s, &keys);
        fail_msg("%s=%s, %s=%s: %s, without '%s'\n  %s", facets[a].name, facets[a].value[i].name, facets[b].name, facets[b].value[k].name,
                 st ? status_message() : "it is not refused", why->reason, keys.data);
    }
    settings_free(&s);
}

static void test_refused_pairs_are_refused(void **state)
{
    (void)state;
    for (int a = 0; a < FACETS; a++)
        for (int b = a + 1; b < FACETS; b++)
            for (int i = 0; i < values_of(a); i++)
                for (int k = 0; k < values_of(b); k++) {
                    const struct refusal *why = drawing.refused[flat_of(a, i)][flat_of(b, k)];
                    if (why) refused_pair(a, i, b, k, why);
                }
}

static void test_contradictions_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof contradictions / sizeof *contradictions; i++) {
        struct settings s = {.recipe = "lora_finetune"};
        settings_add(&s, contradictions[i].keys, "");
        if (!judge(&s, false) || !strstr(status_message(), contradictions[i].reason))
            fail_msg("%s: '%s', without '%s'", contradictions[i].keys, status_message(), contradictions[i].reason);
        settings_free(&s);
    }
}

static void test_combinations_are_accepted(void **state)
{
    (void)state;
    for (int i = 0; i < drawing.n; i++) {
        struct settings s;
        settings_of(&drawing.combo[i], ranks_of(&drawing.combo[i]), &s);
        if (judge(&s, i < drawing.covering)) fail_msg("combination %d: %s", i, status_message());
        settings_free(&s);
    }
}

/* ---- some, trained here: with sanitizers too --------------------------------------------------------------------------------- */

enum { TRAINED_HERE = 6 };

static void test_some_are_trained(void **state)
{
    (void)state;
    char scratch[] = "/tmp/trimpot-combos.XXXXXX";
    struct settings s;
    struct comm comm;
    comm_self_open(&comm);
    assert_non_null(mkdtemp(scratch));
    struct runner r = {.d = &drawing, .comm = &comm, .scratch = scratch, .at = real};
    int last = 0;
    for (int i = 0, n = 0; i < drawing.n && n < TRAINED_HERE; i++) {
        const struct combo *c = &drawing.combo[i];
        if (on_emu(c) || ranks_of(c) > 1 || ranks_resuming(c) > 1) continue;
        r.leg = LEG_PLAIN;
        if (plain_number(&drawing, c) == i) run_one(&r, c);
        for (r.leg = LEG_RUN; r.leg < LEGS; r.leg++) run_one(&r, c);
        last = i;
        n++;
    }
    assert_int_equal(r.failures, 0);
    assert_true(r.trained > 2 * TRAINED_HERE);

    /* What is told when something differs. */
    r.leg = LEG_RUN;
    r.extra = "optimizer.lr=2.001e-3";
    settings_now(&r, &drawing.combo[last], &s);
    assert_int_equal(run_once(&r, &drawing.combo[last], &s), ST_FAIL);
    settings_free(&s);
    assert_non_null(strstr(status_message(), "that of the plain run"));
    size_t planned[MEM_KINDS] = {counted.peak[MEM_HOST], counted.peak[MEM_PINNED], counted.peak[MEM_DEVICE] + 1};
    assert_int_equal(compare_plan(planned), ST_FAIL);
    planned[MEM_DEVICE]--;
    assert_int_equal(compare_plan(planned), ST_OK);
    file_remove_tree(scratch);
}

/* ---- the README ----------------------------------------------------------------------------------------------------------- */

static void test_readme_has_the_matrix(void **state)
{
    (void)state;
    struct buf fresh = {0};
    char *readme = NULL;
    size_t n;
    assert_int_equal(file_read(TRIMPOT_SOURCE_DIR "/README.md", 1 << 20, &readme, &n), ST_OK);
    matrix_text(&drawing, &fresh);
    if (!strstr(readme, fresh.data))
        fail_msg("README.md is stale: build/test_combos --matrix README.md writes the matrix that table.h says");
    free(readme);
    buf_release(&fresh);
}

int main(int argc, char **argv)
{
    struct asked asked = {.only = -1, .parts = 1};
    draw_all();
    if (argc > 1 && !strcmp(argv[1], "--matrix")) return matrix_write(&drawing, argc > 2 ? argv[2] : NULL);
    if (argc > 2 && !strcmp(argv[1], "--store")) return stored_write(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "--summary")) return print_summary();
    if (argc > 1 && !strcmp(argv[1], "--keys")) return print_keys(argc > 2 ? atoi(argv[2]) : drawing.n);
    if (argc > 1) {
        read_arguments(argc, argv, &asked);
        return run_asked(&asked);
    }
    log_init(0, 1, LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_technique_is_drawn),  cmocka_unit_test(test_every_pair_is_drawn),
        cmocka_unit_test(test_refused_pairs_are_refused), cmocka_unit_test(test_contradictions_are_refused),
        cmocka_unit_test(test_combinations_are_accepted), cmocka_unit_test(test_some_are_trained),
        cmocka_unit_test(test_readme_has_the_matrix),
    };
    return cmocka_run_group_tests(tests, store_model, remove_model);
}
