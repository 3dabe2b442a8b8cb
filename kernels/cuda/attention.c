/* attention.c — who computes attention, and in which pieces (attention.h). */
#include "kernels/cuda/attention.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/device.h"

/* One process has one device, and one plan of memory. */
static struct {
    struct sdpa *with; /* NULL: not asked yet, or there is none */
    bool asked;
    int major;
    char why[256];
    struct work_bounds bounds; /* what prepare() announced last */
} here = {.major = 9};

static struct sdpa *library(void)
{
    int device = 0;
    if (here.asked || !cuda_backend) return here.with;
    here.asked = true;
    if (cudaGetDevice(&device) || cudaDeviceGetAttribute(&here.major, cudaDevAttrComputeCapabilityMajor, device)) return NULL;
    if (sdpa_open(NULL, here.major, &here.with)) strncpy(here.why, status_message(), sizeof here.why - 1);
    return here.with;
}

const char *attention_describe(void) { return library() ? sdpa_describe(here.with) : "own attention"; }

bool attention_unordered(const struct work_bounds *w) { return w->dt == DT_BF16 && !w->deterministic && library(); }

/* Bytes of scores that a deterministic call may keep at a time. */
static size_t scores_cap(const struct work_bounds *w) { return w->attn_workspace ? w->attn_workspace : ATTN_WORKSPACE; }

/* ---- shapes ------------------------------------------------------------------------------------------------------------------- */

/* Packed documents in one of few shapes: room for a power of two of them, of a power of two of tokens. */
static void bucket(struct sdpa_shape *s, int64_t docs, int64_t longest, int64_t bound)
{
    int64_t tokens = tokens_class(longest), whole = (bound + 63) / 64 * 64;
    s->ragged = true;
    s->docs = docs_class(docs);
    s->tokens = longest <= bound && whole < tokens && whole >= tokens_class(1) ? whole : tokens;
}

static int64_t smaller_divisor(int64_t n, int64_t of)
{
    do n--;
    while (of % n);
    return n;
}

/* Of a deterministic call: fewer documents, then fewer groups of heads, until its scores fit. */
static bool slice(struct sdpa_shape *s, size_t cap)
{
    int64_t docs = s->docs, groups = s->kv_heads, group = s->heads / s->kv_heads;
    while (s->way == SDPA_DETERMINISTIC && sdpa_bytes_of(s, 0, here.major).engine > cap) {
        if (s->docs > 1)
            s->docs = s->ragged ? (s->docs + 1) / 2 : smaller_divisor(s->docs, docs);
        else if (s->kv_heads > 1)
            s->kv_heads = smaller_divisor(s->kv_heads, groups), s->heads = s->kv_heads * group;
        else
            return false;
    }
    return true;
}

/* ---- workspace ---------------------------------------------------------------------------------------------------------------- */

static struct attention_slots slots_of(const struct sdpa_shape *s, int64_t docs)
{
    struct attention_slots t = {.calls = (docs + s->docs - 1) / s->docs, .slots = s->docs};
    t.lengths_pitch = (t.slots + 3) / 4 * 4;
    t.offsets_pitch = (t.slots + 2) / 2 * 2;
    memcpy(t.ld, s->ld, sizeof t.ld);
    return t;
}

static size_t lengths_bytes(const struct attention_slots *t) { return sdpa_round((size_t)(t->calls * t->lengths_pitch) * 4); }
static size_t slots_bytes(const struct attention_slots *t)
{
    return lengths_bytes(t) + sdpa_round((size_t)(t->calls * SDPA_OPERANDS * t->offsets_pitch) * 8);
}

/* The most that any micro-batch within the bounds asks for: that of full documents all alike, or of the largest bucket. */
static size_t most_of(const struct work_bounds *w, enum sdpa_way way)
{
    if (w->dt != DT_BF16 || !w->heads || !w->kv_heads || (cuda_backend && !library())) return 0;
    int64_t q = w->heads * w->head_dim, kv = w->kv_heads * w->head_dim;
    int64_t ldq = w->ld_q ? w->ld_q : q, ldk = w->ld_k ? w->ld_k : kv, ldv = w->ld_v ? w->ld_v : kv, ldo = w->ld_o ? w->ld_o : q;
    struct sdpa_shape s = {.heads = w->heads,
                           .kv_heads = w->kv_heads,
                           .head_dim = w->head_dim,
                           .window = w->window,
                           .ld = {ldq, ldk, ldv, ldo, w->heads, q, ldq, ldk, ldv},
                           .way = way,
                           .capped = w->attn_cap != 0};
    size_t most = 0;
    for (int ragged = 0; ragged < 2; ragged++) {
        if (ragged)
            bucket(&s, w->docs, w->doc_tokens, w->doc_tokens);
        else
            s.docs = w->doc_tokens ? w->tokens / w->doc_tokens : 0, s.tokens = w->doc_tokens;
        struct sdpa_bytes b = sdpa_bytes_of(&s, w->tokens, here.major);
        if (way == SDPA_DETERMINISTIC && b.engine > scores_cap(w)) b.engine = scores_cap(w);
        struct attention_slots t = slots_of(&s, s.docs);
        if (ragged) t.calls = s.docs, t.slots = 1, t.lengths_pitch = 4, t.offsets_pitch = 2; /* cut to the last: the most room */
        size_t bytes = sdpa_bytes_sum(&b) + (ragged ? slots_bytes(&t) : 0);
        if (bytes > most) most = bytes;
    }
    return most;
}

size_t attn_fwd_cuda_workspace(const struct work_bounds *w)
{
    here.bounds = *w;
    return most_of(w, SDPA_FORWARD); /* our own needs none */
}

size_t attn_bwd_cuda_workspace(const struct work_bounds *w)
{
    size_t own = attn_bwd_own_workspace(w);
    size_t most = most_of(w, w->deterministic ? SDPA_DETERMINISTIC : SDPA_BACKWARD);
    here.bounds = *w;
    return own > most ? own : most;
}

/* ---- a call ------------------------------------------------------------------------------------------------------------------- */

struct plan_of_call {
    struct sdpa_shape whole; /* the call's heads and documents; its plan's may be a slice of them */
    const struct sdpa_plan *plan;
    struct attention_slots slots;
    char *workspace;
};

/* Rows, and pointers to them, on 16 bytes. */
static bool on_16(const tensor *t)
{
    size_t bytes = dtype_bytes(t->dt);
    return (uintptr_t)t->data % (t->dt == DT_F32 ? 4 : 16) == 0 && ((size_t)t->ld * bytes % 16 == 0 || t->dt == DT_F32);
}

/* Whether cuDNN serves, and with what plan: operands [n] in the order of enum sdpa_operand. */
static bool taken(struct stream *s, const struct attn_fwd_args *a, enum sdpa_way way, tensor *const operand[], int n,
                  struct plan_of_call *p)
{
    const struct docs *d = &a->docs;
    const struct work_bounds *w = &here.bounds;
    struct sdpa *with = a->q.dt == DT_BF16 && !a->key_start.dev && !d->past.dev && d->n_tokens ? library() : NULL;
    if (!with) return false;
    *p = (struct plan_of_call){
        .whole = {
            .heads = a->heads, .kv_heads = a->kv_heads, .head_dim = a->head_dim, .window = a->window, .way = way, .capped = a->cap != 0}};
    for (int i = 0; i < n; i++) {
        if (!on_16(operand[i])) return false;
        p->whole.ld[i] = operand[i]->ld;
    }
    if (d->n_tokens == w->tokens && d->longest == w->doc_tokens && d->n_docs * d->longest == d->n_tokens)
        p->whole.docs = d->n_docs, p->whole.tokens = d->longest;
    else
        bucket(&p->whole, d->n_docs, d->longest, w->doc_tokens);
    /* dq lies where q lay, dk where k, dv where v, or one array of offsets would not serve both. */
    for (int i = SDPA_DQ; i < n; i++)
        if (p->whole.ld[i] != p->whole.ld[i - SDPA_DQ]) return false;
    struct sdpa_shape piece = p->whole;
    if (!slice(&piece, scores_cap(w)) || sdpa_plan(with, &piece, &p->plan)) return false;
    struct sdpa_bytes b = sdpa_bytes_of(&piece, d->n_tokens, here.major);
    b.engine = p->plan->bytes.engine;
    p->slots = slots_of(&piece, d->n_docs);
    size_t own = piece.ragged ? slots_bytes(&p->slots) : 0;
    if (own + sdpa_bytes_sum(&b) > s->workspace_bytes) return false;
    p->slots.lengths = s->workspace;
    p->slots.offsets = (void *)((char *)s->workspace + lengths_bytes(&p->slots));
    p->workspace = (char *)s->workspace + own;
    return true;
}

/* Every slice: documents, and within them groups of heads. */
static status run(struct stream *s, const struct attn_fwd_args *a, tensor *const operand[], int n, const struct plan_of_call *p)
{
    const struct sdpa_shape *piece = &p->plan->shape, *whole = &p->whole;
    struct sdpa_call c = {.scale = a->scale, .cap = a->cap, .rows = a->docs.n_tokens, .workspace = p->workspace};
    int64_t calls = piece->ragged ? p->slots.calls : whole->docs / piece->docs;
    if (piece->ragged) TRY(attention_offsets(s, &p->slots, &a->docs));
    for (int64_t call = 0; call < calls; call++)
        for (int64_t group = 0; group < whole->kv_heads; group += piece->kv_heads) {
            for (int i = 0; i < n; i++) {
                bool keys = i == SDPA_K || i == SDPA_V || i == SDPA_DK || i == SDPA_DV;
                int64_t head = keys ? group : group * (whole->heads / whole->kv_heads), width = i == SDPA_LSE ? 1 : whole->head_dim;
                int64_t row = piece->ragged ? 0 : call * piece->docs * piece->tokens;
                c.at[i] = (char *)operand[i]->data + (size_t)(row * whole->ld[i] + head * width) * dtype_bytes(operand[i]->dt);
                c.offsets[i] = p->slots.offsets + (call * SDPA_OPERANDS + i) * p->slots.offsets_pitch;
            }
            c.lengths = p->slots.lengths + call * p->slots.lengths_pitch;
            TRY(sdpa_run(here.with, p->plan, cuda_on(s), &c));
        }
    return ST_OK;
}

op_attn_fwd_fn attn_fwd_cuda;
status attn_fwd_cuda(struct stream *s, const struct attn_fwd_args *a)
{
    struct attn_fwd_args in = *a;
    tensor *const operand[] = {&in.q, &in.k, &in.v, &in.o, &in.lse};
    struct plan_of_call p;
    return taken(s, a, SDPA_FORWARD, operand, 5, &p) ? run(s, a, operand, 5, &p) : attn_fwd_own(s, a);
}

op_attn_bwd_fn attn_bwd_cuda;
status attn_bwd_cuda(struct stream *s, const struct attn_bwd_args *a)
{
    struct attn_bwd_args in = *a;
    tensor *const operand[] = {&in.fwd.q, &in.fwd.k, &in.fwd.v, &in.fwd.o, &in.fwd.lse, &in.d_o, &in.dq, &in.dk, &in.dv};
    enum sdpa_way way = here.bounds.deterministic ? SDPA_DETERMINISTIC : SDPA_BACKWARD;
    struct plan_of_call p;
    return taken(s, &a->fwd, way, operand, SDPA_OPERANDS, &p) ? run(s, &a->fwd, operand, SDPA_OPERANDS, &p) : attn_bwd_own(s, a);
}
