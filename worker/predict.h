/* predict.h — how fast a GPU that is not here would train: arithmetic over counts and rates, never a measurement.
 *
 * Seconds per trained token are a sum of parts, each the work of the part over a rate:
 *
 *   gemm, head    FLOPs of products over the share e of the best measured product that whole models reach (e grows with width)
 *   adapters      LoRA's thin products at a quarter of the best
 *   attention     FLOPs of causal halves (forward 2, backward 5 per L·T·q) over what cuDNN reaches for that head size and length
 *   elementwise   bytes that norms, RoPE and the gated product must move, over 0.8 of the published bandwidth
 *   optimizer     bytes of a step's update, once per step; or, where that lasts longer, what crosses PCIe meanwhile: paged states, both
 *                 ways at once, or the gradients of an optimizer on the host
 *   nf4           2.53 bytes per weight and pass
 *   offloading    what is offloaded, out and back over PCIe at the measured rate: what of it lasts longer than the forward, and than the
 *                 backward, of other layers; all of it without streams
 *   communication an all-to-all and an all-gather of the gradients' bytes, once per step, none of it hidden
 *
 * Model FLOPs, of which MFU is made, count neither what is recomputed nor what backward attention repeats. */
#ifndef TRIMPOT_PREDICT_H
#define TRIMPOT_PREDICT_H

#include "kernels/gpu.h"
#include "worker/session.h"

enum predict_part {
    PREDICT_GEMM,
    PREDICT_ADAPTERS,
    PREDICT_ATTENTION,
    PREDICT_ELEMENTWISE,
    PREDICT_HEAD,
    PREDICT_OPTIMIZER,
    PREDICT_NF4,
    PREDICT_OFFLOAD,
    PREDICT_COMM,
    PREDICT_PARTS,
};

struct prediction {
    double part_s[PREDICT_PARTS]; /* per token of one rank */
    double flops, model_flops;    /* per token: that are executed, that count */
    double step_tokens;           /* of all ranks */
    double tokens_per_s;          /* of all ranks */
    double mfu;
};

/* What of the rows decides how long a token takes. Means weigh documents by their tokens. */
struct data_shape {
    double length;           /* of a token's document */
    double met, met_sliding; /* twice the keys that a token's query meets; in layers with a window */
    double supervised;       /* share of the tokens */
    double item;             /* tokens of a row */
};
struct data_shape data_shape_of(const struct session *x);

/* The rates to compare two plans of one session by: of the GPU that is asked for, else of the one that is here, else of the first in the
 * table; of a CPU those of its cores, which say what costs more than what, not how much. */
const struct gpu *predict_rates(const struct session *x, const struct gpu *asked);

/* Of a session that was opened to train. */
struct prediction predict(const struct session *x, const struct gpu *g, const struct data_shape *d);

/* Lines under a plan's table, or the member `"prediction":{…}` behind its rows. */
void predict_text(const struct prediction *p, const struct gpu *g, bool json, struct buf *out);

#endif
