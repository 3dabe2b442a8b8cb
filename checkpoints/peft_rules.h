/* peft_rules.h — the members of adapter_config.json that select modules, read and written. Internal to checkpoints/. */
#ifndef TRIMPOT_PEFT_RULES_H
#define TRIMPOT_PEFT_RULES_H

#include "checkpoints/hf.h"
#include "checkpoints/jdoc.h"

/* target_modules, exclude_modules, layers_to_transform, layers_pattern, rank_pattern, alpha_pattern. */
status peft_rules_read(const struct jdoc *d, struct peft_config *p);
void peft_rules_free(struct peft_config *p);

/* As the file may hold them; null and {} where nothing was said. */
json_t *peft_names_json(const struct peft_rules *r);
json_t *peft_layers_json(const struct peft_rules *r);
json_t *peft_patterns_json(const struct peft_rules *r);
json_t *peft_number_json(double x); /* an integer where the value is one, as PEFT writes it */

#endif
