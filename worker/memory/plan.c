#include "worker/memory/plan.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"

static const struct {
    const char *name, *shrink;
    enum mem_kind kind;
    const char *shrink_device; /* where tensors have memory of their own, and something else helps there */
} CLASSES[PLAN_ARENAS] = {
    [PLAN_FROZEN] = {"frozen weights", "model.quantize_base=true (NF4), dtype=bf16", MEM_DEVICE},
    [PLAN_TRAINED] = {"trained", "lora_finetune instead of full_finetune, model.lora_rank, dtype=bf16", MEM_DEVICE},
    [PLAN_GRADIENTS] = {"gradients", "optimizer_in_bwd=true, gradient_accumulation_steps, virtual_ranks", MEM_DEVICE},
    [PLAN_OPTIMIZER] = {"optimizer", "optimizer=bitsandbytes.optim.AdamW8bit, torch.optim.SGD, dtype=bf16", MEM_DEVICE,
                        "optimizer=bitsandbytes.optim.PagedAdamW, bitsandbytes.optim.AdamW8bit, torch.optim.SGD, dtype=bf16"},
    [PLAN_ACTIVATIONS] = {"activations", "enable_activation_checkpointing=true, batch_size, tokenizer.max_seq_len", MEM_DEVICE,
                          "enable_activation_checkpointing=true, enable_activation_offloading=true, batch_size, tokenizer.max_seq_len"},
    [PLAN_SCRATCH] = {"scratch", "head_chunk_rows, mlp_tile_tokens, batch_size, tokenizer.max_seq_len", MEM_DEVICE},
    [PLAN_WORKSPACE] = {"workspace", "OMP_NUM_THREADS, tokenizer.max_seq_len", MEM_DEVICE,
                        "attn_workspace, batch_size, tokenizer.max_seq_len"},
    [PLAN_BATCH] = {"batch", "batch_size", MEM_DEVICE},
    [PLAN_COMM] = {"communication", "fewer ranks", MEM_DEVICE},
    [PLAN_STAGING] = {"staging", "batch_size, fewer ranks", MEM_PINNED},
    [PLAN_OFFLOADED] = {"offloaded", "enable_activation_checkpointing=true, batch_size, tokenizer.max_seq_len", MEM_PINNED},
    [PLAN_PAGED] = {"paged", "optimizer=bitsandbytes.optim.PagedAdamW8bit, dtype=bf16", MEM_PINNED},
    [PLAN_HOSTED] = {"host optimizer", "optimizer.optimizer_class=torchao.optim.AdamW8bit, dtype=bf16", MEM_HOST},
    [PLAN_HOST] = {"host", "batch_size", MEM_HOST},
};

static const char *hint(const struct plan *p, int class)
{
    bool device = p->be->tensors_in == MEM_DEVICE && CLASSES[class].shrink_device;
    return device ? CLASSES[class].shrink_device : CLASSES[class].shrink;
}

/* The kind that counts on this backend: one without memory of its own has one kind only. */
static enum mem_kind lives_in(const struct plan *p, enum mem_kind kind) { return p->be->tensors_in == MEM_HOST ? MEM_HOST : kind; }

int64_t plan_budget_of(const struct config *c) { return c->memory_budget; }
bool plan_has_budget(const struct config *c) { return c->memory_budget != BUDGET_NONE; }

void plan_init(struct plan *p, const struct backend *be, int64_t budget)
{
    *p = (struct plan){.be = be, .budget = budget};
    for (int i = 0; i < PLAN_ARENAS; i++) arena_init(&p->arena[i], CLASSES[i].name);
}

void plan_again(struct plan *p)
{
    for (int i = 0; i < PLAN_ARENAS; i++) {
        arena_release(&p->arena[i]);
        arena_init(&p->arena[i], CLASSES[i].name);
    }
}

void plan_extra(struct plan *p, enum mem_kind kind, const char *category, const char *name, size_t bytes)
{
    if (!bytes) return;
    p->extra = mem_grow(p->extra, (size_t)(p->n_extra + 1) * sizeof *p->extra);
    struct plan_extra *e = &p->extra[p->n_extra++];
    *e = (struct plan_extra){.category = category, .bytes = bytes, .kind = lives_in(p, kind)};
    snprintf(e->name, sizeof e->name, "%s", name);
}

size_t plan_arena_bytes(const struct plan *p)
{
    size_t sum = 0;
    for (int i = 0; i < PLAN_ARENAS; i++) sum += arena_need(&p->arena[i]);
    return sum;
}

size_t plan_total_bytes(const struct plan *p)
{
    size_t sum = plan_arena_bytes(p);
    for (int i = 0; i < p->n_extra; i++) sum += p->extra[i].bytes;
    return sum;
}

/* ---- the table ------------------------------------------------------------------------------------------------------ */

struct line {
    const char *category, *name, *shrink;
    enum mem_kind kind;
    size_t bytes;
    int count;
};

/* Rows of one arena with equal names are one line. Returns how many lines were added; caller frees *lines. */
static int collect(const struct plan *p, struct line **lines)
{
    int cap = p->n_extra, n = 0;
    for (int i = 0; i < PLAN_ARENAS; i++) cap += p->arena[i].n_rows;
    *lines = mem_alloc((size_t)(cap + 1) * sizeof **lines);
    for (int i = 0; i < PLAN_ARENAS; i++) {
        int first = n;
        for (int r = 0; r < p->arena[i].n_rows; r++) {
            const struct arena_row *row = &p->arena[i].rows[r];
            struct line *l = *lines + first;
            while (l < *lines + n && strcmp(l->name, row->name)) l++;
            if (l == *lines + n) {
                *l = (struct line){.category = CLASSES[i].name,
                                   .name = row->name,
                                   .shrink = hint(p, i),
                                   .kind = lives_in(p, CLASSES[i].kind)};
                n++;
            }
            l->bytes += (row->bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
            l->count++;
        }
    }
    for (int i = 0; i < p->n_extra; i++)
        (*lines)[n++] = (struct line){.category = p->extra[i].category,
                                      .name = p->extra[i].name,
                                      .shrink = "",
                                      .kind = p->extra[i].kind,
                                      .bytes = p->extra[i].bytes,
                                      .count = 1};
    return n;
}

static size_t bytes_of(const struct line *lines, int n, bool device)
{
    size_t sum = 0;
    for (int i = 0; i < n; i++) sum += (lines[i].kind == MEM_DEVICE) == device ? lines[i].bytes : 0;
    return sum;
}

static void text_table(const struct plan *p, const struct line *lines, int n, int rank, struct buf *out)
{
    buf_printf(out, "memory plan, rank %d\n", rank);
    const char *category = "";
    for (int i = 0; i < n; i++) {
        char times[16] = "";
        if (lines[i].count > 1) snprintf(times, sizeof times, "× %d", lines[i].count);
        buf_printf(out, "  %-16s %-44s %7s %10s\n", strcmp(category, lines[i].category) ? lines[i].category : "", lines[i].name, times,
                   text_bytes((double)lines[i].bytes));
        category = lines[i].category;
    }
    buf_printf(out, "  %-16s %-44s %7s %10s\n", "bound at start", "", "", text_bytes((double)plan_arena_bytes(p)));
    for (int device = 1; device >= 0 && p->be->tensors_in == MEM_DEVICE; device--)
        buf_printf(out, "  %-16s %-44s %7s %10s\n", device ? "on the device" : "on the host", "", "",
                   text_bytes((double)bytes_of(lines, n, device)));
    buf_printf(out, "  %-16s %-44s %7s %10s  (%zu bytes)\n", "total", "", "", text_bytes((double)plan_total_bytes(p)), plan_total_bytes(p));
}

static void json_table(const struct plan *p, const struct line *lines, int n, int rank, const char *more, struct buf *out)
{
    static const char *const KINDS[MEM_KINDS] = {[MEM_HOST] = "host", [MEM_PINNED] = "pinned", [MEM_DEVICE] = "device"};
    buf_printf(out, "{\"rank\":%d,\"bound_bytes\":%zu,\"total_bytes\":%zu,\"rows\":[", rank, plan_arena_bytes(p), plan_total_bytes(p));
    for (int i = 0; i < n; i++)
        buf_printf(out, "%s{\"category\":\"%s\",\"name\":\"%s\",\"memory\":\"%s\",\"count\":%d,\"bytes\":%zu}", i ? "," : "",
                   lines[i].category, lines[i].name, KINDS[lines[i].kind], lines[i].count, lines[i].bytes);
    buf_printf(out, "]%s}\n", more);
}

void plan_text(const struct plan *p, int rank, bool json, const char *more, struct buf *out)
{
    struct line *lines;
    int n = collect(p, &lines);
    if (json)
        json_table(p, lines, n, rank, more, out);
    else
        text_table(p, lines, n, rank, out);
    free(lines);
}

int plan_sums(const struct plan *p, struct plan_sum sums[PLAN_SUMS])
{
    struct line *lines;
    int n = collect(p, &lines), k = 0;
    for (int i = 0; i < n; i++) {
        int at = 0;
        while (at < k && strcmp(sums[at].category, lines[i].category)) at++;
        assert(at < PLAN_SUMS && "more categories than sums");
        if (at == k) sums[k++] = (struct plan_sum){.category = lines[i].category};
        *(lines[i].kind == MEM_DEVICE ? &sums[at].device : &sums[at].host) += lines[i].bytes;
    }
    free(lines);
    return k;
}

/* ---- the budget ------------------------------------------------------------------------------------------------------ */

static int by_bytes(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : 0;
}

/* The memory where tensors live has the configured budget; the other one only the machine's limit. */
static size_t budget_of(const struct plan *p, bool device, int local_ranks)
{
    enum mem_kind kind = device ? MEM_DEVICE : MEM_HOST;
    if (kind == p->be->tensors_in && p->budget >= 0) return (size_t)p->budget;
    return plan_machine_bytes(p->be, kind, local_ranks) + (device ? p->held : 0);
}

void plan_kinds(const struct plan *p, size_t *device, size_t *host)
{
    struct line *lines;
    int n = collect(p, &lines);
    *device = bytes_of(lines, n, true);
    *host = bytes_of(lines, n, false);
    free(lines);
}

bool plan_fits(const struct plan *p, int local_ranks)
{
    size_t device, host;
    plan_kinds(p, &device, &host);
    if (host > budget_of(p, false, local_ranks)) return false;
    return p->be->tensors_in != MEM_DEVICE || device <= budget_of(p, true, local_ranks);
}

int64_t plan_excess(const struct plan *p, int local_ranks)
{
    size_t device, host;
    bool on_device = p->be->tensors_in == MEM_DEVICE;
    plan_kinds(p, &device, &host);
    return (int64_t)(on_device ? device : host) - (int64_t)budget_of(p, on_device, local_ranks);
}

static status check_memory(const struct plan *p, const struct line *lines, int n, bool device, int local_ranks)
{
    bool tensors = (device ? MEM_DEVICE : MEM_HOST) == p->be->tensors_in;
    size_t total = bytes_of(lines, n, device), budget = budget_of(p, device, local_ranks);
    if (total <= budget) return ST_OK;
    struct buf report = {0};
    for (int i = 0, named = 0; i < n && named < 4; i++) {
        if ((lines[i].kind == MEM_DEVICE) != device) continue;
        buf_printf(&report, "\n  %-16s %-40s %10s%s%s", lines[i].category, lines[i].name, text_bytes((double)lines[i].bytes),
                   *lines[i].shrink ? "   shrink with: " : "", lines[i].shrink);
        named++;
    }
    const char *of = p->be->tensors_in == MEM_HOST ? "" : device ? " of device memory" : " of host memory";
    status st = status_fail(ST_OOM, "the plan needs %s%s per rank, the budget is %s (%s); the largest rows:%s", text_bytes((double)total),
                            of, text_bytes((double)budget),
                            tensors ? "memory_budget, or what the machine has free" : "what the machine has free", report.data);
    buf_release(&report);
    return st;
}

status plan_check(const struct plan *p, int local_ranks)
{
    struct line *lines;
    int n = collect(p, &lines);
    qsort(lines, (size_t)n, sizeof *lines, by_bytes);
    status st = check_memory(p, lines, n, false, local_ranks);
    if (!st && p->be->tensors_in == MEM_DEVICE) st = check_memory(p, lines, n, true, local_ranks);
    free(lines);
    return st;
}

static size_t number_in(const char *path, const char *key)
{
    char line[256];
    unsigned long long value = 0;
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) {
        if (!key && sscanf(line, "%llu", &value) == 1) break;
        if (key && !strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), " %llu", &value) == 1) break;
    }
    fclose(f);
    return (size_t)value;
}

size_t plan_machine_bytes(const struct backend *be, enum mem_kind kind, int local_ranks)
{
    size_t available = 0, all;
    if (kind == MEM_DEVICE || be->elsewhere) return be->dev.mem_info(kind, &available, &all) ? 0 : available;
    available = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    size_t group = number_in("/sys/fs/cgroup/memory.max", NULL);
    if (group && group < available) available = group;
    return available / (size_t)(local_ranks > 0 ? local_ranks : 1);
}

/* ---- binding --------------------------------------------------------------------------------------------------------- */

status plan_bind(struct plan *p)
{
    size_t bound = 0;
    for (int i = 0; i < PLAN_ARENAS; i++) {
        size_t need = arena_need(&p->arena[i]);
        if (need) TRY(p->be->dev.alloc(lives_in(p, CLASSES[i].kind), need, &p->memory[i]));
        arena_bind(&p->arena[i], need ? p->memory[i] : p);
        bound += need;
    }
    log_debug("bound %zu bytes", bound);
    return ST_OK;
}

void plan_release(struct plan *p)
{
    for (int i = 0; p->be && i < PLAN_ARENAS; i++) {
        if (p->memory[i]) p->be->dev.free(lives_in(p, CLASSES[i].kind), p->memory[i], p->arena[i].size);
        arena_release(&p->arena[i]);
    }
    free(p->extra);
    *p = (struct plan){0};
}
