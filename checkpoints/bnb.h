/* bnb.h — weights that bitsandbytes has quantised to NF4, as transformers saves them: config.json says which, tensors beside each weight
 * say how.
 *
 *   NAME                                U8 (or the bytes of 16- or 32-bit numbers)   two codes a byte, the first in the high nibble
 *   NAME.absmax                         F32 a scale for each 64 values; U8 where those are quantised again (double quantisation)
 *   NAME.quant_map                      F32 [16] the code book
 *   NAME.nested_absmax                  F32 a scale for each 256 scales       ⎫ double
 *   NAME.nested_quant_map               F32 [256] their code book            ⎭ quantisation
 *   NAME.quant_state.bitsandbytes__nf4  U8 JSON: the rest
 *
 * Every field is obeyed or refused. */
#ifndef TRIMPOT_BNB_H
#define TRIMPOT_BNB_H

#include "checkpoints/hf.h"

/* quantization_config of a config.json. */
struct bnb_config {
    bool is;       /* there is one, and it says 4 bits, NF4 */
    bool nested;   /* bnb_4bit_use_double_quant */
    dtype storage; /* bnb_4bit_quant_storage: what the codes are called in the files */
    dtype compute; /* bnb_4bit_compute_dtype: what bitsandbytes multiplies in */
    char **skip;   /* llm_int8_skip_modules: linears that are not quantised */
    int n_skip;
};

/* ST_NOT_BUILT for what is quantised otherwise, naming key, value and remedy; ST_CORRUPT for what means nothing. Of a directory without
 * quantised weights: `is` false. */
status bnb_config_read(const char *dir, struct bnb_config *out);
/* Of a config.json that is open (jdoc.h): hf_config_parse judges it so as well. */
struct jdoc;
status bnb_config_of(const struct jdoc *d, struct bnb_config *out);
void bnb_config_free(struct bnb_config *c);
/* Does transformers quantise this linear of a block, e.g. "model.layers.0.self_attn.q_proj"? */
bool bnb_quantises(const struct bnb_config *c, const char *module);

/* The JSON beside a weight. */
struct bnb_state {
    dtype dt; /* what the weight was, and what it is dequantised to before anything is computed with it */
    int64_t rows, cols;
    bool nested;
    float offset; /* nested: the mean of the scales */
};
status bnb_state_parse(const char *where, const char *text, size_t n, struct bnb_state *out); /* fuzz entry */

/* A quantised weight in its files. */
struct bnb_tensor {
    const struct st_entry *codes;  /* NULL: there is none */
    const struct st_entry *absmax; /* one scale per 64 values */
    const struct st_entry *nested; /* one per 256 of those; NULL: scales are f32 */
    const struct st_entry *map;    /* of nested scales, where it is not dynamic_map_signed bit for bit; else NULL */
    struct bnb_state state;
};

/* `weight`: its entry. All parts checked for presence, dtype and size. taken [files->n]: those found become true; may be NULL. */
status bnb_find(const struct bnb_config *c, const struct st_set *files, const struct st_entry *weight, int64_t rows, int64_t cols,
                bool *taken, struct bnb_tensor *out);
/* Is there a quant state beside the tensor of this name? */
bool bnb_is_quantised(const struct st_set *files, const char *name);
/* Finite, all of them: ST_CORRUPT names the first that is not. Reads every page of the scales. */
status bnb_check_scales(const struct bnb_tensor *t);
/* Of a sample, the share of values that are not what the directory's tensor was made from: of a quantised one (t->codes) those that have
 * another code, else those that `source` does not equal but for rounding. About 0 for the model that was quantised. */
double bnb_strays(const struct bnb_tensor *t, const struct st_entry *source, const struct st_entry *original);

#endif
