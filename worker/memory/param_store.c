#include "worker/memory/param_store.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collectives/own.h"
#include "kernels/base/text.h"
#include "kernels/quant_maps.h"

enum { SMALL_ALIGN = 256 };

struct param_policy param_policy_of(const struct config *c, const struct bnb_config *directory)
{
    return (struct param_policy){.nf4 = c->model.quantize_base || directory->is,
                                 .in_turn = !c->dequantize_ahead,
                                 .stored = directory->is ? directory : NULL};
}

void param_store_init(struct param_store *ps, const struct backend *be, dtype act, dtype trained_dt, bool masters,
                      const struct param_policy *frozen)
{
    *ps = (struct param_store){
        .be = be, .bnb = frozen->stored, .act = act, .trained_dt = trained_dt, .masters = masters, .borrowed = -1, .inside = -1};
    ps->ahead = !frozen->in_turn && be->tensors_in == MEM_DEVICE; /* whose time is its own: it decodes while it computes */
    ps->joins = be->joins_products && (!frozen->nf4 || ps->ahead);
}

void param_store_release(struct param_store *ps)
{
    param_layers_release(ps);
    free(ps->p);
    free(ps->seg_table);
    *ps = (struct param_store){0};
}

int param_add(struct param_store *ps, enum param_kind kind, int64_t dim0, int64_t dim1, const char *name, ...)
{
    if (ps->n == ps->cap) {
        ps->cap = ps->cap ? 2 * ps->cap : 256;
        ps->p = mem_grow(ps->p, (size_t)ps->cap * sizeof *ps->p);
    }
    struct param *p = &ps->p[ps->n];
    *p = (struct param){.kind = kind,
                        .rank = dim1 ? 2 : 1,
                        .dim = {dim0, dim1 ? dim1 : 1},
                        .layer = -1,
                        .uses = 1,
                        .scale = 1,
                        .lr_mult = 1,
                        .wd_mult = 1,
                        .next = -1,
                        .joins = -1};
    p->count = p->dim[0] * p->dim[1];
    va_list ap;
    va_start(ap, name);
    vsnprintf(p->name, sizeof p->name, name, ap);
    va_end(ap);
    return ps->n++;
}

/* ---- finding them in the files ------------------------------------------------------------------------------------ */

bool param_shape_agrees(const struct param *p, const struct st_entry *e)
{
    return e->rank == p->rank && e->dim[0] == p->dim[0] && (p->rank == 1 || e->dim[1] == p->dim[1]);
}

bool param_dtype_loads(const struct st_entry *e) { return e->known && (e->dt == DT_F32 || e->dt == DT_BF16 || e->dt == DT_F16); }

/* Tensors that files carry and nobody needs: stale RoPE buffers. */
static bool ignorable(const char *name) { return strstr(name, "rotary_emb.inv_freq") != NULL; }

/* What a quantised file holds beside or in place of a weight; of bitsandbytes' it is read where config.json says so. */
enum { NF4_ENDS = 3 };
static const struct {
    const char *end, *by;
} PACKED[] = {
    {".quant_state.bitsandbytes__nf4", "bitsandbytes NF4"},
    {".quant_state.bitsandbytes__fp4", "bitsandbytes FP4"},
    {".quant_map", "bitsandbytes"},
    {".SCB", "bitsandbytes 8-bit"},
    {".qweight", "GPTQ or AWQ"},
    {".weight_packed", "compressed-tensors"},
    {".weight_scale", "FP8 or compressed-tensors"},
    {".weight_scale_inv", "FP8"},
    {".weight_scales", "EETQ"},
    {".weight._data", "quanto"},
    {".W_q", "HQQ"},
    {".scales", "MLX or another block-wise quantisation"},
};

static status refuse_packed(const struct st_set *files, const char *dir, bool bnb)
{
    for (int i = 0; i < files->n; i++)
        for (size_t k = bnb ? NF4_ENDS : 0; k < sizeof PACKED / sizeof *PACKED; k++) {
            const char *name = files->entries[i].name;
            size_t n = strlen(name), end = strlen(PACKED[k].end);
            if (n >= end && !strcmp(name + n - end, PACKED[k].end))
                FAIL(ST_NOT_BUILT,
                     "%s: the weights are already quantised (%s: there is %s%s), which is not read; use the original, "
                     "unquantised model: model.quantize_base=true (or a qlora_ component) quantises it to NF4 while loading",
                     dir, PACKED[k].by, name, k < NF4_ENDS ? ", but config.json has no quantization_config" : "");
        }
    return ST_OK;
}

/* The tensor of a parameter under any of the names that transformers takes for it: files of the bare decoder (LlamaModel)
 * lack "model.", files of a module around the whole have one more. More than one is an error of the files. */
static const struct st_entry *find_as(const struct st_set *files, const char *name, const char **other)
{
    static const char prefix[] = "model.";
    char longer[sizeof prefix + sizeof((struct param *)0)->name];
    snprintf(longer, sizeof longer, "%s%s", prefix, name);
    const char *shorter = strncmp(name, prefix, sizeof prefix - 1) ? name : name + sizeof prefix - 1;
    const char *const names[] = {name, longer, shorter != name ? shorter : NULL};
    const struct st_entry *found = NULL;
    *other = NULL;
    for (int i = 0; i < 3; i++) {
        const struct st_entry *e = names[i] ? st_find(files, names[i]) : NULL;
        if (e && found)
            *other = e->name;
        else if (e)
            found = e;
    }
    return found;
}

const struct st_entry *param_file_entry(const struct st_set *files, const char *name)
{
    const char *other;
    return find_as(files, name, &other);
}

struct matching {
    const struct st_set *files;
    bool *taken;       /* by file entry */
    struct buf report; /* one line per fault, the first 20 */
    int bad;
    status st; /* of the first quantised weight that cannot be read */
};

static bool complain(struct matching *m) { return ++m->bad <= 20; }

/* Of a directory with quantised weights: those that should be are, and no others. */
static status take_stored(struct param_store *ps, struct matching *m, struct param *p, const struct st_entry *e)
{
    if (p->stored) return param_stored_find(ps, p, m->files, e, m->taken);
    if (!ps->bnb || !bnb_is_quantised(m->files, e->name)) return ST_OK;
    FAIL(ST_NOT_BUILT, "%s: %s is quantised, which %s; save the directory again with it as it was", e->file, e->name,
         p->layer < 0 ? "is read of the linears of blocks only" : "llm_int8_skip_modules of config.json says it is not");
}

static void take(struct param_store *ps, struct matching *m, struct param *p, bool tied)
{
    dtype act = ps->act;
    const char *other;
    const struct st_entry *e = find_as(m->files, p->name, &other);
    /* tied: whichever of the two is there is both */
    bool embed = !strcmp(p->name, PARAM_EMBED), head = !strcmp(p->name, PARAM_HEAD);
    if (tied && (embed || head)) {
        const struct st_entry *twin = param_file_entry(m->files, embed ? PARAM_HEAD : PARAM_EMBED);
        if (twin) m->taken[twin - m->files->entries] = true;
        if (!e) e = twin;
    }
    if (e) m->taken[e - m->files->entries] = true;
    if (e && !m->st) m->st = take_stored(ps, m, p, e);
    bool as_is = p->stored || m->st;
    const char *problem = !e                                    ? "missing"
                          : !as_is && !param_shape_agrees(p, e) ? "wrong shape"
                          : !as_is && !param_dtype_loads(e)     ? "wrong dtype"
                                                                : NULL;
    if (!problem && !other)
        p->source = e;
    else if (!complain(m))
        return;
    else if (!problem)
        buf_printf(&m->report, "\n  twice: %s and %s", e->name, other);
    else {
        tensor want = {.rank = p->rank, .dim = {p->dim[0], p->dim[1]}, .dt = act};
        buf_printf(&m->report, "\n  %s: %s (config.json asks for %s", problem, p->name, tensor_text(&want));
        if (e)
            buf_printf(&m->report, "; the file has [%lld%s%lld] %s", (long long)e->dim[0], e->rank > 1 ? ", " : "; rank ",
                       (long long)(e->rank > 1 ? e->dim[1] : e->rank), e->dtype_text);
        buf_text(&m->report, ")");
    }
}

void param_store_imagine(struct param_store *ps)
{
    for (int i = 0; i < ps->n; i++) ps->p[i].imagined = ps->p[i].kind != PARAM_ADAPTER;
}

status param_store_match(struct param_store *ps, const struct st_set *files, const char *dir, bool tied, bool random)
{
    if (random) return ST_OK;
    TRY(refuse_packed(files, dir, ps->bnb != NULL));
    struct matching m = {.files = files, .taken = mem_alloc((size_t)(files->n + 1) * sizeof *m.taken)};
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i].kind != PARAM_ADAPTER) take(ps, &m, &ps->p[i], tied);
    for (int i = 0; i < files->n; i++)
        if (!m.taken[i] && !ignorable(files->entries[i].name) && complain(&m))
            buf_printf(&m.report, "\n  extra: %s", files->entries[i].name);
    if (m.bad > 20) buf_printf(&m.report, "\n  … and %d more", m.bad - 20);
    status st = m.st || !m.bad ? m.st
                               : status_fail(ST_SHAPE,
                                             "%s: the safetensors files do not hold the model that config.json describes:%s\n"
                                             "  check that both come from the same model",
                                             dir, m.report.data);
    free(m.taken);
    buf_release(&m.report);
    return st;
}

/* ---- layout ------------------------------------------------------------------------------------------------------- */

static int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* An f32 adapter whose working copy would equal it needs none; where one adapter needs one, all have. */
static bool needs_copies(const struct param_store *ps)
{
    for (int i = 0; i < ps->n; i++)
        if (ps->p[i].kind >= PARAM_ADAPTER && (ps->act == DT_BF16 || ps->p[i].scale != 1)) return true;
    return false;
}

static int by_place(const void *a, const void *b)
{
    const struct seg *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

/* The table of trained tensors: in the order of the index, their norm partials in the order in which they were added. */
static void tabulate(struct param_store *ps)
{
    bool copies = needs_copies(ps);
    free(ps->seg_table);
    ps->seg_table = mem_alloc((size_t)(ps->n + 1) * sizeof *ps->seg_table);
    ps->segs = (struct segs){.host = ps->seg_table};
    ps->n_partials = 0;
    for (int i = 0; i < ps->n; i++) {
        struct param *p = &ps->p[i];
        if (!param_is_trained(p)) continue;
        p->partial = ps->n_partials;
        ps->n_partials += param_pages(p);
    }
    for (int i = 0; i < ps->n; i++) {
        const struct param *p = &ps->p[i];
        if (param_is_trained(p))
            ps->seg_table[ps->segs.n++] =
                (struct seg){.at = p->flat,
                             .count = p->count,
                             .partial = p->partial,
                             .lr_mult = p->lr_mult,
                             .wd_mult = p->wd_mult,
                             .scale = copies && (p->kind == PARAM_ADAPTER || (p->kind == PARAM_SAVED && ps->act != ps->trained_dt))
                                          ? p->scale
                                          : 0};
    }
    qsort(ps->seg_table, (size_t)ps->segs.n, sizeof *ps->seg_table, by_place);
}

/* The first place from `at` on for so many elements. */
static int64_t place(int64_t at, int64_t count)
{
    at = whole(at, SMALL_ALIGN);
    return count > whole(at, OWN_PAGE) - at ? whole(at, OWN_PAGE) : at; /* does not fit into what is left of the page */
}

static int64_t row_count(const struct param_store *ps, int first)
{
    int64_t total = 0;
    for (int i = first; i >= 0; i = ps->p[i].next) total += ps->p[i].count;
    return total;
}

/* The first place from `at` on for the row, or -1: its members, placed one by one, would not lie side by side. */
static int64_t place_row(const struct param_store *ps, int first, int64_t at)
{
    int64_t start = place(at, row_count(ps, first)), end = start;
    for (int i = first; i >= 0; i = ps->p[i].next) {
        if (place(end, ps->p[i].count) != end) return -1;
        end += ps->p[i].count;
    }
    return start;
}

/* What large tensors leave of a page before they begin on the next one: the newest, so that neighbours in time stay neighbours. */
enum { GAPS = 8 };
struct gaps {
    struct range at[GAPS];
    int n;
};

static void leave_gap(struct gaps *g, int64_t lo, int64_t hi)
{
    if (lo >= hi) return;
    if (g->n == GAPS) memmove(g->at, g->at + 1, (size_t)--g->n * sizeof *g->at);
    g->at[g->n++] = (struct range){lo, hi};
}

/* A place for the row in a gap, -1: none is wide enough. */
static int64_t fill_gap(struct gaps *g, const struct param_store *ps, int first)
{
    int64_t total = row_count(ps, first);
    for (int k = 0; k < g->n; k++) {
        int64_t start = place_row(ps, first, g->at[k].lo);
        if (start < 0 || start + total > g->at[k].hi) continue;
        g->at[k].lo = start + total;
        return start;
    }
    return -1;
}

static void part_row(struct param_store *ps, int first)
{
    for (int i = first, next; i >= 0; i = next) {
        next = ps->p[i].next;
        ps->p[i].next = -1;
    }
}

static void settle(struct param_store *ps, int first, int64_t at)
{
    for (int k = first; k >= 0; k = ps->p[k].next) {
        assert(ps->p[k].next < k);
        ps->p[k].flat = at;
        at += ps->p[k].count;
    }
}

void param_store_index(struct param_store *ps)
{
    struct gaps gaps = {.n = 0};
    int64_t end = 0;
    for (int i = 0; i < ps->n; i++) ps->p[i].flat = -1;
    for (int i = ps->n - 1; i >= 0; i--) {
        if (!param_is_trained(&ps->p[i]) || ps->p[i].flat >= 0) continue;
        if (place_row(ps, i, end) < 0) part_row(ps, i);
        int64_t start = fill_gap(&gaps, ps, i);
        if (start < 0) {
            start = place_row(ps, i, end);
            leave_gap(&gaps, end, start);
            end = start + row_count(ps, i);
        }
        settle(ps, i, start);
    }
    ps->flat_count = whole(end, SMALL_ALIGN);
    tabulate(ps);
}

static bool can_map(const struct param_store *ps, const struct param *p)
{
    return ps->be->tensors_in == MEM_HOST && !p->rewritten && p->source && p->source->dt == ps->act &&
           (uintptr_t)p->source->data % dtype_bytes(ps->act) == 0;
}

static void take_frozen(struct param_store *ps, struct param *p, struct arena *a)
{
    p->mapped = can_map(ps, p) && !param_has_room(p);
    if (p->mapped) {
        p->value = param_shaped(p, (void *)(uintptr_t)p->source->data, ps->act);
        ps->mapped_bytes += p->source->bytes;
    } else if (param_has_room(p)) {
        void *data =
            arena_take(a, (size_t)param_extent(p) * dtype_bytes(ps->act), "weights with room for adapters, %s", dtype_name(ps->act));
        p->value = param_shaped(p, data, ps->act);
    } else {
        p->value = param_shaped(p, arena_take(a, (size_t)p->count * dtype_bytes(ps->act), "weights, %s", dtype_name(ps->act)), ps->act);
    }
}

static void take_nf4(struct param_store *ps, struct param *p, struct arena *a)
{
    struct nf4_sizes n = nf4_sizes(p->count);
    if (!p->once) p->nf4.offset = tensor_1d(arena_take(a, 4, "NF4 nested scales"), DT_F32, 1);
    if (p->stored && param_stored_map(ps, p)) return;
    p->nf4.codes = tensor_1d(arena_take(a, (size_t)n.codes, "NF4 codes"), DT_U8, n.codes);
    if (p->once) {
        p->nf4.absmax = tensor_1d(arena_take(a, (size_t)n.blocks * 4, "NF4 scales, f32"), DT_F32, n.blocks);
        return;
    }
    p->nf4.absmax_q = tensor_1d(arena_take(a, (size_t)n.blocks, "NF4 scales"), DT_U8, n.blocks);
    p->nf4.nested = tensor_1d(arena_take(a, (size_t)n.nested * 4, "NF4 nested scales"), DT_F32, n.nested);
}

static tensor flat_view(const struct param *p, void *flat, dtype dt)
{
    return param_shaped(p, flat ? (char *)flat + (size_t)p->flat * dtype_bytes(dt) : NULL, dt);
}

/* One linear in f32 on its way to NF4, and one dequantised: what is loaded is not computed with yet, so that the first lies where
 * dequantised weights will, if these take as much. */
static void layout_linears(struct param_store *ps, struct arena *scratch, int64_t widest, int64_t largest)
{
    size_t wide = (size_t)widest * 4, narrow = (size_t)largest * dtype_bytes(ps->act);
    bool placed = ps->decode && (size_t)ps->layer_count * dtype_bytes(ps->act) >= wide;
    void *place = placed ? ps->buffer[0].data : NULL;
    if (narrow) {
        void *linear = arena_take(scratch, wide > narrow && !placed ? wide : narrow, "dequantised linear, %s", dtype_name(ps->act));
        ps->dequantised = tensor_1d(linear, ps->act, largest);
        if (!placed) place = linear;
    } else if (wide && !placed)
        place = arena_take(scratch, wide, "linear to be quantised, f32");
    ps->wide = tensor_1d(place, DT_F32, widest);
}

bool param_store_lend(const struct param_store *ps, size_t bytes, void **out)
{
    bool taken = ps->wide.dim[0] && !ps->decode;
    size_t element = dtype_bytes(ps->act);
    for (int k = 0; k < PARAM_KEPT; k++) {
        *out = ps->kept[k].data;
        if (bytes <= (size_t)ps->kept[k].count * element) return true;
    }
    *out = ps->dequantised.data;
    return !taken && bytes <= (size_t)ps->dequantised.dim[0] * element;
}

void param_store_layout(struct param_store *ps, struct arena *frozen, struct arena *trained, struct arena *scratch)
{
    dtype dt = ps->trained_dt;
    int64_t largest = 0, widest = 0, kept[PARAM_KEPT] = {0};
    ps->mapped_bytes = 0;
    if (ps->flat_count) {
        ps->flat = arena_take(trained, (size_t)ps->flat_count * dtype_bytes(dt), "parameters, %s", dtype_name(dt));
        if (ps->masters) ps->flat_master = arena_take(trained, (size_t)ps->flat_count * 4, "master parameters, f32");
        if (needs_copies(ps))
            ps->flat_work =
                arena_take(trained, (size_t)ps->flat_count * dtype_bytes(ps->act), "adapter working copies, %s", dtype_name(ps->act));
        ps->segs.dev = arena_take(trained, (size_t)ps->segs.n * sizeof *ps->segs.dev, "table of trained tensors");
    }
    for (int i = 0; i < ps->n; i++) {
        struct param *p = &ps->p[i];
        if (p->kind == PARAM_FROZEN) take_frozen(ps, p, frozen);
        if (p->kind == PARAM_NF4) {
            take_nf4(ps, p, frozen);
            if (!param_is_ahead(ps, p) && !p->kept && p->count > largest) largest = p->count;
            if (p->kept && p->count > kept[p->kept - 1]) kept[p->kept - 1] = p->count;
        }
        if (param_load_widens(p) && p->count > widest) widest = p->count;
        if (!param_is_trained(p)) continue;
        p->value = flat_view(p, ps->flat, dt);
        if (ps->masters) p->master = flat_view(p, ps->flat_master, DT_F32);
        p->work = param_is_copied(ps, p) ? flat_view(p, ps->flat_work, ps->act) : p->value;
    }
    for (int k = 0; k < PARAM_KEPT; k++) {
        ps->kept[k].count = kept[k];
        if (kept[k])
            ps->kept[k].data = arena_take(scratch, (size_t)kept[k] * dtype_bytes(ps->act), "dequantised linears, %s", dtype_name(ps->act));
    }
    param_layers_layout(ps, scratch);
    layout_linears(ps, scratch, widest, largest);
}

void param_keep(struct param_store *ps, int id, int place)
{
    struct param *p = &ps->p[id];
    assert(place < PARAM_KEPT);
    if (p->kind == PARAM_NF4 && !param_is_ahead(ps, p)) p->kept = 1 + place;
}

/* ---- use ---------------------------------------------------------------------------------------------------------- */

status param_acquire(struct param_store *ps, struct stream *s, int id, tensor *out)
{
    struct param *p = &ps->p[id];
    if (p->kind != PARAM_NF4) {
        *out = p->kind == PARAM_FROZEN ? p->value : p->work;
        return ST_OK;
    }
    if (param_is_ahead(ps, p)) {
        assert(ps->inside == p->layer);
        *out = p->value;
        return ST_OK;
    }
    struct param_kept *kept = p->kept ? &ps->kept[p->kept - 1] : NULL;
    void *data = kept ? kept->data : ps->dequantised.data;
    *out = param_shaped(p, data, ps->act);
    if (kept && kept->id == id) return ST_OK;
    if (kept) {
        kept->id = id;
    } else {
        assert(ps->borrowed < 0);
        ps->borrowed = id;
    }
    if (ps->replaced) return param_fetch(ps->replaced, p, *out);
    struct nf4_args q = p->nf4;
    q.w = tensor_1d(data, ps->act, p->count);
    return op_nf4_dequantize(s, &q);
}

void param_done(struct param_store *ps, int id)
{
    if (ps->borrowed == id) ps->borrowed = -1;
}

status param_acquire_row(struct param_store *ps, struct stream *s, int first, tensor *out)
{
    assert(ps->p[first].kind == PARAM_ADAPTER);
    TRY(param_acquire(ps, s, first, out));
    for (int i = ps->p[first].next; i >= 0; i = ps->p[i].next) {
        assert(ps->p[i].kind == PARAM_ADAPTER && ps->p[i].dim[1] == out->dim[1]);
        out->dim[0] += ps->p[i].dim[0];
    }
    return ST_OK;
}
