#include "checkpoints/ckpt_manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/jdoc.h"

/* 1: tensors straddled pages, a class had a stored element for each of the flat index. */
enum { VERSION = 2, HASH_LINE = 9 + 32 + 1 };
static const char format_name[] = "trimpot-checkpoint", hash_prefix[] = "xxh3-128 ";
static const int64_t max_count = (int64_t)1 << 56;

static int64_t stored_before(const struct ckpt_class *c, int64_t flat) { return (flat + c->per - 1) / c->per; }

int64_t ckpt_stored(const struct ckpt_class *c) { return stored_before(c, c->count); }

struct range ckpt_owned(const struct ckpt_class *c, int rank, int ranks)
{
    struct range flat = own(c->count, rank, ranks);
    return (struct range){stored_before(c, flat.lo), stored_before(c, flat.hi)};
}

bool ckpt_per_valid(int64_t per) { return per >= 1 && per <= OWN_PAGE && (per & (per - 1)) == 0; }

int64_t ckpt_piece_elements(dtype dt) { return CKPT_PIECE / (int64_t)dtype_bytes(dt); }

int64_t ckpt_pieces(const struct ckpt_part *p, dtype dt)
{
    int64_t each = ckpt_piece_elements(dt);
    return (p->hi - p->lo + each - 1) / each;
}

int64_t ckpt_first_piece(const struct ckpt_manifest *m, const struct ckpt_shard *s, int k)
{
    int64_t n = 0;
    for (int i = 0; i < k; i++) n += ckpt_pieces(&s->part[i], m->classes[i].dt);
    return n;
}

void ckpt_shard_name(char out[32], int rank, const char *suffix) { snprintf(out, 32, "shard-%05d.%s", rank, suffix); }

/* ---- writing ------------------------------------------------------------------------------------------------------
 */

static void shard_text(const struct ckpt_shard *s, int rank, int n_classes, struct buf *out)
{
    char file[32];
    ckpt_shard_name(file, rank, "h5");
    buf_printf(out, "{\"file\": \"%s\", \"bytes\": %lld, \"xxh3\": \"%s\", ", file, (long long)s->bytes, hash_text(s->hash));
    buf_printf(out, "\"sum_xxh3\": \"%s\",\n   \"parts\": [", hash_text(s->sum_hash));
    for (int k = 0; k < n_classes; k++)
        buf_printf(out, "%s[%lld, %lld, %lld, \"%s\"]", k ? ", " : "", (long long)s->part[k].lo, (long long)s->part[k].hi,
                   (long long)s->part[k].offset, hash_text(s->part[k].hash));
    buf_text(out, "]}");
}

void ckpt_manifest_text(const struct ckpt_state *s, const struct ckpt_shard *shards, int n_shards, struct buf *out)
{
    buf_printf(out, "{\"format\": \"%s\", \"version\": %d, \"step\": %lld, \"ranks\": %d, \"build\": ", format_name, VERSION,
               (long long)s->step, n_shards);
    jdoc_quote(out, TRIMPOT_BUILD_ID);
    buf_text(out, ",\n \"classes\": [");
    for (int i = 0; i < s->n_classes; i++) {
        buf_text(out, i ? ",\n  {\"name\": " : "\n  {\"name\": ");
        jdoc_quote(out, s->classes[i].name);
        buf_printf(out, ", \"dtype\": \"%s\", \"count\": %lld, \"per\": %lld}", dtype_name(s->classes[i].dt),
                   (long long)s->classes[i].count, (long long)s->classes[i].per);
    }
    buf_text(out, "],\n \"tensors\": [");
    for (int i = 0; i < s->n_tensors; i++) {
        const struct ckpt_tensor *t = &s->tensors[i];
        buf_text(out, i ? ",\n  [" : "\n  [");
        jdoc_quote(out, t->name);
        buf_text(out, ", [");
        for (int k = 0; k < t->rank; k++) buf_printf(out, "%s%lld", k ? ", " : "", (long long)t->dim[k]);
        buf_printf(out, "], %lld]", (long long)t->offset);
    }
    buf_text(out, "],\n \"shards\": [");
    for (int i = 0; i < n_shards; i++) {
        buf_text(out, i ? ",\n  " : "\n  ");
        shard_text(&shards[i], i, s->n_classes, out);
    }
    buf_printf(out, "]}\n%s\n", s->meta_json);
    buf_printf(out, "%s%s\n", hash_prefix, hash_text(hash_bytes(out->data, out->len)));
}

/* ---- reading: nothing in it is believed before it is checked
 * --------------------------------------------------------- */

/* Checks the last line; *body = bytes above it. */
static status check_hash(const char *path, const char *text, size_t n, size_t *body)
{
    hash128 said;
    const char *line = text + n - HASH_LINE;
    if (n <= HASH_LINE || line[-1] != '\n' || text[n - 1] != '\n' || memcmp(line, hash_prefix, sizeof hash_prefix - 1) != 0 ||
        !hash_parse(line + sizeof hash_prefix - 1, &said))
        FAIL(ST_CORRUPT, "%s: does not end with its hash; it is truncated or no manifest", path);
    *body = n - HASH_LINE;
    hash128 is = hash_bytes(text, *body);
    if (!hash_equal(is, said)) FAIL(ST_CORRUPT, "%s: its hash is %s but it says %s", path, hash_text(is), hash_text(said));
    return ST_OK;
}

static status bad_item(const char *path, const char *list, size_t i, const json_t *v)
{
    FAIL(ST_CORRUPT, "%s: %s[%zu] is %s", path, list, i, jdoc_show(v));
}

/* A list of at most `max` items, or ST_CORRUPT. */
static status need_list(const struct jdoc *d, const char *key, size_t max, json_t **out, int *n)
{
    *out = jdoc_get(d, key);
    if (!json_is_array(*out) || json_array_size(*out) > max) FAIL(ST_CORRUPT, "%s: %s is no list of at most %zu items", d->path, key, max);
    *n = (int)json_array_size(*out);
    return ST_OK;
}

static bool natural(const json_t *v, int64_t *out)
{
    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= 0 && *out <= max_count;
}

static bool plain_word(const char *s)
{
    size_t n = s ? strlen(s) : 0;
    return n > 0 && n < 32 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static status parse_classes(const struct jdoc *d, struct ckpt_manifest *m)
{
    json_t *list;
    int n;
    TRY(need_list(d, "classes", CKPT_MAX_CLASSES, &list, &n));
    for (int i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        struct ckpt_class c = {.dt = DT_COUNT};
        const char *dt = json_string_value(json_object_get(v, "dtype")), *name = json_string_value(json_object_get(v, "name"));
        for (int k = 0; dt && k < DT_COUNT; k++)
            if (strcmp(dtype_name((dtype)k), dt) == 0) c.dt = (dtype)k;
        bool fresh = plain_word(name);
        for (int k = 0; k < i && fresh; k++) fresh = strcmp(m->classes[k].name, name) != 0;
        if (!fresh || c.dt == DT_COUNT || !natural(json_object_get(v, "count"), &c.count) || !natural(json_object_get(v, "per"), &c.per) ||
            !ckpt_per_valid(c.per))
            return bad_item(d->path, "classes", (size_t)i, v);
        c.name = mem_strdup(name);
        m->classes[m->n_classes++] = c;
    }
    return ST_OK;
}

static status parse_tensor(const char *path, size_t i, const json_t *v, int64_t space, struct ckpt_tensor *t)
{
    const char *name = json_string_value(json_array_get(v, 0));
    const json_t *dims = json_array_get(v, 1);
    size_t rank = json_array_size(dims);
    int64_t count = 1;
    if (json_array_size(v) != 3 || !name || !json_is_array(dims) || rank > 4 || !natural(json_array_get(v, 2), &t->offset))
        return bad_item(path, "tensors", i, v);
    for (size_t k = 0; k < rank; k++)
        if (!natural(json_array_get(dims, k), &t->dim[k]) || __builtin_mul_overflow(count, t->dim[k], &count))
            return bad_item(path, "tensors", i, v);
    if (count > space - t->offset || t->offset > space)
        FAIL(ST_CORRUPT, "%s: tensors[%zu] %s ends beyond the %lld elements of its class", path, i, jdoc_show(v), (long long)space);
    t->rank = (int)rank;
    t->name = mem_strdup(name);
    return ST_OK;
}

static status parse_tensors(const struct jdoc *d, struct ckpt_manifest *m)
{
    json_t *list;
    int n;
    int64_t space = 0;
    TRY(need_list(d, "tensors", INT32_MAX, &list, &n));
    for (int k = 0; k < m->n_classes; k++)
        if (m->classes[k].count > space) space = m->classes[k].count;
    m->tensors = mem_alloc((size_t)(n + 1) * sizeof *m->tensors);
    for (int i = 0; i < n; i++) {
        TRY(parse_tensor(d->path, (size_t)i, json_array_get(list, (size_t)i), space, &m->tensors[i]));
        m->n_tensors++;
    }
    return ST_OK;
}

static bool parse_part(const json_t *v, const struct ckpt_class *c, int64_t file_bytes, struct ckpt_part *p)
{
    int64_t bytes, end, size = (int64_t)dtype_bytes(c->dt);
    if (json_array_size(v) != 4 || !natural(json_array_get(v, 0), &p->lo) || !natural(json_array_get(v, 1), &p->hi) ||
        !natural(json_array_get(v, 2), &p->offset) || !hash_parse(json_string_value(json_array_get(v, 3)), &p->hash))
        return false;
    int64_t stored = ckpt_stored(c);
    if (p->lo > p->hi || p->hi > stored || (p->lo * c->per % OWN_PAGE && p->lo != stored)) return false;
    return !__builtin_mul_overflow(p->hi - p->lo, size, &bytes) && !__builtin_add_overflow(p->offset, bytes, &end) && end <= file_bytes;
}

static status parse_shards(const struct jdoc *d, struct ckpt_manifest *m, int64_t ranks)
{
    json_t *list;
    TRY(need_list(d, "shards", CKPT_MAX_RANKS, &list, &m->n_shards));
    if (m->n_shards != ranks) FAIL(ST_CORRUPT, "%s: has %d shards but ranks is %lld", d->path, m->n_shards, (long long)ranks);
    m->shards = mem_alloc((size_t)m->n_shards * sizeof *m->shards);
    for (int i = 0; i < m->n_shards; i++) {
        const json_t *v = json_array_get(list, (size_t)i), *parts = json_object_get(v, "parts");
        const char *file = json_string_value(json_object_get(v, "file"));
        struct ckpt_shard *s = &m->shards[i];
        char want[32];
        ckpt_shard_name(want, i, "h5");
        bool good = file && strcmp(file, want) == 0 && natural(json_object_get(v, "bytes"), &s->bytes) &&
                    hash_parse(json_string_value(json_object_get(v, "xxh3")), &s->hash) &&
                    hash_parse(json_string_value(json_object_get(v, "sum_xxh3")), &s->sum_hash) &&
                    json_array_size(parts) == (size_t)m->n_classes;
        for (int k = 0; k < m->n_classes && good; k++)
            good = parse_part(json_array_get(parts, (size_t)k), &m->classes[k], s->bytes, &s->part[k]);
        if (!good) return bad_item(d->path, "shards", (size_t)i, v);
    }
    return ST_OK;
}

/* The parts of every class must follow each other from 0 to count. */
static status check_tiling(const char *path, const struct ckpt_manifest *m)
{
    for (int k = 0; k < m->n_classes; k++) {
        int64_t at = 0;
        for (int i = 0; i < m->n_shards; i++) {
            if (m->shards[i].part[k].lo != at)
                FAIL(ST_CORRUPT, "%s: class %s has a gap or overlap at element %lld", path, m->classes[k].name, (long long)at);
            at = m->shards[i].part[k].hi;
        }
        if (at != ckpt_stored(&m->classes[k]))
            FAIL(ST_CORRUPT, "%s: the shards of class %s end at element %lld of %lld", path, m->classes[k].name, (long long)at,
                 (long long)ckpt_stored(&m->classes[k]));
    }
    return ST_OK;
}

static status parse_body(const struct jdoc *d, struct ckpt_manifest *m)
{
    char format[32] = "";
    int64_t version = 0, ranks = 0;
    m->step = -1;
    TRY(jdoc_string(d, "format", format, sizeof format));
    if (strcmp(format, format_name) != 0) FAIL(ST_CORRUPT, "%s: format is not \"%s\"", d->path, format_name);
    TRY(jdoc_need(d, "version"));
    TRY(jdoc_i64(d, "version", 1, INT32_MAX, &version));
    if (version != VERSION)
        FAIL(ST_NOT_BUILT,
             "%s: checkpoint version %lld was written by %s build of trimpot, this one reads version %d; go on with that "
             "build, or start over with resume_from_checkpoint=false",
             d->path, (long long)version, version < VERSION ? "an older" : "a newer", VERSION);
    TRY(jdoc_need(d, "step"));
    TRY(jdoc_i64(d, "step", 0, max_count, &m->step));
    TRY(jdoc_need(d, "ranks"));
    TRY(jdoc_i64(d, "ranks", 1, CKPT_MAX_RANKS, &ranks));
    TRY(parse_classes(d, m));
    TRY(parse_tensors(d, m));
    TRY(parse_shards(d, m, ranks));
    return check_tiling(d->path, m);
}

status ckpt_manifest_parse(const char *path, const char *text, size_t n, struct ckpt_manifest **manifest)
{
    *manifest = NULL;
    size_t body = 0, used = 0;
    TRY(check_hash(path, text, n, &body));
    json_t *root = NULL, *meta = NULL;
    struct ckpt_manifest *m = mem_alloc(sizeof *m);
    status st;
    TRY_DONE(jdoc_parse(path, text, body, &root, &used));
    struct jdoc d = {path, "", root};
    TRY_DONE(parse_body(&d, m));
    while (used < body && (text[used] == '\n' || text[used] == ' ')) used++;
    while (body > used && text[body - 1] == '\n') body--;
    TRY_DONE(jdoc_parse(path, text + used, body - used, &meta, NULL));
    m->meta_json = mem_alloc(body - used + 1);
    memcpy(m->meta_json, text + used, body - used);
    *manifest = m;
    m = NULL;
done:
    ckpt_manifest_free(m);
    json_decref(root);
    json_decref(meta);
    return st;
}

void ckpt_manifest_free(struct ckpt_manifest *m)
{
    if (!m) return;
    for (int i = 0; i < m->n_classes; i++) free((char *)(uintptr_t)m->classes[i].name);
    for (int i = 0; i < m->n_tensors; i++) free((char *)(uintptr_t)m->tensors[i].name);
    free(m->tensors);
    free(m->shards);
    free(m->meta_json);
    free(m);
}
