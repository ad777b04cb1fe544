/* OpenAI's usage object and its vendors' oddities → meters. Every part is inside its whole (prompt_tokens holds
 * cached, written and audio tokens; completion_tokens holds reasoning), but for what is said below. The last object
 * counts, whole. */
#include "proto/dialect/openai.h"

/* A part of a whole, from one of the places where it may stand; a zero takes no other place's word back. */
static void detail(const struct json *j, int details, const char *name, uint64_t *count) {
    uint64_t v = common_count(j, details, name);
    if (v != IR_ABSENT && (v > 0 || *count == IR_ABSENT))
        *count = v;
}

bool openai_read_usage(const struct json *j, int t, struct ir_usage *u) {
    if (!json_is(j, t, JSON_OBJECT) || json_size(j, t) == 0)
        return false;
    struct ir_counts c = ir_counts_absent();
    int in = json_get(j, t, "prompt_tokens_details"), out = json_get(j, t, "completion_tokens_details");
    c.input = common_count(j, t, "prompt_tokens");
    c.output = common_count(j, t, "completion_tokens");
    uint64_t total = common_count(j, t, "total_tokens");
    if (c.input == IR_ABSENT && c.output == IR_ABSENT)
        return false;
    detail(j, t, "cached_tokens", &c.cached);           /* Moonshot */
    detail(j, t, "num_cached_tokens", &c.cached);       /* Mistral, beside the details */
    detail(j, t, "prompt_cache_hit_tokens", &c.cached); /* DeepSeek */
    detail(j, in, "cached_tokens", &c.cached);
    detail(j, in, "cache_write_tokens", &c.cache_write);
    detail(j, in, "audio_tokens", &c.audio_in);
    detail(j, in, "image_tokens", &c.image_in);
    detail(j, t, "reasoning_tokens", &c.reasoning);     /* Perplexity and others, beside the details */
    detail(j, out, "reasoning_tokens", &c.reasoning);
    detail(j, out, "audio_tokens", &c.audio_out);
    detail(j, out, "image_tokens", &c.image_out);
    uint64_t sum = (c.input == IR_ABSENT ? 0 : c.input) + (c.output == IR_ABSENT ? 0 : c.output);
    if (total != IR_ABSENT && total > sum) {
        /* xAI leaves reasoning out of completion_tokens, Google's compatible endpoint hides thoughts; both bill them
         * as output. Mistral counts audio input in the total alone. */
        uint64_t hidden = total - sum;
        if (json_is(j, json_get(j, t, "prompt_audio_seconds"), JSON_NUMBER)) {
            c.input = (c.input == IR_ABSENT ? 0 : c.input) + hidden;
            c.audio_in = c.audio_in == IR_ABSENT || c.audio_in < hidden ? hidden : c.audio_in;
        } else {
            c.output = (c.output == IR_ABSENT ? 0 : c.output) + hidden;
            if (c.reasoning == IR_ABSENT)
                c.reasoning = hidden;
        }
    }
    /* More reasoning than output: it stands beside (Gemini behind Vercel's gateway, whose own cost says so). */
    if (c.reasoning != IR_ABSENT && c.output != IR_ABSENT && c.reasoning > c.output)
        c.output += c.reasoning;
    ir_usage_from(u, &c);
    int tools = json_get(j, t, "server_tool_use_details"); /* OpenRouter */
    ir_tool_uses(u, TOOL_WEB_SEARCH, common_count(j, tools, "web_search_requests"));
    ir_tool_uses(u, TOOL_WEB_SEARCH, common_count(j, t, "num_search_queries")); /* Perplexity */
    ir_tool_uses(u, TOOL_WEB_SEARCH, common_count(j, t, "num_sources_used"));   /* xAI, which prices sources */
    return true;
}
