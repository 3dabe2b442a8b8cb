/* st_dtype.h — the element types of safetensors. Internal to checkpoints/. */
#ifndef TRIMPOT_ST_DTYPE_H
#define TRIMPOT_ST_DTYPE_H

struct st_dtype {
    const char *text;
    int bits;
    int dt; /* enum dtype, or -1: passes through only */
};

extern const struct st_dtype st_dtypes[]; /* ends with text == NULL */

#endif
