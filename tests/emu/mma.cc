/* mma.cc — asynchronous copies, ldmatrix and mma.m16n8k16: what tensor cores and their feeders do, one warp at a time. */
#include <cuda_runtime.h>

#include "tests/emu/block.h"
#include "tests/emu/races/races.h"

/* ---- cp.async ---------------------------------------------------------------------------------------------------------------- */

static void arrive(const struct copy *c)
{
    races_touch(c->from, (size_t)c->bytes, false);
    races_touch(c->to, 16, true);
    memcpy(c->to, c->from, (size_t)c->bytes);
    memset((char *)c->to + c->bytes, 0, 16 - (size_t)c->bytes);
}

void emu_cp_async(void *shared, const void *global, int bytes, emu_where where)
{
    struct block *b = emu_block();
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16)
        emu_fault(where, "cp.async of 16 bytes from %p to %p: not aligned", global, shared);
    if (bytes < 0 || bytes > 16) emu_fault(where, "cp.async of %d bytes", bytes);
    struct copies *mine = &b->copies[b->current];
    b->copying = true;
    struct copy c = {shared, global, bytes, mine->groups};
    if (emu_below(b, 8) == 0)
        arrive(&c);
    else
        mine->list.push_back(c);
}

void emu_cp_async_commit(void)
{
    struct block *b = emu_block();
    b->copying = true;
    b->copies[b->current].groups++;
}

void emu_cp_async_wait(int pending)
{
    struct block *b = emu_block();
    struct copies *mine = &b->copies[b->current];
    size_t kept = 0;
    for (const struct copy &c : mine->list) {
        if (c.group >= mine->groups - pending)
            mine->list[kept++] = c;
        else
            arrive(&c);
    }
    mine->list.resize(kept);
}

/* ---- ldmatrix ---------------------------------------------------------------------------------------------------------------- */

struct matrices {
    const uint16_t *row;
    bool transposed;
    unsigned *r;
};

static void finish_ldmatrix(uint32_t, void *const *frames)
{
    uint16_t m[4][8][8];
    for (int lane = 0; lane < 32; lane++) memcpy(m[lane / 8][lane % 8], ((const struct matrices *)frames[lane])->row, 16);
    for (int lane = 0; lane < 32; lane++) {
        const struct matrices *f = (const struct matrices *)frames[lane];
        int g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 4; i++)
            f->r[i] = f->transposed ? (unsigned)m[i][t + 1][g] << 16 | m[i][t][g] : (unsigned)m[i][g][t + 1] << 16 | m[i][g][t];
    }
}

void emu_ldmatrix(unsigned (&r)[4], const void *row, bool transposed, emu_where where)
{
    struct matrices frame = {(const uint16_t *)row, transposed, r};
    if ((uintptr_t)row % 16) emu_fault(where, "ldmatrix of a row at %p: not aligned to 16", row);
    races_touch(row, 16, false);
    emu_meet_whole(transposed ? "ldmatrix.trans" : "ldmatrix", finish_ldmatrix, &frame, where);
}

/* ---- mma --------------------------------------------------------------------------------------------------------------------- */

struct product {
    float *c;
    const unsigned *a;
    unsigned b[2];
};

static float low(unsigned pair)
{
    float x;
    pair <<= 16;
    memcpy(&x, &pair, 4);
    return x;
}

static float high(unsigned pair)
{
    float x;
    pair &= 0xffff0000u;
    memcpy(&x, &pair, 4);
    return x;
}

static void finish_mma(uint32_t, void *const *frames)
{
    float a[16][16], b[16][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const struct product *f = (const struct product *)frames[lane];
        int g = lane / 4, t = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            a[g + i % 2 * 8][t + i / 2 * 8] = low(f->a[i]);
            a[g + i % 2 * 8][t + i / 2 * 8 + 1] = high(f->a[i]);
            c[g + i / 2 * 8][t + i % 2] = f->c[i];
        }
        for (int i = 0; i < 2; i++) {
            b[t + i * 8][g] = low(f->b[i]);
            b[t + i * 8 + 1][g] = high(f->b[i]);
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++) c[row][column] = __builtin_fmaf(a[row][k], b[k][column], c[row][column]);
    for (int lane = 0; lane < 32; lane++) {
        float *mine = ((const struct product *)frames[lane])->c;
        for (int i = 0; i < 4; i++) mine[i] = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    }
}

void emu_mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, emu_where where)
{
    struct product frame = {c, a, {b0, b1}};
    emu_meet_whole("mma.m16n8k16", finish_mma, &frame, where);
}
