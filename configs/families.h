/* families.h — what is a model family's own and its files leave unsaid: one row per family in families.c, plain data.
 *
 * Whoever needs such a fact takes it from the row; nobody else names a family:
 *
 *   worker/model/family.c        what a block computes, what absent keys of config.json mean, what is refused
 *   configs/components.c, rules.c, schema.c   torchtune's component and checkpointer names
 *   worker/data/tokenizer/classes.c           special tokens of bare vocabulary files
 *   worker/data/render_torchtune.c, chat_named.c   torchtune's rendering of chats, the template of models that have none */
/* clang-format off */
#ifndef TRIMPOT_FAMILIES_H
#define TRIMPOT_FAMILIES_H

#include <stdbool.h>
#include <stdint.h>

/* ---- chats and tokens ---------------------------------------------------------------------------------------------- */

/* How a byte-level vocabulary splits text before it merges; the patterns stand in tokenizer/classes.c. */
enum token_split { SPLIT_NONE, SPLIT_GPT2, SPLIT_LLAMA3, SPLIT_QWEN2 };

/* What a bare vocabulary file leaves unsaid. */
struct family_tokens {
    enum token_split split;      /* SPLIT_NONE: SentencePiece */
    bool nfc, bos_added;
    const char *const *specials; /* NULL-terminated; their ids follow the base vocabulary */
    int total_specials;          /* filled up with fillerN|>, counted on from those of the list */
    const char *filler;
    const char *bos, *eos, *pad;
};
extern const struct family_tokens family_tokens_plain; /* of whoever says nothing */

/* torchtune's rendering of chats (render_torchtune.c). Two grammars cover the families. Headed: every message is start role
 * middle … end. Turns: contents one after the other, BOS before each turn and EOS after each assistant; what marks the
 * speakers is the prompt template's text, or a piece per role. */
struct family_style {
    const char *name;
    const char *bos, *eos;            /* pieces; NULL = the tokenizer's, "" = none */
    const char *text_bos;             /* before completion data; NULL = bos */
    const char *start, *middle, *end; /* headed: required pieces (middle may be NULL) */
    const char *end_more;             /* instead of end where the turn goes on; used if the vocabulary has it */
    const char *role_open, *role_close; /* turns: the piece before a message is these around its role; it ends with `end` */
    const char *after_role, *after_header, *after_end; /* ordinary text */
    const char *tool_open, *tool_close; /* tool answers travel as user text between these; NULL = a role of their own */
    const char *prompt_template;      /* when the configuration names none */
    bool strip;                       /* white space around every part goes */
    bool rstrip;                      /* spaces at the end of every part go */
    bool open_last;                   /* the last assistant's end mark is the closing EOS itself, trained on like it */
    bool cut_trained;                 /* the EOS that replaces the last kept id is trained on if that id was */
};

/* Chat templates of our own, for chat_template=NAME and for models that have none. Written for this program after the
 * published formats; what is trained on is written into the export, so they are complete Jinja. */
struct family_template {
    const char *name;
    const char *end; /* the piece that ends a turn; a vocabulary without it ends turns with its EOS */
    bool bos;        /* begins with BOS by itself; else only if the tokenizer adds one */
    const char *text; /* sees `end` */
};
extern const struct family_template family_templates[]; /* the first serves whoever has none of its own */
extern const int family_templates_n;

struct family_speech {
    const char *told_by; /* a piece that only such vocabularies have; NULL: not told by one */
    bool plain;          /* a SentencePiece vocabulary with <s> and </s> in their usual places is taken for one */
    const struct family_tokens *tokens;
    const struct family_style *style;
    const char *template; /* its row of family_templates */
    const char *not_by;   /* a piece that such vocabularies do not have; NULL: none tells */
};

/* ---- families ------------------------------------------------------------------------------------------------------ */

/* A module torchtune.models.NAME with NAME_SIZE, lora_NAME_SIZE, qlora_NAME_SIZE. */
struct family_module {
    const char *name, *sizes;
    const char *tokenizer, *tokenizer_args; /* its tokenizer component; NULL: it uses another module's */
    const char *checkpointer;               /* names of checkpointer.model_type: a word, or several */
    const struct family_speech *speech;
    const char *refused;                    /* why; NULL: built */
};

enum family_slides {
    SLIDES_NEVER, /* sliding_window means nothing */
    SLIDES_ALL,
    SLIDES_ABOVE, /* layers ≥ max_window_layers, if use_sliding_window */
    SLIDES_MOST,  /* all but every sliding_window_pattern-th */
};

/* What keys mean that config.json leaves out: the defaults of the family's class in transformers. */
struct family_absent {
    double eps, theta, local_theta; /* local_theta: of sliding layers; 0 = they turn as the others do */
    int64_t max_positions, original_positions; /* original_positions: before stretching; 0 = max_positions */
    int64_t kv_heads, head_dim;     /* 0 = num_attention_heads; hidden_size / num_attention_heads */
    int64_t window, window_from, pattern;
    double attn_scalar;             /* query_pre_attn_scalar; 0 = head_dim */
    double attn_cap, head_cap;
    bool tied;
};

struct family {
    const char *model_type; /* config.json; NULL: only a torchtune module, refused */
    const char *name;       /* for people */
    const char *refused;    /* known, and why it is not trained; NULL: built */
    const char *hidden_act, *legacy_act; /* what config.json must say; an older name of the same */
    bool qkv_bias, qk_norm, post_norms, unit_offset, embed_scaled, fused_qkv, fused_gate_up; /* as in struct model_shape */
    bool soft_caps;         /* attn_logit_softcapping, final_logit_softcapping, query_pre_attn_scalar count */
    bool backend_tokenizer; /* transformers reads its tokenizer files without regard to the class they name */
    enum family_slides slides;
    struct family_absent absent;
    struct family_module module[7]; /* ends where name is NULL */
};

extern const struct family families[];
extern const int families_n;

const struct family *family_of_type(const char *model_type);       /* NULL: unknown */
const struct family_module *family_module(const char *name);       /* "llama3_2"; NULL: unknown, or name is NULL */
bool family_module_loads(const struct family_module *m, const char *checkpointer); /* the word is one of its checkpointer names */
/* What a configuration says of a model directory of this family. A family without checkpointer names takes any. */
bool family_has_module(const struct family *f, const char *name);
bool family_loads(const struct family *f, const char *checkpointer);
/* The one whose name begins `name` and is the longest such: of a tokenizer component ("llama3_tokenizer"), of a model_type that
 * has no module of its own ("gemma3_text"). */
const struct family_module *family_module_like(const char *name);
/* All modules, in the table's order: the one after `m`, the first after NULL; NULL at the end. */
const struct family_module *family_module_next(const struct family_module *m);

#endif
