/* tpl_tree.h — a template's text as tokens, and as a tree. Private to worker/data/template. */
#ifndef TRIMPOT_TPL_TREE_H
#define TRIMPOT_TPL_TREE_H

#include "worker/data/template/tpl_value.h"

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

enum token_kind { T_EOF, T_DATA, T_PRINT, T_PRINT_END, T_TAG, T_TAG_END, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP };

struct token {
    enum token_kind kind;
    int line;
    struct word word; /* as written; T_STRING: as meant; T_OP: static */
    union {
        int64_t i;
        double f;
    };
};
struct tokens {
    struct token *v;
    size_t n, cap;
};
/* Words lie in the pool. The caller frees v. */
status tpl_lex(const char *name, const char *text, size_t n, struct pool *pool, struct tokens *out);

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

enum node_kind {
    /* expressions */
    N_CONST,   /* value */
    N_NAME,    /* symbol */
    N_TUPLE,   /* v */
    N_LIST,    /* v */
    N_DICT,    /* v: key, value, … */
    N_ATTR,    /* a, value: the name */
    N_ITEM,    /* a, b */
    N_SLICE,   /* a, v: from, to, step; NULL where left out */
    N_CALL,    /* a, args */
    N_FILTER,  /* a (NULL in a filter block), args, builtin */
    N_TEST,    /* a, args, builtin */
    N_NOT,     /* a */
    N_AND,     /* a, b */
    N_OR,      /* a, b */
    N_NEG,     /* a */
    N_POS,     /* a */
    N_BINARY,  /* a, b, op: enum binary */
    N_CONCAT,  /* v */
    N_COMPARE, /* a; v with ops */
    N_COND,    /* a: test, b: then, c: else or NULL */
    /* statements */
    N_BODY,         /* v */
    N_PRINT,        /* a */
    N_IF,           /* v: test, body, …; c: else or NULL */
    N_FOR,          /* target, a: over, b: body, c: else or NULL, test or NULL, recursive */
    N_SET,          /* target, a */
    N_SET_BLOCK,    /* target, b: body, a: filters or NULL */
    N_MACRO,        /* symbol, signature, b: body */
    N_CALL_BLOCK,   /* a: the call, signature, b: body */
    N_FILTER_BLOCK, /* a: filters, b: body */
    N_WITH,         /* v: target, expression, …; b: body */
    N_GENERATION,   /* b: body */
    N_BREAK,
    N_CONTINUE,
    /* targets; N_NAME and N_TUPLE too */
    N_NAMESPACE_ATTR, /* symbol, value: the name */
    N_NODE_KINDS
};
enum compare { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

struct call_args {
    struct node **v;
    size_t n;
    struct named_arg {
        struct value name;
        struct node *node;
    } * named;
    size_t n_named;
    struct node *star, *star_star; /* *a, **b; NULL */
};

struct node {
    enum node_kind kind;
    int line, depth; /* depth: of the tree below */
    int symbol;
    int op;
    bool recursive;
    struct value value;
    struct node *a, *b, *c, *target, *test;
    struct node **v;
    size_t n;
    uint8_t *ops; /* [n] enum compare */
    const struct call_args *args;
    const struct builtin *builtin; /* NULL: unknown, fails if it is ever reached */
    const struct signature *signature;
    const int *fresh; /* [n_fresh] of a body that is a scope: symbols that begin undefined in it */
    size_t n_fresh;
};

/* Parameters of a macro or a call block. */
struct signature {
    int *symbol;             /* [n] */
    struct node **otherwise; /* [n]; NULL: none */
    size_t n;
    bool takes_varargs, takes_kwargs, takes_caller; /* the body says these names */
    int varargs, kwargs, caller;                    /* their symbols, or -1 */
    struct word name;
    struct signature *around; /* while parsing */
};

struct template
{
    char *name;
    struct pool pool;
    struct word *symbol; /* names of variables, by number */
    int n_symbols, cap_symbols;
    struct word *said; /* every name and string of the code */
    size_t n_said, cap_said;
    bool marks_generation;
    int loop_symbol; /* of the name `loop`; -1: never said */
    struct node *body;
};

/* ---- tpl_parse.c, tpl_parse_expr.c ------------------------------------------------------------------------------- */

struct parser {
    struct template *t;
    const struct token *at;
    int depth;            /* of recursion */
    int soft;             /* inside `if`: unknown filters and tests fail when reached, as in Jinja */
    int loops;            /* that break and continue may leave */
    struct signature *in; /* the macro being parsed */
};
status tpl_parse(struct template *t, const struct tokens *tokens);

status parse_fail(const struct parser *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
status parse_unbuilt(const struct parser *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *token_text(const struct token *t, char out[48]); /* for messages */
static inline bool at_op(const struct parser *p, const char *op) { return p->at->kind == T_OP && word_is(p->at->word, op); }
static inline bool at_name(const struct parser *p, const char *name) { return p->at->kind == T_NAME && word_is(p->at->word, name); }
bool take_op(struct parser *p, const char *op);
bool take_name(struct parser *p, const char *name);
status need_op(struct parser *p, const char *op);
status need_name(struct parser *p, struct word *name);
status parse_enter(struct parser *p);
int parse_symbol(struct parser *p, struct word name);
struct node *node_new(struct parser *p, enum node_kind kind, int line);
/* Nodes gathered before their number is known. */
struct node_list {
    struct node **v;
    size_t n, cap;
};
void node_push(struct parser *p, struct node_list *l, struct node *n);
/* Sets the depth from the children; ST_CORRUPT where the tree gets too deep. */
status node_done(struct parser *p, struct node *n, struct node **out);

status parse_expression(struct parser *p, bool with_cond, struct node **out);
/* What ends a tuple beside the end of the tag. */
struct tuple_rules {
    bool simple;         /* only names and literals: a target */
    bool no_cond;        /* `a if b` is not part of it */
    bool in_parentheses; /* may be empty */
    bool namespaces;     /* ns.attribute may be assigned to */
    const char *end;     /* a name that ends it */
};
status parse_tuple(struct parser *p, struct tuple_rules rules, struct node **out);
status parse_filters(struct parser *p, struct node *of, bool first_without_bar, struct node **out);

/* tpl_scope.c: fills `fresh`. */
void tpl_find_fresh(struct template *t);

/* ---- tpl_eval.c, tpl_exec.c -------------------------------------------------------------------------------------- */

struct binding {
    int symbol;
    struct value value;
};
struct frame {
    struct frame *parent;
    struct binding *v;
    int n, cap;
};
struct macro {
    const struct signature *signature;
    const struct node *body;
    struct frame *frame; /* where it was defined */
};

void frame_set(struct render *r, struct frame *f, int symbol, struct value v);
const struct value *frame_get(const struct frame *f, int symbol);
status tpl_global(struct render *r, int symbol, struct value *out);
/* transformers' namespaces refuse names that begin with an underscore. */
status namespace_check(struct render *r, struct value name);
status tpl_eval(struct render *r, struct frame *f, const struct node *n, struct value *out);
status tpl_eval_args(struct render *r, struct frame *f, const struct call_args *a, struct args *out);
status tpl_apply_filters(struct render *r, struct frame *f, const struct node *n, struct value of, struct value *out);
status tpl_exec(struct render *r, struct frame *f, const struct node *n);
status tpl_exec_for(struct render *r, struct frame *f, const struct node *n);
/* The scope of a body; NULL: of an expression. */
struct frame *frame_new(struct render *r, struct frame *parent, const struct node *body);
status tpl_assign(struct render *r, struct frame *f, const struct node *target, struct value v);
/* What a body writes, as a string. */
status tpl_capture(struct render *r, struct frame *f, const struct node *body, struct value *out);

#endif
