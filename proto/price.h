/* Meters → cost. Money is an integer count of nano-dollars (or of tokens, where the unit is tokens); a price is an
 * integer count of micro-dollars per million units; a ratio is in millionths. All meters of a request are summed in 128
 * bits and rounded once, half to even. Never a float. */
#ifndef TG_PRICE_H
#define TG_PRICE_H

#include "proto/base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Disjoint counts: what is a part of another figure at the provider is taken out of it when the meters are filled
 * (METER_INPUT is the uncached, non-audio, non-image rest; METER_OUTPUT the rest beside reasoning, audio and images).
 */
enum meter {
    METER_INPUT, METER_CACHED_INPUT, METER_CACHE_WRITE, METER_CACHE_WRITE_1H, METER_AUDIO_INPUT, METER_IMAGE_INPUT,
    METER_OUTPUT, METER_REASONING, METER_AUDIO_OUTPUT, METER_IMAGE_OUTPUT,
    METER_IMAGES, /* pictures, at a price each */
    METER_COUNT
};
struct meters { uint64_t n[METER_COUNT]; };

/* micro-dollars per million of each meter; for METER_IMAGES micro-dollars per million pictures.
 * The configuration fills what was not given from its plain side, so every field is meant. */
struct prices { uint64_t per_million[METER_COUNT]; };

enum { RATIO_ONE = 1000000 };
#define COST_MAX INT64_MAX

/* Uses of the providers' own tools, which cost apiece beside the tokens. */
enum tool_kind {
    TOOL_WEB_SEARCH, TOOL_WEB_FETCH, TOOL_X_SEARCH, TOOL_FILE_SEARCH, TOOL_CODE_EXECUTION, TOOL_IMAGE_GENERATION,
    TOOL_KINDS
};
struct tool_calls { uint32_t n[TOOL_KINDS]; };
/* The kind that a vendor's or an operator's word means: the kind's name, alone or with more behind a `_`
 * (web_search_20250305). TOOL_KINDS: none. */
enum tool_kind tool_named(struct slice word);
extern const char *const tool_names[TOOL_KINDS];

/* nano-dollars, saturated at COST_MAX. tokens × µ$/M = 10^-12 $, so ÷ 1000 gives nano-dollars. tools: what uses of
 * tools cost beside, in the same 10^-12 $ (uses × micro-dollars per million uses). */
int64_t price_cost_nano(const struct meters *m, const struct prices *p, uint64_t tools, uint32_t ratio_millionths);
/* Unit tokens: weights are millionths of a token per token; the result is whole tokens. */
int64_t price_cost_tokens(const struct meters *m, const struct prices *weights, uint32_t ratio_millionths);
/* The dearest input (output) rate: what a hold assumes of tokens whose kind it does not know yet. */
uint64_t price_dearest_input(const struct prices *p);
uint64_t price_dearest_output(const struct prices *p);
uint64_t meters_input(const struct meters *m);  /* everything that went in */
uint64_t meters_output(const struct meters *m); /* everything that came out, without METER_IMAGES */

#endif
