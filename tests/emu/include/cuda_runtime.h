/* cuda_runtime.h — stands before CUDA's header of this name when kernels are compiled as C++ for the emulated device (tests/emu).
 *
 * What nvcc knows by itself is spelt out here: what a thread is (emu_threads.h), what it shares and how it meets others
 * (emu_warp.h), atomics and small functions (emu_functions.h), tensor cores and asynchronous copies (emu_mma.h), LAUNCH. */
#ifndef TRIMPOT_EMU_CUDA_RUNTIME_H
#define TRIMPOT_EMU_CUDA_RUNTIME_H

#include <cassert>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __launch_bounds__(...)

#include "tests/emu/emu.h"

#include "tests/emu/include/emu_threads.h"

#include "tests/emu/include/emu_warp.h"

#include "tests/emu/include/emu_functions.h"

#include "tests/emu/include/emu_mma.h"

/* ---- launches ---------------------------------------------------------------------------------------------------------------- */

/* cudaSuccess, or what CUDA says of a launch that no device takes. */
cudaError_t emu_launch_fits(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes);

/* Arguments are converted and copied now; the grid runs when its stream gets there. */
template <class... P, class... A>
static inline cudaError_t emu_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t on,
                                     A... args)
{
    static_assert(sizeof...(P) == sizeof...(A), "a launch with another number of arguments than its kernel has");
    static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied as bytes");
    cudaError_t fits = emu_launch_fits(name, grid, block, shared);
    if (fits != cudaSuccess) return fits;
    std::tuple<std::remove_cv_t<P>...> copies(static_cast<P>(args)...);
    auto judge = [&](const auto &arg) {
        if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(arg)>>)
            if (fits == cudaSuccess && emu_argument) fits = emu_argument(name, arg);
    };
    std::apply([&](const auto &...each) { (judge(each), ...); }, copies);
    if (fits != cudaSuccess) return fits;
    return emu_enqueue(on, name, [=] { return emu_grid(name, grid, block, shared, [&] { std::apply(kernel, copies); }); });
}

#define LAUNCH(kernel, grid, block, shared, s, ...)                                                                                        \
    cuda_status(emu_launch(#kernel, kernel, grid, block, shared, cuda_on(s) __VA_OPT__(, ) __VA_ARGS__), #kernel)

#define ALIGNED(p) emu_aligned_16(p, emu_where::current())

#define DYNAMIC_SHARED(T, name) T *name = (T *)emu_here.dynamic

#endif
