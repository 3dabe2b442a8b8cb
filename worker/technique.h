/* technique.h — the memory techniques as a table: what a person can turn on, what each saves and costs in a given run.
 *
 * A technique is a row: the keys that turn it off and on. Its weight is two plans of one session, from the layout code that a run
 * binds, and two predictions from the speed model; nothing here knows how a technique works. */
#ifndef TRIMPOT_TECHNIQUE_H
#define TRIMPOT_TECHNIQUE_H

#include "worker/predict.h"

/* Whose runs a technique is for. */
enum technique_for { FOR_ALL, FOR_FULL, FOR_LORA };

struct technique {
    const char *name;
    enum technique_for whom;
    const char *off, *on;           /* settings as config_with takes them; {rows} stands for the rows of a rank's
                            * step, {ranks} for how many there are */
    bool same_bits;                 /* never changes a bit of the result */
    const char *what, *when, *with; /* for the documentation: what it is, when to use it, what it combines with */
};

/* What memory_budget may choose: one of `choice`, or none of them. */
enum { AXIS_CHOICES = 6 };
struct axis {
    const char *keys; /* that it sets: one that was written fixes the axis */
    enum technique_for whom;
    bool same_bits;
    const char *choice[AXIS_CHOICES]; /* settings */
};

extern const struct axis axes[];
extern const int axis_count;
extern const struct technique techniques[];
extern const int technique_count;

/* A configuration, planned and predicted. */
struct weight {
    char *refused; /* why there is no such run; NULL: there is */
    struct plan_sum sums[PLAN_SUMS];
    int n_sums;
    size_t device, host; /* bytes where tensors have memory of their own; of the host, or all */
    double token_s;      /* per token of one rank; NAN: the rates are those of bf16, and this is not */
};

/* Plans x as cfg has it and weighs that; x is left so, or unfit for use where that was refused. Release w->refused. */
void weigh(struct session *x, const struct config *cfg, const struct gpu *rates, const struct data_shape *data, struct weight *w);

/* c with the settings of a technique, their words filled in. */
status technique_apply(const struct config *c, int ranks, const char *settings, struct config **out);

/* The message of the failure just met, without where it was said, in one line; caller frees. */
char *technique_refusal(void);

#endif
