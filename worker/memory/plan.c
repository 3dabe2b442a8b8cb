#include "worker/memory/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"

static const struct { const char *name, *shrink; } CLASSES[PLAN_ARENAS] = {
    [PLAN_FROZEN] = {"frozen weights", "model.quantize_base=true (NF4), dtype=bf16"},
    [PLAN_TRAINED] = {"trained", "lora_finetune instead of full_finetune, model.lora_rank, dtype=bf16"},
    [PLAN_GRADIENTS] = {"gradients", "optimizer_in_bwd=true, gradient_accumulation_steps, virtual_ranks"},
    [PLAN_OPTIMIZER] = {"optimizer", "optimizer=torch.optim.SGD, dtype=bf16"},
    [PLAN_ACTIVATIONS] = {"activations", "enable_activation_checkpointing=true, batch_size, tokenizer.max_seq_len"},
    [PLAN_SCRATCH] = {"scratch", "head_chunk_rows, batch_size, tokenizer.max_seq_len"},
    [PLAN_WORKSPACE] = {"workspace", "OMP_NUM_THREADS, tokenizer.max_seq_len"},
    [PLAN_BATCH] = {"batch", "batch_size"},
    [PLAN_COMM] = {"communication", "fewer ranks"},
};

void plan_init(struct plan *p)
{
    *p = (struct plan){0};
    for (int i = 0; i < PLAN_ARENAS; i++) arena_init(&p->arena[i], CLASSES[i].name, false);
}

void plan_extra(struct plan *p, const char *category, const char *name, size_t bytes)
{
    if (!bytes || p->n_extra == (int)(sizeof p->extra / sizeof *p->extra)) return;
    struct plan_extra *e = &p->extra[p->n_extra++];
    e->category = category;
    e->bytes = bytes;
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

struct line { const char *category, *name, *shrink; size_t bytes; int count; };

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
                *l = (struct line){.category = CLASSES[i].name, .name = row->name, .shrink = CLASSES[i].shrink};
                n++;
            }
            l->bytes += (row->bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
            l->count++;
        }
    }
    for (int i = 0; i < p->n_extra; i++)
        (*lines)[n++] = (struct line){.category = p->extra[i].category, .name = p->extra[i].name, .shrink = "", .bytes = p->extra[i].bytes, .count = 1};
    return n;
}

static void text_table(const struct plan *p, const struct line *lines, int n, int rank, struct buf *out)
{
    buf_printf(out, "memory plan, rank %d\n", rank);
    const char *category = "";
    for (int i = 0; i < n; i++) {
        char times[16] = "";
        if (lines[i].count > 1) snprintf(times, sizeof times, "× %d", lines[i].count);
        buf_printf(out, "  %-16s %-44s %7s %10s\n", strcmp(category, lines[i].category) ? lines[i].category : "", lines[i].name,
                   times, text_bytes((double)lines[i].bytes));
        category = lines[i].category;
    }
    buf_printf(out, "  %-16s %-44s %7s %10s\n", "bound at start", "", "", text_bytes((double)plan_arena_bytes(p)));
    buf_printf(out, "  %-16s %-44s %7s %10s  (%zu bytes)\n", "total", "", "", text_bytes((double)plan_total_bytes(p)), plan_total_bytes(p));
}

static void json_table(const struct plan *p, const struct line *lines, int n, int rank, struct buf *out)
{
    buf_printf(out, "{\"rank\":%d,\"bound_bytes\":%zu,\"total_bytes\":%zu,\"rows\":[", rank, plan_arena_bytes(p), plan_total_bytes(p));
    for (int i = 0; i < n; i++)
        buf_printf(out, "%s{\"category\":\"%s\",\"name\":\"%s\",\"count\":%d,\"bytes\":%zu}", i ? "," : "", lines[i].category,
                   lines[i].name, lines[i].count, lines[i].bytes);
    buf_text(out, "]}\n");
}

void plan_text(const struct plan *p, int rank, bool json, struct buf *out)
{
    struct line *lines;
    int n = collect(p, &lines);
    (json ? json_table : text_table)(p, lines, n, rank, out);
    free(lines);
}

/* ---- the budget ------------------------------------------------------------------------------------------------------ */

static int by_bytes(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    return x->bytes < y->bytes ? 1 : x->bytes > y->bytes ? -1 : 0;
}

status plan_check(const struct plan *p, size_t budget)
{
    size_t total = plan_total_bytes(p);
    if (total <= budget) return ST_OK;
    struct line *lines;
    int n = collect(p, &lines);
    qsort(lines, (size_t)n, sizeof *lines, by_bytes);
    struct buf report = {0};
    for (int i = 0; i < n && i < 4; i++)
        buf_printf(&report, "\n  %-16s %-40s %10s%s%s", lines[i].category, lines[i].name, text_bytes((double)lines[i].bytes),
                   *lines[i].shrink ? "   shrink with: " : "", lines[i].shrink);
    status st = status_fail(ST_OOM, "the plan needs %s per rank, the budget is %s (memory_budget, or what the machine has free); "
                            "the largest rows:%s", text_bytes((double)total), text_bytes((double)budget), report.data);
    buf_release(&report);
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

size_t plan_machine_bytes(int local_ranks)
{
    size_t available = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    size_t group = number_in("/sys/fs/cgroup/memory.max", NULL);
    if (group && group < available) available = group;
    return available / (size_t)(local_ranks > 0 ? local_ranks : 1);
}

/* ---- binding --------------------------------------------------------------------------------------------------------- */

status plan_bind(struct plan *p, const struct backend *be)
{
    size_t bound = 0;
    for (int i = 0; i < PLAN_ARENAS; i++) {
        size_t need = arena_need(&p->arena[i]);
        if (need) TRY(be->dev.alloc(be->tensors_in, need, &p->memory[i]));
        arena_bind(&p->arena[i], need ? p->memory[i] : p);
        bound += need;
    }
    log_debug("bound %zu bytes", bound);
    return ST_OK;
}

void plan_release(struct plan *p, const struct backend *be)
{
    for (int i = 0; i < PLAN_ARENAS; i++) {
        if (p->memory[i]) be->dev.free(be->tensors_in, p->memory[i], p->arena[i].size);
        arena_release(&p->arena[i]);
    }
    *p = (struct plan){0};
}
