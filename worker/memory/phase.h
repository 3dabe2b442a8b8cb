/* phase.h — why the walker stands in a layer: stores prepare for one or the other (act_enter, param_enter). */
#ifndef TRIMPOT_PHASE_H
#define TRIMPOT_PHASE_H

enum phase {
    PHASE_FORWARD,  /* layers ascend: l + 1 comes next */
    PHASE_BACKWARD, /* layers descend: l − 1 comes next; recomputation of the layer included */
};

#endif
