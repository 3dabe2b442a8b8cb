/* loss.cu — moves 2·V·sizeof(act) + 8 bytes per row (z → dz, label, loss): 4V in bf16; half of it for `forward_only`. One block per row
 * reads it once, keeps what shared memory holds of it (a row of 116224 bf16 on sm_90), and reads the rest again from the cache, last
 * first, as it writes dz. */
#include "kernels/cuda/pack.h"

constexpr float LOG2_E = 1.44269504f;
constexpr int LOSS_PACKS_EACH = 8;

/* Arguments are at most 0 but for rounding. */
static __device__ inline float exp_of(float x) { return exp2f(x * LOG2_E); }

/* Σ exp(z − top) and top, as far as a thread has seen z. */
struct running {
    float top, sum;
};

/* The block's maximum and sum; every thread gets them. */
static __device__ inline struct running block_total(struct running r, float (*scratch)[WARP])
{
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP;
    float top = warp_max(r.top);
    if (lane == 0) scratch[0][warp] = top;
    __syncthreads();
    top = warp_max(lane < warps ? scratch[0][lane] : -INFINITY);
    float sum = r.sum > 0.0f ? r.sum * exp_of(r.top - top) : r.sum; /* 0 where a thread has seen nothing; NaN stays */
    return {top, block_sum(sum, scratch[1])};
}

template <int N> static __device__ inline void meet(struct running *r, const float (&z)[N])
{
    float high = z[0];
    for (int i = 1; i < N; i++) high = z[i] > high ? z[i] : high;
    if (high > r->top) {
        if (r->sum > 0.0f) r->sum *= exp_of(r->top - high);
        r->top = high;
    }
    float base = r->top > -INFINITY ? r->top : 0.0f;
    for (int i = 0; i < N; i++) r->sum += exp_of(z[i] - base);
}

template <class T> struct loss_rows {
    view<T> z;
    int cols, kept; /* packs in shared memory */
    const int32_t *labels;
    float *loss;
    float cap;
    bool forward_only;
};

template <bool CAP, class T> static __device__ inline float logit(const loss_rows<T> &a, T z)
{
    return CAP ? vf_soft_cap(widen(z), a.cap) : widen(z);
}

/* dz of a pack; label: its place in the pack, if it is there. */
template <bool CAP, class T, int N> static __device__ inline void gradient(const loss_rows<T> &a, pack<T, N> &x, float lse, int label)
{
    for (int i = 0; i < N; i++) {
        float z = logit<CAP>(a, x.at[i]), dz = exp_of(z - lse);
        if (i == label) dz -= 1.0f;
        if (CAP) {
            float t = z / a.cap;
            dz = dz * (1.0f - t * t);
        }
        x.at[i] = narrow<T>(dz);
    }
}

template <class T, bool CAP, bool V> static __global__ void __launch_bounds__(MAX_THREADS) loss(loss_rows<T> a)
{
    constexpr int N = LANES<T>, AHEAD = V ? 4 : 2; /* packs in flight */
    typedef pack<T, N> row_pack;
    DYNAMIC_SHARED(row_pack, kept);
    __shared__ float scratch[2][WARP];
    T *row = a.z.row(blockIdx.x);
    int packs = (a.cols + N - 1) / N, threads = (int)blockDim.x, label = a.labels[blockIdx.x];
    struct running r = {-INFINITY, 0.0f};
    float target = logit<CAP>(a, row[label]);
    for (int first = (int)threadIdx.x; first < packs; first += AHEAD * threads) {
        row_pack x[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            if (first + k * threads < packs)
                x[k] = take<V, N>((const T *)row + (first + k * threads) * N, a.cols - (first + k * threads) * N);
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            int p = first + k * threads;
            if (p >= packs) break;
            float z[N];
            for (int i = 0; i < N; i++) z[i] = V || p * N + i < a.cols ? logit<CAP>(a, x[k].at[i]) : -INFINITY;
            meet(&r, z);
            if (p < a.kept) kept[p] = x[k];
        }
    }
    r = block_total(r, scratch);
    float lse = r.top + logf(r.sum);
    if (threadIdx.x == 0) a.loss[blockIdx.x] = lse - target;
    if (a.forward_only) return;
    int last = packs - 1 - (packs - 1 - (int)threadIdx.x) % threads;
    for (int p = (int)threadIdx.x < packs ? last : -1; p >= 0; p -= threads) {
        row_pack x = p < a.kept ? kept[p] : take<V, N>((const T *)row + p * N, a.cols - p * N);
        gradient<CAP>(a, x, lse, label - p * N);
        put<V>(row + p * N, x, a.cols - p * N);
    }
}

/* Bytes of shared memory that a block may ask for, but for what it has without asking. */
static status shared_limit(int *bytes)
{
    int device;
    TRY(cuda_status(cudaGetDevice(&device), "loss"));
    TRY(cuda_status(cudaDeviceGetAttribute(bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "loss"));
    *bytes -= (int)(2 * WARP * sizeof(float));
    return ST_OK;
}

status loss_cuda(struct stream *s, const struct loss_args *a)
{
    int64_t rows = a->z.dim[0], cols = a->z.dim[1];
    struct layout l = layout_of({&a->z}, false);
    int most, packs = (int)ceil_div(cols, l.lanes), threads = threads_for(ceil_div(packs, LOSS_PACKS_EACH), MAX_THREADS);
    if (!rows || !cols) return ST_OK;
    TRY(shared_limit(&most));
    int kept = a->forward_only ? 0 : packs < most / PACK_BYTES ? packs : most / PACK_BYTES;
    if (threads < WARP) threads = WARP;
    WITH_TYPE(a->z.dt, T, {
        loss_rows<T> p = {view_of<T>(&a->z, l), (int)cols, kept, a->labels, (float *)a->loss.data, a->cap, a->forward_only};
        WITH_BOOL(a->cap != 0, CAP, {
            WITH_BOOL(l.aligned, V,
                      { TRY(LAUNCH((loss<T, CAP, V>), dim3((unsigned)rows), dim3((unsigned)threads), (size_t)kept * PACK_BYTES, s, p)); });
        });
    });
    return ST_OK;
}
