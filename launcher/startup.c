#include "launcher/startup.h"

#include <gnu/libc-version.h>
#include <stdlib.h>
#include <xxhash.h>

#include "kernels/backend.h"
#include "kernels/base/file.h"
#include "kernels/base/text.h"

/* "trimpot 0.1.0, 0123456789abcdef". /proc/self/exe is the program that runs, even if its file was replaced since. */
static status program_text(struct buf *out)
{
    struct file_map m;
    TRY(file_map_open(&m, "/proc/self/exe"));
    buf_printf(out, "trimpot %s, %016llx", TRIMPOT_VERSION, (unsigned long long)XXH3_64bits(m.data, m.bytes));
    file_map_close(&m);
    return ST_OK;
}

status startup_check(struct comm *comm, int argc, char **argv)
{
    if (comm->size == 1) return ST_OK;
    struct buf line = {0}, program = {0};
    for (int i = 1; i < argc; i++) buf_printf(&line, "%s\n", argv[i]);
    status st = comm_agree(comm, program_text(&program));
    const struct comm_same rows[] = {
        {"the command line", line.data, "start all ranks with the same words"},
        {"the program", program.data, "copy one trimpot to all hosts, or start it from a folder that they share"},
        {"the instruction set", backend_cpu.describe(),
         "with either the ranks would compute other bits: set TRIMPOT_ISA=avx2 for all of "
         "them (`mpirun -x TRIMPOT_ISA=avx2`; srun passes it on), or ask for hosts of one kind (`#SBATCH --constraint=…`)"},
        {"the C library", gnu_get_libc_version(),
         "its mathematical functions differ in their last bits: use hosts with the same system, or "
         "one container image"},
    };
    if (!st) st = comm_check_same(comm, rows, sizeof rows / sizeof *rows);
    buf_release(&line);
    buf_release(&program);
    return st;
}

status startup_check_config(struct comm *comm, const struct config *cfg)
{
    char *text = config_text(cfg);
    const struct comm_same row = {"the configuration", text, "give all ranks the same files"};
    status st = comm->size > 1 ? comm_check_same(comm, &row, 1) : ST_OK;
    free(text);
    return st;
}
