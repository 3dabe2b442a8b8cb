/* block.c — walking the tables of block.h: forward, recomputation and backward of one layer. */
#include "kernels/record.h"
#include "worker/model/model.h"

static tensor sized(tensor t, int64_t tokens) { return tensor_rows(&t, 0, tokens); }

tensor block_dx(const struct model *m) { return sized(m->grad[GRAD_X], m->acts.tokens); }

tensor block_gradient(const struct model *m, int64_t layer, int slot)
{
    const struct act_slot *row = &m->block->slot[slot];
    int at = m->block->grad[slot];
    if (at == GRAD_SELF) return act(&m->acts, layer, slot);
    tensor whole = sized(m->grad[at], m->acts.tokens);
    return tensor_columns(&whole, row->column, row->width);
}

tensor block_gradient_room(const struct model *m, int64_t layer, int slot, int64_t cols)
{
    const struct act_slot *row = &m->block->slot[slot];
    int at = m->block->grad[slot];
    int64_t room = at == GRAD_SELF ? row->room : m->block->grads[at].room;
    if (!cols || room < cols || row->of != slot) return (tensor){0};
    tensor t = block_gradient(m, layer, slot);
    return tensor_columns(&t, row->width, cols);
}

const struct step *block_attention(const struct block *b)
{
    const struct step *st = b->step;
    while (st->fwd != step_attn_fwd) st++;
    return st;
}

int64_t block_ld(const struct block *b, int slot)
{
    const struct act_slot *owner = &b->slot[b->slot[slot].of];
    return owner->width + owner->room;
}

void block_out(const struct model *m, tensor *x, tensor *delta)
{
    *x = act(&m->acts, m->shape.layers - 1, m->block->x2);
    *delta = act(&m->acts, m->shape.layers - 1, m->block->delta);
}

/* What is wanted of each step: those that write what is needed and, if that is missing, what they read. */
static void trace(const struct block *b, slot_set missing, slot_set need, slot_set *want)
{
    for (int i = b->n_steps - 1; i >= 0; i--) {
        const struct step *st = &b->step[i];
        want[i] = st->writes & need & missing;
        if (!want[i]) continue;
        want[i] |= st->sum & missing;
        need |= want[i] & st->sum ? st->terms : st->reads;
    }
}

static status walk(struct pass *p, int64_t layer, slot_set missing, slot_set need)
{
    const struct block *b = p->m->block;
    slot_set want[BLOCK_MAX_STEPS];
    trace(b, missing, need, want);
    for (int i = 0; i < b->n_steps; i++) {
        if (!want[i]) continue;
        TRY(b->step[i].fwd(p, layer, &b->step[i], want[i]));
        act_written(&p->m->acts, layer, want[i]);
    }
    return ST_OK;
}

int64_t block_again(const struct model *m, int64_t layer)
{
    const struct block *b = m->block;
    slot_set want[BLOCK_MAX_STEPS];
    int64_t weights = 0;
    if (layer < m->lowest || layer + 1 == m->shape.layers) return 0;
    trace(b, act_shared(&m->acts, layer), m->layers[layer].use.needs, want);
    for (int i = 0; i < b->n_steps; i++) {
        const struct step *st = &b->step[i];
        if (st->linear >= 0 && want[i] & st->out) weights += m->params.p[m->layers[layer].linear[st->linear].w].count;
    }
    return weights;
}

static status enter(struct pass *p, int64_t layer, enum phase phase)
{
    TRY(act_enter(&p->m->acts, p->s, layer, phase));
    return param_enter(&p->m->params, p->s, layer, phase);
}

static status leave(struct pass *p, int64_t layer, enum phase phase)
{
    TRY(param_leave(&p->m->params, p->s, layer, phase));
    return act_leave(&p->m->acts, p->s, layer, phase);
}

status block_fwd(struct pass *p, int64_t layer)
{
    slot_set all = ~(slot_set)0;
    if (!layer) all &= ~((slot_set)1 << p->m->block->x); /* the embedding has written it */
    TRY(enter(p, layer, PHASE_FORWARD));
    record_begin(p->s);
    TRY(record_end(p->s, walk(p, layer, all, all)));
    return leave(p, layer, PHASE_FORWARD);
}

static status backward(struct pass *p, int64_t layer)
{
    const struct block *b = p->m->block;
    const struct block_use *use = &p->m->layers[layer].use;
    TRY(walk(p, layer, act_missing(&p->m->acts, layer), use->needs));
    for (int i = b->n_steps - 1; i >= 0; i--)
        if (b->step[i].out & use->flows) TRY(b->step[i].bwd(p, layer, &b->step[i]));
    return ST_OK;
}

status block_bwd(struct pass *p, int64_t layer)
{
    TRY(enter(p, layer, PHASE_BACKWARD));
    record_begin(p->s);
    TRY(record_end(p->s, backward(p, layer)));
    return leave(p, layer, PHASE_BACKWARD);
}
