/* The list of dialects: the one place that names them all. */
#include "proto/dialect/dialect.h"

static const struct dialect *const dialects[IR_DIALECTS] = {
    [IR_OPENAI] = &dialect_openai,
    [IR_RESPONSES] = &dialect_responses,
    [IR_ANTHROPIC] = &dialect_anthropic,
    [IR_GEMINI] = &dialect_gemini,
};

const struct dialect *dialect_find(uint32_t id) {
    return id < IR_DIALECTS ? dialects[id] : NULL;
}
