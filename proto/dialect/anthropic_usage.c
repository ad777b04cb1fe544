/* Anthropic's usage → meters. input_tokens is the uncached, unwritten part alone; message_delta repeats cumulative
 * totals, so every field that is there and not null replaces the earlier one and nothing is added up, nor the larger
 * one taken. A compaction step (iterations[] of type compaction) is in no top-level figure and is added. */
#include "proto/dialect/anthropic.h"

static void take(const struct json *j, int obj, const char *name, uint64_t *count) {
    uint64_t v = common_count(j, obj, name);
    if (v != IR_ABSENT)
        *count = v;
}

static uint64_t count_or_zero(const struct json *j, int obj, const char *name) {
    uint64_t v = common_count(j, obj, name);
    return v == IR_ABSENT ? 0 : v;
}

void anthropic_counts_take(struct anthropic_counts *c, const struct json *j, int t) {
    if (!json_is(j, t, JSON_OBJECT))
        return;
    int split = json_get(j, t, "cache_creation"), steps = json_get(j, t, "iterations");
    c->seen = true;
    take(j, t, "input_tokens", &c->input);
    take(j, t, "cache_read_input_tokens", &c->read);
    take(j, t, "cache_creation_input_tokens", &c->written);
    take(j, split, "ephemeral_1h_input_tokens", &c->written_1h);
    take(j, t, "output_tokens", &c->output);
    take(j, json_get(j, t, "output_tokens_details"), "thinking_tokens", &c->thinking);
    take(j, json_get(j, t, "server_tool_use"), "web_search_requests", &c->searches);
    take(j, json_get(j, t, "server_tool_use"), "web_fetch_requests", &c->fetches);
    uint64_t both = count_or_zero(j, split, "ephemeral_5m_input_tokens") +
                    count_or_zero(j, split, "ephemeral_1h_input_tokens");
    if (common_count(j, t, "cache_creation_input_tokens") == IR_ABSENT && both > 0)
        c->written = both;
    if (!json_is(j, steps, JSON_ARRAY))
        return;
    memset(&c->compaction, 0, sizeof c->compaction);
    for (int s = json_first(j, steps); s >= 0; s = json_next(j, steps, s)) {
        if (!json_str_is(j, json_get(j, s, "type"), "compaction"))
            continue;
        c->compaction.input += count_or_zero(j, s, "input_tokens");
        c->compaction.read += count_or_zero(j, s, "cache_read_input_tokens");
        c->compaction.written += count_or_zero(j, s, "cache_creation_input_tokens");
        c->compaction.written_1h += count_or_zero(j, json_get(j, s, "cache_creation"), "ephemeral_1h_input_tokens");
        c->compaction.output += count_or_zero(j, s, "output_tokens");
    }
}

void anthropic_counts_usage(const struct anthropic_counts *c, struct ir_usage *u) {
    if (!c->seen)
        return;
    struct ir_counts n = ir_counts_absent();
    n.cached = c->read + c->compaction.read;
    n.cache_write = c->written + c->compaction.written;
    n.cache_write_1h = c->written_1h + c->compaction.written_1h;
    n.input = c->input + c->compaction.input + n.cached + n.cache_write;
    n.output = c->output + c->compaction.output;
    n.reasoning = c->thinking;
    ir_usage_from(u, &n);
    ir_tool_uses(u, TOOL_WEB_SEARCH, c->searches);
    ir_tool_uses(u, TOOL_WEB_FETCH, c->fetches);
}

bool anthropic_read_usage(const struct json *j, int t, struct ir_usage *u) {
    const uint64_t *n = u->meters.n;
    struct anthropic_counts c = { 0 };
    if (u->seen) {
        c.input = n[METER_INPUT];
        c.read = n[METER_CACHED_INPUT];
        c.written = ir_writes(u);
        c.written_1h = n[METER_CACHE_WRITE_1H];
        c.output = meters_output(&u->meters);
        c.thinking = n[METER_REASONING];
        c.searches = u->tools.n[TOOL_WEB_SEARCH];
        c.fetches = u->tools.n[TOOL_WEB_FETCH];
    }
    anthropic_counts_take(&c, j, t);
    anthropic_counts_usage(&c, u);
    return c.seen;
}
