/* run.h — combinations, trained: three legs, each of processes that train many, one after the other.
 *
 *   plain     each numerics once, on one rank, saved nowhere in between         digest of weights and curve → SCRATCH/plain-N
 *   run       each combination, saved in the middle                             its digest is that of its plain run
 *   resume    from the middle, on another number of ranks where it can          and so is this one
 *
 * In each the plan is made first, as `trimpot plan` makes it, and what was allocated at most is that, for each kind of memory. */
#ifndef TRIMPOT_COMBOS_RUN_H
#define TRIMPOT_COMBOS_RUN_H

#include <jansson.h>
#include <xxhash.h>

#include "collectives/transport.h"
#include "kernels/base/file.h"
#include "kernels/base/log.h"
#include "tests/combos/counted.h"
#include "tests/combos/settings.h"
#include "tests/ref/fence.h"
#include "worker/budget.h"
#include "worker/session.h"
#include "worker/snapshot.h"
#include "worker/train.h"

enum leg { LEG_PLAIN, LEG_RUN, LEG_RESUME, LEGS };

struct runner {
    const struct drawing *d;
    struct comm *comm;
    enum leg leg;
    const char *scratch;
    struct place at;
    const char *extra; /* keys that no combination has: NULL, but to see that a difference is told */
    int trained, failures;
    bool loud;
};

/* ---- devices ------------------------------------------------------------------------------------------------------------ */

static const char *const FENCE_KEYS[] = {"TRIMPOT_FENCE", "TRIMPOT_FENCE_JOINS"};

static inline status choose_device(const struct runner *r, const struct combo *c)
{
    static const struct backend *emu;
    const char *environment = value_of(c, F_DEVICE)->environment;
    const struct backend_place place = {r->comm->local_rank, r->comm->local_size};
    for (int i = 0; i < 2; i++) unsetenv(FENCE_KEYS[i]);
    if (on_emu(c)) {
        if (!emu) TRY(backend_load("emu", &place, &emu));
        backend_host = counted_wrap(emu);
        return ST_OK;
    }
    backend_host = counted_wrap(&backend_cpu);
    if (!environment) return ST_OK;
    char *copy = mem_strdup(environment), *rest = copy, seed[24];
    for (char *word, *value; (word = strsep(&rest, " "));) {
        value = strchr(word, '=');
        *value = 0;
        setenv(word, value + 1, 1);
    }
    free(copy);
    snprintf(seed, sizeof seed, "%d", c->number + 1 + (int)r->leg);
    setenv("TRIMPOT_FENCE_SEED", seed, 1);
    backend_host = counted_wrap(fence_wrap(&backend_cpu));
    return ST_OK;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------- */

static const char *const KINDS[MEM_KINDS] = {[MEM_HOST] = "host", [MEM_PINNED] = "pinned", [MEM_DEVICE] = "device"};

struct planned {
    size_t bytes[MEM_KINDS]; /* that it would bind, of each kind: the rows of its arenas */
    size_t tensors;          /* what memory_budget is compared with: all rows of the memory where tensors live */
};

static inline bool is_beside(const struct plan *p, const char *name)
{
    for (int e = 0; e < p->n_extra; e++)
        if (!strcmp(p->extra[e].name, name)) return true;
    return false;
}

static inline status read_plan(const struct plan *p, struct planned *out)
{
    struct buf text = {0};
    plan_text(p, 0, true, "", &text);
    json_t *o = json_loads(text.data, 0, NULL), *row;
    size_t i, bound = (size_t)json_integer_value(json_object_get(o, "bound_bytes")), sum = 0, beside = 0;
    *out = (struct planned){0};
    json_array_foreach(json_object_get(o, "rows"), i, row)
    {
        const char *memory = json_string_value(json_object_get(row, "memory"));
        size_t n = (size_t)json_integer_value(json_object_get(row, "bytes"));
        bool extra = is_beside(p, json_string_value(json_object_get(row, "name")));
        for (int k = 0; k < MEM_KINDS; k++)
            if (!extra && !strcmp(memory, KINDS[k])) out->bytes[k] += n;
        if ((p->be->tensors_in == MEM_DEVICE) == !strcmp(memory, KINDS[MEM_DEVICE])) out->tensors += n;
        *(extra ? &beside : &sum) += n;
    }
    json_decref(o);
    buf_release(&text);
    if (sum != bound || sum + beside != plan_total_bytes(p))
        FAIL(ST_FAIL, "the plan's rows are %zu bytes, it binds %zu; with what is beside them %zu, of %zu in all", sum, bound, sum + beside,
             plan_total_bytes(p));
    return ST_OK;
}

/* What `trimpot plan` does, on every rank; of a run that is resumed, as that chooses. */
static inline status make_plan(struct runner *r, const struct config *cfg, struct planned *out)
{
    struct session x = {0};
    struct resume resume = {0};
    struct choice_made choice = {0};
    struct config *before = NULL;
    char *saved = NULL;
    status st = snapshot_peek(cfg, r->comm, &resume);
    if (!st && cfg->memory_budget != BUDGET_NONE) saved = snapshot_config(&resume);
    if (!st && saved) st = budget_again(cfg, saved, &before);
    if (!st) st = comm_agree(r->comm, session_open(&x, before ? before : cfg, r->comm, SESSION_TRAIN, &resume.start, NULL));
    if (!st && cfg->memory_budget != BUDGET_NONE)
        st = comm_agree(r->comm, budget_choose(&x, NULL, resume.found ? BUDGET_SAME_STEP : BUDGET_SMALLER, &choice));
    if (!st) st = read_plan(&x.plan, out);
    if (!st) st = session_check_budget(&x);
    session_close(&x);
    choice_free(&choice);
    config_free(before);
    ckpt_info_free(&resume.info);
    free(saved);
    return comm_agree(r->comm, st);
}

static inline status compare_plan(const size_t *planned)
{
    for (int k = 0; k < MEM_KINDS; k++) {
        if (counted.peak[k] != planned[k])
            FAIL(ST_FAIL, "%zu bytes of %s memory were planned, %zu were taken at most", planned[k], KINDS[k], counted.peak[k]);
        if (counted.now[k]) FAIL(ST_FAIL, "%zu bytes of %s memory were never given back", counted.now[k], KINDS[k]);
    }
    return ST_OK;
}

/* ---- what came of it ------------------------------------------------------------------------------------------------------ */

#define MERGED "weights"

/* what: its name in the digest, wherever a run puts it. */
static inline bool digest_file(const char *output, const char *name, const char *what, struct buf *out)
{
    char *path = mem_printf("%s/%s", output, name);
    struct file_map m;
    bool found = file_exists(path) && !file_map_open(&m, path);
    if (found) {
        XXH128_hash_t h = XXH3_128bits(m.data, m.bytes);
        buf_printf(out, "%s, %zu bytes %016llx%016llx\n", what, m.bytes, (unsigned long long)h.high64, (unsigned long long)h.low64);
        file_map_close(&m);
    }
    free(path);
    return found;
}

/* Loss and gradient norm of every step, as they are written. */
static inline void digest_curve(const char *output, struct buf *out)
{
    char *path = mem_printf("%s/metrics.jsonl", output), *text = NULL, *rest;
    size_t n;
    if (!file_read(path, 1 << 20, &text, &n))
        for (char *line = rest = text; (line = strsep(&rest, "\n"));) {
            const char *loss = strstr(line, "\"loss\":"), *norm = strstr(line, "\"grad_norm\":");
            if (loss && norm) buf_printf(out, "%.*s %.*s\n", (int)strcspn(loss, ","), loss, (int)strcspn(norm, ","), norm);
        }
    free(text);
    free(path);
}

static inline void digest(const char *output, struct buf *out)
{
    buf_text(out, "");
    digest_curve(output, out);
    digest_file(output, "export/model.safetensors", MERGED, out);
    if (!digest_file(output, "adapter/adapter_model.safetensors", "adapter", out))
        digest_file(output, "export/adapter_model.safetensors", "adapter", out);
}

/* Nothing of its techniques is asked for: its plain run, and where it is resumed without them. */
static inline bool is_plain(const struct runner *r, const struct combo *c)
{
    return r->leg == LEG_PLAIN || (r->leg == LEG_RESUME && resumes_plainly(c));
}

/* The first line that differs, into the message. */
static inline status compare_digest(const struct runner *r, const struct combo *c, const char *is)
{
    char *path = mem_printf("%s/plain-%d", r->scratch, plain_number(r->d, c)), *wanted = NULL;
    size_t n;
    status st = file_read(path, 1 << 20, &wanted, &n);
    free(path);
    if (st) return st;
    int line = 1;
    char *merged = strstr(wanted, MERGED), *behind = merged ? strchr(merged, '\n') + 1 : NULL;
    if (merged && c->v[F_ADAPTER_ONLY] && !is_plain(r, c)) memmove(merged, behind, strlen(behind) + 1);
    const char *a = wanted, *b = is;
    for (; *a && *a == *b; a++, b++) line += *a == '\n';
    if (*a != *b) {
        while (a > wanted && a[-1] != '\n') a--, b--;
        st = status_fail(ST_FAIL, "line %d of its digest is\n    %.*s\n  that of the plain run\n    %.*s", line, (int)strcspn(b, "\n"), b,
                         (int)strcspn(a, "\n"), a);
    }
    free(wanted);
    return st;
}

/* ---- one ------------------------------------------------------------------------------------------------------------------ */

static inline unsigned nothing_asked(void) { return 0; }

/* Rank 0's, for all: what is on disk is what the next leg finds. */
static inline status put_away(struct runner *r, const struct combo *c, const char *output)
{
    char *digested = mem_printf("%s/plain-%d", r->scratch, c->number), *last = mem_printf("%s/checkpoints/step-%07d", output, STEPS);
    struct buf text = {0};
    status st = ST_OK;
    digest(output, &text);
    if (r->leg == LEG_PLAIN)
        st = file_replace(digested, text.data, text.len);
    else
        st = compare_digest(r, c, text.data);
    if (r->leg != LEG_RUN) {
        file_remove_tree(output);
    } else {
        char *exported = mem_printf("%s/export", output);
        file_remove_tree(last);
        file_remove_tree(exported);
        free(exported);
    }
    buf_release(&text);
    free(digested);
    free(last);
    return st;
}

/* memory_budget: a byte less than what it would take, or where nothing is left to choose exactly that. */
static inline status tighten(struct runner *r, const struct place *at, struct settings *s)
{
    struct config *cfg = NULL;
    struct planned planned;
    status st;
    settings_set(s, "memory_budget=null");
    TRY_DONE(settings_load(s, at, &cfg));
    TRY_DONE(make_plan(r, cfg, &planned));
    int64_t most = (int64_t)planned.tensors;
    TRY_DONE(r->comm->fn->all_reduce_i64(r->comm, &most, 1, COMM_MAX));
    for (int less = 1; less >= 0; less--) {
        char key[48];
        snprintf(key, sizeof key, "memory_budget=%lld", (long long)most - less);
        settings_set(s, key);
        config_free(cfg);
        cfg = NULL;
        TRY_DONE(settings_load(s, at, &cfg));
        st = make_plan(r, cfg, &planned);
        if (st != ST_OOM) goto done;
    }
done:
    config_free(cfg);
    return st;
}

static inline status train_one(struct runner *r, const struct combo *c, struct settings *s, const char *output)
{
    static const struct train_hooks hooks = {.requests = nothing_asked};
    struct place at = r->at;
    struct config *cfg = NULL;
    struct planned planned;
    status st;
    at.output = output;
    TRY_DONE(choose_device(r, c));
    if (s->tight) TRY_DONE(tighten(r, &at, s));
    TRY_DONE(settings_load(s, &at, &cfg));
    TRY_DONE(make_plan(r, cfg, &planned));
    counted_begin();
    TRY_DONE(train(cfg, r->comm, &hooks));
    st = comm_agree(r->comm, compare_plan(planned.bytes));
    if (!st && r->comm->rank == 0) st = put_away(r, c, output);
    st = comm_agree(r->comm, st);
done:
    config_free(cfg);
    return st;
}

static inline void tell_failure(const struct runner *r, const struct combo *c, const char *keys)
{
    static const char *const WHAT[] = {"its plain run", "it", "it, resumed"};
    printf("FAIL: combination %d, %s, on %d rank(s), %s: %s\n  %s\n  alone: tests/combos/train.sh BUILD --only %d\n", c->number,
           WHAT[r->leg], r->comm->size, value_of(c, F_DEVICE)->name, status_message(), keys, c->number);
    fflush(stdout);
}

static inline void settings_now(const struct runner *r, const struct combo *c, struct settings *s)
{
    struct combo plain;
    if (is_plain(r, c)) {
        plain_of(c, &plain);
        settings_of(&plain, 1, s);
        settings_accumulate(s, micro_batches(c) / r->comm->size);
    } else
        settings_of(c, r->comm->size, s);
    if (r->leg == LEG_RESUME) settings_add(s, "resume_from_checkpoint=true", "");
    if (r->extra) settings_add(s, r->extra, "");
}

static inline status run_once(struct runner *r, const struct combo *c, struct settings *s)
{
    struct combo plain;
    char *output = mem_printf("%s/%d", r->scratch, c->number);
    plain_of(c, &plain);
    status st = train_one(r, r->leg == LEG_PLAIN ? &plain : c, s, output);
    r->trained++;
    free(output);
    return st;
}

static inline void run_one(struct runner *r, const struct combo *c)
{
    struct settings s;
    struct buf keys = {0};
    bool loud = r->loud && r->comm->rank == 0;
    double before = clock_s();
    settings_now(r, c, &s);
    settings_spell(&s, &keys);
    if (loud) printf("%s %d: %s\n", r->leg == LEG_PLAIN ? "plain" : "combination", c->number, keys.data), fflush(stdout);
    if (run_once(r, c, &s)) {
        if (r->comm->rank == 0) tell_failure(r, c, keys.data);
        r->failures++;
    }
    if (loud) printf("  %.2f s\n", clock_s() - before);
    settings_free(&s);
    buf_release(&keys);
}

/* Does this process train it: its device, and so many ranks? */
static inline bool is_ours(const struct runner *r, const struct combo *c, bool emu)
{
    int ranks = ranks_of(c);
    if (r->leg == LEG_PLAIN) ranks = plain_number(r->d, c) == c->number ? 1 : 0;
    if (r->leg == LEG_RESUME) ranks = ranks_resuming(c);
    return ranks == r->comm->size && on_emu(c) == emu;
}

#endif
