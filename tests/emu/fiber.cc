/* fiber.cc — stacks and the switch between them. */
#include "tests/emu/fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { STACK_BYTES = 256 << 10 };
#else
enum { STACK_BYTES = 64 << 10 };
#endif

/* What System V lets a function keep: rbx, rbp, r12–r15 and the stack. Rounding modes are never changed, so not kept. */
asm(R"(
    .text
    .type emu_swap, @function
    .hidden emu_swap
    .globl emu_swap
emu_swap:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
    .size emu_swap, .-emu_swap
)");

void fiber_reset(struct fiber *f, unsigned number, void (*entry)(void))
{
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(f->bottom, f->bytes);
#endif
    /* Tops at one distance of each other would share cache sets. */
    uintptr_t *top = (uintptr_t *)(void *)(f->bottom + f->bytes - number * 320 % 4096);
    *--top = 0; /* where entry() would return to: it never does, and unwinders stop here */
    *--top = (uintptr_t)entry;
    for (int i = 0; i < 6; i++) *--top = 0;
    f->sp = top;
    f->fake = nullptr;
}

static size_t slot_bytes(void)
{
    static const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return page + STACK_BYTES;
}

char *fiber_arena(unsigned stacks, size_t *bytes)
{
    *bytes = stacks * slot_bytes();
    char *p = (char *)mmap(nullptr, *bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != (char *)MAP_FAILED) return p;
    perror("emu: address space for the threads of a block");
    abort();
}

void fiber_open(struct fiber *f, char *arena, unsigned number, void (*entry)(void))
{
    char *bottom = arena + (number + 1) * slot_bytes() - STACK_BYTES;
    if (mprotect(bottom, STACK_BYTES, PROT_READ | PROT_WRITE)) {
        perror("emu: a stack for a thread of a block");
        abort();
    }
    *f = {.sp = nullptr, .bottom = bottom, .bytes = STACK_BYTES, .fake = nullptr};
    fiber_reset(f, number, entry);
}

void fiber_of_thread(struct fiber *f)
{
    pthread_attr_t attr;
    void *bottom = nullptr;
    *f = {};
    if (pthread_getattr_np(pthread_self(), &attr)) return;
    pthread_attr_getstack(&attr, &bottom, &f->bytes);
    pthread_attr_destroy(&attr);
    f->bottom = (char *)bottom;
}
