/* schema.h — what the configuration knows: keys, components, rules. Tables; the engine around them knows no key.
 *
 *   schema.c      one row per key          → parsing, checks, defaults, --help, effective config, diff on resume
 *   components.c  one row per `_component_` → which arguments it takes, their defaults there, what it selects
 *   rules.c       one row per combination that cannot work, with its reason
 *   types.c       one row per type of value → read, write, release
 */
/* clang-format off */
#ifndef TRIMPOT_SCHEMA_H
#define TRIMPOT_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "configs/config.h"
#include "configs/ynode.h"

enum value_type {
    T_BOOL,     /* bool */
    T_TRI,      /* int: -1 null, 0, 1 */
    T_INT,      /* int64_t: -1 null */
    T_FLOAT,    /* double: NAN null */
    T_BYTES,    /* int64_t with SI suffixes */
    T_TEXT,     /* char *; choices, if any, are the legal texts */
    T_SPLIT,    /* char *: train, train[:95%] */
    T_CHOICE,   /* an enum, or a bool */
    T_FLAGS,    /* unsigned: a list of choices, or-ed */
    T_TEXTS,    /* char ** + int: a list, or one text */
    T_PAIRS,    /* struct config_pair * + int: a group of texts, or with a range of numbers */
    T_TEMPLATE, /* char *, or struct config_pair * + int: a name, or {role: [prefix, suffix]} */
    T_BETAS,    /* two adjacent doubles */
    T_FILES,    /* checked, not kept: a list of file names, or {filename_format, max_filename} */
    T_SWITCH,   /* checked, not kept: true or false, or a group of switches */
    T_COUNT
};

enum effect {
    ACCEPTED,
    NO_EFFECT, /* checked, then named once in a note with `reason` */
    LATER,     /* only the default is accepted; else "not built yet" and `reason` */
    REFUSED,   /* only the default is accepted; else `reason` */
};

enum resume_class {
    RESUME_MATHS, /* another value trains another model: shown, and counted as a change of the maths */
    RESUME_SHOWN, /* shown; whether the maths change is decided elsewhere (total batch, data hash, model hash) */
    RESUME_FREE,  /* the same bits with any value */
};

struct choice {
    const char *name;
    int value;
    const char *refused; /* a reason: known, and not accepted */
};

enum { CHECKPOINTERS = 15 };
extern const struct choice checkpointer_choices[CHECKPOINTERS]; /* checkpointer.model_type (families.c) */

struct row {
    const char *path;
    enum value_type type;
    size_t at, size;       /* member of struct config, or of struct config_dataset for "dataset.…"; size 0: none */
    size_t count_at, at2;  /* the int beside an array; T_TEMPLATE: where the pairs go */
    const char *def;       /* default as text; NULL = there is none */
    const char *def_lora;  /* where the LoRA recipes differ */
    double min, max;
    bool ranged, above_min, below_max; /* above_min, below_max: that end is open */
    bool whole;            /* numbers of T_PAIRS: no fractions */
    bool nullable, infinite, required;
    const struct choice *choices;
    int n_choices;
    const char *unit, *sentence, *reason;
    enum effect effect;
    enum resume_class resume;
    bool path_value;       /* require_paths: must exist when set */
    bool home;             /* a file name: a leading ~/ is $HOME, as shells leave it in key=~/x */
    bool derived;          /* another way to say a key: not written into the effective configuration */
};

extern const struct row schema[];
extern const int schema_n;

struct section {
    const char *name;
    bool component;      /* has `_component_` */
    bool component_needed; /* writing the section means naming one */
    const char *sentence;
};
extern const struct section sections[];
extern const int sections_n;

const struct row *schema_row(const char *section, const char *key); /* "dataset_val" has the rows of "dataset" */
const struct section *schema_section(const char *name);
const char *row_key(const struct row *row);                         /* last step of its path */
bool row_in_section(const struct row *row, const char *section);    /* "" = top level */
bool row_is_dataset(const struct row *row);
const char *schema_default_text(const char *path);                  /* NULL if unknown or none */
const char *schema_nearest_path(const char *path);                  /* NULL if nothing is near */
const char *schema_section_of(const char *dotted); /* the component section this path names ("dataset.0" too), or NULL */
const char *schema_foreign(const char *top_level_key); /* why a key of another torchtune recipe is refused; NULL */
/* The known key most likely meant by `key` in `section`: its path, caller frees; NULL if nothing is near. `component`
 * narrows the choice to what it takes; may be NULL. */
struct component;
char *schema_suggest(const char *section, const char *key, const struct component *component);

/* ---- values (types.c) ---- */

/* base: struct config, or struct config_dataset for dataset rows. Reports at the node's place and returns false. */
bool value_read(const struct row *row, const struct ynode *n, void *base, struct problems *p);
bool value_read_text(const struct row *row, const char *text, void *base); /* defaults: a table error is an assert */
void value_write(const struct row *row, const void *base, struct buf *out); /* as YAML */
void value_free(const struct row *row, void *base);
void value_expects(const struct row *row, struct buf *out);                 /* "a whole number from 1 to 4" */
bool value_is(const struct row *row, const struct ynode *n, const char *text); /* n reads to what text reads to */

/* ---- components (components.c) ---- */

struct component {
    const char *section; /* "dataset" stands for dataset_val too */
    const char *path;    /* NULL: the section without `_component_` */
    int kind;            /* the section's enum: config_optim, data_kind, … */
    const char *args;    /* "lr betas weight_decay=0.01": names, with the defaults that hold here; NULL: anything */
    const char *refused, *note;
    const char *family, *size; /* model, tokenizer; size ends at a space */
};

bool component_find(const char *section, const char *path, struct component *out);
void component_absent(const char *section, enum recipe recipe, struct component *out);
bool component_takes(const struct component *c, const char *key);
/* Copies the default this component gives `key` into buf; false if it leaves the schema's. */
bool component_default(const struct component *c, const char *key, char *text, size_t cap);
const char *component_nearest(const char *section, const char *path); /* a ring of static buffers; NULL */
void component_list(const char *section, struct buf *out);           /* for the reference: a path, or a pattern, a line */
/* Calls see(path, component, arg) for every path of a section until one returns true; then true. */
typedef bool component_see(const char *path, const struct component *c, void *arg);
bool component_each(const char *section, component_see *see, void *arg);

/* ---- binding and rules ---- */

/* What a file and a command line said, read against the schema. */
struct bound {
    struct config *c;
    struct problems *problems;
    struct buf notes;
    const struct ynode *root;
    const struct ynode **written; /* per schema row: where it was written, first data set only; NULL = default */
    struct component model, tokenizer, optimizer, dataset[8], dataset_val;
    bool no_rows; /* data files may be missing */
};

/* Fills b->c, defaults first. The recipe is settled here: b->c->recipe. */
void bind_all(struct bound *b, const char *recipe);
const struct ynode *bound_written(const struct bound *b, const char *path);
/* Where a key stands: as written, else the file as a whole; *node: what is written there, or NULL. */
struct place bound_place(const struct bound *b, const char *key, const struct ynode **node);
void sources_settle(const struct bound *b); /* dataset.source by extension, files of dataset_val; missing files reported */
void rules_check(struct bound *b);           /* adds notes, too */
void rules_check_paths(const struct bound *b); /* named files exist */

#endif
