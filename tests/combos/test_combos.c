/* What is in table.h, drawn and checked; and, with arguments, trained: train.sh starts it so, on 1, 2 and 4 ranks.
 *
 *   test_combos                                        the table, its refusals, the README's matrix
 *   test_combos --leg run --device cpu --scratch DIR --model DIR --data FILE [--only N | --part I/N] [--loud]
 *   test_combos --matrix                               prints what belongs in the README
 *
 * TRIMPOT_COMBOS: how many combinations, 300; TRIMPOT_COMBOS_SEED: of their choice, 1. */
#include <libgen.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "collectives/comm_self.h"
#include "tests/combos/run.h"

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
    fprintf(stderr, "table.h: %s goes with no value of a third axis, and is not refused\n", drawing.impossible);
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
    if (comm.rank == 0) printf("%d trained on %d rank(s) of %s, %.1f s\n", r->trained, comm.size, a->emu ? "emu" : "cpu", clock_s() - before);
    int failures = r->failures;
    comm_end(&comm, ST_OK);
    return failures ? 1 : 0;
}

/* ---- without ------------------------------------------------------------------------------------------------------------- */

static void test_every_pair_is_drawn(void **state)
{
    (void)state;
    int covered = 0;
    for (int a = 0; a < AXES; a++)
        for (int b = a + 1; b < AXES; b++)
            for (int i = 0; i < values_of(a); i++)
                for (int k = 0; k < values_of(b); k++) {
                    bool together = false;
                    for (int n = 0; n < drawing.n && !together; n++) together = drawing.combo[n].v[a] == i && drawing.combo[n].v[b] == k;
                    bool refused = drawing.refused[flat_of(a, i)][flat_of(b, k)];
                    if (together == refused)
                        fail_msg("%s=%s, %s=%s is %s", axes[a].name, axes[a].value[i].name, axes[b].name, axes[b].value[k].name,
                                 together ? "refused, and drawn" : "never drawn");
                    covered += together;
                }
    assert_int_equal(covered, drawing.pairs);
    print_message("%d combinations, the first %d cover all %d pairs; %d are refused\n", drawing.n, drawing.covering, drawing.pairs,
                  drawing.refused_pairs);
}

int main(int argc, char **argv)
{
    struct asked asked = {.only = -1, .parts = 1};
    draw_all();
    if (argc > 1) {
        read_arguments(argc, argv, &asked);
        return run_asked(&asked);
    }
    log_init(0, 1, LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair_is_drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
