/* data_config.h — a configuration as the schema's defaults leave it, for tests of the data pipeline. */
#ifndef TRIMPOT_DATA_CONFIG_H
#define TRIMPOT_DATA_CONFIG_H

#include "configs/config.h"
#include "worker/data/chat_format.h"

static inline struct config config_defaults(void)
{
    struct config c = {0};
    c.tokenizer.max_seq_len = -1;
    c.torchtune_templates = true;
    return c;
}

static inline struct config_dataset dataset_defaults(void)
{
    return (struct config_dataset){.split_across_pack = -1, .train_on_input = -1, .add_eos = true};
}

/* Chats as torchtune renders them for this family; NULL: plain. */
#define TORCHTUNE(t, f) (&(const struct chat_format){.tok = (t), .family = (f), .torchtune = true})

#endif
