#include "kernels/quant_maps.h"

#define QUANT_TABLE(name, count) const float name[count]
#include "kernels/quant_tables.h"
