/* emu.h — the emulated device, inside: what its parts ask of each other. Kernels see only the headers of CUDA's names in include/.
 *
 *     kernels/cuda/X.cu ── LAUNCH ──▶ emu_enqueue(stream, "X", closure)        runtime.cc: streams are queues of closures, run as late
 *     kernels/cuda/device.c ── cuda… ─▶  and in as random an order as is legal                            │
 *     kernels/cuda/gemm.c ── cublasLt… ▶                                                                  ▼
 *     collectives/…nccl.c ── nccl… ───▶                                    emu_grid(kernel, …)   grid.cc: blocks on threads, each
 *                                                                          thread of a block a fiber that yields at every rendezvous
 *
 * One seed (TRIMPOT_EMU_SEED, default 1) decides every order. TRIMPOT_EMU_FAIL injects failures (runtime.cc). */
#ifndef TRIMPOT_EMU_H
#define TRIMPOT_EMU_H

#include <cstddef>
#include <cstdint>
#include <functional>

#include <cuda_runtime_api.h>

/* Queues work on a stream: a kernel, a product, a collective. Returns what a launch returns: a sticky error, an injected one, or
 * cudaSuccess. `run` is called later, once (or once per replay of a graph), on the thread that has to wait for it. */
cudaError_t emu_enqueue(cudaStream_t on, const char *what, std::function<cudaError_t()> run);

/* The same for what speaks with other processes: run returns cudaErrorNotReady while it waits for one of them, and is tried again; it
 * runs without being waited for, too (queue_talk). */
cudaError_t emu_talk(cudaStream_t on, const char *what, std::function<cudaError_t()> run);

/* Whether a kernel may be given this pointer: into device memory. cudaErrorInvalidValue after saying what it is. (Pointers within a
 * struct are judged when the kernel uses them: an op's arguments have some of the host's, which no kernel follows, and bytes between
 * members may say anything.) Weak: the emulation's own tests have no such memory. */
cudaError_t emu_argument(const char *kernel, const void *pointer) __attribute__((weak));

/* Runs a grid to its end. thread(): what one thread does; threadIdx and the others are set around it. Returns
 * cudaErrorLaunchFailure, after saying kernel, block, threads and source lines on stderr, for what no GPU may do: a barrier some
 * threads of the block do not reach, a warp primitive under a mask its lane is not in, … */
cudaError_t emu_grid(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &thread);

/* The next of the seed's numbers, of one sequence per purpose, so that one purpose does not shift another's. */
enum emu_purpose { EMU_FIBERS, EMU_BLOCKS, EMU_STREAMS, EMU_SUMS, EMU_PURPOSES };
uint64_t emu_random(enum emu_purpose purpose);

#endif
