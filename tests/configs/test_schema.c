/* test_schema.c — the tables agree with themselves, and the engine does with them what it promises. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "configs/schema.h"
#include "kernels/backend.h"
#include "kernels/base/log.h"

#define BASE "checkpointer: {checkpoint_dir: /model}\ndataset: {data_files: rows.json}\n"

/* The configuration of `yaml`, with up to four overrides; the test fails if it is refused. */
static struct config *parse(const char *yaml, const char *const *overrides)
{
    struct config_args args = {.overrides = overrides};
    struct config *c = NULL;
    while (overrides && overrides[args.n_overrides]) args.n_overrides++;
    if (config_parse_text("t.yaml", yaml, strlen(yaml), &args, &c)) fail_msg("%s", status_message());
    return c;
}
#define PARSE(yaml, ...) parse((yaml), (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void rows_are_complete(void **state)
{
    (void)state;
    for (int i = 0; i < schema_n; i++) {
        const struct row *r = &schema[i];
        if (!r->sentence || !r->sentence[0]) fail_msg("%s has no sentence", r->path);
        if (r->effect != ACCEPTED && !r->reason) fail_msg("%s has no reason", r->path);
        if (r->effect == ACCEPTED && r->size && !r->def && !r->required) fail_msg("%s has no default", r->path);
        if (r->nullable && r->def == NULL) fail_msg("%s may be null and has no default", r->path);
        for (int k = 0; k < i; k++)
            if (!strcmp(schema[k].path, r->path)) fail_msg("%s has two rows", r->path);
        bool placed = false;
        for (int s = 0; s < sections_n; s++) placed = placed || row_in_section(r, sections[s].name);
        if (!placed) fail_msg("%s is in no section", r->path);
        if (r->def && strcmp(r->path, "recipe")) {
            struct ynode *n = ynode_read(r->def, strlen(r->def), (struct place){.name = "default", .argument = 1}, NULL);
            if (!value_is(r, n, r->def)) fail_msg("the default of %s does not read: %s", r->path, r->def);
            ynode_free(n);
        }
    }
}

struct taken {
    bool row[256];
    int paths;
};

/* Every argument has a row, every default of it reads; marks the rows that are taken. */
static bool check_args(const char *path, const struct component *c, void *arg)
{
    struct taken *taken = arg;
    struct component found;
    char key[64], text[128];
    if (path && !component_find(c->section, path, &found)) fail_msg("%s is listed and not found", path);
    for (const char *at = c->args; *(at += strspn(at, " ")); at += strcspn(at, " ")) {
        size_t n = strcspn(at, " =");
        assert_true(n < sizeof key);
        snprintf(key, sizeof key, "%.*s", (int)n, at);
        if (!schema_row(c->section, key)) fail_msg("%s %s takes %s, which has no row", c->section, path ? path : "", key);
        if (!component_default(c, key, text, sizeof text)) continue;
        struct ynode *v = ynode_read(text, strlen(text), (struct place){.name = "default", .argument = 1}, NULL);
        if (!v || !value_is(schema_row(c->section, key), v, text)) fail_msg("%s: bad default %s=%s", path, key, text);
        ynode_free(v);
    }
    for (int i = 0; i < schema_n; i++) taken->row[i] = taken->row[i] || component_takes(c, row_key(&schema[i]));
    taken->paths++;
    return false;
}

static void components_fit_rows(void **state)
{
    (void)state;
    for (int s = 1; s < sections_n; s++) {
        const char *section = sections[s].name;
        struct taken taken = {.paths = 0};
        struct component c;
        component_each(section, check_args, &taken);
        assert_true(taken.paths > 0 || !sections[s].component || !strcmp(section, "dataset_val"));
        for (int recipe = RECIPE_FULL; recipe <= RECIPE_LORA; recipe++) {
            component_absent(section, (enum recipe)recipe, &c);
            check_args(NULL, &c, &taken);
        }
        for (int i = 0; i < schema_n; i++)
            if (row_in_section(&schema[i], section) && !taken.row[i]) fail_msg("nothing takes %s", schema[i].path);
    }
}

static void defaults_of_full(void **state)
{
    (void)state;
    struct config *c = PARSE(BASE);
    assert_int_equal(c->recipe, RECIPE_FULL);
    assert_false(c->single_device);
    assert_string_equal(c->output_dir, "./trimpot-output");
    assert_string_equal(c->checkpointer.output_dir, "./trimpot-output");
    assert_false(c->seed_set);
    assert_false(c->device_set);
    assert_int_equal(c->dtype, CONFIG_BF16);
    assert_int_equal(c->epochs, 1);
    assert_int_equal(c->max_steps_per_epoch, -1);
    assert_int_equal(c->batch_size, 2);
    assert_int_equal(c->batch_size_val, 2);
    assert_int_equal(c->gradient_accumulation_steps, 1);
    assert_true(c->shuffle);
    assert_true(isnan(c->clip_grad_norm));
    assert_int_equal(c->optimizer.kind, CONFIG_ADAMW);
    assert_true(c->optimizer.lr == 2e-5);
    assert_true(c->optimizer.weight_decay == 0.01);
    assert_true(c->optimizer.beta1 == 0.9 && c->optimizer.beta2 == 0.999);
    assert_true(c->optimizer.eps == 1e-8);
    assert_int_equal(c->schedule.kind, SCHEDULE_CONSTANT);
    assert_int_equal(c->model.adapt, ADAPT_NONE);
    assert_int_equal(c->model.init, INIT_PRETRAINED);
    assert_int_equal(c->ac_mode, AC_NONE);
    assert_int_equal(c->memory_budget, -1);
    assert_int_equal(c->attn_workspace, ATTN_WORKSPACE);
    assert_int_equal(c->virtual_ranks, -1);
    assert_true(c->stochastic_rounding);
    assert_true(c->cuda_graphs);
    assert_false(c->torchtune_templates);
    assert_false(c->has_val);
    assert_int_equal(c->n_dataset, 1);
    assert_int_equal(c->dataset[0].kind, DATA_AUTO);
    assert_string_equal(c->dataset[0].source, "json");
    assert_string_equal(c->dataset[0].split, "train");
    assert_int_equal(c->dataset[0].masking, MASK_DEFAULT);
    assert_int_equal(c->dataset[0].train_on_input, -1);
    assert_int_equal(c->dataset[0].split_across_pack, -1);
    assert_true(c->dataset[0].add_eos);
    assert_int_equal(c->tokenizer.max_seq_len, -1);
    assert_int_equal(c->save_every_n_steps, -1);
    assert_int_equal(c->log_every_n_steps, 1);
    config_free(c);
}

/* trimpot run lora_finetune --model DIR --data FILE: no YAML at all. */
static void short_form(void **state)
{
    (void)state;
    struct config_args args = {.recipe = "lora_finetune", .model = "/models/my model", .data = "d/rows.csv", .output = "out"};
    struct config *c = NULL;
    assert_int_equal(config_load(&args, false, &c), ST_OK);
    assert_int_equal(c->recipe, RECIPE_LORA);
    assert_int_equal(c->model.adapt, ADAPT_LORA);
    assert_int_equal(c->model.lora.attn_modules, MODULE_Q | MODULE_K | MODULE_V | MODULE_O);
    assert_true(c->model.lora.mlp);
    assert_false(c->model.lora.output);
    assert_int_equal(c->model.lora.rank, 8);
    assert_true(c->model.lora.alpha == 16);
    assert_true(c->model.lora.dropout == 0);
    assert_true(c->optimizer.lr == 3e-4);
    assert_string_equal(c->checkpointer.checkpoint_dir, "/models/my model");
    assert_string_equal(c->dataset[0].source, "csv");
    assert_string_equal(c->dataset[0].data_files[0], "d/rows.csv");
    assert_string_equal(c->output_dir, "out");
    assert_null(c->source);
    assert_null(c->model.component);
    config_free(c);
    /* --data FILE replaces the data of a file that has one, a later key=value wins over both */
    const char *yaml = "dataset: {_component_: torchtune.datasets.alpaca_cleaned_dataset, split: 'train[:90%]'}\n"
                       "dataset_val: {_component_: torchtune.datasets.alpaca_cleaned_dataset, split: 'train[90%:]'}\n";
    args.overrides = (const char *const[]){"output_dir=elsewhere"};
    args.n_overrides = 1;
    if (config_parse_text("t.yaml", yaml, strlen(yaml), &args, &c)) fail_msg("%s", status_message());
    assert_string_equal(c->dataset[0].source, "csv");
    assert_string_equal(c->dataset_val.data_files[0], "d/rows.csv"); /* one file, two splits */
    assert_string_equal(c->dataset_val.source, "csv");
    assert_int_equal(c->dataset[0].kind, DATA_ALPACA);
    assert_string_equal(c->output_dir, "elsewhere");
    config_free(c);
}

static void recipes_are_inferred(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        enum recipe recipe;
        enum adapt adapt;
        bool single;
    } cases[] = {
        {"", RECIPE_FULL, ADAPT_NONE, false},
        {"recipe: lora_finetune_single_device\n", RECIPE_LORA, ADAPT_LORA, true},
        {"recipe: full_finetune_distributed\n", RECIPE_FULL, ADAPT_NONE, false},
        {"model: {lora_rank: 4}\n", RECIPE_LORA, ADAPT_LORA, false},
        {"model: {quantize_base: true}\n", RECIPE_LORA, ADAPT_QLORA, false},
        {"model: {use_dora: true}\n", RECIPE_LORA, ADAPT_LORA, false},
        {"model: {init: random}\n", RECIPE_FULL, ADAPT_NONE, false},
        {"model: {_component_: torchtune.models.qwen2.qwen2_7b}\n", RECIPE_FULL, ADAPT_NONE, false},
        {"model: {_component_: torchtune.models.qwen2.lora_qwen2_7b}\n", RECIPE_LORA, ADAPT_LORA, false},
        {"model: {_component_: torchtune.models.llama2.qlora_llama2_7b}\n", RECIPE_LORA, ADAPT_QLORA, false},
        {"recipe: lora_finetune\nmodel: {quantize_base: true}\n", RECIPE_LORA, ADAPT_QLORA, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *yaml = mem_printf("%s%s", BASE, cases[i].yaml);
        struct config *c = PARSE(yaml);
        assert_int_equal(c->recipe, cases[i].recipe);
        assert_int_equal(c->model.adapt, cases[i].adapt);
        assert_int_equal(c->single_device, cases[i].single);
        config_free(c);
        free(yaml);
    }
}

static void components_set_defaults(void **state)
{
    (void)state;
    struct config *c = PARSE(BASE "model: {_component_: torchtune.models.qwen2_5.lora_qwen2_5_1_5b_instruct}\n"
                                  "optimizer: {_component_: torch.optim.Adam}\n"
                                  "tokenizer: {_component_: torchtune.models.qwen2_5.qwen2_5_tokenizer}\n");
    assert_false(c->model.lora.mlp); /* torchtune's own default */
    assert_string_equal(c->model.family, "qwen2_5");
    assert_string_equal(c->model.size, "1_5b_instruct");
    assert_string_equal(c->tokenizer.family, "qwen2_5");
    assert_true(c->torchtune_templates);
    assert_int_equal(c->optimizer.kind, CONFIG_ADAM);
    assert_true(c->optimizer.weight_decay == 0);
    config_free(c);
    static const struct {
        const char *component;
        enum config_optim kind;
        double decay;
    } of_8_bits[] = {
        {"optimizer=bitsandbytes.optim.AdamW8bit", CONFIG_ADAMW_8BIT, 0.01},
        {"optimizer=bitsandbytes.optim.PagedAdamW8bit", CONFIG_ADAMW_8BIT, 0.01},
        {"optimizer=bitsandbytes.optim.Adam8bit", CONFIG_ADAMW_8BIT, 0}, /* its decay is decoupled */
        {"optimizer=torchao.optim.AdamW8bit", CONFIG_ADAMW_8BIT, 0.01},
        {"optimizer=torchao.prototype.low_bit_optim.AdamW8bit", CONFIG_ADAMW_8BIT, 0.01},
        {"optimizer=torchao.optim.Adam8bit", CONFIG_ADAM_8BIT, 0},
    };
    for (size_t i = 0; i < sizeof of_8_bits / sizeof *of_8_bits; i++) {
        c = PARSE(BASE, of_8_bits[i].component);
        assert_int_equal(c->optimizer.kind, of_8_bits[i].kind);
        assert_true(c->optimizer.weight_decay == of_8_bits[i].decay);
        assert_int_equal(c->optimizer.min_8bit_size, 4096);
        assert_true(c->optimizer.quantize_embeddings);
        config_free(c);
    }
    c = PARSE(BASE, "optimizer=bitsandbytes.optim.SGD8bit", "optimizer.momentum=0.9", "optimizer.min_8bit_size=300",
              "optimizer.quantize_embeddings=false");
    assert_int_equal(c->optimizer.kind, CONFIG_SGD_8BIT);
    assert_int_equal(c->optimizer.min_8bit_size, 300);
    assert_false(c->optimizer.quantize_embeddings);
    config_free(c);
    /* Paged is what the name says, or the key. */
    static const struct {
        const char *component, *key;
        bool paged;
    } pages[] = {
        {"optimizer=bitsandbytes.optim.PagedAdamW", NULL, true},
        {"optimizer=bitsandbytes.optim.PagedAdam32bit", NULL, true},
        {"optimizer=bitsandbytes.optim.PagedAdamW8bit", "optimizer.is_paged=true", true},
        {"optimizer=bitsandbytes.optim.AdamW8bit", "optimizer.is_paged=true", true},
        {"optimizer=bitsandbytes.optim.AdamW8bit", NULL, false},
        {"optimizer=torch.optim.AdamW", NULL, false},
    };
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        c = pages[i].key ? PARSE(BASE, pages[i].component, pages[i].key) : PARSE(BASE, pages[i].component);
        assert_int_equal(c->optimizer.is_paged, pages[i].paged);
        assert_int_equal(c->optimizer.paged_resident, -1);
        assert_int_equal(c->optimizer.min_paged_size, 100000);
        config_free(c);
    }
    /* A class within a class. */
    static const struct {
        const char *class;
        enum config_optim kind;
        double decay;
    } hosted[] = {
        {"optimizer.fused=true", CONFIG_ADAMW, 0.01},
        {"optimizer.optimizer_class=torch.optim.Adam", CONFIG_ADAM, 0},
        {"optimizer.optimizer_class=torch.optim.SGD", CONFIG_SGD, 0},
        {"optimizer.optimizer_class=torchao.optim.AdamW8bit", CONFIG_ADAMW_8BIT, 0.01},
        {"optimizer.optimizer_class=torchao.optim.Adam8bit", CONFIG_ADAM_8BIT, 0},
    };
    for (size_t i = 0; i < sizeof hosted / sizeof *hosted; i++) {
        c = PARSE(BASE,
                  i % 2 ? "optimizer=torchao.optim.CPUOffloadOptimizer" : "optimizer=torchao.prototype.low_bit_optim.CPUOffloadOptimizer",
                  hosted[i].class);
        assert_true(c->optimizer.on_host && c->optimizer.kind == hosted[i].kind && c->optimizer.weight_decay == hosted[i].decay);
        config_free(c);
    }
    c = PARSE(BASE, "optimizer=torchao.optim.CPUOffloadOptimizer", "optimizer.optimizer_class=torch.optim.SGD",
              "optimizer.weight_decay=0.5");
    assert_true(c->optimizer.weight_decay == 0.5);
    config_free(c);
    c = PARSE(BASE "optimizer: {_component_: bitsandbytes.optim.PagedAdamW, is_paged: true}\n"
                   "lr_scheduler: {_component_: linear, num_warmup_steps: 7}\n"
                   "metric_logger: {_component_: torchtune.training.metric_logging.StdoutLogger}\n");
    assert_int_equal(c->optimizer.kind, CONFIG_ADAMW);
    assert_true(c->optimizer.weight_decay == 0.01);
    assert_int_equal(c->schedule.kind, SCHEDULE_LINEAR);
    assert_int_equal(c->schedule.num_warmup_steps, 7);
    assert_true(c->log_stdout_metrics);
    config_free(c);
    c = PARSE(BASE, "dataset=torchtune.datasets.samsum_dataset", "dataset.train_on_input=True");
    assert_int_equal(c->dataset[0].kind, DATA_INSTRUCT);
    assert_int_equal(c->dataset[0].n_column_map, 2);
    assert_string_equal(c->dataset[0].column_map[0].key, "input");
    assert_string_equal(c->dataset[0].column_map[0].value, "dialogue");
    assert_int_equal(c->dataset[0].masking, MASK_TRAIN_ON_ALL);
    config_free(c);
    c = PARSE(BASE, "dataset=torchtune.datasets.slimorca_dataset");
    assert_int_equal(c->dataset[0].kind, DATA_CHAT);
    assert_int_equal(c->dataset[0].conversation_style, CONVERSATION_SHAREGPT);
    assert_string_equal(c->dataset[0].conversation_column, "conversations");
    config_free(c);
}

static void values_are_typed_by_the_schema(void **state)
{
    (void)state;
    struct config *c = PARSE(BASE "optimizer: {lr: '2e-5', betas: [.8, 0.95]}\nclip_grad_norm: inf\nmemory_budget: 1.5GB\nseed: 007\n"
                                  "shuffle: off\nac_mode: selective\nac_option: 3\noutput_dir: \"null\"\nstate_dtype: fp32\nreduce: tree\n"
                                  "warmup_start: one\nmax_steps_per_epoch: ~\nbatch_size_val:\nrun_val_every_n_steps: None\n"
                                  "compile: {model: true, loss: false}\nhead_chunk_rows: 64\ncudnn_deterministic_mode: warn\n"
                                  "tokenizer: {prompt_template: {user: ['<', '>'], assistant: ['', \"\\n\"]}, truncation_type: left}\n");
    assert_true(c->optimizer.lr == 2e-5);
    assert_true(c->optimizer.beta1 == 0.8 && c->optimizer.beta2 == 0.95);
    assert_true(isinf(c->clip_grad_norm));
    assert_int_equal(c->memory_budget, 1500000000);
    assert_int_equal(c->seed, 7);
    assert_true(c->seed_set);
    assert_false(c->shuffle);
    assert_int_equal(c->ac_mode, AC_SELECTIVE);
    assert_int_equal(c->ac_option, 3);
    assert_string_equal(c->output_dir, "null"); /* quoted: a text */
    assert_int_equal(c->state_dtype, TRI_FP32);
    assert_true(c->warmup_start_one);
    assert_int_equal(c->max_steps_per_epoch, -1);
    assert_int_equal(c->batch_size_val, 2);
    assert_int_equal(c->run_val_every_n_steps, -1);
    assert_int_equal(c->head_chunk_rows, 64);
    assert_true(c->tokenizer.truncate_left);
    assert_int_equal(c->tokenizer.n_template_roles, 2);
    assert_string_equal(c->tokenizer.template_roles[1].key, "assistant");
    assert_string_equal(c->tokenizer.template_roles[1].value, "");
    assert_string_equal(c->tokenizer.template_roles[1].value + 1, "\n");
    config_free(c);
    c = PARSE(BASE, "memory_budget=512MiB", "attn_workspace=1GB", "enable_activation_checkpointing=true", "device=cpu");
    assert_int_equal(c->memory_budget, 512 << 20);
    assert_int_equal(c->attn_workspace, 1000000000);
    assert_int_equal(c->ac_mode, AC_FULL);
    assert_true(c->device_set && c->device == DEVICE_CPU);
    config_free(c);
}

static void what_if_it_were_another(void **state)
{
    (void)state;
    struct config *c = PARSE(BASE "memory_budget: auto\nac_mode: null\nmodel: {lora_rank: 4}\nrecipe: lora_finetune\n"), *with;
    assert_int_equal(c->memory_budget, BUDGET_AUTO);
    assert_true(config_wrote(c, "memory_budget") && config_wrote(c, "model.lora_rank"));
    assert_false(config_wrote(c, "ac_mode") || config_wrote(c, "model.lora_alpha") || config_wrote(c, "nothing"));
    char *text = config_text(c);
    assert_non_null(strstr(text, "memory_budget: auto\n"));
    free(text);
    assert_int_equal(config_with(c, "optimizer_in_bwd=true optimizer=bitsandbytes.optim.AdamW8bit  batch_size=3", &with), ST_OK);
    assert_true(with->optimizer_in_bwd && with->optimizer.kind == CONFIG_ADAMW_8BIT && with->batch_size == 3 && with->model.lora.rank == 4);
    assert_true(with->memory_budget == BUDGET_AUTO && with->dataset[0].n_data_files == 1);
    assert_false(config_wrote(with, "optimizer_in_bwd"));
    char *value = config_value(with, "optimizer_in_bwd");
    assert_string_equal(value, "true");
    free(value);
    assert_null(config_value(with, "no.such_key"));
    config_free(with);
    assert_int_equal(config_with(c, "optimizer_in_bwd=true gradient_accumulation_steps=2", &with), ST_USAGE);
    assert_non_null(strstr(status_message(), "every micro-batch would step"));
    config_free(c);
}

static void overrides(void **state)
{
    (void)state;
    const char *yaml = BASE "optimizer: {_component_: torch.optim.AdamW, lr: 1e-3, betas: [0.5, 0.5], fused: true}\n"
                            "lr_scheduler: {_component_: cosine, num_warmup_steps: 5}\nclip_grad_norm: 1.0\n";
    struct config *c =
        PARSE(yaml, "optimizer=torch.optim.SGD", "optimizer.momentum=0.9", "~clip_grad_norm", "~lr_scheduler.num_warmup_steps");
    assert_int_equal(c->optimizer.kind, CONFIG_SGD); /* betas are dropped, lr is kept */
    assert_true(c->optimizer.lr == 1e-3);
    assert_true(c->optimizer.momentum == 0.9);
    assert_true(isnan(c->clip_grad_norm));
    assert_int_equal(c->schedule.num_warmup_steps, 0);
    config_free(c);
    c = PARSE(yaml, "~lr_scheduler", "dataset.column_map={input: question, output: answer}", "seed=None", "output_dir=a=b");
    assert_int_equal(c->schedule.kind, SCHEDULE_CONSTANT);
    assert_int_equal(c->dataset[0].n_column_map, 2);
    assert_string_equal(c->output_dir, "a=b");
    config_free(c);
    c = PARSE(BASE, "dataset.data_files=[a.jsonl, 'b c.jsonl']", "dataset.split=train[:95%]", "seed=1", "seed=2");
    assert_int_equal(c->dataset[0].n_data_files, 2);
    assert_string_equal(c->dataset[0].data_files[1], "b c.jsonl");
    assert_string_equal(c->dataset[0].split, "train[:95%]");
    assert_int_equal(c->seed, 2);
    config_free(c);
    c = PARSE("checkpointer: {checkpoint_dir: /m}\ndataset:\n- {data_files: a.json}\n- {data_files: b.txt}\n", "dataset.1.add_eos=false",
              "dataset[0].train_on_input=false", "dataset.1=torchtune.datasets.text_completion_dataset");
    assert_int_equal(c->n_dataset, 2);
    assert_int_equal(c->dataset[0].masking, MASK_TRAIN_ON_ASSISTANT);
    assert_int_equal(c->dataset[1].kind, DATA_COMPLETION);
    assert_string_equal(c->dataset[1].source, "text");
    assert_false(c->dataset[1].add_eos);
    config_free(c);
    setenv("HOME", "/house", 1);
    c = PARSE("", "checkpointer.checkpoint_dir=~/m", "dataset.data_files=[~/a.json]", "output_dir=~other");
    assert_string_equal(c->checkpointer.checkpoint_dir, "/house/m");
    assert_string_equal(c->dataset[0].data_files[0], "/house/a.json");
    assert_string_equal(c->output_dir, "~other");
    config_free(c);
    c = PARSE("", "checkpointer.checkpoint_dir=/m", "dataset.data_files=x.json", "model.init=random");
    assert_int_equal(c->model.init, INIT_RANDOM);
    config_free(c);
}

static void interpolation(void **state)
{
    (void)state;
    struct config *c = PARSE(BASE "batch_size: 3\nbatch_size_val: ${batch_size}\noutput_dir: /o/${tag.x}$5\\${y}\n"
                                  "seed: ${max_steps_per_epoch}\nmax_steps_per_epoch: null\n",
                             "output_dir=/o/${dataset.data_files}", "batch_size=4", "checkpointer.output_dir=${output_dir}/kept/${epochs}");
    assert_int_equal(c->batch_size_val, 4); /* after the command line */
    assert_string_equal(c->output_dir, "/o/rows.json");
    assert_string_equal(c->checkpointer.output_dir, "/o/rows.json/kept/1"); /* epochs is not written: its default */
    assert_false(c->seed_set);                                              /* a null stays a null */
    config_free(c);
    c = PARSE(BASE, "output_dir=\"cost \\\\${5} $5\"");
    assert_string_equal(c->output_dir, "cost ${5} $5");
    config_free(c);
}

/* Awkward values in, effective configuration out and in again: the same text. */
static void effective_reads_back(void **state)
{
    (void)state;
    static const char *const yaml[] = {
        BASE,
        BASE "model: {lora_rank: 4, lora_attn_modules: []}\n",
        BASE "output_dir: \"a \\\"b\\\" \\\\ \\t \\x85 \\u2028 é ${epochs}\"\n",
        BASE "output_dir: 'x\\${y}\\\\${epochs}'\nmetric_logger: {log_dir: 'None'}\n",
        BASE "optimizer: {_component_: torch.optim.SGD, lr: 0.1, momentum: 0.9, nesterov: true}\nclip_grad_norm: inf\n",
        BASE "recipe: lora_finetune_single_device\nmodel: {_component_: torchtune.models.llama3_2.qlora_llama3_2_1b}\n"
             "enable_activation_checkpointing: true\nsave_adapter_weights_only: true\n",
        BASE "tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, max_seq_len: 512, prompt_template: "
             "{user: ['- ', ': '], system: [\"\\n\", '#']}}\n",
        BASE "dataset_val: {source: text, data_files: [v.txt]}\nrun_val_every_n_steps: 3\nvirtual_ranks: 8\n",
        "checkpointer: {checkpoint_dir: -m}\ndataset:\n- {data_files: a.json, column_map: {'a b': 'c: d'}}\n"
        "- {_component_: torchtune.datasets.text_completion_dataset, data_files: b.csv, column: 'null'}\n",
        BASE "metric_logger: {_component_: torchtune.training.metric_logging.StdoutLogger}\noptimizer: {lr: 1.1e-5}\n",
        BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, lr: 1e-4}\n",
        BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, optimizer_class: torch.optim.SGD, momentum: 0.9}\n",
        BASE "optimizer: {_component_: torchao.optim.CPUOffloadOptimizer, optimizer_class: torchao.optim.Adam8bit, min_8bit_size: 8}\n",
        BASE "optimizer: {_component_: bitsandbytes.optim.PagedAdamW8bit, paged_resident: 0}\n",
    };
    for (size_t i = 0; i < sizeof yaml / sizeof *yaml; i++) {
        struct config *c = parse(yaml[i], i == 1 ? (const char *const[]){"model.apply_lora_to_mlp=true", NULL} : NULL);
        char *text = config_text(c);
        struct config *again = parse(text, NULL);
        char *same = config_text(again);
        bool maths = true;
        assert_string_equal(text, same);
        assert_null(config_diff(text, c, &maths));
        assert_false(maths);
        assert_true(c->optimizer.lr == again->optimizer.lr);
        assert_int_equal(c->optimizer.kind, again->optimizer.kind);
        assert_int_equal(c->log_stdout_metrics, again->log_stdout_metrics);
        assert_int_equal(c->torchtune_templates, again->torchtune_templates);
        assert_int_equal(c->model.adapt, again->model.adapt);
        assert_string_equal(c->output_dir, again->output_dir);
        config_free(c);
        config_free(again);
        free(text);
        free(same);
    }
}

static void diff(void **state)
{
    (void)state;
    bool maths;
    struct config *was = PARSE(BASE), *is = PARSE(BASE, "optimizer.lr=1e-4", "output_dir=elsewhere");
    char *old = config_text(was);
    char *d = config_diff(old, is, &maths);
    assert_string_equal(d, "optimizer.lr: 2e-05 -> 0.0001\n");
    assert_true(maths);
    free(d);
    config_free(is);
    is = PARSE(BASE, "batch_size=4", "dataset.data_files=moved/rows.json", "save_every_n_steps=3", "ac_mode=full", "recompute=block");
    d = config_diff(old, is, &maths);
    assert_string_equal(d, "batch_size: 2 -> 4\ndataset.data_files: [rows.json] -> [moved/rows.json]\n");
    assert_false(maths);
    free(d);
    config_free(is);
    is = PARSE(BASE, "optimizer=torch.optim.SGD", "lr_scheduler=cosine");
    d = config_diff(old, is, &maths);
    assert_non_null(strstr(d, "optimizer._component_: null -> torch.optim.SGD\n"));
    assert_non_null(strstr(d, "lr_scheduler._component_: null -> cosine\n"));
    assert_true(maths);
    free(d);
    d = config_diff("seed: [", is, &maths);
    assert_non_null(strstr(d, "not YAML"));
    assert_true(maths);
    free(d);
    config_free(is);
    config_free(was);
    free(old);
}

static void reference_names_every_key(void **state)
{
    (void)state;
    double start = clock_s();
    char *text = config_reference();
    double took = clock_s() - start;
    for (int i = 0; i < schema_n; i++) {
        char *line = mem_printf("\n  %s\n", schema[i].path);
        if (!strstr(text, line)) fail_msg("%s is not in the reference", schema[i].path);
        free(line);
    }
    assert_non_null(strstr(text, "torchtune.models.llama3_2.[lora_|qlora_]llama3_2_{1b,3b}\n"));
    if (took > 0.05) fail_msg("the reference took %.3f s", took);
    free(text);
}

static void paths_are_checked_on_request(void **state)
{
    (void)state;
    struct config_args args = {.recipe = "full_finetune", .model = "/nonexistent/m", .data = "/nonexistent/d.json"};
    struct config *c = NULL;
    assert_int_equal(config_load(&args, true, &c), ST_USAGE);
    assert_non_null(strstr(status_message(), "--model: checkpointer.checkpoint_dir: '/nonexistent/m' does not exist"));
    assert_non_null(strstr(status_message(), "--data: dataset.data_files: '/nonexistent/d.json' does not exist"));
    args.model = TRIMPOT_SOURCE_DIR "/README.md"; /* a file, where a directory belongs */
    args.data = TRIMPOT_SOURCE_DIR "/CMakeLists.txt";
    args.overrides = (const char *const[]){"dataset.source=text"};
    args.n_overrides = 1;
    assert_int_equal(config_load(&args, true, &c), ST_USAGE);
    assert_null(strstr(status_message(), "dataset"));
    args.model = TRIMPOT_SOURCE_DIR "/configs";
    if (config_load(&args, true, &c)) fail_msg("%s", status_message());
    config_free(c);
    args.output = TRIMPOT_SOURCE_DIR "/configs/../configs/new/deep";
    assert_int_equal(config_load(&args, true, &c), ST_USAGE);
    assert_non_null(strstr(status_message(), "never written to"));
}

static struct config *parsed(const char *text, const char *model, const char *override)
{
    struct config_args args = {
        .model = model, .data = "rows.json", .output = "out", .overrides = &override, .n_overrides = override != NULL};
    struct config *c = NULL;
    if (config_parse_text("c.yaml", text, strlen(text), &args, &c)) fail_msg("%s: %s", text, status_message());
    return c;
}

#define TOKENIZER(keys) "tokenizer: {_component_: torchtune.models.qwen2.qwen2_tokenizer, max_seq_len: 7, " keys "}\n"

#define PHI4                                                                                                                               \
    "tokenizer: {_component_: torchtune.models.phi4.phi4_tokenizer, vocab_path: /tmp/p/vocab.json, merges_path: /tmp/p/merges.txt}\n"

#define QWEN "path: /tmp/Q/vocab.json, merges_file: /tmp/Q/merges.txt"

/* The tokenizer comes from --model, unless the command line says otherwise or the file's is one of the model's own. */
/* torchtune's names as its own files combine them. */
static void families_as_torchtune_names_them(void **state)
{
    (void)state;
    static const struct {
        const char *model, *tokenizer, *checkpointer;
    } rows[] = {
        {"qwen3.qwen3_0_6b_instruct", "qwen3.qwen3_tokenizer", "QWEN3"},
        {"mistral.mistral_7b", "mistral.mistral_tokenizer", "MISTRAL"},
        {"gemma.gemma_2b", "gemma.gemma_tokenizer", "GEMMA"},
        {"gemma2.gemma2_9b", "gemma.gemma_tokenizer", "GEMMA2"}, /* it has none of its own */
        {"gemma2.gemma2_27b", "gemma2.gemma_tokenizer", "GEMMA2"},
        {"phi3.phi3_mini", "phi3.phi3_mini_tokenizer", "PHI3_MINI"},
        {"phi4.qlora_phi4_14b", "phi4.phi4_tokenizer", "PHI4"},
        {"llama3_2.lora_llama3_2_1b", "llama3.llama3_tokenizer", "LLAMA3"},
        {"qwen3.qwen3_4b_instruct", "qwen3.qwen3_tokenizer", "QWEN2"}, /* so torchtune's own 4B files say; its names fit both */
        {"llama3_3.llama3_3_70b", "llama3.llama3_tokenizer", "LLAMA3"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *yaml = mem_printf("checkpointer: {checkpoint_dir: /model, model_type: %s}\ndataset: {data_files: rows.json}\n"
                                "model: {_component_: torchtune.models.%s}\n"
                                "tokenizer: {_component_: torchtune.models.%s, path: /model/t}\n",
                                rows[i].checkpointer, rows[i].model, rows[i].tokenizer);
        config_free(PARSE(yaml));
        free(yaml);
    }
}

static void a_model_brings_its_tokenizer(void **state)
{
    (void)state;
    static const char here[] = TRIMPOT_SOURCE_DIR "/configs";
    static const struct {
        const char *text, *model, *override, *path, *merges, *specials;
    } rows[] = {
        {TOKENIZER(QWEN), here, NULL, here, NULL, NULL},
        {TOKENIZER(QWEN), NULL, NULL, "/tmp/Q/vocab.json", "/tmp/Q/merges.txt", NULL},
        {TOKENIZER(QWEN), here, "tokenizer.path=/t/v.json", "/t/v.json", "/tmp/Q/merges.txt", NULL},
        {TOKENIZER("path: /tmp/Q/vocab.json"), here, "~tokenizer.path", NULL, NULL, NULL},
        {TOKENIZER("path: /tmp/Q/vocab.json"), here, "tokenizer={path: /t/t.json}", "/t/t.json", NULL, NULL},
        {TOKENIZER("path: /tmp/t.json, special_tokens_path: /tmp/none.json"), here, NULL, here, NULL, NULL},
        {TOKENIZER("path: /tmp/t.json, special_tokens_path: " TRIMPOT_SOURCE_DIR "/README.md"), here, NULL, here, NULL,
         TRIMPOT_SOURCE_DIR "/README.md"},
        {TOKENIZER("path: '${checkpointer.checkpoint_dir}/config.c'"), here, NULL, TRIMPOT_SOURCE_DIR "/configs/config.c", NULL, NULL},
        {TOKENIZER("path: '${checkpointer.checkpoint_dir}/none'"), here, NULL, here, NULL, NULL},
        {PHI4, NULL, NULL, "/tmp/p/vocab.json", "/tmp/p/merges.txt", NULL},
        {PHI4, here, NULL, here, NULL, NULL},
        {PHI4, here, "tokenizer.vocab_path=/t/v.json", "/t/v.json", "/tmp/p/merges.txt", NULL},
        {TOKENIZER(""), here, NULL, NULL, NULL, NULL},
        {"seed: 1\n", here, NULL, NULL, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = mem_printf("checkpointer: {_component_: torchtune.training.FullModelHFCheckpointer, "
                                "checkpoint_dir: /tmp/Q}\n%s",
                                rows[i].text);
        struct config *c = parsed(text, rows[i].model, rows[i].override);
        const char *got[] = {c->tokenizer.path, c->tokenizer.merges_file, c->tokenizer.special_tokens_path},
                   *want[] = {rows[i].path, rows[i].merges, rows[i].specials};
        for (int k = 0; k < 3; k++)
            if (!got[k] != !want[k] || (got[k] && strcmp(got[k], want[k])))
                fail_msg("row %zu, %d: '%s', wanted '%s'", i, k, got[k] ? got[k] : "null", want[k] ? want[k] : "null");
        assert_string_equal(c->checkpointer.checkpoint_dir, rows[i].model ? rows[i].model : "/tmp/Q");
        if (strstr(rows[i].text, "max_seq_len")) assert_int_equal(c->tokenizer.max_seq_len, 7);
        config_free(c);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_complete),
        cmocka_unit_test(components_fit_rows),
        cmocka_unit_test(defaults_of_full),
        cmocka_unit_test(short_form),
        cmocka_unit_test(recipes_are_inferred),
        cmocka_unit_test(components_set_defaults),
        cmocka_unit_test(values_are_typed_by_the_schema),
        cmocka_unit_test(what_if_it_were_another),
        cmocka_unit_test(overrides),
        cmocka_unit_test(interpolation),
        cmocka_unit_test(effective_reads_back),
        cmocka_unit_test(diff),
        cmocka_unit_test(reference_names_every_key),
        cmocka_unit_test(paths_are_checked_on_request),
        cmocka_unit_test(families_as_torchtune_names_them),
        cmocka_unit_test(a_model_brings_its_tokenizer),
    };
    log_init(0, 1, LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
