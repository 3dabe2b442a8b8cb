/* ref.h — backends for tests.
 *
 * backend_ref computes every op in float64, as the textbook writes it, one thread, nothing clever; it shares no code
 * with the other backends. Tensors may be f64 wherever ops.h says act or f32, so that a whole model can be run with
 * it; f32 and bf16 storage is widened on load and rounded to nearest even on store. */
#ifndef TRIMPOT_REF_H
#define TRIMPOT_REF_H

#include "kernels/backend.h"

extern const struct backend backend_ref;

/* The same backend with suspicion. Around every op it
 *  - refuses aliasing that ops.h does not allow,
 *  - fills outputs that are not accumulated into, and the workspace, with a NaN of its own before the op,
 *  - fails when an input changed, when part of an output was left unwritten, or when the gaps between rows were hit.
 * Host memory only. One inner backend per process. */
const struct backend *paranoid_wrap(const struct backend *inner);

/* A matrix in float64: how the reference reads and writes tensors of any dtype. A tensor of rank 1 is one row. */
struct mat {
    int64_t rows, cols;
    double *v; /* dense, malloc */
};

#define AT(m, i, j) ((m).v[(int64_t)(i) * (m).cols + (int64_t)(j)])

struct mat mat_zero(int64_t rows, int64_t cols);
struct mat mat_load(const tensor *t); /* v == NULL when the tensor is absent */
struct mat mat_load_t(const tensor *t, bool transposed);
void mat_store(const tensor *t, struct mat m); /* rounds to the tensor's dtype */
void mat_free(struct mat m);
double ref_round(dtype dt, double x); /* x as it would be read back from storage */

void ref_philox(uint64_t key, uint64_t low, uint64_t high, uint32_t out[4]);
int64_t ref_doc_of(const struct docs *d, int64_t token);
int64_t ref_position(const struct docs *d, int64_t token);

/* The key rows [first, end) that query row `i` sees. */
struct ref_keys {
    int64_t first, end;
};
struct ref_keys ref_keys_of(const struct attn_fwd_args *a, int64_t i);

/* The table's entries, by file. */
#define REF_DECLARE(name, args) op_##name##_fn name##_ref;
TRIMPOT_OPS(REF_DECLARE)
#undef REF_DECLARE

#endif
