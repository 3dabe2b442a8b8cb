#include "kernels/quant_maps.h"

#include <string.h>
#include <threads.h>

#include "kernels/quant_cells.h"

#define QUANT_TABLE(name, count) const float name[count]
#include "kernels/quant_tables.h"

static struct found {
    struct quant_cells magnitudes, squares;
    struct quant_bytes with_sign, without;
} all;

static void take_apart(const float *map, struct quant_bytes *bytes)
{
    for (int i = 0; i < 256; i++) {
        uint32_t bits;
        memcpy(&bits, &map[i], sizeof bits);
        for (int b = 0; b < 4; b++) bytes->at[b][i] = (uint8_t)(bits >> 8 * b);
    }
}

static void find(void)
{
    all.magnitudes = quant_cells_of(dynamic_thresholds_magnitude, DYNAMIC_MAGNITUDES);
    all.squares = quant_cells_of(dynamic_thresholds_unsigned, DYNAMIC_UNSIGNED);
    take_apart(dynamic_map_signed, &all.with_sign);
    take_apart(dynamic_map_unsigned, &all.without);
}

static const struct found *found(void)
{
    static once_flag once = ONCE_FLAG_INIT;
    call_once(&once, find);
    return &all;
}

const uint32_t *quant_cells_signed(void) { return found()->magnitudes.at; }
const uint32_t *quant_cells_unsigned(void) { return found()->squares.at; }
const struct quant_bytes *quant_bytes_signed(void) { return &found()->with_sign; }
const struct quant_bytes *quant_bytes_unsigned(void) { return &found()->without; }
