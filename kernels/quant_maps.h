/* quant_maps.h — the code books of quantised tensors, as constants. */
#ifndef TRIMPOT_QUANT_MAPS_H
#define TRIMPOT_QUANT_MAPS_H

#include <stdint.h>

/* A scale per block of elements, a scale of scales per group of blocks. */
enum { NF4_BLOCK = 64, NF4_NESTED_BLOCK = 256, NF4_GROUP = NF4_BLOCK * NF4_NESTED_BLOCK };

/* What n elements take: bytes of codes, u8 scales, f32 scales of scales. */
struct nf4_sizes {
    int64_t codes, blocks, nested;
};
static inline struct nf4_sizes nf4_sizes(int64_t n)
{
    return (struct nf4_sizes){(n + 1) / 2, (n + NF4_BLOCK - 1) / NF4_BLOCK, (n + NF4_GROUP - 1) / NF4_GROUP};
}

extern const float nf4_map[16];               /* ascending */
extern const float nf4_threshold[15];         /* f32 midpoints: above goes up, a tie stays at the lower code */
extern const float dynamic_map_signed[256];   /* ascending; [127] = 0, no −1 */
extern const float dynamic_map_unsigned[256]; /* ascending; [0] = 0 */

/* The thresholds of the dynamic maps, found in one look (quant_cells.h): of magnitudes of the signed one, and of the unsigned one. */
const uint32_t *quant_cells_signed(void);
const uint32_t *quant_cells_unsigned(void);

/* The values of a dynamic map byte by byte, for a processor that looks up bytes: those of its 256 floats from the lowest to the highest. */
struct quant_bytes {
    uint8_t at[4][256];
};
const struct quant_bytes *quant_bytes_signed(void);
const struct quant_bytes *quant_bytes_unsigned(void);

#endif
