/* Any bytes as a request to count, in either dialect that has counts, for a provider of each kind (the first byte
 * chooses): it is refused with a code, or estimated, at no more than what its bytes can stand for. */
#include "proto/base/check.h"
#include "proto/task/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pages pages;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const models[] = { "claude-3-haiku", "claude-sonnet-4-5", "claude-opus-4-8",     "gemini-2.5-pro",
                                          "gemini-3-pro",   "gpt-4o",            "vertex/gemini-3-pro", "gpt-5-mini" };
    if (size < 1)
        return 0;
    struct task_provider p = { .dialect = IR_OPENAI, .model = slice_str(models[data[0] >> 1 & 7]) };
    struct task_call c = { .client = data[0] & 1 ? IR_GEMINI : IR_ANTHROPIC };
    struct pass_request r = { .n = 1 };
    struct arena arena;
    struct json j;
    arena_init(&arena, &pages, 32 << 20);
    if (json_parse(&j, &arena, (const char *)data + 1, size - 1)) {
        task_count.scan(&j, &c, &r, &arena);
        CHECK(r.fault_code == NULL || r.fault_text != NULL);
        /* the dearest byte: of a picture of which but the kind is said */
        CHECK(task_estimate(&j, c.client, &p) < 5000 + size * 400);
    }
    arena_reset(&arena);
    CHECK(pages.in_use == 0 && pages.big_bytes == 0);
    return 0;
}
