/* shipped.h — the files that come with the program to be copied and edited: recipes and batch scripts. */
#ifndef TRIMPOT_SHIPPED_H
#define TRIMPOT_SHIPPED_H

#include "kernels/base/status.h"

struct shipped_kind;

struct shipped {
    char *name; /* what a person types: llama3_2/1B_lora, slurm/srun.sbatch */
    char *path;
    const struct shipped_kind *kind;
};

/* All of them below one directory, kind by kind, sorted within; NULL if there are none. shipped_free frees. */
struct shipped *shipped_list(const char *shipped_dir, int *count);
void shipped_free(struct shipped *files, int count);

/* The one that `name` means, with or without its suffix; shipped_release frees what it holds. ST_USAGE with the nearest name. */
status shipped_find(const char *shipped_dir, const char *name, struct shipped *out);
void shipped_release(struct shipped *f);

/* The path of a recipe, for --config; caller frees. ST_USAGE with the nearest name, or with what else has that name. */
status shipped_recipe(const char *shipped_dir, const char *name, char **path);

/* The command that an edited copy is for, without the file: "sbatch". */
const char *shipped_command(const struct shipped *f);

#endif
