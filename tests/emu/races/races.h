/* races.h — what the emulated device tells of ordering to the race detector (races.cc), which is there only in plugins that are built
 * with EMU_RACES, their kernels under -fsanitize=thread: the compiler then calls the detector at every access. */
#ifndef TRIMPOT_EMU_RACES_H
#define TRIMPOT_EMU_RACES_H

struct block;

#ifdef EMU_RACES
constexpr bool RACES_ARE_SOUGHT = true;
void races_begin_grid(void); /* holds the detector until races_end_grid: one block at a time */
void races_end_grid(void);
void races_begin_block(struct block *b);
void races_barrier(void);                              /* all threads of the block are here */
void races_syncwarp(int warp, uint32_t members);       /* these lanes are */
void races_touch(const void *p, size_t n, bool write); /* what no compiler sees: by the thread that runs */
#else
constexpr bool RACES_ARE_SOUGHT = false;
static inline void races_begin_grid(void) {}
static inline void races_end_grid(void) {}
static inline void races_begin_block(struct block *) {}
static inline void races_barrier(void) {}
static inline void races_syncwarp(int, uint32_t) {}
static inline void races_touch(const void *, size_t, bool) {}
#endif

#endif
