/* test_rope.c — the frequencies and the attention factor of every kind of RoPE scaling, against transformers' numbers
 * (make_rope.py). */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "kernels/base/log.h"
#include "worker/model/family.h"

static double real(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

/* transformers computes in f32: θ^(2j/d) carries the exponent's error times ln θ, a ramp's its own, which counts factor
 * times where the stretched frequency is that much smaller; and every operation rounds. */
static double bound(const struct model_shape *m) { return (log(m->rope[0].theta) + m->rope[0].factor + 8) * FLT_EPSILON; }

static void check(size_t row, const json_t *o)
{
    char *text = json_dumps(json_object_get(o, "config"), 0);
    const json_t *want = json_object_get(o, "frequencies");
    struct hf_config hf;
    struct model_shape m;
    float got[256];
    if (hf_config_parse("config.json", text, strlen(text), &hf) || family_shape("", &hf, &m))
        fail_msg("row %zu: %s", row, status_message());
    assert_int_equal(json_array_size(want), m.head_dim / 2);
    family_rope_frequencies(&m, &m.rope[0], (int64_t)real(o, "longest"), got);
    for (size_t j = 0; j < json_array_size(want); j++) {
        double f = json_number_value(json_array_get(want, j)), off = fabs((double)got[j] - f) / f;
        if (!(off <= bound(&m))) fail_msg("row %zu %s: frequency %zu is %.9g, not %.9g (%.1e)", row, text, j, (double)got[j], f, off);
    }
    if (!(fabs(m.rope[0].attention - real(o, "attention")) <= 1e-12))
        fail_msg("row %zu %s: attention factor %.17g, not %.17g", row, text, m.rope[0].attention, real(o, "attention"));
    free(text);
}

static void as_transformers(void **unused)
{
    (void)unused;
    json_error_t e;
    json_t *rows = json_load_file(TRIMPOT_SOURCE_DIR "/tests/model/golden/rope.json", 0, &e);
    if (!rows) fail_msg("%s:%d: %s", e.source, e.line, e.text);
    assert_true(json_array_size(rows) > 10);
    for (size_t i = 0; i < json_array_size(rows); i++) check(i, json_array_get(rows, i));
    json_decref(rows);
}

/* How long a row may be before a warning is due. */
static void longest(void **unused)
{
    (void)unused;
    static const struct {
        struct hf_rope rope;
        int64_t tokens;
    } rows[] = {
        {{.type = ROPE_DEFAULT, .factor = 1}, 4096},
        {{.type = ROPE_LLAMA3, .factor = 8, .original = 512}, 4096},
        {{.type = ROPE_LINEAR, .factor = 2}, 8192},
        {{.type = ROPE_DYNAMIC, .factor = 2.5}, 10240},
        {{.type = ROPE_YARN, .factor = 4, .original = 4096}, 16384},
        {{.type = ROPE_YARN, .factor = 4, .original = 1024}, 4096},
        {{.type = ROPE_YARN, .factor = 2, .original = 1024}, 4096},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model_shape m = {.max_positions = 4096, .rope = {rows[i].rope, rows[i].rope}};
        assert_int_equal(family_longest(&m), rows[i].tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_transformers), cmocka_unit_test(longest)};
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
