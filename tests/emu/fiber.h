/* fiber.h — stacks of their own and the switch between them: x86-64, System V. A fiber stays on the OS thread that made it. */
#ifndef TRIMPOT_EMU_FIBER_H
#define TRIMPOT_EMU_FIBER_H

#include <cstddef>

struct fiber {
    void *sp; /* where it was left */
    char *bottom;
    size_t bytes;
    void *fake; /* AddressSanitizer's, while it is left */
};

/* Address space for so many stacks, of which fiber_open takes them by number. */
char *fiber_arena(unsigned stacks, size_t *bytes);

/* A new stack (guard page below it) on which entry() runs when it is first switched to. */
void fiber_open(struct fiber *f, char *arena, unsigned number, void (*entry)(void));

/* Forgets what ran on the stack; the next switch to it runs entry() again. */
void fiber_reset(struct fiber *f, unsigned number, void (*entry)(void));

/* The stack of the calling OS thread, so that it can be switched from and to. */
void fiber_of_thread(struct fiber *f);

extern "C" void emu_swap(void **from_sp, void *to_sp);

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

/* Leaves `from`, which runs; goes on where `to` was left. */
static inline void fiber_switch(struct fiber *from, struct fiber *to)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->fake, to->bottom, to->bytes);
    emu_swap(&from->sp, to->sp);
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#else
    emu_swap(&from->sp, to->sp);
#endif
}

/* The first words of an entry(). */
static inline void fiber_entered(void)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

#endif
