/* tpl_value.h — what a template computes with: Python's values, as far as chat templates see them, and the state of one
 * rendering. Private to worker/data/template.
 *
 * Everything a rendering makes lies in its pool and is freed at once; values are immutable once made (namespaces, loops
 * and iterators excepted), so they are passed by value and share what they point to. */
#ifndef TRIMPOT_TPL_VALUE_H
#define TRIMPOT_TPL_VALUE_H

#include "worker/data/template/template.h"

/* ---- limits ------------------------------------------------------------------------------------------------------ */

enum {
    TPL_MAX_SOURCE = 1 << 20,   /* bytes of a template; the longest public one has 40 kB */
    TPL_MAX_NESTING = 100,      /* brackets and statements within each other, in the text */
    TPL_MAX_TREE = 200,         /* depth of the tree; a + b + … is as deep as it is long */
    TPL_MAX_DEPTH = 500,        /* the same while rendering, macros and nested values included */
    TPL_MAX_OUTPUT = 64 << 20,  /* bytes of one string */
    TPL_MAX_MEMORY = 512 << 20, /* bytes of one rendering */
    TPL_MAX_WORK = 1 << 30,     /* bytes touched by one rendering; a node counts TPL_NODE_WORK */
    TPL_NODE_WORK = 32,
    TPL_FLOAT_WORK = 512,   /* to find a number's shortest digits */
    TPL_MAX_RANGE = 100000, /* as Jinja's sandbox */
    TPL_MAX_ARGS = 8,       /* parameters of a built-in */
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

struct pool_chunk;
struct pool {
    struct pool_chunk *head;
    size_t total;
};
/* Uninitialised, aligned for anything. Never fails, as mem_alloc: sizes that come from data pass tpl_spend first. */
void *pool_take(struct pool *p, size_t bytes);
void pool_release(struct pool *p);

struct word { /* bytes of somebody else */
    const char *p;
    size_t n;
};
#define WORD(literal) ((struct word){literal, sizeof(literal) - 1})
bool word_is(struct word w, const char *text);

/* ---- values ------------------------------------------------------------------------------------------------------ */

enum kind {
    V_ABSENT = 0, /* no value at all: an argument that was not given */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW, /* dict.keys(), .values(), .items() */
    V_RANGE,
    V_ITER, /* a generator: may be read once */
    V_NAMESPACE,
    V_LOOP,
    V_MACRO,
    V_BOUND, /* a built-in function, or a method and its object */
    V_CYCLER,
    V_JOINER,
    N_KINDS
};
extern const char *const kind_names[N_KINDS]; /* Python's: str, list, … */

/* origin: of every byte of a string without its own array, and of what a number or a bracket prints as. */
struct value {
    uint8_t kind;
    bool markup; /* a string marked safe: Python's Markup, which escapes what is added to it */
    template_origin origin;
    union {
        bool b;
        int64_t i;
        double f;
        const struct str *s;
        const struct list *l;
        struct dict *d; /* V_DICT, V_NAMESPACE */
        const struct view *view;
        const struct range *range;
        struct iter *iter;
        struct loop *loop;
        const struct macro *macro;
        const struct bound *bound;
        const struct missing *missing;
        struct cycle *cycle;
    };
};

struct str { /* valid UTF-8 */
    const char *p;
    size_t n, chars;                /* bytes, code points */
    const template_origin *origins; /* [n]; NULL: the value's */
};
struct list { /* V_LIST, V_TUPLE; a group of groupby has names for its two */
    struct value *v;
    size_t n, cap;
    bool group;
};
struct pair {
    struct value key, value;
};
struct dict { /* in order of insertion */
    struct pair *v;
    size_t n, cap;
};
struct view {
    const struct dict *dict;
    enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } what;
};
struct range {
    int64_t start, stop, step;
    size_t n;
};
struct iter {
    const struct value *v;
    size_t n, at;
};
struct cycle { /* of cycler and joiner */
    const struct value *v;
    size_t n, at;
};
/* Why something is undefined, for the message when it is used. */
struct missing {
    const char *hint;  /* the whole message, or NULL: */
    struct value of;   /* V_ABSENT: a variable */
    struct value name; /* a string, or an index */
    bool unsafe;       /* exists in Python and is closed by the sandbox */
};

/* ---- built-ins --------------------------------------------------------------------------------------------------- */

struct args {
    const struct value *v;
    size_t n;
    const struct pair *named;
    size_t n_named;
};
struct builtin;
struct call {
    struct render *r;
    const struct builtin *what;
    struct value self;              /* what a filter, test or method is applied to */
    struct value arg[TPL_MAX_ARGS]; /* by the names in `params`; V_ABSENT where not given */
    const struct args *given;       /* as written */
};
typedef status builtin_fn(struct call *c, struct value *out);
/* params: names separated by spaces, "?" before optional ones, "/ " in front if they go by position only; NULL: the
 * function reads `given` itself. fn NULL: exists in Jinja or Python, not here. A table ends with a NULL name. */
struct builtin {
    const char *name, *params;
    builtin_fn *fn;
    bool unsafe; /* the sandbox forbids it */
};
const struct builtin *builtin_find(const struct builtin *table, struct word name);
/* what: "filter", "test", … for messages. */
status builtin_call(struct render *r, const char *what, const struct builtin *b, struct value self, const struct args *a,
                    struct value *out);

struct bound {
    const struct builtin *what;
    struct value self;
};

extern const struct builtin tpl_filters[], tpl_tests[], tpl_globals[];
extern const struct builtin tpl_str_methods[], tpl_list_methods[], tpl_tuple_methods[], tpl_dict_methods[], tpl_number_methods[],
    tpl_loop_methods[], tpl_cycler_methods[];

/* ---- one rendering ----------------------------------------------------------------------------------------------- */

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

/* Marks a byte of an origin as written by {% generation %}, while rendering. */
#define TPL_GENERATED ((template_origin)1 << 31)

/* A string being made; lies in the pool. */
struct build {
    struct render *r;
    char *p;
    template_origin *o;
    size_t n, cap;
};

struct frame;
struct render {
    const struct template *t;
    const struct template_vars *vars;
    struct pool pool;
    size_t work;
    int depth, line;
    enum flow flow;
    struct value *global; /* [symbols of t], V_ABSENT until first asked for */
    struct build *out;    /* where {{ }} writes */
};

/* ST_DATA "NAME:LINE: …" at the line being rendered. */
status tpl_fail(struct render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
status tpl_fail_unbuilt(struct render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Counts work, and the memory that it may take: call before anything whose size comes from data. */
status tpl_spend(struct render *r, size_t bytes);
/* Around every recursion; a failed rendering is over, so only success leaves. */
status tpl_enter(struct render *r);
static inline void tpl_leave(struct render *r) { r->depth--; }

/* ---- tpl_value.c: making and reading values ---------------------------------------------------------------------- */

static inline struct value value_none(void) { return (struct value){.kind = V_NONE}; }
static inline struct value value_bool(bool b) { return (struct value){.kind = V_BOOL, .b = b}; }
static inline struct value value_int(int64_t i) { return (struct value){.kind = V_INT, .i = i}; }
static inline struct value value_float(double f) { return (struct value){.kind = V_FLOAT, .f = f}; }
static inline bool is_string(struct value v) { return v.kind == V_STRING; }
static inline bool is_sequence(struct value v) { return v.kind == V_LIST || v.kind == V_TUPLE; }
/* Numbers, with True and False as 1 and 0. */
static inline bool is_integral(struct value v) { return v.kind == V_INT || v.kind == V_BOOL; }
static inline bool is_number(struct value v) { return is_integral(v) || v.kind == V_FLOAT; }
static inline int64_t value_integer(struct value v) { return v.kind == V_BOOL ? v.b : v.i; }
static inline double value_double(struct value v) { return v.kind == V_FLOAT ? v.f : (double)value_integer(v); }

struct value value_text(struct pool *p, const char *text, size_t n, template_origin o); /* borrows text */
struct value value_undefined(struct render *r, struct value of, struct value name);
struct value value_undefined_hint(struct render *r, const char *hint);
/* "the message of using it", and as a failure. */
status tpl_fail_undefined(struct render *r, struct value v);
status value_from_json(struct render *r, const json_t *j, template_origin o, struct value *out);
/* A list of objects, each key with its field. */
status value_from_messages(struct render *r, const json_t *messages, size_t n, struct value *out);

static inline template_origin str_origin(struct value s, size_t at) { return s.s->origins && at < s.s->n ? s.s->origins[at] : s.origin; }
/* Bytes [from, to) of a string, shared. */
struct value str_cut(struct render *r, struct value s, size_t from, size_t to);
/* Byte offset of a code point, counted from the front; chars beyond the end give n. */
size_t str_offset(const struct str *s, size_t chars);
static inline bool str_is(struct value v, const char *text) { return is_string(v) && word_is((struct word){v.s->p, v.s->n}, text); }

status list_push(struct render *r, struct list *l, struct value v);
struct value value_list(struct render *r, struct list l, enum kind kind, template_origin o);
struct value value_iter(struct render *r, struct list l, template_origin o);
struct value value_pair(struct render *r, struct value a, struct value b); /* a tuple of two */
const struct value *dict_get(struct render *r, const struct dict *d, struct value key);
const struct value *dict_get_word(const struct dict *d, struct word key);
/* Fails for what Python cannot hash: lists and dicts. */
status dict_check_key(struct render *r, struct value key);
status dict_put(struct render *r, struct dict *d, struct value key, struct value value);

/* The items of anything that Python iterates over. An iterator is used up by it unless it is being looped over. */
status value_items(struct render *r, struct value v, const struct value **items, size_t *n);
/* len(); false: it has none. */
bool value_length(struct value v, size_t *n);

/* ---- tpl_build.c ------------------------------------------------------------------------------------------------- */

status build_add(struct build *b, const char *text, size_t n, template_origin o);
status build_text(struct build *b, const char *text, template_origin o);
status build_cut(struct build *b, struct value s, size_t from, size_t to); /* bytes of a string, with their origins */
status build_str(struct build *b, struct value s);
status build_repeat(struct build *b, struct value s, int64_t times);
status build_codepoint(struct build *b, int32_t c, template_origin o);
struct value build_done(struct build *b);
status str_concat(struct render *r, struct value a, struct value b, struct value *out);
/* & < > " ' as HTML entities; the result is marked safe. */
status str_escape(struct render *r, struct value s, struct value *out);

/* ---- tpl_print.c: str(), repr() ---------------------------------------------------------------------------------- */

status print_value(struct build *b, struct value v);
status print_repr(struct build *b, struct value v);
void print_float(double f, char out[40]);
/* str(v); a string stays itself, Markup too. */
status value_to_str(struct render *r, struct value v, struct value *out);

/* ---- tpl_ops.c --------------------------------------------------------------------------------------------------- */

bool value_true(struct value v);
status value_equal(struct render *r, struct value a, struct value b, bool *out);
status value_less(struct render *r, struct value a, struct value b, bool *out);
status value_contains(struct render *r, struct value all, struct value one, bool *out);
enum binary { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_COUNT };
status value_binary(struct render *r, enum binary op, struct value a, struct value b, struct value *out);
status value_negate(struct render *r, struct value v, struct value *out);
/* Stable; less by `keys`, which is sorted along. */
status value_sort(struct render *r, struct value *v, struct value *keys, size_t n, bool reverse);

/* ---- tpl_index.c: a.b, a[b], a[b:c:d] ---------------------------------------------------------------------------- */

status value_attr(struct render *r, struct value of, struct value name, struct value *out);
status value_item(struct render *r, struct value of, struct value index, struct value *out);
status value_slice(struct render *r, struct value of, const struct value bounds[3], struct value *out);

/* ---- tpl_call.c -------------------------------------------------------------------------------------------------- */

status value_call(struct render *r, struct value what, const struct args *a, struct value *out);
status arg_int(struct call *c, int i, int64_t otherwise, int64_t *out);
bool arg_true(const struct call *c, int i);
bool arg_given(const struct call *c, int i); /* given, and not None */
status arg_str(struct call *c, int i, const char *otherwise, struct value *out);

/* ---- others ------------------------------------------------------------------------------------------------------ */

status tpl_tojson(struct call *c, struct value *out);
/* Python's "…" % args, and str.format. */
status tpl_percent(struct render *r, struct value format, struct value args, struct value *out);
status tpl_format(struct render *r, struct value format, const struct args *a, struct value *out);
status tpl_macro_call(struct render *r, const struct macro *m, const struct args *a, struct value *out);
status tpl_loop_again(struct render *r, struct loop *l, struct value over, struct value *out);
status tpl_loop_attr(struct render *r, struct loop *l, struct word name, struct value *out, bool *found);

/* tpl_case.c: Python's letters. */
enum letter_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITAL, CASE_FOLD, CASE_SWAP };
status str_case(struct render *r, struct value s, enum letter_case how, struct value *out);
bool char_is_space(int32_t c);
bool char_is_cased(int32_t c, bool *upper);
bool char_is_printable(int32_t c);
bool char_is_word(int32_t c);
/* The code point at p, and its length; text is valid UTF-8. */
int32_t char_at(const char *p, size_t n, size_t *len);
int32_t char_before(const char *p, size_t at, size_t *len); /* the one that ends at `at` */

#endif
