/* formulas.h — what one element goes through, written once for every backend.
 *
 * The text is over the vocabulary of kernels/cpu/vec.h: a type `vf`, its + − * /, and vf_set, vf_fma (a·b + c),
 * vf_fnma (c − a·b), vf_sqrt, vf_exp, vf_lt, vf_pick; for codes a type `vi`, vi_set, vi_add, … . On the CPU `vf` is a vector; a backend whose threads own one
 * element each includes this after defining the same names for a single float. Include it after that vocabulary. Every
 * function takes and gives f32; the caller widens before and rounds once after. Nothing here is
 * contracted but by name, so the bits are the same everywhere. */
#ifndef TRIMPOT_FORMULAS_H
#define TRIMPOT_FORMULAS_H

#include <math.h>
#include <stdint.h>

#include "kernels/base/philox.h"
#include "kernels/ops.h"
#include "kernels/quant_cells.h"

/* ---- gated linear unit ---------------------------------------------------------------------------------------
 * Both activations are a·σ(u): silu with u = a, and gelu_tanh with u = 2√(2/π)(a + 0.044715a³), because
 * ½(1 + tanh x) = σ(2x). That form does not cancel for negative a, and its derivative is
 * σ(u) + a·σ(u)·(1 − σ(u))·u', with 1 − σ(u) = e^−u·σ(u), which is 1 where e^−u overflows. */
typedef struct {
    vf value, slope;
} glu_gate;

BOTH glu_gate formula_gate(vf a, enum act_kind kind)
{
    vf u = a, du = vf_set(1.0f);
    if (kind == ACT_GELU_TANH) {
        vf scale = vf_set(1.59576912f), cubic = vf_set(0.044715f), a2 = a * a;
        u = scale * vf_fma(cubic * a2, a, a);
        du = scale * vf_fma(vf_set(3.0f) * cubic, a2, vf_set(1.0f));
    }
    vf one = vf_set(1.0f), e = vf_exp(vf_set(0.0f) - u), s = one / (one + e);
    vf rest = vf_pick(vf_lt(e, vf_set(INFINITY)), e * s, one);
    return (glu_gate){a * s, vf_fma(a * s * rest, du, s)};
}

/* ---- norm ---------------------------------------------------------------------------------------------------- */
BOTH vf formula_rmsnorm_dx(vf g, vf xhat, float rstd, float mean_gx) { return vf_set(rstd) * (g - xhat * vf_set(mean_gx)); }

/* ---- y = scale·x, y += scale·x -------------------------------------------------------------------------------- */
BOTH vf formula_axpy(vf x, vf y, float scale, bool accumulate)
{
    if (accumulate) return vf_fma(vf_set(scale), x, y);
    return vf_set(scale) * x;
}

/* ---- columns from one length to another -------------------------------------------------------------------------- */
/* to / from; 0 where from is 0, and NaN where either is. */
BOTH vf formula_ratio(vf to, vf from) { return vf_pick(vf_lt(vf_zero(), from), to / from, to * from); }
BOTH vf formula_rescale(vf u, vf y, vf ratio, bool accumulate)
{
    if (accumulate) return vf_fma(ratio - vf_set(1.0f), u, y);
    return vf_fma(ratio, u, y);
}
BOTH vf formula_rescale_du(vf dy, vf ratio, bool accumulate) { return accumulate ? (ratio - vf_set(1.0f)) * dy : ratio * dy; }

/* ---- optimizers: g is already scaled --------------------------------------------------------- */
typedef struct {
    vf w, m, v;
} optim_state;

/* What the elements of one segment share. */
struct update_rates {
    enum optim_kind kind;
    bool nesterov, first;
    float gscale, lr, lw, wd, step, c2, beta1, beta2, eps;
};

BOTH struct update_rates formula_rates(const struct update_args *u, const struct step_scalars *c, const struct seg *q)
{
    return (struct update_rates){
        .kind = u->kind,
        .nesterov = u->nesterov,
        .first = c->first != 0,
        .gscale = (float)c->gscale,
        .lr = (float)c->lr * q->lr_mult,
        .lw = (float)c->lw * q->lr_mult * q->wd_mult,
        .wd = u->wd * q->wd_mult,
        .step = (float)c->rate * q->lr_mult,
        .c2 = (float)c->c2,
        .beta1 = u->beta1,
        .beta2 = u->beta2,
        .eps = u->eps,
    };
}

BOTH optim_state formula_adam(optim_state s, vf g, const struct update_rates *o)
{
    vf b1 = vf_set(o->beta1), b2 = vf_set(o->beta2);
    if (o->wd != 0 && o->kind == OPTIM_ADAMW) s.w = vf_fnma(vf_set(o->lw), s.w, s.w);
    if (o->wd != 0 && o->kind == OPTIM_ADAM) g += vf_set(o->wd) * s.w;
    s.m = vf_fma(b1, s.m, vf_fnma(b1, g, g));
    vf q = g * g;
    s.v = vf_fma(b2, s.v, vf_fnma(b2, q, q));
    vf d = vf_sqrt(s.v) / vf_set(o->c2) + vf_set(o->eps);
    s.w = vf_fnma(vf_set(o->step), s.m / d, s.w);
    return s;
}

/* beta1 is the momentum, beta2 the dampening; at the first step the buffer is not read. */
BOTH optim_state formula_sgd(optim_state s, vf g, const struct update_rates *o)
{
    vf momentum = vf_set(o->beta1), d = g;
    if (o->wd != 0) d += vf_set(o->wd) * s.w;
    vf move = d;
    if (o->beta1 != 0) {
        if (o->first)
            s.m = d;
        else
            s.m = momentum * s.m + vf_set(1.0f - o->beta2) * d;
        if (o->nesterov)
            move = d + momentum * s.m;
        else
            move = s.m;
    }
    s.w = s.w - vf_set(o->lr) * move;
    return s;
}

/* ---- states of 8 bits: code · absmax of the block ------------------------------------------------------------- */

/* What a block's new states are divided by before they are coded. A block of zeros has codes of zero. */
BOTH float formula_divisor(float absmax) { return absmax > 0 ? absmax : 1.0f; }

/* y = x/absmax, in [−1, 1]: where the table of quant_cells.h has the entry of |y|, and how many thresholds are ≤ |y|, by that entry. That
 * number is the code in the unsigned map: the nearest, between two the even one. Whatever else y is, it is one of the map's. */
BOTH vi formula_cell(vf y) { return vi_below(vi_sub(vi_high(vf_bits(vf_abs(y)), 16), vi_set(QUANT_CELL_FIRST)), QUANT_CELLS); }
BOTH vi formula_thresholds(vi entry, vf y) { return vi_high(vi_add(entry, vi_and(vf_bits(y), vi_set(0xffff))), QUANT_CELL_SHIFT); }

/* The code in the signed map, by the number of thresholds: of x < 0 never that of zero, and the map has no −1. */
BOTH vi formula_code_signed(vf x, vi thresholds)
{
    vi zero = vi_set(127), below = vi_sub(zero, vi_min(vi_max(thresholds, vi_set(1)), zero));
    return vi_pick(vf_lt(x, vf_set(0.0f)), below, vi_add(zero, thresholds));
}

BOTH vf formula_state(vf entry, float absmax) { return entry * vf_set(absmax); }

/* ---- a value that was of 16 bits in between: f16 or bf16, nearest, ties to even; not for NaN ---------------------------- */
BOTH vf formula_through(vf x, dtype dt)
{
    if (dt == DT_F32) return x;
    int cut = dt == DT_BF16 ? 16 : 13;
    vi u = vf_bits(x), odd = vi_and(vi_high(u, cut), vi_set(1));
    vf near = vf_from_bits(vi_and(vi_add(u, vi_add(odd, vi_set((1 << (cut - 1)) - 1))), vi_set(-(1 << cut))));
    if (dt == DT_BF16) return near;
    vf a = vf_abs(x), grid = vf_set(0.75f), fine = (a + grid) - grid; /* multiples of 2^-24, what subnormal f16 are */
    vf large = vf_pick(vf_lt(a, vf_set(65520.0f)), near, vf_copysign(vf_set(INFINITY), x));
    return vf_pick(vf_lt(a, vf_set(0x1p-14f)), vf_copysign(fine, x), large);
}

/* ---- the scalars of a step, in f64 --------------------------------------------------------------------------- */
BOTH double formula_mean_factor(const struct step_plan *p) { return p->supervised > 0 ? 1 / p->supervised : 0; }

/* Of an update that multiplies gradients by gscale, as the step's number among the applied ones has them. */
BOTH void formula_step_rates(struct step_scalars *c, const struct step_plan *p, double gscale)
{
    int which = c->applied > p->applied;
    c->gscale = (double)(float)gscale;
    c->lr = p->lr;
    c->lw = p->lw;
    c->rate = p->rate[which];
    c->c2 = p->c2[which];
    c->first = c->applied == 0;
}

/* op_step_decide, from its sums. */
BOTH void formula_decide(struct step_scalars *c, const struct step_plan *p, double loss, double squares)
{
    c->loss = p->supervised > 0 ? loss / p->supervised : 0;
    c->grad_norm = formula_mean_factor(p) * sqrt(squares);
    c->usable = p->supervised > 0 && isfinite(c->loss) && isfinite(c->grad_norm) && c->refused == 0;
    formula_step_rates(c, p, formula_mean_factor(p) * fmin(1.0, p->max_norm / (c->grad_norm + 1e-6)));
    c->applied += c->usable;
}

/* op_step_admit of tensor `number`, whose partials are finite or not. */
BOTH void formula_admit(struct step_scalars *c, const struct step_plan *p, int64_t number, bool finite)
{
    if (!finite && c->refused == 0) {
        c->refused = (double)(number + 1);
        c->refused_step = p->step;
    }
    c->usable = p->supervised > 0 && c->refused == 0;
    formula_step_rates(c, p, formula_mean_factor(p));
}

/* ---- random numbers to floats --------------------------------------------------------------------------------- */

/* Uniform in (−1, 1), symmetric, exact: odd multiples of 2^-23. */
BOTH float formula_uniform(uint32_t u) { return (float)(2 * (int32_t)(u >> 9) + 1 - (1 << 23)) * 0x1p-23f; }

/* Two independent normal numbers from two words (Box–Muller), within 4 ulp. The radius takes 23 bits of the first, so
 * it is at most 5.77; the angle takes all of the second, reduced to ±π/4 as an integer. */
BOTH void formula_normal(uint32_t u0, uint32_t u1, float out[2])
{
    float u = 0.5f * (formula_uniform(u0) + 1.0f);
    uint32_t bits = f32_bits(u) - 0x3f3504f3u; /* u = m·2^e with m in [√½, √2) */
    float e = (float)((int32_t)bits >> 23), m = f32_from_bits((bits & 0x7fffffu) + 0x3f3504f3u);
    float t = (m - 1.0f) / (m + 1.0f), t2 = t * t; /* ln m = 2·artanh t, |t| ≤ 0.172 */
    float log_m = 2.0f * t + 2.0f * t * t2 * (1.0f / 3 + t2 * (1.0f / 5 + t2 * (1.0f / 7 + t2 * (1.0f / 9))));
    float radius = sqrtf(-2.0f * (log_m + e * 0.693147181f));

    uint32_t quadrant = (u1 + (1u << 29)) >> 30;
    float x = (float)(int32_t)(u1 - (quadrant << 30)) * 0x1.921fb6p-30f, x2 = x * x;
    float s = x + x * x2 * (-1.0f / 6 + x2 * (1.0f / 120 + x2 * (-1.0f / 5040 + x2 * (1.0f / 362880))));
    float c = 1.0f + x2 * (-0.5f + x2 * (1.0f / 24 + x2 * (-1.0f / 720 + x2 * (1.0f / 40320 - x2 * (1.0f / 3628800)))));
    float cosine = quadrant & 1 ? s : c, sine = quadrant & 1 ? c : s;
    out[0] = radius * ((quadrant + 1) & 2 ? -cosine : cosine);
    out[1] = radius * (quadrant & 2 ? -sine : sine);
}

/* Keep iff u32 ≥ the threshold; kept values are multiplied. */
BOTH uint32_t formula_dropout_threshold(float p) { return (uint32_t)((double)p * 4294967296.0); }
BOTH uint64_t formula_dropout_key(const struct dropout_args *d)
{
    return rng_key_of(d->base, (uint32_t)((const struct step_plan *)d->plan.data)->step);
}
BOTH float formula_dropout_scale(float p) { return (float)(1.0 / (1.0 - (double)p)); }

#endif
