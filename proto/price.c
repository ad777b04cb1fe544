/* Meters × prices × ratio, exact and rounded once. No failure: what does not fit is COST_MAX.
 *
 * Each product of two 64-bit numbers fits 128 bits; the sum of eleven and the multiplication by the ratio may not.
 * Whatever overflows 128 bits is, after the division by at most 10^12, still past 2^86, so saturating at the overflow
 * gives the same answer as arithmetic without bounds would. */
#include "proto/price.h"

#include <string.h>

__extension__ typedef unsigned __int128 u128;

const char *const tool_names[TOOL_KINDS] = {
    [TOOL_WEB_SEARCH] = "web_search",         [TOOL_WEB_FETCH] = "web_fetch",
    [TOOL_X_SEARCH] = "x_search",             [TOOL_FILE_SEARCH] = "file_search",
    [TOOL_CODE_EXECUTION] = "code_execution", [TOOL_IMAGE_GENERATION] = "image_generation",
};

enum tool_kind tool_named(struct slice word) {
    if (slice_starts(word, SLICE("code_interpreter"))) /* OpenAI's and xAI's word for it */
        return TOOL_CODE_EXECUTION;
    for (int k = 0; k < TOOL_KINDS; k++) {
        size_t n = strlen(tool_names[k]);
        if (slice_starts(word, slice_str(tool_names[k])) && (word.len == n || word.ptr[n] == '_'))
            return (enum tool_kind)k;
    }
    return TOOL_KINDS;
}

/* (more + Σ n × price) × ratio ÷ divisor, half to even. */
static int64_t weigh(const struct meters *m, const struct prices *p, uint64_t more, uint32_t ratio, uint64_t divisor) {
    u128 sum = more;
    if (ratio == 0)
        return 0;
    for (int i = 0; i < METER_COUNT; i++)
        if (__builtin_add_overflow(sum, (u128)m->n[i] * p->per_million[i], &sum))
            return COST_MAX;
    if (__builtin_mul_overflow(sum, (u128)ratio, &sum))
        return COST_MAX;
    if (sum <= UINT64_MAX) { /* nearly always: a division of 64 bits is one instruction */
        uint64_t s = (uint64_t)sum, q = s / divisor, rest = s % divisor;
        q += rest > divisor / 2 || (rest == divisor / 2 && (q & 1));
        return q > (uint64_t)COST_MAX ? COST_MAX : (int64_t)q;
    }
    u128 q = sum / divisor;
    uint64_t rest = (uint64_t)(sum % divisor);
    q += rest > divisor / 2 || (rest == divisor / 2 && (q & 1)); /* divisors are even */
    return q > (u128)COST_MAX ? COST_MAX : (int64_t)q;
}

int64_t price_cost_nano(const struct meters *m, const struct prices *p, uint64_t tools, uint32_t ratio_millionths) {
    return weigh(m, p, tools, ratio_millionths, 1000ULL * RATIO_ONE);
}

int64_t price_cost_tokens(const struct meters *m, const struct prices *weights, uint32_t ratio_millionths) {
    return weigh(m, weights, 0, ratio_millionths, 1000000ULL * RATIO_ONE);
}

static uint64_t dearest(const struct prices *p, int first, int last) {
    uint64_t max = 0;
    for (int i = first; i <= last; i++)
        max = p->per_million[i] > max ? p->per_million[i] : max;
    return max;
}

uint64_t price_dearest_input(const struct prices *p) {
    return dearest(p, METER_INPUT, METER_IMAGE_INPUT);
}

uint64_t price_dearest_output(const struct prices *p) {
    return dearest(p, METER_OUTPUT, METER_IMAGE_OUTPUT);
}

static uint64_t total(const struct meters *m, int first, int last) {
    uint64_t sum = 0;
    for (int i = first; i <= last; i++)
        if (__builtin_add_overflow(sum, m->n[i], &sum))
            return UINT64_MAX;
    return sum;
}

uint64_t meters_input(const struct meters *m) {
    return total(m, METER_INPUT, METER_IMAGE_INPUT);
}

uint64_t meters_output(const struct meters *m) {
    return total(m, METER_OUTPUT, METER_IMAGE_OUTPUT);
}
