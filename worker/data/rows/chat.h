/* chat.h — what a row means: its shape, and its messages with who is trained on.
 *
 * A shape is decided once per data set, from the configuration and the first row that has one; every other row must
 * have it. Completion rows have no messages: their text is one column. */
#ifndef TRIMPOT_CHAT_H
#define TRIMPOT_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "configs/config.h"
#include "kernels/base/status.h"
#include "kernels/base/text.h"
#include "worker/data/rows/keys.h"

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_COUNT };

/* A piece of a message that is encoded by itself. `literal` text belongs to a prompt template, not to the row. */
struct part {
    const char *text;
    size_t n;
    bool literal;
};

struct message {
    enum role role;
    bool trained;
    bool ends_turn;     /* false when a tool's answer follows, or was this */
    bool extras;        /* it has reasoning or calls, which only a chat template can render */
    int first, n;       /* its parts */
    bool context;       /* a turn of a prompt: trained on only where everything is */
    signed char said;   /* its own flags: 1 = trained on, -1 = not, 0 = as the strategy has it */
    const char *column; /* where it stands in the row: column[at], or the column when at < 0; NULL: nowhere */
    int at;
};

/* The messages of one row. Reused from row to row: zero-initialise, chat_clear before the next, chat_release at the
 * end. Text is borrowed from the row, the configuration or `prompt`. */
struct chat {
    struct message *messages;
    int n, cap;
    struct part *parts;
    int n_parts, cap_parts;
    struct buf prompt; /* the alpaca text */
    /* The same messages, one for one, as a chat template sees them: "role" and "content" in the words of the field
     * (sharegpt's are translated, text parts are joined), "reasoning_content", "thinking", "tool_calls", "name" and
     * whatever else the row gives, but no per-message flags. A function_call is a tool_call, functions are tools. Owned;
     * NULL after shape_messages failed. */
    json_t *json;
    json_t *tools;        /* list of the row's tools; NULL: none. Owned */
    const char *column;   /* where the messages stand, for messages: "messages"; borrowed */
    json_t *parsed;       /* values that came as JSON text; parts point into them. Owned */
    bool untrained;       /* the row's own flag: nothing of it is trained on */
    struct unused unused; /* gathered over rows: chat_clear keeps it */
};

void chat_clear(struct chat *c);
void chat_release(struct chat *c);
void chat_begin(struct chat *c, enum role role, bool trained, bool ends_turn);
void chat_part(struct chat *c, const char *text, size_t n, bool literal); /* adds to the last message */

/* What torchtune's renderings need: [system] user assistant user assistant …; tools answer assistants. Chat templates
 * judge for themselves. ST_DATA naming the message. */
status chat_check_order(const struct chat *c);

const char *role_name(enum role role); /* "system", "user", "assistant", "ipython" */

enum shape_kind { SHAPE_CHAT, SHAPE_ALPACA, SHAPE_PAIR, SHAPE_TEXT };

struct shape {
    enum shape_kind kind;
    const char *name;       /* "alpaca", "question/answer", … */
    const char *columns[3]; /* as the file calls them, but for their letter case; borrowed from the configuration */
    int required;           /* the first so many must be there */
    bool mapped;            /* the configuration says which columns count */
    bool sharegpt;          /* messages have "from" and "value" … */
    bool strict;            /* … because the configuration says so; else each message may have its own style */
    enum masking masking;
    const char *system; /* replaces every system message; NULL = keep theirs */
};

/* The first shape of README.md's list that the row has; says so in a note where it has others too. ST_DATA when it has
 * no known shape, or a recognised but unsupported one; ST_CONFIG_RUNTIME when the settings contradict each other.
 * Borrows from `set`. */
status shape_detect(const struct config_dataset *set, const json_t *first_row, struct shape *out);

/* "question/answer": what a row looks like by itself; NULL: like nothing known. */
const char *shape_of(const json_t *row);

/* The row's messages, at least one, masked. ST_DATA naming the column, the value and the remedy. */
status shape_messages(const struct shape *s, const json_t *row, struct chat *c);
/* The text of a completion row; `c` gathers the rest: untrained, unused. */
status shape_text(const struct shape *s, const json_t *row, struct chat *c, const char **text, size_t *n);

const char *masking_name(enum masking m);

#endif
