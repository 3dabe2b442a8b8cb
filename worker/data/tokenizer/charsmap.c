#include "worker/data/tokenizer/charsmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/text.h"

static uint32_t little_endian(const unsigned char *b) { return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24; }

status tok_charsmap_read(struct tok_charsmap *m, const unsigned char *blob, size_t n)
{
    uint32_t table = n < 4 ? 0 : little_endian(blob);
    if (n < 8 || table == 0 || table % 4 || table > n - 4)
        FAIL(ST_CORRUPT, "precompiled_charsmap of %zu bytes says its table has %" PRIu32, n, table);
    m->units = table / 4;
    m->unit = mem_alloc(table);
    for (size_t i = 0; i < m->units; i++) m->unit[i] = little_endian(blob + 4 + 4 * i);
    m->pool_n = n - 4 - table;
    m->pool = mem_alloc(m->pool_n + 1);
    memcpy(m->pool, blob + 4 + table, m->pool_n);
    return ST_OK;
}

void tok_charsmap_release(struct tok_charsmap *m)
{
    free(m->unit);
    free(m->pool);
    *m = (struct tok_charsmap){0};
}

/* Darts-clone units: label in bits 0-7 and 31, "value follows" in bit 8, offset to the children in the rest. */
size_t tok_charsmap_match(const struct tok_charsmap *m, const char *text, size_t n, const char **to)
{
    size_t best = 0;
    if (!m->units) return 0;
    uint32_t unit = m->unit[0], at = 0;
    for (size_t i = 0; i < n; i++) {
        at ^= (unit >> 10) << ((unit & 512) >> 6);
        at ^= (unsigned char)text[i];
        if (at >= m->units) break;
        unit = m->unit[at];
        if ((unit & 0x800000ffu) != (unsigned char)text[i]) break;
        if (!(unit & 256)) continue;
        uint32_t leaf = at ^ (unit >> 10) << ((unit & 512) >> 6);
        uint32_t where = leaf < m->units ? m->unit[leaf] & 0x7fffffffu : UINT32_MAX;
        if (where >= m->pool_n) continue;
        best = i + 1;
        *to = m->pool + where;
    }
    return best;
}
