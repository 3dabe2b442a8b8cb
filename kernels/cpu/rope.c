#include "kernels/cpu/elem.h"

static void rotate_token(const struct rope_args *r, const tensor *x, int64_t heads, int64_t token)
{
    int64_t half = r->cos.dim[1], position = r->rows.position[token];
    const float *cosines = row_of(&r->cos, position), *sines = row_of(&r->sin, position);
    dtype dt = x->dt;
    char *head = row_of(x, token);
    for (int64_t h = 0; h < heads; h++, head += (size_t)r->head_dim * dtype_bytes(dt)) {
        char *upper = head + (size_t)half * dtype_bytes(dt);
        for (int64_t j = 0; j < half; j += VW) {
            vf c = vec_load(cosines, DT_F32, j, half), sn = vec_load(sines, DT_F32, j, half);
            if (r->inverse) sn = vf_zero() - sn;
            vf a = vec_load(head, dt, j, half), b = vec_load(upper, dt, j, half);
            vec_store(head, dt, j, half, a * c - b * sn);
            vec_store(upper, dt, j, half, b * c + a * sn);
        }
    }
}

static void rotate_both(const void *arg, int64_t token)
{
    const struct rope_args *r = arg;
    rotate_token(r, &r->q, r->heads, token);
    if (r->k.data) rotate_token(r, &r->k, r->kv_heads, token);
}

status CPU_FN(rope)(struct stream *s, const struct rope_args *r)
{
    int64_t tokens = r->q.dim[0], kv_heads = r->k.data ? r->kv_heads : 0;
    team_for(elem_threads(s, tokens * r->head_dim * (r->heads + kv_heads)), tokens, rotate_both, r);
    return ST_OK;
}
