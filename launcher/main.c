#include "launcher/verbs.h"

int main(int argc, char **argv)
{
    static const struct verb *const VERBS[] = {
        &verb_run, &verb_plan, &verb_eval, &verb_generate, &verb_export, &verb_tokenize,
        &verb_ls,  &verb_cp,   &verb_cat,  &verb_validate, &verb_doctor, &verb_version,
    };
    return cli_main(argc, argv, VERBS, sizeof VERBS / sizeof *VERBS);
}
