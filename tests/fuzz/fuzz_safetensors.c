/* The safetensors header: any accepted image must hold every tensor inside its bytes; and of any weight that is accepted as quantised,
 * all parts must have what decoding reads. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/bnb.h"
#include "kernels/quant_maps.h"

static unsigned sum_of(const struct st_entry *e, int64_t bytes)
{
    unsigned sum = 0;
    if ((int64_t)e->bytes < bytes) abort();
    for (int64_t k = 0; k < bytes; k++) sum += ((const unsigned char *)e->data)[k];
    return sum;
}

/* Every tensor as if it were a quantised weight, of the sizes that its state says, both ways. */
static unsigned quantised(const struct st_set *files, const struct st_entry *e, bool nested)
{
    const struct bnb_config c = {.is = true, .nested = nested, .storage = e->known ? e->dt : DT_U8};
    struct bnb_tensor t;
    int64_t rows = 2, cols = 64;
    for (int again = 0; again < 2; again++) {
        if (!bnb_find(&c, files, e, rows, cols, NULL, &t)) break;
        if (again || t.state.rows < 1) return 0;
        rows = t.state.rows;
        cols = t.state.cols;
    }
    struct nf4_sizes n = nf4_sizes(rows * cols);
    if (t.state.nested != nested || bnb_check_scales(&t)) return 0;
    unsigned sum = sum_of(t.codes, n.codes) + sum_of(t.absmax, n.blocks * (nested ? 1 : 4));
    return sum + (nested ? sum_of(t.nested, n.nested * 4) + (t.map ? sum_of(t.map, 1024) : 0) : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *copy = malloc(size ? size : 1); /* exact, so that a byte too far is seen */
    struct st_entry *entries;
    int n;
    memcpy(copy, data, size);
    if (st_parse("fuzz", copy, size, &entries, &n) == ST_OK) {
        unsigned sum = 0;
        for (int i = 0; i < n; i++)
            for (size_t k = 0; k < entries[i].bytes; k++) sum += ((const unsigned char *)entries[i].data)[k];
        const struct st_set files = {.entries = entries, .n = n};
        for (int i = 0; i < n; i++) sum += quantised(&files, &entries[i], false) + quantised(&files, &entries[i], true);
        if (n && sum == 0xffffffffu) abort();
        st_entries_free(entries, n);
    }
    free(copy);
    return 0;
}
