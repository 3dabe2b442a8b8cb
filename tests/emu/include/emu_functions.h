/* emu_functions.h — atomics, cache hints and small functions that CUDA declares for device code. */
#ifndef TRIMPOT_EMU_FUNCTIONS_H
#define TRIMPOT_EMU_FUNCTIONS_H

#include "tests/emu/include/emu_threads.h"

/* ---- atomics: of integers; what order float sums would take is chance, so there are none ------------------------------------- */

template <class T> struct emu_same {
    typedef T type;
};
template <class T> using emu_value = typename emu_same<T>::type; /* converts to what the pointer says, as an overload would */

template <class T> constexpr bool emu_atomic = std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);

#define EMU_ATOMIC(name, ...)                                                                                                              \
    template <class T> static inline T name(T *p, emu_value<T> v)                                                                          \
    {                                                                                                                                      \
        static_assert(emu_atomic<T>, #name " of 4 or 8 byte integers: the order of float atomics is chance");                              \
        __VA_ARGS__                                                                                                                        \
    }
#define EMU_ATOMIC_BY(name, better)                                                                                                        \
    EMU_ATOMIC(                                                                                                                            \
        name, T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                                                \
        while ((better) && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {} return old;)

EMU_ATOMIC(atomicAdd, return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);)
EMU_ATOMIC(atomicSub, return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED);)
EMU_ATOMIC(atomicAnd, return __atomic_fetch_and(p, v, __ATOMIC_RELAXED);)
EMU_ATOMIC(atomicOr, return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);)
EMU_ATOMIC(atomicXor, return __atomic_fetch_xor(p, v, __ATOMIC_RELAXED);)
EMU_ATOMIC_BY(atomicMax, v > old)
EMU_ATOMIC_BY(atomicMin, v < old)

/* Exchanges move bits, so floats may. */
template <class T> static inline T atomicExch(T *p, emu_value<T> v)
{
    T old;
    __atomic_exchange(p, &v, &old, __ATOMIC_RELAXED);
    return old;
}

template <class T> static inline T atomicCAS(T *p, emu_value<T> compare, emu_value<T> v)
{
    static_assert(std::is_integral_v<T>);
    T old = compare;
    __atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return old;
}

static inline void __threadfence(void) { asm volatile("mfence" ::: "memory"); }
static inline void __threadfence_block(void) { asm volatile("mfence" ::: "memory"); }
static inline void __threadfence_system(void) { asm volatile("mfence" ::: "memory"); }

/* ---- loads and stores with hints: a GPU faults where a vector is not aligned to its size ------------------------------------- */

template <class T> static inline const T *emu_aligned(const T *p, emu_where where)
{
    if ((uintptr_t)p % sizeof(T)) emu_fault(where, "a vector of %zu bytes at %p: not aligned", sizeof(T), (const void *)p);
    return p;
}

template <class T> static inline T *emu_aligned_16(T *p, emu_where where)
{
    if ((uintptr_t)p % 16) emu_fault(where, "16 bytes at %p: not aligned", (const void *)p);
    return p;
}

#define EMU_LOAD(name)                                                                                                                     \
    template <class T> static inline T name(const T *p, emu_where where = emu_where::current()) { return *emu_aligned(p, where); }
EMU_LOAD(__ldg)
EMU_LOAD(__ldcg)
EMU_LOAD(__ldca)
EMU_LOAD(__ldcs)
EMU_LOAD(__ldlu)
EMU_LOAD(__ldcv)

#define EMU_STORE(name)                                                                                                                    \
    template <class T> static inline void name(T *p, emu_value<T> v, emu_where where = emu_where::current())                               \
    {                                                                                                                                      \
        emu_aligned((const T *)p, where);                                                                                                  \
        *p = v;                                                                                                                            \
    }
EMU_STORE(__stwb)
EMU_STORE(__stcg)
EMU_STORE(__stcs)
EMU_STORE(__stwt)

/* ---- bits, conversions, rounding --------------------------------------------------------------------------------------------- */

#define EMU_BITS(name, to, from)                                                                                                           \
    static inline to name(from x)                                                                                                          \
    {                                                                                                                                      \
        to y;                                                                                                                              \
        memcpy(&y, &x, sizeof y);                                                                                                          \
        return y;                                                                                                                          \
    }
EMU_BITS(__float_as_uint, unsigned, float)
EMU_BITS(__float_as_int, int, float)
EMU_BITS(__uint_as_float, float, unsigned)
EMU_BITS(__int_as_float, float, int)
EMU_BITS(__double_as_longlong, long long, double)
EMU_BITS(__longlong_as_double, double, long long)

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned __brev(unsigned x)
{
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((uint64_t)high << 32 | low) << (by & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (by & 31));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned pick = selector >> 4 * i & 0xf, byte = bytes >> 8 * (pick & 7) & 0xff;
        out |= (pick & 8 ? (byte & 0x80 ? 0xffu : 0) : byte) << 8 * i;
    }
    return out;
}

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b)
{
    return (std::common_type_t<A, B>)b < (std::common_type_t<A, B>)a ? b : a;
}
template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b)
{
    return (std::common_type_t<A, B>)a < (std::common_type_t<A, B>)b ? b : a;
}

static inline size_t __cvta_generic_to_shared(const void *p) { return (size_t)p; }
[[noreturn]] static inline void __trap(emu_where where = emu_where::current()) { emu_fault(where, "__trap"); }
static inline void __nanosleep(unsigned) {}

#endif
