/* The record of a run.lock: what is read is written back to the same record, within its bounds, and can be judged. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/run_lock_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lock_record r, again;
    struct buf text = {0}, name = {0};
    size_t beat_at;
    if (size > LOCK_RECORD_BYTES || lock_record_parse("run.lock", (const char *)data, size, &r)) return 0;
    lock_record_text(&r, &text, &beat_at);
    if (text.len != beat_at + LOCK_BEAT_WIDTH + 2) abort();
    if (lock_record_parse("run.lock", text.data, text.len, &again) || memcmp(&r, &again, sizeof r) != 0) abort();
    lock_record_name(&r, &name);
    if (strpbrk(name.data, "\n\033")) abort();
    struct lock_seen seen = {.age_s = (double)(int8_t)data[0]};
    if (lock_judge(&r, &again, &seen).verdict > LOCK_TAKE) abort();
    buf_release(&text);
    buf_release(&name);
    return 0;
}
