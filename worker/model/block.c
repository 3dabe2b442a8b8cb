/* block.c — walking the tables of block.h: forward, recomputation and backward of one layer. */
#include "kernels/record.h"
#include "worker/model/model.h"

tensor block_dx(const struct model *m) { return tensor_rows(&m->grad[GRAD_X], 0, m->acts.tokens); }

tensor block_gradient(const struct model *m, int64_t layer, int slot)
{
    const struct act_slot *row = &m->block->slot[slot];
    int at = m->block->grad[slot];
    if (at == GRAD_SELF) return act(&m->acts, layer, slot);
    tensor whole = tensor_rows(&m->grad[at], m->block->grads[at].tiled ? 0 : m->acts.first, m->acts.count);
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

/* What is wanted of the steps first … end: those that write what is needed and, if that is missing, what they read. Returns all that
 * is needed then. */
static slot_set trace(const struct block *b, int first, int end, slot_set missing, slot_set need, slot_set *want)
{
    for (int i = end - 1; i >= first; i--) {
        const struct step *st = &b->step[i];
        want[i] = st->writes & need & missing;
        if (!want[i]) continue;
        want[i] |= st->sum & missing;
        need |= want[i] & st->sum ? st->terms : st->reads;
    }
    return need;
}

typedef status stretch(struct pass *p, int64_t layer, int first, int end, const slot_set *want);

static status forward(struct pass *p, int64_t layer, int first, int end, const slot_set *want)
{
    const struct step *step = p->m->block->step;
    for (int i = first; i < end; i++) {
        if (!want[i]) continue;
        TRY(step[i].fwd(p, layer, &step[i], want[i]));
        act_written(&p->m->acts, layer, want[i]);
    }
    return ST_OK;
}

static status backward(struct pass *p, int64_t layer, int first, int end, const slot_set *want)
{
    const struct step *step = p->m->block->step;
    TRY(forward(p, layer, first, end, want));
    for (int i = end - 1; i >= first; i--)
        if (step[i].out & p->m->layers[layer].use.flows) TRY(step[i].bwd(p, layer, &step[i]));
    return ST_OK;
}

/* Tile by tile over the tiled steps. */
static status tiled(struct pass *p, int64_t layer, stretch *walk, const slot_set *want)
{
    const struct block *b = p->m->block;
    struct act_store *a = &p->m->acts;
    status st = ST_OK;
    for (int64_t at = 0; !st && b->tiled.end && at < a->tokens; at += a->tile) {
        p->more = at + a->tile < a->tokens;
        act_look(a, at, p->more ? a->tile : a->tokens - at);
        st = walk(p, layer, b->tiled.first, b->tiled.end, want);
    }
    p->more = false;
    act_look(a, 0, a->tokens);
    return st;
}

/* Forward of all steps, as far as wanted. */
static status walk(struct pass *p, int64_t layer, const slot_set *want)
{
    const struct block *b = p->m->block;
    TRY(forward(p, layer, 0, b->tiled.first, want));
    TRY(tiled(p, layer, forward, want));
    return forward(p, layer, b->tiled.end, b->n_steps, want);
}

int64_t block_again(const struct model *m, int64_t layer)
{
    const struct block *b = m->block;
    slot_set want[BLOCK_MAX_STEPS];
    int64_t weights = 0;
    slot_set missing = act_shared(&m->acts, layer);
    if (layer < m->lowest) return 0;
    if (layer + 1 == m->shape.layers) missing &= b->tiled.slots;
    trace(b, 0, b->n_steps, missing, m->layers[layer].use.needs, want);
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

static status block_forward(struct pass *p, int64_t layer)
{
    slot_set want[BLOCK_MAX_STEPS], all = ~(slot_set)0;
    if (!layer) all &= ~((slot_set)1 << p->m->block->x); /* the embedding has written it */
    trace(p->m->block, 0, p->m->block->n_steps, all, all, want);
    return walk(p, layer, want);
}

status block_fwd(struct pass *p, int64_t layer)
{
    TRY(enter(p, layer, PHASE_FORWARD));
    record_begin(p->s);
    TRY(record_end(p->s, block_forward(p, layer)));
    return leave(p, layer, PHASE_FORWARD);
}

/* First what the tiles need of the whole and the rest needs; what the tiles need of themselves each of them makes. */
static status block_backward(struct pass *p, int64_t layer)
{
    const struct block *b = p->m->block;
    slot_set want[BLOCK_MAX_STEPS], of_tile[BLOCK_MAX_STEPS], none[BLOCK_MAX_STEPS] = {0};
    slot_set need = p->m->layers[layer].use.needs, missing = act_missing(&p->m->acts, layer), own = b->tiled.slots;
    need |= trace(b, b->tiled.first, b->tiled.end, own, need, of_tile);
    trace(b, 0, b->n_steps, missing, need & ~own, want);
    TRY(walk(p, layer, want));
    TRY(backward(p, layer, b->tiled.end, b->n_steps, none));
    TRY(tiled(p, layer, backward, of_tile));
    return backward(p, layer, 0, b->tiled.first, none);
}

status block_bwd(struct pass *p, int64_t layer)
{
    TRY(enter(p, layer, PHASE_BACKWARD));
    record_begin(p->s);
    TRY(record_end(p->s, block_backward(p, layer)));
    return leave(p, layer, PHASE_BACKWARD);
}
