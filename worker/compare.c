#include "worker/compare.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

struct compared {
    const struct technique *t;
    struct weight off, on;
};

static bool concerns(const struct technique *t, const struct config *c)
{
    return t->whom == FOR_ALL || (t->whom == FOR_FULL) == (c->recipe == RECIPE_FULL);
}

static void weigh_side(struct session *x, const char *settings, const struct gpu *rates, const struct data_shape *data, struct weight *w)
{
    const struct config *c = x->cfg;
    struct config *changed = NULL;
    *w = (struct weight){0};
    if (technique_apply(c, x->comm->size, settings, &changed))
        w->refused = technique_refusal();
    else
        weigh(x, changed, rates, data, w);
    x->cfg = c;
    config_free(changed);
}

static const char *refusal(const struct compared *r) { return r->on.refused ? r->on.refused : r->off.refused; }

/* ---- by category ------------------------------------------------------------------------------------------------------ */

struct change {
    const char *category;
    double saved; /* bytes of all kinds: negative where the technique takes some */
};

static void count_side(const struct weight *w, double sign, struct change *changes, int *n)
{
    for (int i = 0; i < w->n_sums; i++) {
        int at = 0;
        while (at < *n && strcmp(changes[at].category, w->sums[i].category)) at++;
        if (at == *n) changes[(*n)++] = (struct change){.category = w->sums[i].category};
        changes[at].saved += sign * (double)(w->sums[i].device + w->sums[i].host);
    }
}

static int changes_of(const struct compared *r, struct change changes[2 * PLAN_SUMS])
{
    int n = 0;
    count_side(&r->off, 1, changes, &n);
    count_side(&r->on, -1, changes, &n);
    return n;
}

/* ---- telling it ------------------------------------------------------------------------------------------------------- */

static const char *signed_bytes(double saved)
{
    static char ring[4][24];
    static int turn;
    char *text = ring[turn = (turn + 1) % 4];
    snprintf(text, sizeof *ring, "%s%s",
             saved == 0  ? ""
             : saved > 0 ? "-"
                         : "+",
             saved == 0 ? "0" : text_bytes(saved > 0 ? saved : -saved));
    return text;
}

static void text_row(const struct compared *r, bool apart, struct buf *out)
{
    struct change changes[2 * PLAN_SUMS];
    int n = changes_of(r, changes), shown = 0;
    if (refusal(r)) {
        buf_printf(out, "  %-26s refused here: %s\n", r->t->name, refusal(r));
        return;
    }
    buf_printf(out, "  %-26s %10s ", r->t->name, signed_bytes(apart ? (double)r->off.device - (double)r->on.device : 0));
    double slower = 100 * (r->on.token_s / r->off.token_s - 1);
    buf_printf(out, "%10s ", signed_bytes((double)r->off.host - (double)r->on.host));
    if (isnan(slower))
        buf_printf(out, "%9s  ", "–  ");
    else
        buf_printf(out, "%+7.1f %%  ", slower);
    double largest = 0;
    for (int i = 0; i < n; i++) largest = fmax(largest, fabs(changes[i].saved));
    double least = fmax(1, fmin(1e5, largest / 10)); /* of a small model, what is much of the change */
    for (int i = 0; i < n; i++)
        if (fabs(changes[i].saved) >= least)
            buf_printf(out, "%s%s %s", shown++ ? ", " : "", changes[i].category, signed_bytes(changes[i].saved));
    buf_text(out, shown ? "\n" : "nothing changes\n");
}

static json_t *json_weight(const struct weight *w)
{
    json_t *o = json_pack("{s:I,s:I}", "device_bytes", (json_int_t)w->device, "host_bytes", (json_int_t)w->host);
    json_object_set_new(o, "token_s", isnan(w->token_s) ? json_null() : json_real(w->token_s));
    return o;
}

static json_t *json_row(const struct compared *r)
{
    const struct technique *t = r->t;
    json_t *row = json_pack("{s:s,s:s,s:s,s:b,s:s,s:s,s:s}", "technique", t->name, "off_keys", t->off, "on_keys", t->on, "same_bits",
                            t->same_bits, "what", t->what, "when", t->when, "with", t->with);
    if (refusal(r)) {
        json_object_set_new(row, "refused", json_string(refusal(r)));
        return row;
    }
    struct change changes[2 * PLAN_SUMS];
    int n = changes_of(r, changes);
    json_t *saved = json_object();
    for (int i = 0; i < n; i++)
        if (changes[i].saved != 0) json_object_set_new(saved, changes[i].category, json_integer((json_int_t)changes[i].saved));
    json_object_set_new(row, "off", json_weight(&r->off));
    json_object_set_new(row, "on", json_weight(&r->on));
    json_object_set_new(row, "saved", saved);
    return row;
}

static void tell(const struct compared *r, bool apart, bool json, struct buf *out)
{
    if (!json) {
        text_row(r, apart, out);
        return;
    }
    json_t *row = json_row(r);
    char *line = json_dumps(row, JSON_COMPACT);
    buf_printf(out, "%s\n", line ? line : "{}");
    free(line);
    json_decref(row);
}

status compare(struct session *x, const struct gpu *asked, bool json, struct buf *out)
{
    const struct config *c = x->cfg;
    const struct data_shape data = data_shape_of(x);
    const struct gpu *rates = predict_rates(x, asked);
    bool apart = x->be->tensors_in == MEM_DEVICE;
    if (!json) {
        buf_printf(out, "techniques, each off and then on in this run; time by the speed model of %s\n", rates->full);
        buf_printf(out, "  %-26s %10s %10s %9s  %s\n", "", apart ? "device" : "", apart ? "host" : "memory", "time", "by category");
    }
    for (int i = 0; i < technique_count; i++) {
        struct compared r = {.t = &techniques[i]};
        if (!concerns(r.t, c)) continue;
        weigh_side(x, r.t->off, rates, &data, &r.off);
        weigh_side(x, r.t->on, rates, &data, &r.on);
        tell(&r, apart, json, out);
        free(r.off.refused);
        free(r.on.refused);
    }
    return session_replan(x, c);
}
