/* kit.h — one op call with its operands, so that one table of cases serves every backend and every kind of test.
 *
 * A kit is built from a case: seeded inputs, rounded to the dtype under test, and zeroed or accumulated-into outputs.
 * Built twice, it holds the same numbers twice; stored as f64 it feeds the reference the same values. */
#ifndef TRIMPOT_KIT_H
#define TRIMPOT_KIT_H

#include "tests/ref/ref.h"

union op_args {
#define KIT_ARGS(name, args) struct args##_args name;
    TRIMPOT_OPS(KIT_ARGS)
#undef KIT_ARGS
};

enum { KIT_PARAMS = 8, KIT_OUTPUTS = 9 };

struct kit {
    const struct op_case *which;
    dtype value; /* what inputs are rounded to: f32 or bf16 */
    bool f64;    /* stored as f64 whatever `value` is */
    int64_t pad; /* extra elements between rows, and before vectors */
    uint64_t state;
    union op_args args;
    int n_outs;
    struct {
        const char *name;
        tensor t;
        dtype value;
    } out[KIT_OUTPUTS];
    struct block {
        char *at;
        size_t bytes;
        bool host; /* stays the host's: the twin that checks read */
    } owned[48];
    int n_owned;
};

/* One row of the table: how to build the call, and how far a backend may be off: `bound` gives, per output, the
 * absolute error allowed before rounding to the output's dtype. `in` is the kit before, `ref` after the reference. */
struct op_case {
    const char *op;
    int64_t p[KIT_PARAMS];
    status (*run)(struct stream *s, const union op_args *a); /* through the front door */
    void (*build)(struct kit *k, const int64_t *p);
    void (*bound)(const struct kit *in, const struct kit *ref, struct mat bounds[]);
    const char *dtypes; /* "fb": f32 and bf16 */
    bool library;       /* products come from a library: bits may differ between instruction sets */
};

extern const struct op_case op_cases[];
extern const int n_op_cases;

void kit_build(struct kit *k, const struct op_case *which, dtype value, bool f64, int64_t pad);
void kit_release(struct kit *k);
const char *kit_text(const struct kit *k); /* "rmsnorm_fwd (3, 37, …) bf16, pad 5" */

double kit_uniform(struct kit *k); /* the next of the kit's numbers, in (−1, 1) */
void *kit_memory(struct kit *k, size_t bytes);

/* Tensors of random numbers: activations have the dtype under test, kit_f32 is f32. `scale` 0 leaves zeros.
 * rows == 0: rank 1. */
tensor kit_act(struct kit *k, int64_t rows, int64_t cols, double scale);
tensor kit_f32(struct kit *k, int64_t rows, int64_t cols, double scale);
tensor kit_f16(struct kit *k, int64_t rows, int64_t cols, double scale);
tensor kit_grid(struct kit *k, int64_t rows, int64_t cols); /* multiples of 1/16: sums of two are exact in bf16 */
tensor kit_u8(struct kit *k, int64_t n);
uint32_t kit_crc32(const void *bytes, size_t n); /* as zlib has it, which generators of golden files use */
int32_t *kit_indices(struct kit *k, int64_t n, int64_t limit, bool distinct);
/* Several documents: one more at the end that is empty, and bounds that none reaches. */
struct docs kit_docs(struct kit *k, int64_t tokens, int64_t n_docs);
struct rows_at kit_rows(struct kit *k, const struct docs *d); /* positions and samples of its rows */
/* Gives document i of d (i + 1)·past tokens of earlier batches. Returns where each one's keys begin in a cache of *keys
 * rows, the last document first, a row of nobody between them. past 0: none, and the tokens themselves. */
struct ints kit_past(struct kit *k, struct docs *d, int64_t past, int64_t *keys);
void kit_output(struct kit *k, const char *name, tensor t, dtype value);

/* An array that the host has too: `host` is of kit_memory, and stays as it is. */
struct ints kit_ints(struct kit *k, const int32_t *host, int64_t n);
void *kit_twin(struct kit *k, const void *host, size_t bytes);

/* Runs the call on the stream. Where tensors live elsewhere, all memory but the host's twins is copied there and back, and
 * whatever changed beside the outputs is ST_FAIL. */
status kit_run(struct stream *s, struct kit *k);

/* A stream of `be` with a workspace large enough for every case. */
status kit_stream_open(const struct backend *be, int threads, struct stream **out);
void kit_stream_close(struct stream *s);

double ulp_of(dtype dt, double x);

#endif
