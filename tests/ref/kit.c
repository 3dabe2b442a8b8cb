#include "tests/ref/kit.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/philox.h"
#include "kernels/base/text.h"

double kit_uniform(struct kit *k) { return (double)(rng_mix(k->state++) >> 11) * 0x1p-52 - 1; }

void *kit_memory(struct kit *k, size_t bytes)
{
    if (k->n_owned == (int)(sizeof k->owned / sizeof k->owned[0])) abort();
    struct block *b = &k->owned[k->n_owned++];
    *b = (struct block){mem_alloc(bytes + 64), bytes, false};
    return b->at;
}

void *kit_twin(struct kit *k, const void *host, size_t bytes)
{
    for (int i = 0; i < k->n_owned; i++)
        if (k->owned[i].at == host) k->owned[i].host = true;
    return memcpy(kit_memory(k, bytes), host, bytes);
}

struct ints kit_ints(struct kit *k, const int32_t *host, int64_t n)
{
    return (struct ints){host, kit_twin(k, host, (size_t)n * sizeof *host)};
}

static void put(tensor *t, int64_t at, double x)
{
    tensor one = tensor_1d((char *)t->data + (size_t)at * dtype_bytes(t->dt), t->dt, 1);
    mat_store(&one, (struct mat){1, 1, &x});
}

static tensor blank(struct kit *k, int64_t rows, int64_t cols, dtype value)
{
    dtype dt = k->f64 ? DT_F64 : value;
    int64_t ld = rows ? cols + k->pad : cols;
    if (rows) {
        tensor t = tensor_2d(kit_memory(k, (size_t)(rows * ld) * dtype_bytes(dt)), dt, rows, cols);
        t.ld = ld;
        return t;
    }
    return tensor_part(tensor_1d(kit_memory(k, (size_t)(k->pad + cols) * dtype_bytes(dt)), dt, k->pad + cols), k->pad, cols);
}

static tensor filled(struct kit *k, int64_t rows, int64_t cols, dtype value, double scale)
{
    tensor t = blank(k, rows, cols, value);
    for (int64_t i = 0; scale != 0 && i < (rows ? rows : 1); i++)
        for (int64_t j = 0; j < cols; j++) put(&t, i * t.ld + j, ref_round(value, scale * kit_uniform(k)));
    return t;
}

tensor kit_act(struct kit *k, int64_t rows, int64_t cols, double scale) { return filled(k, rows, cols, k->value, scale); }
tensor kit_f32(struct kit *k, int64_t rows, int64_t cols, double scale) { return filled(k, rows, cols, DT_F32, scale); }
tensor kit_f16(struct kit *k, int64_t rows, int64_t cols, double scale) { return filled(k, rows, cols, DT_F16, scale); }

tensor kit_grid(struct kit *k, int64_t rows, int64_t cols)
{
    tensor t = blank(k, rows, cols, k->value);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) put(&t, i * t.ld + j, floor(100 * kit_uniform(k)) / 16);
    return t;
}

tensor kit_u8(struct kit *k, int64_t n)
{
    tensor t = tensor_part(tensor_1d(kit_memory(k, (size_t)(k->pad + n)), DT_U8, k->pad + n), k->pad, n);
    for (int64_t i = 0; i < n; i++) ((uint8_t *)t.data)[i] = (uint8_t)rng_mix(k->state++);
    return t;
}

int32_t *kit_indices(struct kit *k, int64_t n, int64_t limit, bool distinct)
{
    int32_t *index = kit_memory(k, (size_t)n * sizeof *index);
    for (int64_t i = 0; i < n; i++) /* distinct: ascending with gaps */
        index[i] = distinct ? (int32_t)(i * limit / n) : (int32_t)(rng_mix(k->state++) % (uint64_t)limit);
    return index;
}

struct rows_at kit_rows(struct kit *k, const struct docs *d)
{
    int32_t *position = kit_memory(k, (size_t)d->n_tokens * sizeof *position);
    int64_t *sample = kit_memory(k, (size_t)d->n_tokens * sizeof *sample);
    for (int64_t i = 0; i < d->n_docs; i++)
        for (int32_t t = d->start.host[i]; t < d->start.host[i + 1]; t++) {
            position[t] = t - d->start.host[i] + (d->past.host ? d->past.host[i] : 0);
            sample[t] = 1000003 * i + 17;
        }
    return (struct rows_at){position, sample};
}

struct docs kit_docs(struct kit *k, int64_t tokens, int64_t n_docs)
{
    int32_t *start = kit_memory(k, (size_t)(n_docs + 2) * sizeof *start);
    struct docs d = {
        .n_docs = n_docs + (n_docs > 1),
        .n_tokens = tokens,
    };
    for (int64_t i = n_docs; i <= d.n_docs; i++) start[i] = (int32_t)tokens;
    for (int64_t i = 0; i < n_docs; i++) start[i] = (int32_t)(tokens * i * i / (n_docs * n_docs)); /* uneven, the first may be empty */
    for (int64_t i = 0; i < n_docs; i++)
        if (start[i + 1] - start[i] > d.longest) d.longest = start[i + 1] - start[i];
    if (n_docs > 1) d.longest += 3;
    d.positions = d.longest;
    d.start = kit_ints(k, start, d.n_docs + 1);
    d.rows = kit_rows(k, &d);
    return d;
}

struct ints kit_past(struct kit *k, struct docs *d, int64_t past, int64_t *keys)
{
    *keys = d->n_tokens;
    if (!past) return (struct ints){0};
    int32_t *before = kit_memory(k, (size_t)d->n_docs * sizeof *before);
    int32_t *key_start = kit_memory(k, (size_t)d->n_docs * sizeof *key_start);
    *keys = 0;
    for (int64_t i = d->n_docs - 1; i >= 0; i--) {
        before[i] = (int32_t)((i + 1) * past);
        key_start[i] = (int32_t)*keys;
        int64_t end = before[i] + d->start.host[i + 1] - d->start.host[i];
        *keys += end + 1;
        if (end > d->positions) d->positions = end;
    }
    d->past = kit_ints(k, before, d->n_docs);
    d->rows = kit_rows(k, d);
    return kit_ints(k, key_start, d->n_docs);
}

void kit_output(struct kit *k, const char *name, tensor t, dtype value)
{
    if (k->n_outs == KIT_OUTPUTS) abort();
    k->out[k->n_outs].name = name;
    k->out[k->n_outs].t = t;
    k->out[k->n_outs++].value = value;
}

void kit_build(struct kit *k, const struct op_case *which, dtype value, bool f64, int64_t pad)
{
    memset(k, 0, sizeof *k);
    k->which = which;
    k->value = value;
    k->f64 = f64;
    k->pad = pad;
    k->state = 0x1234;
    which->build(k, which->p);
}

void kit_release(struct kit *k)
{
    for (int i = 0; i < k->n_owned; i++) free(k->owned[i].at);
    k->n_owned = 0;
}

const char *kit_text(const struct kit *k)
{
    static char text[160];
    int at = snprintf(text, sizeof text, "%s (", k->which->op);
    for (int i = 0; i < KIT_PARAMS; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%lld", i ? ", " : "", (long long)k->which->p[i]);
    snprintf(text + at, sizeof text - (size_t)at, ") %s, pad %lld", dtype_name(k->value), (long long)k->pad);
    return text;
}

/* ---- tensors that live elsewhere ------------------------------------------------------------------------------------------- */

/* The arguments with every pointer into a block that moves replaced. They are plain data, and no number in them looks like one. */
static void move_pointers(union op_args *args, const struct kit *k, char *const there[])
{
    for (size_t w = 0; w + sizeof(char *) <= sizeof *args; w += sizeof(char *)) {
        char *p;
        memcpy(&p, (char *)args + w, sizeof p);
        for (int i = 0; i < k->n_owned; i++) {
            const struct block *b = &k->owned[i];
            if (b->host || p < b->at || p > b->at + b->bytes) continue;
            p = there[i] + (p - b->at);
            memcpy((char *)args + w, &p, sizeof p);
            break;
        }
    }
}

/* What came back of a block: the elements of outputs are taken over, all else must be as it was. */
static status take_back(struct kit *k, const struct block *b, const char *now)
{
    for (int o = 0; o < k->n_outs; o++) {
        const tensor *t = &k->out[o].t;
        char *data = t->data;
        if (data < b->at || data >= b->at + b->bytes) continue;
        int64_t cols = t->dim[t->rank - 1], rows = cols ? tensor_count(t) / cols : 0;
        for (int64_t r = 0; r < rows; r++) {
            char *row = data + (size_t)(r * t->ld) * dtype_bytes(t->dt);
            memcpy(row, now + (row - b->at), (size_t)cols * dtype_bytes(t->dt));
        }
    }
    if (memcmp(b->at, now, b->bytes)) FAIL(ST_FAIL, "changed what is no output, %zu bytes of it", b->bytes);
    return ST_OK;
}

static status move(struct stream *s, void *dst, const void *src, size_t bytes)
{
    TRY(s->be->dev.copy(s, dst, src, bytes));
    return s->be->dev.sync(s, "moving a kit");
}

status kit_run(struct stream *s, struct kit *k)
{
    if (s->be->tensors_in == MEM_HOST) return k->which->run(s, &k->args);
    const struct device *dev = &s->be->dev;
    enum { BLOCKS = sizeof k->owned / sizeof k->owned[0] };
    char *there[BLOCKS] = {0}, *pinned[BLOCKS] = {0};
    union op_args args = k->args;
    status st = ST_OK;
    for (int i = 0; i < k->n_owned; i++) {
        struct block *b = &k->owned[i];
        if (b->host || !b->bytes) continue;
        TRY_DONE(dev->alloc(MEM_DEVICE, b->bytes, (void **)&there[i]));
        TRY_DONE(dev->alloc(MEM_PINNED, b->bytes, (void **)&pinned[i]));
        memcpy(pinned[i], b->at, b->bytes);
        TRY_DONE(move(s, there[i], pinned[i], b->bytes));
    }
    move_pointers(&args, k, there);
    TRY_DONE(k->which->run(s, &args));
    TRY_DONE(dev->sync(s, k->which->op));
    for (int i = 0; i < k->n_owned; i++) {
        if (!there[i]) continue;
        TRY_DONE(move(s, pinned[i], there[i], k->owned[i].bytes));
        TRY_DONE(take_back(k, &k->owned[i], pinned[i]));
    }
done:
    for (int i = 0; i < k->n_owned; i++) {
        if (there[i]) dev->free(MEM_DEVICE, there[i], k->owned[i].bytes);
        if (pinned[i]) dev->free(MEM_PINNED, pinned[i], k->owned[i].bytes);
    }
    return st;
}

status kit_stream_open(const struct backend *be, int threads, struct stream **out)
{
    struct work_bounds w = {.dt = DT_F32,
                            .tokens = 4096,
                            .docs = 64,
                            .doc_tokens = 600,
                            .width = 16640,
                            .ffn = 2048,
                            .heads = 8,
                            .kv_heads = 8,
                            .head_dim = 128,
                            .vocab = 4096,
                            .rank = 64,
                            .head_rows = 600,
                            .threads = 4};
    /* "tokens doc_tokens deterministic attn_workspace", which attention's choices follow. */
    const char *work = getenv("TRIMPOT_TEST_WORK");
    int deterministic = 0;
    if (work && sscanf(work, "%" SCNd64 " %" SCNd64 " %d %zu", &w.tokens, &w.doc_tokens, &deterministic, &w.attn_workspace) != 4)
        FAIL(ST_USAGE, "TRIMPOT_TEST_WORK=%s", work);
    w.deterministic = deterministic;
    TRY(be->dev.stream_open(out, threads));
    TRY(be->prepare(*out, &w));
    size_t bytes = (*out)->workspace_bytes;
    w.dt = DT_BF16;
    TRY(be->prepare(*out, &w));
    if (bytes > (*out)->workspace_bytes) (*out)->workspace_bytes = bytes;
    if ((*out)->workspace_bytes) return be->dev.alloc(be->tensors_in, (*out)->workspace_bytes, &(*out)->workspace);
    return ST_OK;
}

void kit_stream_close(struct stream *s)
{
    if (s->workspace_bytes) s->be->dev.free(s->be->tensors_in, s->workspace, s->workspace_bytes);
    s->be->dev.stream_close(s);
}

double ulp_of(dtype dt, double x)
{
    int exponent, digits = dt == DT_BF16 ? 8 : dt == DT_F16 ? 11 : dt == DT_F64 ? 53 : 24;
    int least = dt == DT_BF16 ? -133 : dt == DT_F16 ? -24 : -149;
    if (x == 0 || !isfinite(x)) return ldexp(1, least);
    frexp(x, &exponent);
    return ldexp(1, exponent - digits > least ? exponent - digits : least);
}

uint32_t kit_crc32(const void *bytes, size_t n)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= ((const uint8_t *)bytes)[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}
