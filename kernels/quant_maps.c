#include "kernels/quant_maps.h"

#include <threads.h>

#include "kernels/quant_cells.h"

#define QUANT_TABLE(name, count) const float name[count]
#include "kernels/quant_tables.h"

static struct quant_cells of_magnitudes, of_unsigned;

static void find_cells(void)
{
    of_magnitudes = quant_cells_of(dynamic_thresholds_magnitude, DYNAMIC_MAGNITUDES);
    of_unsigned = quant_cells_of(dynamic_thresholds_unsigned, DYNAMIC_UNSIGNED);
}

static const struct quant_cells *found(const struct quant_cells *cells)
{
    static once_flag once = ONCE_FLAG_INIT;
    call_once(&once, find_cells);
    return cells;
}

const uint32_t *quant_cells_signed(void) { return found(&of_magnitudes)->at; }
const uint32_t *quant_cells_unsigned(void) { return found(&of_unsigned)->at; }
