/* quant_maps.h — the code books of quantised tensors, as constants. */
#ifndef TRIMPOT_QUANT_MAPS_H
#define TRIMPOT_QUANT_MAPS_H

enum { NF4_BLOCK = 64, NF4_NESTED_BLOCK = 256 };

extern const float nf4_map[16];       /* ascending */
extern const float nf4_threshold[15]; /* f32 midpoints: above goes up, a tie stays at the lower code */
extern const float dynamic_map_signed[256]; /* ascending; [127] = 0, no −1 */

#endif
