#include "worker/budget.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "kernels/base/text.h"

enum { MOST_POINTS = 4096, MOST_AXES = 12 };

/* ---- the points ------------------------------------------------------------------------------------------------------------- */

/* A point of the axes: what is set on each. */
struct point {
    int at[MOST_AXES];
    char settings[512];
    int changes, maths; /* settings; those that train another way */
};

/* Of equal time, fewer settings; what trains another way must be worth so much time. */
static const double EACH_SETTING = 1e-6, OTHER_MATHS = 0.1;

static bool is_open(const struct axis *a, const struct config *c, bool maths)
{
    char keys[200], *rest = keys, *key;
    if (!a->same_bits && !maths) return false;
    if (a->whom != FOR_ALL && (a->whom == FOR_FULL) != (c->recipe == RECIPE_FULL)) return false;
    snprintf(keys, sizeof keys, "%s", a->keys);
    while ((key = strsep(&rest, " ")))
        if (*key && config_wrote(c, key)) return false;
    return true;
}

static int choices_of(const struct axis *a)
{
    int n = 0;
    while (n < AXIS_CHOICES && a->choice[n]) n++;
    return n;
}

static void spell(struct point *p, const char *smaller)
{
    size_t n = (size_t)snprintf(p->settings, sizeof p->settings, "%s", smaller);
    p->changes = *smaller ? 1 : 0;
    p->maths = 0;
    for (int i = 0; i < axis_count; i++) {
        if (!p->at[i]) continue;
        p->changes++;
        p->maths += !axes[i].same_bits;
        n += (size_t)snprintf(p->settings + n, sizeof p->settings - n, "%s%s", n ? " " : "", axes[i].choice[p->at[i] - 1]);
    }
}

/* Its settings of the optimizer's class: at most one, and none where the class is written. */
static bool is_sound(const struct point *p, const struct config *c)
{
    const char *first = strstr(p->settings, "optimizer=");
    return !first || (!c->optimizer.component && !strstr(first + 1, "optimizer="));
}

/* The next point, the last axis fastest; false: there is none. */
static bool advance(struct point *p, const bool *open)
{
    for (int i = axis_count - 1; i >= 0; i--) {
        if (!open[i]) continue;
        if (++p->at[i] <= choices_of(&axes[i])) return true;
        p->at[i] = 0;
    }
    return false;
}

/* ---- weighing them ------------------------------------------------------------------------------------------------------------ */

struct search {
    struct session *x;
    const struct config *c;
    const struct gpu *rates;
    struct data_shape data;
    int n;               /* points of this round */
    struct point *point; /* [n] */
    unsigned char *fits; /* [n] on this rank */
    double *cost;        /* [n] on rank 0 */
    size_t least;        /* bytes of tensor memory of the leanest point that was met */
    char least_settings[512];
    int weighed;
    bool found; /* a point that fits on all ranks … */
    struct point best;
    double best_cost; /* … the cheapest of them */
};

static bool fits_here(const struct session *x) { return plan_fits(&x->plan, x->comm->local_size); }

static void weigh_point(struct search *s, int i)
{
    struct point *p = &s->point[i];
    struct config *changed = NULL;
    struct weight w;
    s->fits[i] = 0;
    s->cost[i] = INFINITY;
    if (technique_apply(s->c, s->x->comm->size, p->settings, &changed)) return;
    weigh(s->x, changed, s->rates, &s->data, &w);
    if (!w.refused) {
        size_t bytes = s->x->be->tensors_in == MEM_DEVICE ? w.device : w.host;
        s->fits[i] = fits_here(s->x);
        s->cost[i] = w.token_s * (1 + EACH_SETTING * p->changes + OTHER_MATHS * p->maths);
        s->weighed++;
        if (bytes < s->least) {
            s->least = bytes;
            snprintf(s->least_settings, sizeof s->least_settings, "%s", p->settings);
        }
    }
    free(w.refused);
    s->x->cfg = s->c;
    config_free(changed);
}

/* All ranks' fits together, rank 0's costs: *best, or -1. */
static status agree(struct search *s, int *best)
{
    struct comm *comm = s->x->comm;
    unsigned char *all = mem_alloc((size_t)comm->size * (size_t)s->n);
    status st = comm->fn->all_gather(comm, s->fits, all, (size_t)s->n);
    if (!st) st = comm->fn->bcast(comm, s->cost, (size_t)s->n * sizeof *s->cost, 0);
    *best = -1;
    for (int i = 0; !st && i < s->n; i++) {
        bool fits = true;
        for (int r = 0; r < comm->size; r++) fits = fits && all[r * s->n + i];
        if (fits && (*best < 0 || s->cost[i] < s->cost[*best])) *best = i;
    }
    free(all);
    return st;
}

/* One round: every point of the open axes, with micro-batches as `smaller` says. *fits: one of them fits. */
static status round_of(struct search *s, bool maths, const char *smaller, bool *fits)
{
    bool open[MOST_AXES] = {false};
    struct point at = {.at = {0}};
    int best;
    for (int i = 0; i < axis_count; i++) open[i] = is_open(&axes[i], s->c, maths);
    s->n = 0;
    do {
        spell(&at, smaller);
        if (is_sound(&at, s->c)) s->point[s->n++] = at;
    } while (advance(&at, open) && s->n < MOST_POINTS);
    for (int i = 0; i < s->n; i++) weigh_point(s, i);
    TRY(agree(s, &best));
    *fits = best >= 0;
    if (!*fits || (s->found && s->cost[best] >= s->best_cost)) return ST_OK;
    s->found = true;
    s->best = s->point[best];
    s->best_cost = s->cost[best];
    return ST_OK;
}

/* Divisors of the micro-batch, from the largest, with as many more of them. */
static bool smaller_than(const struct config *c, int64_t *rows, char *settings, size_t room)
{
    while (--*rows > 0)
        if (c->batch_size % *rows == 0) break;
    if (*rows <= 0) return false;
    int n = snprintf(settings, room, "batch_size=%lld gradient_accumulation_steps=%lld", (long long)*rows,
                     (long long)(grad_micro_batches(c, 1) * (c->batch_size / *rows)));
    if (!config_wrote(c, "batch_size_val")) snprintf(settings + n, room - (size_t)n, " batch_size_val=%lld", (long long)*rows);
    return true;
}

/* The largest micro-batches with which something fits; then, where that may be said, the same with what trains another way. */
static status rounds(struct search *s, enum budget_reach most)
{
    const struct config *c = s->c;
    bool may_shrink = !config_wrote(c, "batch_size") && !config_wrote(c, "gradient_accumulation_steps") && most >= BUDGET_SMALLER;
    for (int maths = 0; maths <= (most == BUDGET_OTHER_MATHS); maths++) {
        char smaller[128] = "";
        int64_t rows = c->batch_size;
        bool fits = false;
        do TRY(round_of(s, maths, smaller, &fits));
        while (!fits && may_shrink && smaller_than(c, &rows, smaller, sizeof smaller));
    }
    return ST_OK;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------------------- */

static void close_search(struct search *s)
{
    free(s->point);
    free(s->fits);
    free(s->cost);
}

/* As configured, planned again: with what plan_check says of it, and what there was to choose. */
static status nothing_fits(struct search *s)
{
    struct session *x = s->x;
    TRY(session_replan(x, s->c));
    status st = session_check_budget(x);
    if (!st) FAIL(ST_OOM, "the plan fits on this rank, and nothing that memory_budget may choose fits on all of them");
    char *message = mem_strdup(status_message());
    st = status_fail(st, "%s\nof %d plans with what memory_budget may choose none fits; the leanest takes %s per rank, with %s", message,
                     s->weighed, text_bytes((double)s->least),
                     *s->least_settings ? s->least_settings : "nothing to choose: every key is written");
    free(message);
    return st;
}

static status settle(struct search *s, size_t before, double cost_before, struct choice_made *out)
{
    struct session *x = s->x;
    const char *settings = s->best.settings;
    TRY(technique_apply(s->c, x->comm->size, settings, &out->config));
    TRY(session_replan(x, out->config));
    size_t device, host;
    plan_kinds(&x->plan, &device, &host);
    out->settings = mem_strdup(settings);
    double slower = 100 * (s->best_cost / (1 + OTHER_MATHS * s->best.maths) / cost_before - 1);
    char time[48] = "";
    if (isfinite(slower)) snprintf(time, sizeof time, ", %+.1f %% time by the speed model", slower);
    out->why =
        mem_printf("%s: %s instead of %s per rank%s; the cheapest of %d plans that were weighed", settings,
                   text_bytes((double)(x->be->tensors_in == MEM_DEVICE ? device : host)), text_bytes((double)before), time, s->weighed);
    return ST_OK;
}

status budget_choose(struct session *x, const struct gpu *asked, enum budget_reach reach, struct choice_made *out)
{
    struct search s = {.x = x, .c = x->cfg, .rates = predict_rates(x, asked), .least = SIZE_MAX, .n = 1};
    size_t device, host;
    unsigned char fits = fits_here(x);
    int best = -1;
    status st = ST_OK;
    *out = (struct choice_made){0};
    s.point = mem_alloc(MOST_POINTS * sizeof *s.point);
    s.fits = mem_alloc(MOST_POINTS);
    s.cost = mem_alloc(MOST_POINTS * sizeof *s.cost);
    s.fits[0] = fits;
    s.cost[0] = 0;
    TRY_DONE(agree(&s, &best));
    if (best == 0) {
        out->why = mem_strdup("the plan fits as configured");
        goto done;
    }
    s.data = data_shape_of(x);
    double before_s = x->comm->size / predict(x, s.rates, &s.data).tokens_per_s;
    plan_kinds(&x->plan, &device, &host);
    TRY_DONE(rounds(&s, reach));
    st = !s.found ? nothing_fits(&s) : settle(&s, x->be->tensors_in == MEM_DEVICE ? device : host, before_s, out);
done:
    close_search(&s);
    return st;
}

void choice_free(struct choice_made *c)
{
    config_free(c->config);
    free(c->settings);
    free(c->why);
    *c = (struct choice_made){0};
}

/* ---- chosen before ------------------------------------------------------------------------------------------------------------ */

/* Each choice by itself: on another number of ranks one of them may be what the rules refuse, and is made anew. */
static void take_again(const struct config *c, const struct config *then, const char *keys, struct buf *settings)
{
    char copy[200], *rest = copy, *key;
    struct config *tried = NULL;
    size_t before = settings->len;
    snprintf(copy, sizeof copy, "%s", keys);
    while ((key = strsep(&rest, " "))) {
        if (!*key || config_wrote(c, key)) continue;
        char *is = config_value(c, key), *was = config_value(then, key);
        if (is && was && strcmp(is, was)) buf_printf(settings, "%s=%s ", key, was);
        free(is);
        free(was);
    }
    if (settings->len > before && config_with(c, settings->data, &tried)) settings->data[settings->len = before] = 0;
    config_free(tried);
}

status budget_again(const struct config *c, const char *saved, struct config **out)
{
    struct config *then = NULL;
    struct buf settings = {0};
    *out = NULL;
    if (config_parse_text("the saved configuration", saved, strlen(saved), NULL, &then)) return ST_OK; /* whoever resumes says so */
    buf_text(&settings, "");
    take_again(c, then, "batch_size gradient_accumulation_steps", &settings);
    for (int i = 0; i < axis_count; i++)
        if (axes[i].same_bits) take_again(c, then, axes[i].keys, &settings);
    config_free(then);
    status st = settings.len ? config_with(c, settings.data, out) : ST_OK;
    if (settings.len && !st) log_note("budget   as the run that is resumed chose: %s", settings.data);
    buf_release(&settings);
    return st;
}

/* ---- to paste ------------------------------------------------------------------------------------------------------------------- */

/* The group that a setting is of: "optimizer" of optimizer=… and of optimizer.lr=…, "" of a key at the top. */
static int group_of(const char *setting)
{
    int n = (int)strcspn(setting, ".=");
    return setting[n] == '.' || !strncmp(setting, "optimizer=", 10) ? n : 0;
}

static void write_setting(const char *setting, int group, struct buf *out)
{
    const char *key = setting + group, *value = strchr(setting, '=') + 1;
    if (!group)
        buf_printf(out, "%.*s: %s\n", (int)(value - 1 - key), key, value);
    else if (*key == '=')
        buf_printf(out, "  _component_: %s\n", value);
    else
        buf_printf(out, "  %.*s: %s\n", (int)(value - 2 - key), key + 1, value);
}

void settings_text(const struct config *c, const char *settings, struct buf *out)
{
    enum { MOST = 24 };
    char *copy = mem_strdup(settings), *rest = copy, *word[MOST];
    int n = 0;
    while ((word[n] = strsep(&rest, " ")) && n < MOST - 1) n += *word[n] != 0;
    for (int i = 0; i < n; i++) {
        int group = word[i] ? group_of(word[i]) : 0;
        if (!word[i]) continue;
        if (group) buf_printf(out, "%.*s:\n", group, word[i]);
        if (group && !strncmp(word[i], "optimizer.", 10) && c->optimizer.component)
            buf_printf(out, "  _component_: %s\n", c->optimizer.component);
        for (int k = group ? i : n; k < n; k++) {
            if (!word[k] || group_of(word[k]) != group || strncmp(word[k], word[i], (size_t)group)) continue;
            write_setting(word[k], group, out);
            if (k > i) word[k] = NULL;
        }
        if (!group) write_setting(word[i], 0, out);
    }
    free(copy);
}
