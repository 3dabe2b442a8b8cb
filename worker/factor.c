#include "worker/factor.h"

#include <dlfcn.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/base/philox.h"

/* ---- LAPACK, by its Fortran names: every argument by address, the lengths of texts behind them ---------------------------------- */

typedef void syevr_fn(const char *job, const char *range, const char *half, const int *n, double *a, const int *lda, const double *from,
                      const double *to, const int *first, const int *last, const double *tolerance, int *found, double *values,
                      double *vectors, const int *ldz, int *support, double *work, const int *n_work, int *iwork, const int *n_iwork,
                      int *info, size_t, size_t, size_t);
typedef void geqrf_fn(const int *m, const int *n, double *a, const int *lda, double *tau, double *work, const int *n_work, int *info);
typedef void orgqr_fn(const int *m, const int *n, const int *k, double *a, const int *lda, const double *tau, double *work,
                      const int *n_work, int *info);
typedef void syrk_fn(const char *half, const char *trans, const int *n, const int *k, const double *alpha, const double *a, const int *lda,
                     const double *beta, double *c, const int *ldc, size_t, size_t);
typedef void gemm_fn(const char *ta, const char *tb, const int *m, const int *n, const int *k, const double *alpha, const double *a,
                     const int *lda, const double *b, const int *ldb, const double *beta, double *c, const int *ldc, size_t, size_t);

static struct {
    syevr_fn *syevr;
    geqrf_fn *geqrf;
    orgqr_fn *orgqr;
    syrk_fn *syrk;
    gemm_fn *gemm;
} lapack;

/* Of libraries that would use all cores, in an order that depends on how many there are. */
static void one_thread(void *so)
{
    static const char *const names[] = {"openblas_set_num_threads", "bli_thread_set_num_threads", "MKL_Set_Num_Threads"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *f = dlsym(so, names[i]);
        void (*set)(int64_t); /* int or long: 1 is the same in either */
        memcpy(&set, &f, sizeof set);
        if (f) set(1);
    }
}

status factor_ready(void)
{
    static const struct {
        const char *name;
        size_t at;
    } calls[] = {{"dsyevr_", offsetof(__typeof__(lapack), syevr)},
                 {"dgeqrf_", offsetof(__typeof__(lapack), geqrf)},
                 {"dorgqr_", offsetof(__typeof__(lapack), orgqr)},
                 {"dsyrk_", offsetof(__typeof__(lapack), syrk)},
                 {"dgemm_", offsetof(__typeof__(lapack), gemm)}};
    if (lapack.syevr) return ST_OK;
    void *so = dlopen("liblapack.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!so) FAIL(ST_NOT_BUILT, "LAPACK is not installed (%s): install Debian's liblapack3, or libopenblas0, which is faster", dlerror());
    __typeof__(lapack) found;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *f = dlsym(so, calls[i].name);
        if (!f) FAIL(ST_NOT_BUILT, "liblapack.so.3 has no %s", calls[i].name);
        memcpy((char *)&found + calls[i].at, &f, sizeof f);
    }
    one_thread(so);
    lapack = found;
    return ST_OK;
}

/* ---- room ---------------------------------------------------------------------------------------------------------------------------- */

enum { BLOCK = 1 << 18, WORK = 64, IWORK = 10 };

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Column-major matrices, as LAPACK has them. */
struct room {
    double *block;  /* a piece of W in f64 */
    double *x, *y;  /* [longer side, rank] */
    double *c, *p;  /* [rank, rank] */
    double *values; /* eigenvalues, or scales of reflectors */
    double *work;
    int *iwork;   /* IWORK for each row, then what supports each vector */
    double *gram; /* [n, n] of the smaller side */
};

static int64_t take(struct room *r, double *base, int64_t out, int64_t in, int64_t rank, bool principal)
{
    int64_t side = larger(out, in), n = principal ? smaller(out, in) : rank, at = 0;
    const struct {
        double **to;
        int64_t count;
    } parts[] = {{&r->block, larger(BLOCK, side)},
                 {&r->x, side * rank},
                 {&r->y, side * rank},
                 {&r->c, rank * rank},
                 {&r->p, rank * rank},
                 {&r->values, larger(n, rank)},
                 {&r->work, WORK * larger(n, rank)},
                 {&r->gram, principal ? n * n : 0}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].to = base ? base + at : NULL;
        at += parts[i].count;
    }
    r->iwork = base ? (int *)(base + at) : NULL;
    return at + (IWORK * larger(n, rank) + 2 * rank + 1) / 2;
}

int64_t factor_room(int64_t out, int64_t in, int64_t rank, bool principal)
{
    struct room r;
    return take(&r, NULL, out, in, rank, principal);
}

/* ---- products with W, a piece at a time -------------------------------------------------------------------------------------------------- */

static double at(const tensor *w, int64_t o, int64_t c)
{
    int64_t i = o * w->ld + c;
    return w->dt == DT_BF16 ? (double)bf16_widen(((const bf16 *)w->data)[i]) : (double)((const float *)w->data)[i];
}

/* Rows [first, first + rows) and columns likewise: row after row, so a column-major [columns, rows]. */
static void widen(const tensor *w, int64_t first, int64_t rows, int64_t column, int64_t columns, double *to)
{
    for (int64_t o = 0; o < rows; o++)
        for (int64_t c = 0; c < columns; c++) to[o * columns + c] = at(w, first + o, column + c);
}

static void product(const char *ta, const char *tb, int64_t m, int64_t n, int64_t k, const double *a, int64_t lda, const double *b,
                    int64_t ldb, double beta, double *c, int64_t ldc)
{
    const int sizes[] = {(int)m, (int)n, (int)k, (int)lda, (int)ldb, (int)ldc};
    const double one = 1;
    lapack.gemm(ta, tb, &sizes[0], &sizes[1], &sizes[2], &one, a, &sizes[3], b, &sizes[4], &beta, c, &sizes[5], 1, 1);
}

/* y [out, rank] = W·x [in, rank], or, transposed, y [in, rank] = Wᵀ·x [out, rank]. */
static void times(const struct factor *f, const struct room *r, bool transposed, const double *x, double *y)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1], most = larger(BLOCK / in, 1);
    for (int64_t o = 0; o < out; o += most) {
        int64_t n = smaller(most, out - o);
        widen(&f->w, o, n, 0, in, r->block);
        if (transposed)
            product("N", "N", in, f->rank, n, r->block, in, x + o, out, o > 0, y, in);
        else
            product("T", "N", n, f->rank, in, r->block, in, x, in, 0, y + o, out);
    }
}

/* W·Wᵀ where W has fewer rows than columns, else Wᵀ·W: one half of it. */
static void gram(const struct factor *f, const struct room *r, bool left)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1], side = left ? out : in, other = left ? in : out, most = larger(BLOCK / side, 1);
    const int n = (int)side;
    for (int64_t i = 0; i < other; i += most) {
        int64_t count = smaller(most, other - i);
        const int k = (int)count;
        const double one = 1, beta = i > 0;
        if (left)
            widen(&f->w, 0, out, i, count, r->block);
        else
            widen(&f->w, i, count, 0, in, r->block);
        lapack.syrk("U", left ? "T" : "N", &n, &k, &one, r->block, left ? &k : &n, &beta, r->gram, &n, 1, 1);
    }
}

/* ---- pieces of linear algebra --------------------------------------------------------------------------------------------------------------- */

/* The vectors of the `count` largest eigenvalues of a symmetric matrix, in ascending order. Overwrites it. */
static status eigen(const struct room *r, double *a, int64_t n, int64_t count, double *vectors)
{
    const int size = (int)n, first = (int)(n - count + 1), n_work = (int)(WORK * n), n_iwork = (int)(IWORK * n);
    const double none = 0;
    int found, info;
    lapack.syevr("V", "I", "U", &size, a, &size, &none, &none, &first, &size, &none, &found, r->values, vectors, &size, r->iwork + n_iwork,
                 r->work, &n_work, r->iwork, &n_iwork, &info, 1, 1, 1);
    if (info || found != count) FAIL(ST_FAIL, "LAPACK's dsyevr found %d of %lld eigenvectors (info %d)", found, (long long)count, info);
    return ST_OK;
}

/* Columns [m, n] become an orthonormal basis of what they span, by Householder's reflections. */
static status orthonormal(const struct room *r, double *x, int64_t m, int64_t n)
{
    const int rows = (int)m, columns = (int)n, n_work = (int)(WORK * n);
    int info;
    lapack.geqrf(&rows, &columns, x, &rows, r->values, r->work, &n_work, &info);
    if (!info) lapack.orgqr(&rows, &columns, &columns, x, &rows, r->values, r->work, &n_work, &info);
    if (info) FAIL(ST_FAIL, "LAPACK's QR decomposition of [%lld, %lld] failed (info %d)", (long long)m, (long long)n, info);
    return ST_OK;
}

static double length(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* From singular vectors of one side, columns of v in ascending order, both factors, largest first: u = W or Wᵀ times them has their
 * lengths as singular values. left: v are those of the rows, so B's. */
static void finish(const struct factor *f, const struct room *r, bool left, const double *v, double *u)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1], n = left ? out : in, other = left ? in : out;
    times(f, r, left, v, u);
    for (int64_t k = 0; k < f->rank; k++) {
        const double *x = v + (f->rank - 1 - k) * n, *y = u + (f->rank - 1 - k) * other;
        double value = length(y, other), root = sqrt(value / f->scale), rest = value > 0 ? 1 / sqrt(value * f->scale) : 0;
        for (int64_t o = 0; o < out; o++) f->b[o * f->rank + k] = (float)(left ? x[o] * root : y[o] * rest);
        for (int64_t c = 0; c < in; c++) f->a[k * in + c] = (float)(left ? y[c] * rest : x[c] * root);
    }
}

/* ---- the four ----------------------------------------------------------------------------------------------------------------------------- */

status factor_principal(const struct factor *f)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1];
    bool left = out <= in;
    struct room r;
    TRY(factor_ready());
    take(&r, f->room, out, in, f->rank, true);
    gram(f, &r, left);
    TRY(eigen(&r, r.gram, left ? out : in, f->rank, r.x));
    finish(f, &r, left, r.x, r.y);
    return ST_OK;
}

static double uniform(uint32_t word) { return ((double)word + 0.5) / 4294967296.0; }

/* Independent normal numbers (Box–Muller), as a function of key and `which` draw it is. */
static void normals(uint64_t key, uint64_t which, double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 2) {
        philox4 d = philox(key, (uint64_t)i / 4, which);
        double radius = sqrt(-2 * log(uniform(d.v[i & 2]))), angle = 2 * M_PI * uniform(d.v[(i & 2) + 1]);
        x[i] = radius * cos(angle);
        if (i + 1 < n) x[i + 1] = radius * sin(angle);
    }
}

/* Each round turns the basis towards the large singular values, by W and back. */
status factor_subspace(const struct factor *f, int rounds)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1], rank = f->rank;
    bool left = out >= in; /* the basis is of the longer side, as torch.svd_lowrank has it */
    int64_t n = left ? out : in, other = left ? in : out;
    struct room r;
    TRY(factor_ready());
    take(&r, f->room, out, in, rank, false);
    normals(f->key, 0, r.y, other * rank);
    for (int i = 0; i <= rounds; i++) {
        times(f, &r, !left, r.y, r.x);
        TRY(orthonormal(&r, r.x, n, rank));
        if (i == rounds) break;
        times(f, &r, left, r.x, r.y);
        TRY(orthonormal(&r, r.y, other, rank));
    }
    times(f, &r, left, r.x, r.y);
    product("T", "N", rank, rank, other, r.y, other, r.y, other, 0, r.c, rank);
    TRY(eigen(&r, r.c, rank, rank, r.p));
    product("N", "N", n, rank, rank, r.x, n, r.p, rank, 0, r.y, n);
    finish(f, &r, left, r.y, r.x);
    return ST_OK;
}

status factor_qr(const struct factor *f)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1], rank = f->rank;
    struct room r;
    TRY(factor_ready());
    take(&r, f->room, out, in, rank, false);
    for (int64_t k = 0; k < rank; k++)
        for (int64_t o = 0; o < out; o++) r.x[k * out + o] = at(&f->w, o, k);
    TRY(orthonormal(&r, r.x, out, rank));
    times(f, &r, true, r.x, r.y);
    for (int64_t k = 0; k < rank; k++) {
        for (int64_t o = 0; o < out; o++) f->b[o * rank + k] = (float)r.x[k * out + o];
        for (int64_t c = 0; c < in; c++) f->a[k * in + c] = c < k ? 0 : (float)r.y[k * in + c];
    }
    return ST_OK;
}

/* Rows of an [n, n] of normal numbers, made orthonormal: twice, so that rounding does not count. */
static void orthonormal_rows(double *q, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        for (int twice = 0; twice < 2; twice++)
            for (int64_t j = 0; j < i; j++) {
                double dot = 0;
                for (int64_t k = 0; k < n; k++) dot += q[i * n + k] * q[j * n + k];
                for (int64_t k = 0; k < n; k++) q[i * n + k] -= dot * q[j * n + k];
            }
        double size = length(q + i * n, n);
        for (int64_t k = 0; k < n; k++) q[i * n + k] /= size;
    }
}

/* A's rows lie in what the first, third … rows of Q span, B's in what the others do. */
void factor_orthogonal(const struct factor *f)
{
    int64_t out = f->w.dim[0], in = f->w.dim[1], rank = f->rank, half = rank / 2;
    struct room r;
    take(&r, f->room, out, in, rank, false);
    normals(f->key, 0, r.c, rank * rank);
    normals(f->key, 1, r.x, in * half);
    normals(f->key, 2, r.y, out * half);
    orthonormal_rows(r.c, rank);
    for (int64_t k = 0; k < rank; k++) {
        for (int64_t c = 0; c < in; c++) {
            double sum = 0;
            for (int64_t i = 0; i < half; i++) sum += r.x[c * half + i] * r.c[2 * i * rank + k];
            f->a[k * in + c] = (float)(sum / 10);
        }
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t i = 0; i < half; i++) sum += r.y[o * half + i] * r.c[(2 * i + 1) * rank + k];
            f->b[o * rank + k] = (float)(sum / 10);
        }
    }
}
